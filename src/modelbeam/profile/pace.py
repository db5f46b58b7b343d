"""Batches, what their time went into, and when they were; bounded, however many there are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STEPS = 64
"""Moments of a split at which it is known how far it was."""

_FINE = 16
"""Buckets per doubling: what is read off them is within some 2 %."""

_TINY = 1e-9


@dataclass(slots=True)
class Spread:
    """How numbers above zero are spread, in buckets that grow by a factor: 16 a doubling."""

    buckets: dict[int, int] = field(default_factory=dict)
    count: int = 0
    high: float = 0.0

    def add(self, number: float) -> None:
        """Add one."""
        bucket = math.ceil(math.log2(max(number, _TINY)) * _FINE)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.high = max(self.high, number)

    def merge(self, other: Spread) -> None:
        """Add those of another."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.count += other.count
        self.high = max(self.high, other.high)

    def quantile(self, share: float) -> float:
        """The number that such a share are no larger than; the last one exactly."""
        wanted, seen = share * self.count, 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return min(math.pow(2.0, (bucket - 0.5) / _FINE), self.high)
        return self.high

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"buckets": [*map(list, self.buckets.items())], "high": self.high}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spread:
        """Read what :meth:`to_dict` made."""
        buckets = {int(bucket): int(count) for bucket, count in data["buckets"]}
        return cls(buckets, sum(buckets.values()), data["high"])


@dataclass(slots=True)
class Pace:
    """When a split was done, and what its time went into.

    Attributes:
        worker: the host, the process and the thread.
        start, end: seconds since the epoch.
        read, failed: records.
        stages: seconds by stage.
        sizes: records of each batch.
        seconds: of each batch.
        steps: moments, each with how many records were done by then.
    """

    worker: str
    start: float
    end: float = 0.0
    read: int = 0
    failed: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    sizes: Spread = field(default_factory=Spread)
    seconds: Spread = field(default_factory=Spread)
    steps: list[tuple[float, int]] = field(default_factory=list)

    def spent(self, stage: str, seconds: float) -> None:
        """Note what time went into."""
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def batch(self, records: int, seconds: float, now: float) -> None:
        """Note a batch that is done."""
        self.read += records
        self.sizes.add(records)
        self.seconds.add(seconds)
        self.steps.append((now, self.read))
        if len(self.steps) > STEPS:
            del self.steps[::2]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        plain = ("worker", "start", "end", "read", "failed", "stages", "steps")
        return {
            **{name: getattr(self, name) for name in plain},
            "sizes": self.sizes.to_dict(),
            "seconds": self.seconds.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Pace:
        """Read what :meth:`to_dict` made."""
        steps = [(moment, read) for moment, read in data["steps"]]
        spreads = {name: Spread.from_dict(data[name]) for name in ("sizes", "seconds")}
        return cls(**{**data, **spreads, "steps": steps})


SPLITS = 2000
POINTS = 200
_STAGES = ("read", "decode", "predict", "encode", "write", "waiting")


def described(paces: Iterable[tuple[int, Pace]], began: float, ended: float) -> dict[str, Any]:
    """``time`` of the profile.

    Args:
        paces: of each split, with its index.
        began, ended: of the run, in seconds since the epoch.
    """
    stages = dict.fromkeys(_STAGES, 0.0)
    sizes, seconds = Spread(), Spread()
    splits: list[dict[str, Any]] = []
    workers: set[str] = set()
    left_out, first = 0, None
    spans: list[tuple[float, float, int]] = []
    for index, pace in paces:
        for stage, spent in pace.stages.items():
            stages[stage] = stages.get(stage, 0.0) + spent
        sizes.merge(pace.sizes)
        seconds.merge(pace.seconds)
        workers.add(pace.worker)
        if pace.end < began:  # of an earlier run, which this one went on with
            continue
        first = pace.start if first is None else min(first, pace.start)
        before, done = pace.start, 0
        for moment, read in pace.steps:
            spans.append((before - began, moment - began, read - done))
            before, done = moment, read
        if len(splits) == SPLITS:
            left_out += 1
            continue
        splits.append({
            "split": index,
            "worker": pace.worker,
            "start": round(pace.start - began, 3),
            "end": round(pace.end - began, 3),
            "read": pace.read,
            "failed": pace.failed,
        })  # fmt: skip
    return {
        "wall": round(ended - began, 3),
        "start_up": None if first is None else round(max(first - began, 0.0), 3),
        "stages": {stage: round(spent, 4) for stage, spent in stages.items()},
        "throughput": _throughput(spans, ended - began),
        "batches": {
            "count": sizes.count,
            "size": {
                **{f"p{p}": round(sizes.quantile(p / 100)) for p in (5, 50, 95)},
                "max": round(sizes.high),
            },
            "seconds": {
                **{f"p{p}": round(seconds.quantile(p / 100), 6) for p in (50, 95, 99)},
                "max": round(seconds.high, 6),
            },
        },
        "splits": splits,
        **({"splits_left_out": left_out} if left_out else {}),
        "workers": len(workers),
    }


def _throughput(spans: list[tuple[float, float, int]], wall: float) -> list[list[float]]:
    """Records by interval; those of a batch are spread over the time that it took."""
    if not spans or wall <= 0:
        return []
    points = max(1, min(POINTS, int(wall * 10)))
    width = wall / points
    counts = [0.0] * points
    for start, end, records in spans:
        start, end = max(start, 0.0), max(min(end, wall), 0.0)
        first, last = (min(points - 1, int(moment / width)) for moment in (start, end))
        length = end - start
        for at in range(first, last + 1):
            shared = min(end, (at + 1) * width) - max(start, at * width)
            share = shared / length if length > 0 else 1 / (last - first + 1)
            counts[at] += records * max(share, 0.0)
    return [[round(at * width, 3), round(count)] for at, count in enumerate(counts)]
