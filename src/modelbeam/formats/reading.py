"""How input files are to be read, where they do not say it themselves."""

from __future__ import annotations

from typing import NamedTuple


class Reading(NamedTuple):
    """How the input files are to be read, where they do not say it; ``None`` leaves it to them.

    Attributes:
        delimiter: between two fields.
        encoding: of the text.
        columns: their names, for files without a header.
    """

    delimiter: str | None = None
    encoding: str | None = None
    columns: tuple[str, ...] | None = None

    @property
    def flags(self) -> dict[str, str | None]:
        """As the command line has them."""
        columns = None if self.columns is None else ",".join(self.columns)
        return {
            "--delimiter": self.delimiter,
            "--encoding": self.encoding,
            "--columns": columns,
        }


AS_IT_SAYS = Reading()
"""Nothing is told."""
