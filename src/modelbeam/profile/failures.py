"""Failures by kind: how many, where along the input, and the first few of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from modelbeam.predicting.counts import masked
from modelbeam.predicting.failures import Failure
from modelbeam.profile.wants import MASKED, Wants

KINDS = 400
"""Kinds of a split; when there are more, the rarer half is given up for those to come."""

SHOWN = 200
"""Kinds of a run that its profile describes."""

EXAMPLES = 5
"""Places of each kind that are told where no record may be."""

RECORD = 2048
"""Bytes of a record that are kept."""

MESSAGE = 1000
"""Characters of a message that are kept."""

EXAMPLES_BYTES = 128 << 10
"""Bytes of all the examples of a split."""

SHOWN_BYTES = 512 << 10
"""Bytes of all the examples of a profile."""

BINS = 64
"""Parts of a split in which failures are counted, at most."""

ALONG = 50
"""Parts of a run's input in which failures are counted."""


_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class Along:
    """How many of them are where: counted by the records' numbers, in parts that grow."""

    width: int = 16
    counts: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, number: int) -> None:
        """Add the record of this number."""
        while number >= self.width * BINS:
            pairs = zip(self.counts[::2], self.counts[1::2], strict=True)
            self.counts = [one + two for one, two in pairs] + [0] * (BINS // 2)
            self.width *= 2
        self.counts[number // self.width] += 1


@dataclass(slots=True)
class Kind:
    """Failures of one model, stage, type and masked message.

    Attributes:
        model, stage, type, message, frame: what they have in common.
        count: how many.
        along: where in the split they are.
        examples: the first few, as the profile has them.
    """

    model: str
    stage: str
    type: str
    message: str
    frame: str = ""
    count: int = 0
    along: Along = field(default_factory=Along)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def key(self) -> _Key:
        """What tells it from others."""
        return self.model, self.stage, self.type, self.message


class Failures:
    """The failures of a split.

    Args:
        wants: how much is kept.

    Attributes:
        kinds: by what tells them apart.
        left_out: failures of kinds that were given up.
    """

    def __init__(self, wants: Wants) -> None:
        self.kinds: dict[_Key, Kind] = {}
        self.left_out = 0
        self._wants = wants
        self._bytes = 0

    def add(
        self, number: int, source: str, failure: Failure, model: str, place: Any, original: Any
    ) -> None:
        """Count a failed record.

        Args:
            number: of the record in its split.
            source: the file.
            failure: what went wrong.
            model: the model's name, unless the failure has one.
            place: the members of an error line that say where it is.
            original: those that hold the record.
        """
        message = masked(failure.error)
        key = failure.model or model, failure.stage, failure.type, message
        kind = self.kinds.get(key)
        if kind is None:
            if len(self.kinds) >= KINDS:
                self._give_up()
            kind = self.kinds[key] = Kind(*key, failure.where)
        kind.count += 1
        kind.along.add(number)
        if len(kind.examples) < (self._wants.examples or EXAMPLES) and self._bytes < EXAMPLES_BYTES:
            example = self._example(source, failure, place, original)
            self._bytes += len(orjson.dumps(example))
            kind.examples.append(example)

    def _give_up(self) -> None:
        """Forget the rarer half of the kinds; of equally rare ones the later."""
        kept = sorted(self.kinds.values(), key=lambda kind: -kind.count)[: KINDS // 2]
        keys = {kind.key for kind in kept}
        for key in [key for key in self.kinds if key not in keys]:
            gone = self.kinds.pop(key)
            self.left_out += gone.count
            self._bytes -= sum(len(orjson.dumps(example)) for example in gone.examples)

    def _example(self, source: str, failure: Failure, place: Any, original: Any) -> dict[str, Any]:
        wants = self._wants
        plain = wants.examples and not wants.mask
        error = failure.error if plain else masked(failure.error)
        record = shown_record(original, wants)
        return {"source": source, **place, "error": error[:MESSAGE], **record}

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        kinds = [asdict(kind) for kind in self.kinds.values()]
        return {"kinds": kinds, "left_out": self.left_out}


def shown_record(original: Mapping[str, Any], wants: Wants) -> dict[str, Any]:
    """The ``record`` of an example, as far as it may be shown: cut to 2 KB, columns masked.

    Args:
        original: the members of an error line that hold it; see :meth:`.batch.Batch.original`.
        wants: whether there is to be any, and what must not be in it.
    """
    if not wants.examples or "record" not in original:
        return {}
    text = orjson.dumps(original["record"], default=str)
    if wants.mask:
        value = orjson.loads(text)
        if not isinstance(value, dict):
            return {}  # a text that could not be parsed may hold anything
        text = orjson.dumps(_without(value, wants.mask))
    if len(text) <= RECORD:
        return {"record": orjson.loads(text)}
    value = original["record"]
    cut = value.encode("utf-8", "replace") if isinstance(value, str) else text
    return {"record": cut[:RECORD].decode("utf-8", "ignore") + "…"}


def as_it_was(original: Mapping[str, Any], wants: Wants) -> bytes | dict[str, Any]:
    """What :func:`shown_record` can be made of later: the text, or if that is long, the result."""
    if "record" not in original:
        return {}
    text = orjson.dumps(original["record"], default=str)
    return text if len(text) <= RECORD else shown_record(original, wants)


def _without(record: dict[str, Any], mask: tuple[str, ...]) -> dict[str, Any]:
    """A record with the values of some columns masked; ``a.b`` is member ``b`` of ``a``."""
    made: dict[str, Any] = {}
    for name, value in record.items():
        if name in mask:
            made[name] = MASKED
            continue
        inner = tuple(m[len(name) + 1 :] for m in mask if m.startswith(f"{name}."))
        made[name] = _without(value, inner) if inner and isinstance(value, dict) else value
    return made


class AllFailures:
    """The failures of all splits, added in their order.

    Args:
        examples: of each kind.
    """

    def __init__(self, examples: int) -> None:
        self._examples = examples or EXAMPLES
        self._kinds: dict[_Key, Kind] = {}
        self._along: dict[_Key, list[tuple[float, int]]] = {}
        self._left_out = 0

    def add(self, data: Mapping[str, Any], before: int, first: int) -> None:
        """Add what :meth:`Failures.to_dict` made of a split.

        Args:
            data: of the split.
            before: records of the splits before it.
            first: how much further down its file its lines are.
        """
        self._left_out += data["left_out"]
        for each in data["kinds"]:
            along = Along(**each["along"])
            kind = Kind(**{**each, "along": along})
            for example in kind.examples:
                number = "line" if "line" in example else "row"
                if number in example:
                    example[number] += first
            mine = self._kinds.get(kind.key)
            if mine is None:
                if len(self._kinds) >= 10 * KINDS:
                    self._give_up()
                mine = self._kinds[kind.key] = Kind(*kind.key, kind.frame)
                self._along[kind.key] = []
            mine.count += kind.count
            mine.examples += kind.examples[: self._examples - len(mine.examples)]
            where = self._along[kind.key]
            for at, count in enumerate(along.counts):
                if count:
                    where.append((before + (at + 0.5) * along.width, count))
            if len(where) > 4096:
                self._along[kind.key] = _coarser(where)

    def _give_up(self) -> None:
        kept = sorted(self._kinds.values(), key=lambda kind: -kind.count)[: 5 * KINDS]
        keys = {kind.key for kind in kept}
        for key in [key for key in self._kinds if key not in keys]:
            self._left_out += self._kinds.pop(key).count
            del self._along[key]

    def described(self, records: int) -> dict[str, Any]:
        """``failures`` of the profile, the most frequent first.

        Args:
            records: of the whole input.
        """
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind.count)
        room = SHOWN_BYTES
        shown = []
        for kind in kinds[:SHOWN]:
            along = [0] * ALONG
            for number, count in self._along[kind.key]:
                along[min(ALONG - 1, int(number * ALONG / max(records, 1)))] += count
            examples = []
            for example in kind.examples:
                room -= len(orjson.dumps(example))
                if room > 0:
                    examples.append(example)
            shown.append({
                "model": kind.model,
                "stage": kind.stage,
                "type": kind.type,
                "message": kind.message,
                "count": kind.count,
                "frame": kind.frame or None,
                "along": along,
                "examples": examples,
            })  # fmt: skip
        left_out = self._left_out + sum(kind.count for kind in kinds[SHOWN:])
        return {"failures": shown, **({"failures_left_out": left_out} if left_out else {})}


def _coarser(where: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Half as many places: neighbours together, at their middle."""
    made = []
    for at in range(0, len(where) - 1, 2):
        (one, some), (two, more) = where[at], where[at + 1]
        made.append(((one * some + two * more) / (some + more), some + more))
    return made + where[len(where) // 2 * 2 :]
