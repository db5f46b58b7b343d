"""The YAML file of a job, and how it and the command line come together.

``${NAME}`` in any text stands for an environment variable and ``$${NAME}`` for itself. In what may
hold a secret (the arguments of a model) the reference is kept as it is, in every file and message,
and looked up only where the value is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from modelbeam.errors import RequestError, did_you_mean

ALIASES = {"model": "models", "input": "inputs"}
"""Keys that may be written in the singular."""

_REFERENCE = re.compile(r"\$?\$\{([A-Za-z_]\w*)\}")


def read_config(path: str, known: Iterable[str]) -> dict[str, Any]:
    """The settings of a YAML file, by their names in a job.

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
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{where} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{where} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{where} must hold settings by name, such as 'output: out/'.")
    names = set(known)
    settings = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        name = ALIASES.get(name, name)
        if name not in names:
            raise RequestError(
                f"{where}: unknown setting '{key}'{did_you_mean(name, [*names, *ALIASES])}"
            )
        settings[name] = resolved(value, f"{where}, '{key}'", keeping="arguments")
    return settings


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


def resolved(value: Any, where: str, keeping: str | None = None) -> Any:
    """The same of every text in lists and mappings, but for what stands under one key."""
    if isinstance(value, str):
        return resolve(value, where)
    if isinstance(value, list):
        return [resolved(one, where, keeping) for one in value]
    if isinstance(value, dict):
        return {
            key: one if key == keeping else resolved(one, where, keeping)
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
