"""Which records are sampled: by their number in the split alone, evenly, and fewer as more come.

Record ``r`` of a split has the key ``r · 2⁶⁴/φ mod 2⁶⁴`` (Fibonacci hashing, Knuth, The Art of
Computer Programming 3, 6.4). At level ``L`` those records are taken whose key begins with ``L``
zero bits: every ``2^L``-th, spread more evenly than at random (the three-gap theorem), at no period
that data may have. Each level's records are among those of the level before, so a sample can be
thinned later, and the samples of splits put together at the highest of their levels.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

_MULTIPLIER = 0x9E3779B97F4A7C15
_FIBONACCI = np.uint64(_MULTIPLIER)
_MASK = (1 << 64) - 1

ONE_BY_ONE = 6
"""The level from which on the sampled records are found one after the other."""

Numbers = Any
"""A NumPy array of ``uint64``."""


def taken(numbers: Numbers, level: int) -> Any:
    """Whether the records of these numbers are in the sample of a level: an array of booleans."""
    if level == 0:
        return np.ones(len(numbers), np.bool_)
    return numbers * _FIBONACCI < np.uint64(1 << (64 - level))


@functools.cache
def steps(level: int) -> tuple[int, int]:
    """How far it is from one record of a level's sample to the next: either, or the two together.

    The smallest steps by which a key grows, and shrinks, by less than the level's bound: a key
    below it is then reached by one of them or by both (the three-gap theorem).
    """
    bound, up, down = 1 << (64 - level), 0, 0
    one, two = 1, 1  # both are Fibonacci numbers, as the best approximations of 1/φ are
    while not (up and down):
        key = one * _MULTIPLIER & _MASK
        if key < bound and not up:
            up = one
        if _MASK + 1 - key < bound and not down:
            down = one
        one, two = two, one + two
    return up, down


def between(first: int, end: int, level: int) -> Numbers:
    """The numbers from ``first`` to before ``end`` that are in the sample of a level."""
    if level == 0:
        return np.arange(first, end, dtype=np.uint64)
    if level < ONE_BY_ONE or end - first < 1 << level:
        numbers = np.arange(first, end, dtype=np.uint64)
        return numbers[taken(numbers, level)]
    up, down = steps(level)
    bound = 1 << (64 - level)
    start = np.arange(first, min(end, first + up + down), dtype=np.uint64)
    start = start[taken(start, level)]
    found: list[int] = []
    if len(start):
        number = int(start[0])
        key = number * _MULTIPLIER & _MASK
        grows, shrinks = up * _MULTIPLIER & _MASK, -down * _MULTIPLIER & _MASK
        while number < end:
            found.append(number)
            # the smaller step that stays below the bound
            if key + grows < bound and (up < down or key < shrinks):
                number, key = number + up, key + grows
            elif key >= shrinks:
                number, key = number + down, key - shrinks
            else:
                number, key = number + up + down, key + grows - shrinks
    return np.array(found, np.uint64)


_first: dict[int, tuple[int, Numbers]] = {}
"""By level the numbers in its sample, up to some number: all splits have the same."""


def first_of(level: int, end: int) -> Numbers:
    """The numbers before ``end`` that are in the sample of a level."""
    known, numbers = _first.get(level, (0, np.empty(0, np.uint64)))
    if known < end:
        more = max(end, 2 * known)
        numbers = np.concatenate((numbers, between(known, more, level)))
        _first[level] = more, numbers
    return numbers[: np.searchsorted(numbers, np.uint64(end))]


_UNEVEN = 64
"""No sample of a level has as many records less than its share: what is left over of the golden
ratio's multiples grows with the logarithm of how many there are, by less than one a doubling."""


class Level:
    """The level of a split's sample: the lowest at which its records so far are few enough.

    Args:
        most: how many may be in the sample.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.level = 0
        self.records = 0

    def grow(self, count: int) -> Any:
        """So many records more have come: which of these are in the sample, as indices."""
        first = self.records
        self.records += count
        if self.level == 0 and self.records <= self.most:
            return np.arange(count, dtype=np.int64)
        while self.records >> self.level > self.most + _UNEVEN:
            self.level += 1  # certainly too many
        found = first_of(self.level, self.records)
        while len(found) > self.most:
            self.level += 1
            found = first_of(self.level, self.records)
        return (found[np.searchsorted(found, np.uint64(first)) :] - np.uint64(first)).astype(
            np.int64
        )
