"""The YAML file of a job, and how it and the command line come together.

``${NAME}`` in any text stands for an environment variable and ``$${NAME}`` for itself. In what may
hold a secret (the arguments of a model) the reference is kept as it is, in every file and message,
and looked up only where the value is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from modelbeam.errors import RequestError, did_you_mean

ALIASES = {"model": "models", "input": "inputs"}
"""Keys that may be written in the singular."""

_REFERENCE = re.compile(r"\$?\$\{([A-Za-z_]\w*)\}")


class Lines(NamedTuple):
    """Where the settings of a file are.

    Attributes:
        path: the file.
        numbers: the line of each key, by the names and places that lead to it.
    """

    path: str
    numbers: dict[tuple[Any, ...], int]

    def of(self, *keys: Any) -> str:
        """The place of a setting, for people: file, line and key."""
        known = (self.numbers.get(keys[:n]) for n in range(len(keys), 0, -1))
        found = next((line for line in known if line is not None), None)
        line = "" if found is None else f", line {found}"
        names = [key for key in keys if isinstance(key, str) and key]
        return f"--config {self.path}{line}, {'.'.join(names)!r}"


def read_config(path: str, known: Iterable[str]) -> tuple[dict[str, Any], Lines]:
    """The settings of a YAML file, by their names in a job, and where they are.

    Args:
        path: the file.
        known: the names that there are; dashes and underscores are alike.

    Raises:
        RequestError: it cannot be read, holds an unknown setting, or names a variable that is not
            set.
    """
    import yaml

    where = f"--config {path}"
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise RequestError(f"{where} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        if mark is not None:
            said = getattr(error, "problem", None) or "it cannot be read"
            raise RequestError(f"{where}, line {mark.line + 1}, is not YAML: {said}.") from None
        raise RequestError(f"{where} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{where} must hold settings by name, such as 'output: out/'.")
    names = set(known)
    settings: dict[str, Any] = {}
    written = dict(_lines_of(tree, (), path))
    lines = Lines(path, dict(written))
    for key, value in content.items():
        name = str(key).replace("-", "_")
        name = ALIASES.get(name, name)
        line = written.get((str(key),))
        if name not in names:
            nearest = did_you_mean(name, [*names, *ALIASES])
            raise RequestError(f"{where}, line {line}: unknown setting '{key}'{nearest}")
        if name in settings:
            raise RequestError(f"{where}, line {line}: '{key}' is there already, as '{name}'.")
        if name == "models" and not isinstance(value, list):
            value = [value]
        here = [(p, at) for p, at in written.items() if p[0] == str(key)]
        lines.numbers.update({(name, *place[1:]): at for place, at in here})
        settings[name] = resolved(value, lines.of(name), keeping=("arguments", "configuration"))
    return settings, lines


def _lines_of(node: Any, place: tuple[Any, ...], path: str) -> Iterator[tuple[Any, int]]:
    """The line of each key of a YAML document.

    Raises:
        RequestError: a key is there twice.
    """
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key.value, str):
                continue
            if key.value in seen and key.value != "<<":
                raise RequestError(
                    f"--config {path}, line {line}: '{key.value}' is there already, in line "
                    f"{seen[key.value]}."
                )
            seen[key.value] = line
            yield (*place, key.value), line
            yield from _lines_of(value, (*place, key.value), path)
    elif isinstance(node, yaml.SequenceNode):
        for at, value in enumerate(node.value):
            yield (*place, at), value.start_mark.line + 1
            yield from _lines_of(value, (*place, at), path)


def resolve(text: str, where: str) -> str:
    """A text with the values of the environment variables that it names.

    Raises:
        RequestError: one of them is not set.
    """

    def value_of(found: re.Match[str]) -> str:
        if found[0].startswith("$$"):
            return found[0][1:]
        if found[1] not in os.environ:
            raise RequestError(
                f"{where}: the environment variable {found[1]} is not set. Set it, or write "
                f"'$${{{found[1]}}}' for the text itself."
            )
        return os.environ[found[1]]

    return _REFERENCE.sub(value_of, text)


def resolved(value: Any, where: str, keeping: Sequence[str] = ()) -> Any:
    """The same of every text in lists and mappings, but for what stands under some keys."""
    if isinstance(value, str):
        return resolve(value, where)
    if isinstance(value, list):
        return [resolved(one, where, keeping) for one in value]
    if isinstance(value, dict):
        return {
            key: one if key in keeping else resolved(one, where, keeping)
            for key, one in value.items()
        }
    return value


def as_flags(options: Any) -> list[str]:
    """Beam's options of a YAML file as flags: a list of flags, or a mapping of names to values.

    In a mapping ``true`` is the flag alone, ``false`` and ``null`` leave it out, and a list gives
    the flag several times.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(options, dict):
        flags = []
        for name, value in options.items():
            flag = "--" + str(name).lstrip("-")
            for one in value if isinstance(value, list) else [value]:
                if one is True:
                    flags.append(flag)
                elif one is not None and one is not False:
                    flags.append(f"{flag}={one}")
        return flags
    if isinstance(options, (list, tuple)) and all(isinstance(flag, str) for flag in options):
        return list(options)
    raise ValueError("give a list of flags, or a mapping such as {runner: flink}")


def merged_flags(file: Sequence[str], given: Sequence[str]) -> list[str]:
    """Beam's flags of a file and of the command line, which wins name by name."""
    named = {name for name, _ in grouped(given)}
    kept = [token for name, tokens in grouped(file) if name not in named for token in tokens]
    return [*kept, *given]


def grouped(flags: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each flag's name, dashes as underscores, with the words that belong to it."""
    groups: list[tuple[str, list[str]]] = []
    for token in flags:
        if token.startswith("--") or not groups:
            name = token.partition("=")[0].lstrip("-").replace("-", "_")
            groups.append((name, [token]))
        else:
            groups[-1][1].append(token)
    return groups
