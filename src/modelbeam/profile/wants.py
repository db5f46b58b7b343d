"""What is to be collected."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLED = 8192
"""Records of which every value is kept, of all splits together, at most."""

LEAST_OF_A_SPLIT = 128
"""Of one of very many splits."""

CELLS = 50_000
"""Values that are kept of a split, about; of records with very many columns fewer are sampled."""

LEAST = 32
"""Records that are sampled, however many columns they have."""

MASKED = "•••"
"""Stands for what is not shown."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What is to be collected of a split; plain data.

    Attributes:
        rows: of how many records every value is kept, at most.
        examples: of how many failed or odd records of a kind the record itself is kept.
        mask: columns of which no value is kept.
    """

    rows: int = SAMPLED
    examples: int = 5
    mask: tuple[str, ...] = ()

    def rows_of(self, columns: int) -> int:
        """The same where records have so many columns."""
        return min(self.rows, max(LEAST, CELLS // max(columns, 1)))


def rows_of_a_split(splits: int) -> int:
    """How many records of each split are sampled, where there are so many splits."""
    return max(LEAST_OF_A_SPLIT, SAMPLED // max(splits, 1))
