"""The configuration of a job as a file has it, and the JSON Schema of such files for editors."""

from __future__ import annotations

import re
from typing import Any, get_args

from modelbeam.job.config import ALIASES
from modelbeam.job.description import Job

_TEXT: dict[str, Any] = {"type": "string"}
_REFERENCE: dict[str, Any] = {"type": "string", "pattern": r"\$\{[A-Za-z_]\w*\}"}
"""A text that an environment variable stands in: it may become anything."""

_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 1}
_SIZE: dict[str, Any] = {
    "anyOf": [_COUNT, {"type": "string", "pattern": r"^\d+ *[kmgtKMGT]?i?[bB]?$"}]
}
_LISTED: dict[str, Any] = {"anyOf": [_TEXT, _TEXTS]}
_DURATION: dict[str, Any] = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _TEXT]}
_CLASS: dict[str, Any] = {
    "type": "object",
    "properties": {"class_path": _TEXT, "configuration": {"type": "object"}},
    "required": ["class_path"],
    "additionalProperties": False,
}
_OF_MODELS: dict[str, Any] = {
    "features": _LISTED,
    "proba": {"type": "boolean"},
    "trusted_types": _LISTED,
    "allow_version_mismatch": {"type": "boolean"},
}
_MODEL: dict[str, Any] = {
    "anyOf": [
        _TEXT,
        {
            "type": "object",
            "properties": {
                "target": _TEXT,
                "class_path": _TEXT,
                "name": _TEXT,
                "arguments": {"type": "object"},
                "configuration": {"type": "object"},
                "decorators": {"type": "array", "items": _CLASS},
                **_OF_MODELS,
            },
            "anyOf": [{"required": ["target"]}, {"required": ["class_path"]}],
            "additionalProperties": False,
        },
    ]
}
_OWN: dict[str, dict[str, Any]] = {
    "models": {"anyOf": [_MODEL, {"type": "array", "items": _MODEL, "minItems": 1}]},
    "inputs": {"anyOf": [_TEXT, {**_TEXTS, "minItems": 1}]},
    "columns": _LISTED,
    "keep": _LISTED,
    "mask": _LISTED,
    "rename": {
        "anyOf": [{"type": "object", "additionalProperties": _TEXT}, _TEXTS, _TEXT],
    },
    "batch_size": {"anyOf": [{"const": "auto"}, _COUNT]},
    "max_errors": {"anyOf": [{"type": "integer", "minimum": 0}, _TEXT]},
    "split_size": _SIZE,
    "max_record_size": _SIZE,
    "stop_after": _DURATION,
    "stop_when_idle": _DURATION,
    "stall_after": _DURATION,
    "settle": _DURATION,
    "segment": _DURATION,
    "metrics_port": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 65535}, _TEXT]},
    "start_from": {"type": ["string", "integer"]},
    "beam_options": {"anyOf": [{"type": "object"}, _TEXTS]},
    **_OF_MODELS,
}

_SECRET = re.compile(r"secret|password|token|credential|(^|_)key($|_)", re.IGNORECASE)


def schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file."""
    properties = {name: _property(name) for name in Job.model_fields}
    properties |= {alias: properties[name] for alias, name in ALIASES.items()}
    dashed = {name.replace("_", "-"): said for name, said in properties.items() if "_" in name}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A job of modelbeam",
        "type": "object",
        "properties": {**properties, **dashed},
        "additionalProperties": False,
    }


def _property(name: str) -> dict[str, Any]:
    """What the value of a key is; ``null`` is as if it were not there."""
    said = _OWN.get(name) or _plain(Job.model_fields[name])
    return {"anyOf": [said, _REFERENCE, {"type": "null"}]}


def _plain(field: Any) -> dict[str, Any]:
    """The schema of a field that a file has as a job has it."""
    annotation = field.annotation
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)] or [annotation]
    names = {str: "string", int: "integer", float: "number", bool: "boolean"}
    if kinds[0] not in names:
        return {"enum": kinds}
    said: dict[str, Any] = {"type": names[kinds[0]]}
    for bound in field.metadata:
        for ours, theirs in (("ge", "minimum"), ("le", "maximum"), ("gt", "exclusiveMinimum")):
            if hasattr(bound, ours):
                said[theirs] = getattr(bound, ours)
    return said


def settings_of(job: Job) -> dict[str, Any]:
    """The settings of a job as a configuration file has them, those that are the default too.

    What looks like a secret among Beam's options is a reference to a variable instead.
    """
    dumped = job.model_dump(mode="json", exclude={"models", "rename"})
    said = {key: value for key, value in dumped.items() if value is not None}
    said = _escaped({**said, "rename": dict(job.rename)})
    options = [flag if not _is_secret(flag) else _hidden(flag) for flag in said["beam_options"]]
    models = [_keeping(one.described()) for one in job.models]
    return {"models": models, **said, "beam_options": options}


def _is_secret(flag: str) -> bool:
    return "=" in flag and bool(_SECRET.search(flag.partition("=")[0]))


def _hidden(flag: str) -> str:
    """A flag whose value is to come from the environment."""
    name = flag.partition("=")[0]
    return f"{name}=${{{name.lstrip('-').replace('-', '_').upper()}}}"


def _keeping(model: dict[str, Any]) -> dict[str, Any]:
    """A model with what is not an argument escaped: in arguments references stand as they were."""
    kept = ("arguments", "decorators")
    return {key: one if key in kept else _escaped(one) for key, one in model.items()}


def _escaped(value: Any) -> Any:
    """The same with ``${NAME}`` in texts as ``$${NAME}``, which stands for itself."""
    if isinstance(value, str):
        return re.sub(r"(?<!\$)\$\{(?=[A-Za-z_]\w*\})", "$${", value)
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    if isinstance(value, dict):
        return {key: _escaped(one) for key, one in value.items()}
    return value
