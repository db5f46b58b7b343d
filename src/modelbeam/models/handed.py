"""A model that was handed over as an object: of a notebook, or of the script that runs.

Other processes load the model, so it travels by value: cloudpickle takes a class or function of
``__main__`` with all that it refers to there. What a module can be imported for is only named.
"""

from __future__ import annotations

import importlib.util
import inspect
import io
import pickletools
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from modelbeam.errors import ModelLoadError, NotAModelError, RequestError
from modelbeam.models.base import LoadedModel
from modelbeam.models.options import Options
from modelbeam.models.target import Handed, Target
from modelbeam.text import describe

INSTALL = "pip install 'modelbeam[notebook]'"


def target_of(found: Any) -> Target:
    """What names an object: its module if it can be imported there, else the object by value.

    Raises:
        NotAModelError: it is no model at all.
        RequestError: it cannot be pickled, or cloudpickle is not installed.
    """
    if isinstance(found, types.ModuleType):
        raise NotAModelError(
            f"--model {found.__name__} is a module; name the class or function in it."
        )
    named = found if inspect.isclass(found) or inspect.isroutine(found) else type(found)
    module = str(getattr(named, "__module__", None) or "__main__")
    name = str(getattr(named, "__qualname__", type(found).__name__))
    text = f"{module}:{name}"
    if named is found and _is_importable(module, name, found):
        return Target.parse(text)
    if not (callable(found) or hasattr(found, "predict")):
        raise NotAModelError(
            f"--model {text} is no model. A model is a class, a function, an object with "
            f"predict(), or the name or path of one."
        )
    content = _pickled(text, found)
    handed = Handed(content, f"{sys.version_info[0]}.{sys.version_info[1]}", digest_of(found))
    return Target(text, "object", module="__main__", attribute=name, handed=handed)


def in_main(target: Target) -> Target:
    """A target; one that names an object of ``__main__`` here, by value."""
    if target.form != "class" or target.module != "__main__":
        return target
    found = getattr(sys.modules["__main__"], target.attribute, None)
    return target if found is None else target_of(found)


def load(target: Target, arguments: dict[str, Any], options: Options) -> LoadedModel:
    """Make a model of what was handed over.

    Raises:
        ModelLoadError: this is another Python, or the object cannot be built here.
        ModelError: it is no model.
    """
    from modelbeam.models.named import made_of

    handed = target.handed
    if handed is None:
        raise ModelLoadError(f"--model {target} did not travel with the job.")
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if handed.python != here:
        raise ModelLoadError(
            f"--model {target} was handed over as an object by Python {handed.python}, and the "
            f"worker has Python {here}, which does not read its code. Put it into a module of its "
            f"own and name that, or use workers with Python {handed.python}."
        )
    try:
        import cloudpickle
    except ImportError as error:
        raise _no_cloudpickle(target.text) from error
    model = made_of(target, cloudpickle.loads(handed.content), arguments, options)
    model.info = replace(model.info, fingerprint=handed.digest)
    return model


def _is_importable(module: str, name: str, found: Any) -> bool:
    """Whether other processes find the same by its name."""
    if module == "__main__" or "." in name:
        return False
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return False
    return spec is not None and getattr(sys.modules.get(module), name, None) is found


def _pickled(text: str, found: Any) -> bytes:
    try:
        import cloudpickle
    except ImportError as error:
        raise _no_cloudpickle(text) from error
    try:
        content: bytes = cloudpickle.dumps(found)
    except Exception as error:
        raise RequestError(
            f"--model {text} cannot be handed to the processes that load it "
            f"({type(error).__name__}: {describe(error)}). Open files, connections and locks "
            f"cannot travel: make them inside the function, or in the class's __init__."
        ) from error
    return content


def _no_cloudpickle(text: str) -> RequestError:
    return RequestError(
        f"--model {text} is an object of a notebook or script, for which cloudpickle is needed. "
        f"Install it with: {INSTALL}. Or put the object into a module and name that."
    )


def modules_in(content: bytes) -> list[str]:
    """The top-level modules that a pickle refers to, and does not hold itself."""
    found: dict[str, None] = {}
    memo: list[str | None] = []
    texts = ["", ""]
    before: str | None = None  # the text that was put onto the stack by the last instruction
    imports = False
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "MEMOIZE":
            memo.append(before)
            continue
        before = argument if isinstance(argument, str) else None
        if opcode.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int):
            before = memo[argument]
        if opcode.name == "STACK_GLOBAL":
            found[texts[-2]] = None
            imports = texts[-1] == "subimport"  # how cloudpickle has a module imported by its name
        elif before is not None:
            if imports:
                found[before] = None
            imports = False
            texts = [texts[-1], before]
    tops = dict.fromkeys(name.partition(".")[0] for name in found)
    return [top for top in tops if top not in sys.stdlib_module_names and top != "__main__"]


# Whether it is the same as another time


def digest_of(found: Any) -> str:
    """A digest of an object's code and values, the same in another session of the same code.

    Names of files and numbers of lines are no part of it, nor are cloudpickle's random marks.
    """
    import hashlib

    digest = hashlib.blake2b(digest_size=12)
    for said in _said(_bytes_of(found)):
        digest.update(said.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _bytes_of(found: Any) -> bytes:
    import cloudpickle

    class Still(cloudpickle.Pickler):  # type: ignore[misc]
        """Pickles code without the places that it stands at; what it makes is never loaded."""

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, types.CodeType):
                constants = tuple(map(_ordered, obj.co_consts))
                names = (obj.co_names, obj.co_varnames, obj.co_freevars, obj.co_cellvars)
                numbers = (obj.co_argcount, obj.co_kwonlyargcount, obj.co_flags)
                return tuple, ((obj.co_code, constants, names, numbers),)
            return super().reducer_override(obj)

    made = io.BytesIO()
    Still(made, protocol=5).dump(found)
    return made.getvalue()


def _ordered(constant: Any) -> Any:
    """A constant; of a set, whose order is another one in each session, its sorted members."""
    return sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant


_PASSED_OVER = ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "BINGET", "LONG_BINGET", "GET", "FRAME")
_MARK = re.compile(r"[0-9a-f]{32}")
_ADDRESS = re.compile(r":\d{6,}")
"""As pydantic has it in the names of its schemas."""


def _said(content: bytes) -> Iterator[str]:
    """The instructions of a pickle without what differs from session to session."""
    place = False
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in _PASSED_OVER:
            continue
        if place and argument is not None:
            place = False  # a file or a line, which may be others
            continue
        if isinstance(argument, str):
            place = argument in ("__file__", "__firstlineno__")
            argument = "" if _MARK.fullmatch(argument) else _ADDRESS.sub(":", argument)
        yield f"{opcode.name} {argument!r}"
