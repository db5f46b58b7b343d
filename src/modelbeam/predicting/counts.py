"""What became of the records: counts, and one example of each kind of failure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from modelbeam.predicting.failures import Failure, Place

EXAMPLES = 20
"""Kinds of failure (stage and type) that a manifest describes one by one."""


@dataclass(slots=True)
class Kind:
    """Failures of one stage and type: how many, and the first of them (position in its split)."""

    stage: str
    type: str
    count: int
    line: int
    offset: int
    error: str
    source: str = ""


@dataclass(slots=True)
class Counts:
    """Records of a split or a job: ``read`` is ``predicted`` plus ``failed``.

    ``recovered`` of the predicted ones had failed once and not when tried again: the model is not
    deterministic.
    """

    read: int = 0
    predicted: int = 0
    failed: int = 0
    kinds: list[Kind] = field(default_factory=list)
    recovered: int = 0

    def add_failure(self, failure: Failure, place: Place, source: str = "") -> None:
        """Count one failed record."""
        self.failed += 1
        for kind in self.kinds:
            if kind.type == failure.type and kind.stage == failure.stage:
                kind.count += 1
                return
        if len(self.kinds) < EXAMPLES:
            at = place._asdict()
            self.kinds.append(
                Kind(
                    failure.stage,
                    failure.type,
                    1,
                    at.get("line", 0),
                    at.get("offset", 0),
                    failure.error,
                    source,
                )
            )

    def add(self, other: Counts, first_line: int) -> None:
        """Add a later split's counts, whose lines are ``first_line`` further down its file."""
        self.read += other.read
        self.predicted += other.predicted
        self.failed += other.failed
        self.recovered += other.recovered
        known = {(kind.stage, kind.type): kind for kind in self.kinds}
        for kind in other.kinds:
            mine = known.get((kind.stage, kind.type))
            if mine is not None:
                mine.count += kind.count
            elif len(self.kinds) < EXAMPLES:
                self.kinds.append(Kind(**{**asdict(kind), "line": kind.line + first_line}))
