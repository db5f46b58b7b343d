"""Handing a pipeline to Beam's runner, which hands it to an engine."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from modelbeam.beam import causes
from modelbeam.beam.options import stage_once
from modelbeam.errors import EngineError, ModelbeamError
from modelbeam.job.flags import runner_of


def run_pipeline(
    pipeline: Any,
    flags: Sequence[str],
    explain: Callable[[Exception], ModelbeamError | None] = lambda _: None,
    change: Callable[[Any], None] = lambda _: None,
) -> Any:
    """Run a pipeline, and return Beam's result as soon as the engine has the job.

    Args:
        pipeline: Beam's.
        flags: see :meth:`.Engine.submit`.
        explain: what an exception of the submission means to a user, where the engine's own
            words need it.
        change: changes Beam's options once the runner has staged everything.

    Raises:
        ModelbeamError: it could not be submitted.
    """
    from modelbeam.beam.private import before_submission, listen_on_loopback

    listen_on_loopback()
    before_submission(pipeline.runner, stage_once)
    before_submission(pipeline.runner, change)
    try:
        with _signals_kept():
            return pipeline.run()
    except ModelbeamError:
        raise
    except Exception as error:
        explained = explain(error)
        if explained is not None:
            raise explained from error
        details = getattr(error, "details", None)  # of gRPC's exceptions
        text = (details() if callable(details) else "") or f"{type(error).__name__}: {error}"
        raise EngineError(
            f"The job could not be submitted to {runner_of(flags)}: {causes.paragraph(text)}."
        ) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Beam's job servers take SIGINT for themselves; Ctrl-C is ours to answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in kept:
            signal.signal(number, handler)
