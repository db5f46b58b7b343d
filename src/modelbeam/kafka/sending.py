"""Splits of files into topics: each in one transaction, with a mark that says how far the run is.

The mark is an offset of a group of the run's own, on the first partition of the output: how many
splits are in the topics, in the order of the plan. It is committed in the transaction that holds
the split's predictions and errors, so it is as exact as they are, and every machine that reaches
the brokers can read it. A text beside it says what was sent; see :class:`Mark`.

All of a run's transactions have one name. Whoever opens it ends what another left open under it,
and looks at the mark only then; so of two one goes on, and the other's transaction fails.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from modelbeam.errors import JobError, RequestError
from modelbeam.kafka.address import Topic
from modelbeam.kafka.cluster import (
    Cluster,
    Limits,
    client,
    committed,
    connected,
    looking,
)
from modelbeam.kafka.producing import (
    CALL_SECONDS,
    FENCED,
    HOPELESS,
    Deliveries,
    gone_away,
    put_offsets,
    settings_of,
)
from modelbeam.kafka.records import Message

AWAY_SECONDS = 300.0
"""How long the cluster may be away before the run ends."""

SECONDS, LONGEST_SECONDS = 60, 900
"""A transaction's time-out: usually, and the longest that brokers take unless told otherwise."""

BYTES_A_SECOND = 5_000_000
"""How fast a split is written at least; its transaction is given the time."""

Messages = Iterable[tuple[str, Message]]
"""Each with its topic."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a run is.

    Attributes:
        sent: how many splits are in the topics; the offset itself.
        splits: how many it had in all.
        split_size: by which its inputs were cut.
        settings: the fingerprint of the model and the settings.
        chain: a digest of the splits that are sent, and of the state of their files.
        paths: a digest of the names of these files alone.
        units: how many lines of the last file are in them.
        read, predicted, failed: records.
        writer: the process that put it.
        at: when it did.
    """

    sent: int = 0
    splits: int = 0
    split_size: int = 0
    settings: str = ""
    chain: str = ""
    paths: str = ""
    units: int = 0
    read: int = 0
    predicted: int = 0
    failed: int = 0
    writer: str = ""
    at: str = ""

    @property
    def finished(self) -> bool:
        """Whether all of the run is sent."""
        return self.sent >= self.splits

    @classmethod
    def read_from(cls, offset: int, text: str | None) -> Mark | None:
        """What stands there; ``None`` if it is no mark."""
        try:
            return cls(offset, **json.loads(text or ""))
        except (ValueError, TypeError):
            return None

    def written(self) -> str:
        """The text."""
        said = asdict(self)
        del said["sent"]
        return json.dumps(said)


class Sender:
    """Sends splits in the order of the plan.

    Args:
        cluster: of the topics.
        settings: of librdkafka's.
        output: where predictions go.
        group: the run's own.
        limits: what the topics take.
        exactly_once: whether there are transactions.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Mapping[str, str],
        output: Topic,
        group: str,
        limits: Sequence[Limits],
        *,
        exactly_once: bool,
    ) -> None:
        self._cluster, self._settings, self._output = cluster, settings, output
        self._group, self._limits, self._exactly_once = group, limits, exactly_once
        self._kafka = client()
        self._deliveries = Deliveries()
        self._mark: Mark | None = None
        self._seconds = SECONDS
        self._producer: Any = None
        self._consumer = looking(cluster.brokers, settings, group)

    def look(self, *, settled: bool = False) -> Mark | None:
        """How far the last run of this group is, if there is one.

        Args:
            settled: wait for the end of a transaction that may move it. One that a dead process
                left open ends only once it is taken over from.

        Raises:
            RequestError: the cluster does not answer.
        """
        offset, text = self._cluster.marked(self._group, self._output.name, 0, settled=settled)
        return Mark.read_from(offset, text) if offset >= 0 else None

    def open(self) -> Mark | None:
        """Take over from any other that sends for this group; how far it has come.

        Raises:
            RequestError: the cluster does not answer.
        """
        self._patiently(self._open, "begin")
        self._mark = self.look(settled=True)
        return self._mark

    def _open(self) -> None:
        self._close()
        brokers = self._output.brokers
        producing = settings_of(self._settings, brokers, self._limits)
        if self._exactly_once:
            producing["transactional.id"] = self._group
            producing["transaction.timeout.ms"] = self._seconds * 1000
        self._producer = connected(self._kafka.Producer, brokers, self._settings, producing)
        self._deliveries.clear()
        if self._exactly_once:
            self._producer.init_transactions(CALL_SECONDS)

    def send(self, messages: Callable[[], Messages], size: int, mark: Mark) -> None:
        """Send a split's messages, all of them or none, and put the mark with them.

        Args:
            messages: makes them, again if it has to be tried again.
            size: about how many bytes they have.
            mark: what is true once they are there.

        Raises:
            JobError: a topic does not take them, another run has taken over, or the cluster is away
                for too long.
        """
        seconds = min(LONGEST_SECONDS, max(SECONDS, size // BYTES_A_SECOND))
        doubtful = seconds > self._seconds
        self._seconds = max(self._seconds, seconds)

        def once() -> None:
            nonlocal doubtful
            if doubtful or self._producer is None:
                self._open()
                found = self.look(settled=True)
                if found == mark:
                    return
                if found != self._mark:
                    raise self._taken_over()
            doubtful = True  # until it is known how this ended
            self._send(messages(), mark)

        self._patiently(once, "go on")
        self._mark = mark

    def _send(self, messages: Messages, mark: Mark) -> None:
        producer = self._producer
        if self._exactly_once:
            producer.begin_transaction()
        for topic, message in messages:
            self._deliveries.produce(producer, topic, message)
        self._deliveries.flush(producer)
        place = self._kafka.TopicPartition(self._output.name, 0, mark.sent, mark.written())
        if not self._exactly_once:
            committed(self._consumer, [place])
            return
        if not put_offsets(producer, [place], self._consumer.consumer_group_metadata()):
            self._producer = None  # it is left behind
            raise gone_away()
        producer.commit_transaction(CALL_SECONDS)

    def _patiently(self, do: Callable[[], None], what: str) -> None:
        """Do it, and again while the cluster is away or moves."""
        deadline = time.monotonic() + AWAY_SECONDS
        while True:
            try:
                do()
                return
            except self._kafka.KafkaException as error:
                cause = error.args[0]
                if cause.name() in FENCED and what != "begin":
                    raise self._taken_over() from None
                if cause.name() in HOPELESS or cause.name() == "INVALID_TRANSACTION_TIMEOUT":
                    raise JobError(f"{self._output.url}: {cause.str()}.") from None
                if time.monotonic() > deadline:
                    raise JobError(
                        f"{self._output.url}: the cluster does not let the run {what}: "
                        f"{cause.str()}. Run the same command with --resume."
                    ) from None
            except RequestError:
                if what == "begin" or time.monotonic() > deadline:
                    raise
            time.sleep(0.3)

    def _taken_over(self) -> JobError:
        return JobError(
            f"--output {self._output.url}: another run of the group {self._group} has taken over; "
            f"this one has ended, and nothing was sent twice."
        )

    def close(self) -> None:
        """Abort what is not committed, and let go."""
        self._close()
        with suppress(Exception):
            self._consumer.close()

    def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None and self._exactly_once:
            with suppress(Exception):
                producer.abort_transaction(2.0)
