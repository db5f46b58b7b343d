"""A split's profile as it is stored: one line of JSON, then the arrays that it names."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from modelbeam.profile.cells import Cells
from modelbeam.profile.exact import Counted, Exact
from modelbeam.profile.split import Side, SplitProfile

VERSION = 1

SMALL = 16 << 10
"""Bytes from which on it is worth while to compress them."""


class _Arrays:
    """Arrays, one after the other; each is named by its type, where it begins and its length."""

    def __init__(self, content: bytes = b"") -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._content = content

    def add(self, array: Any) -> list[Any]:
        """Add one; returns its name."""
        data = np.ascontiguousarray(array).tobytes()
        name = [array.dtype.str, self._size, len(array)]
        self._parts.append(data)
        self._size += len(data)
        return name

    def get(self, name: list[Any]) -> Any:
        """The array of a name."""
        kind, start, length = name
        return np.frombuffer(self._content, np.dtype(kind), length, start)

    def to_bytes(self) -> bytes:
        """All of them."""
        return b"".join(self._parts)


def to_bytes(profile: SplitProfile) -> bytes:
    """A profile as it is stored."""
    arrays = _Arrays()
    for member in profile.members.values():
        member.settle()
    members = {
        name: {
            "level": member.level.level,
            "inputs": _side(member.inputs, arrays),
            "predictions": _side(member.predictions, arrays),
            "odd": member.odd.to_dict(),
        }
        for name, member in profile.members.items()
    }
    header = {
        "version": VERSION,
        "members": members,
        "failures": profile.failures.to_dict(),
        "pace": profile.pace.to_dict(),
    }
    line = orjson.dumps(header, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    content = line + b"\n" + arrays.to_bytes()
    return content if len(content) < SMALL else zlib.compress(content, 1)


def _side(side: Side, arrays: _Arrays) -> dict[str, Any]:
    side.counted.settle()
    numbers, columns = side.sampled.columns()
    return {
        "records": side.records,
        "numbers": arrays.add(numbers),
        "columns": [[name, _packed(cells, arrays)] for name, cells in columns.items()],
        "dropped": side.sampled.dropped,
        "exact": _exact(side.counted),
    }


def _exact(counted: Counted) -> list[Any] | None:
    if counted.columns is None:
        return None
    return [[name, one.to_list()] for name, one in counted.columns.items()]


def _packed(cells: Cells, arrays: _Arrays) -> dict[str, Any]:
    kinds = cells.kinds
    same = bool((kinds == kinds[:1]).all())
    made: dict[str, Any] = {"kind": int(kinds[0])} if same else {"kinds": arrays.add(kinds)}
    if not np.isnan(cells.numbers).all():
        made["numbers"] = arrays.add(cells.numbers)
    if not np.isnan(cells.lengths).all():
        made["lengths"] = arrays.add(cells.lengths)
    known: dict[str | None, int] = {}
    if cells.texts.count(None) < len(cells.texts):
        known = {text: at for at, text in enumerate(dict.fromkeys(cells.texts))}
        made["texts"] = list(known)
        made["codes"] = arrays.add(np.array([known[text] for text in cells.texts], np.int32))
    return made


class Packed:
    """A profile that was stored.

    Args:
        content: what :func:`to_bytes` made.

    Attributes:
        header: all but the arrays.

    Raises:
        ValueError, KeyError, TypeError: it is damaged, or of another version.
    """

    def __init__(self, content: bytes) -> None:
        try:
            plain = content if content[:1] == b"{" else zlib.decompress(content)
            line, _, rest = plain.partition(b"\n")
        except zlib.error as error:
            raise ValueError(str(error)) from None
        self.header: dict[str, Any] = orjson.loads(line)
        if self.header["version"] != VERSION:
            raise ValueError(f"version {self.header['version']}")
        self._arrays = _Arrays(rest)

    def numbers(self, side: Mapping[str, Any]) -> Any:
        """The numbers of the sampled records."""
        return self._arrays.get(side["numbers"])

    def exact(self, side: Mapping[str, Any]) -> dict[str, Exact] | None:
        """What was counted of each column."""
        if side["exact"] is None:
            return None
        return {name: Exact(*one) for name, one in side["exact"]}

    def cells(self, side: Mapping[str, Any]) -> dict[str, Cells]:
        """The sampled values of each column."""
        return {name: self._cells(data, side["numbers"][2]) for name, data in side["columns"]}

    def _cells(self, data: Mapping[str, Any], size: int) -> Cells:
        if "kinds" in data:
            kinds = self._arrays.get(data["kinds"])
        else:
            kinds = np.full(size, data["kind"], np.uint8)
        nan = np.full(size, np.nan)
        numbers, lengths = (
            self._arrays.get(data[name]) if name in data else nan for name in ("numbers", "lengths")
        )
        texts: list[str | None] = [None] * size
        if "codes" in data:
            texts = [data["texts"][code] for code in self._arrays.get(data["codes"]).tolist()]
        return Cells(kinds, numbers, texts, lengths)
