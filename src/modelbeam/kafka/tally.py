"""What a run has done of a partition, beside the partition's committed offset.

Kafka keeps a text with each offset that a group commits. It is written in the transaction that
holds the predictions, so it is as exact as they are, whichever lane wrote it and whatever was
killed; and every machine that reaches the brokers can read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Tally:
    """The records of one partition that one run has done.

    Attributes:
        read: all of them.
        failed: those that are error records.
        lane: which lane has committed last; it may take the records that follow.
        most: how many records it may have taken since, of all its partitions.
    """

    read: int = 0
    failed: int = 0
    lane: str = ""
    most: int = 0

    @classmethod
    def read_from(cls, text: str | None, run: str) -> Tally:
        """What stands there, if it is of this run."""
        try:
            found = json.loads(text or "")
            if found["run"] == run:
                lane, most = str(found["lane"]), int(found["most"])
                return cls(int(found["read"]), int(found["failed"]), lane, most)
        except (ValueError, KeyError, TypeError):  # nothing, or of something else
            pass
        return cls()

    def written(self, run: str) -> str:
        """The text."""
        return json.dumps({"run": run, **asdict(self)})
