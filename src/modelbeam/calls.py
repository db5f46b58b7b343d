"""Errors of ``predict()`` in terms of its own arguments: ``batch_size=0`` and not ``--batch-size``.

All sentences are written once, for the command line, which most people read; a caller of Python has
no flags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_OTHERWISE = {
    "--from": "start_from",
    "--no-packages": "packages=False",
    "--trusted-type": "trusted_types",
    "--input-format": "input_format",
}
"""Flags that are not called like their argument."""

_SWITCHES = {
    *("resume", "overwrite", "streaming", "detach", "proba", "allow_version_mismatch"),
}

_SENTENCES = (
    ("un the same command with --resume", "un it again with resume=True"),
    ("un the job again with --overwrite", "un it again with overwrite=True"),
    (
        "in the --config file, under 'models: [{target: …, arguments: {…}}]'",
        "as model={'target': …, 'arguments': {…}}",
    ),
    ("'arguments' of the --config file names", "its 'arguments' name"),
    ("-m a=TARGET -m b=TARGET", "model=['a=TARGET', 'b=TARGET']"),
)

_VALUE = re.compile(
    r" (?P<quoted>'[^']*'|\[[^\]]*\])| (?P<number>\d[\d.]*(?:[A-Za-z]{1,2}\b|%)?)"
    r"| (?P<word>all|auto|earliest|latest|exactly-once|at-least-once)(?![\w-])"
    r"| (?P<list>[A-Z](?:,[A-Z])+)(?!\w)| (?P<stands>N|P%|OLD=NEW|TIME|SIZE|FILE|COLUMN)(?!\w)"
)
"""What stands behind a flag in a sentence and is its value, beside what was given."""


def in_arguments(error: BaseException, given: Mapping[str, Any]) -> None:
    """Have an error name the arguments of the call.

    Args:
        error: its message is changed.
        given: the arguments of the call by name.
    """
    if error.args and isinstance(error.args[0], str):
        error.args = (as_arguments(error.args[0], given), *error.args[1:])


def as_arguments(text: str, given: Mapping[str, Any]) -> str:
    """A sentence for the command line as one for the caller of ``predict()``.

    Args:
        text: the sentence.
        given: the arguments of the call by name.
    """
    for flags, arguments in _SENTENCES:
        text = text.replace(flags, arguments)
    names = {_flag(name): name for name in given} | _OTHERWISE
    pattern = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    made, at = [], 0
    for found in re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w-])", text):
        if found.start() < at:
            continue
        said, end = _argument(names[found[0]], given, text, found.end())
        made += [text[at : found.start()], said]
        at = end
    return "".join([*made, text[at:]])


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _argument(name: str, given: Mapping[str, Any], text: str, at: int) -> tuple[str, int]:
    """What stands for a flag and the value behind it, and where that ends."""
    if text.startswith(": was ", at):  # as a setting of an earlier run
        return name, at
    if name in _SWITCHES:
        return f"{name}=True", at
    if "=" in name:
        return name, at
    for value in sorted(_texts(given.get(name)), key=len, reverse=True):
        end = at + 1 + len(value)
        if value and text[at:end] == f" {value}" and not text[end : end + 1].isalnum():
            number = isinstance(given[name], (int, float))
            return f"{name}={value if number else repr(value)}", end
    found = _VALUE.match(text, at)
    if found is None:
        return name, at
    value = found[0][1:]
    if found["quoted"] and isinstance(given.get(name), (int, float)):
        value = value.strip("'")
    if found["word"]:
        value = repr(value)
    elif found["list"]:
        value = repr(value.split(","))
    return f"{name}={value}", found.end()


def _texts(value: Any) -> set[str]:
    """The forms in which sentences name a value that was given."""
    if isinstance(value, dict):
        return _texts(value.get("target", value.get("class_path")))
    if isinstance(value, (list, tuple)):
        texts = {text for one in value for text in _texts(one)}
        return texts | {",".join(map(str, value)), ", ".join(map(str, value))}
    if value is None or isinstance(value, bool):
        return set()
    if isinstance(value, type) or callable(value):
        return {f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"}
    text = str(value)
    return {text, text.rpartition("=")[2], text.removeprefix("file://"), text.rstrip("/")} - {""}
