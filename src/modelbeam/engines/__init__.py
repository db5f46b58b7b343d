"""Where a job runs: one module an engine, found by what Beam's flags ask for.

========================= ======================================================================
:mod:`.base`              what an engine is, and a job on it
:mod:`.run`               a run on an engine: submit, follow, leave, find again
:mod:`.submitting`        handing a pipeline to Beam's runner
:mod:`.loopback`          what Beam starts here listens on loopback only
:mod:`.java_flags`        options of the Java side of Flink's and Spark's runners
:mod:`.flink`, …          one engine each: its flags, state, metrics, page and cancellation
========================= ======================================================================

Packages of third parties add theirs by the entry point group ``modelbeam.engines``
(docs/extending.md). Those are looked up when the flags ask for none of ours.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Sequence

from modelbeam.beam.options import check_flags as check
from modelbeam.engines.base import Engine
from modelbeam.errors import EngineError, RequestError
from modelbeam.job import flags as options

ENTRY_POINTS = "modelbeam.engines"
"""The group of entry points by which a package adds engines."""

_ENGINES = {
    "spark": "modelbeam.engines.spark:Spark",
    "dataflow": "modelbeam.engines.dataflow:Dataflow",
    "prism": "modelbeam.engines.prism:Prism",
    "flink": "modelbeam.engines.flink:Flink",
}
"""Name to the class of the engine, in the order in which they are asked; imported then."""

_ANY = "portable"
_ANY_ENGINE = "modelbeam.engines.portable:Portable"
"""The engine for all that is left: whatever is behind Beam's job service."""


def engine_of(flags: Sequence[str]) -> Engine | None:
    """The engine that Beam's flags ask for, or ``None`` for a run on this machine.

    Raises:
        RequestError: several packages bring one that takes these flags, or one is broken.
    """
    if options.is_local(flags):
        return None
    for name in _ENGINES:
        engine = find(name)
        if engine.matches(flags):
            return engine
    taking = [engine for name in _others() if (engine := find(name)).matches(flags)]
    if len(taking) > 1:
        names = " and ".join(f"'{engine.name}'" for engine in taking)
        raise RequestError(
            f"--runner {options.runner_of(flags)}: the engines {names} of installed packages both "
            f"take these flags. Uninstall all but one of them."
        )
    return taking[0] if taking else find(_ANY)


def remote_engine(flags: Sequence[str]) -> Engine:
    """The engine that Beam's flags ask for, where it is known that they ask for one."""
    engine = engine_of(flags)
    if engine is None:
        raise ValueError(f"{' '.join(flags)} asks for no engine")
    return engine


def title_of(flags: Sequence[str]) -> str:
    """Where a job runs, for people: ``Flink``, or ``this machine``."""
    engine = engine_of(flags)
    return "this machine" if engine is None else engine.title


@functools.cache
def find(name: str) -> Engine:
    """The engine of that name: one of ours, or of an installed package.

    Raises:
        EngineError: there is none.
        RequestError: the package that brings it is broken.
    """
    target = {**_ENGINES, _ANY: _ANY_ENGINE}.get(name) or _others().get(name)
    if target is None:
        raise EngineError(f"The engine '{name}' is not known on this machine.")
    module, _, attribute = target.partition(":")
    try:
        engine = getattr(importlib.import_module(module), attribute)()
    except Exception as error:
        raise RequestError(
            f"The engine '{name}' cannot be used: {type(error).__name__}: {error}."
        ) from error
    if not isinstance(engine, Engine):
        raise RequestError(
            f"The engine '{name}' cannot be used: {target} lacks what an engine has "
            f"(docs/extending.md)."
        )
    return engine


@functools.cache
def _others() -> dict[str, str]:
    """The engines that other packages bring; not looked for while ours suffice."""
    return {
        point.name: point.value
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS)
        if point.name not in _ENGINES and point.name != _ANY
    }


def forget() -> None:
    """Look for other packages' engines again, for one that was installed since."""
    _others.cache_clear()
    find.cache_clear()


def check_flags(flags: Sequence[str], own_flags: Sequence[str] = ()) -> None:
    """Refuse flags that neither modelbeam, nor Beam, nor the engine that they ask for knows.

    Args:
        flags: what was left over of a command line.
        own_flags: modelbeam's own, for the nearest match.

    Raises:
        RequestError: a flag is unknown, or has a wrong value.
    """
    if not flags:
        return
    engine = engine_of(flags)
    check(flags, own_flags, {} if engine is None else engine.java_options)
