"""Topics as inputs of a run until now: from where the group is, to where each partition ends.

An input is a partition of a topic: its size is the number of offsets that are to be read, and its
time the first one, so that what has grown since is another input. Pieces count from there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelbeam import formats
from modelbeam.errors import InputReadError, RequestError
from modelbeam.formats.base import Piece, Reader, Wanted
from modelbeam.formats.partition import Partition
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.kafka import address
from modelbeam.kafka.address import Asked, Topic
from modelbeam.kafka.batch import MessageBatch
from modelbeam.kafka.cluster import ANSWER_SECONDS, DISTRIBUTION, Cluster, client, gone, log
from modelbeam.predicting.batch import Batch
from modelbeam.sources.base import Found, Source
from modelbeam.sources.splits import Split
from modelbeam.storage import FileInfo

OFFSETS_A_SPLIT = 250_000
"""Offsets of a split, at most: topics do not tell bytes."""

OFFSETS_A_BATCH = 10_000


_asked = Asked()


def _settings() -> dict[str, str]:
    return address.read_settings(_asked.config) if _asked.config else {}


def _partition_of(path: str) -> tuple[Topic, int]:
    url, _, number = path.rpartition("/")
    return address.parse(url, "--input"), int(number)


class Topics(Source):
    """Topics of Kafka."""

    requires = (DISTRIBUTION,)

    def configure(self, asked: Any) -> None:
        """Take an :class:`Asked`, for this process."""
        global _asked
        _asked = asked or Asked()

    def discover(
        self,
        patterns: Iterable[str],
        *,
        any_suffix: bool,  # noqa: ARG002
        excluded: Iterable[str],  # noqa: ARG002
        earlier: Sequence[FileInfo] | None = None,
    ) -> Found:
        """The partitions of topics, each from the group's offset to its end."""
        settings = _settings()
        if earlier is not None:  # a run that is resumed has the ends that it began with
            return Found(list(earlier), [], {})
        inputs: list[FileInfo] = []
        notes: list[str] = []
        for pattern in patterns:
            topic = address.parse(pattern, "--input")
            cluster = Cluster(topic.brokers, settings)
            found, more = _ranges(cluster, topic)
            inputs += found
            notes += more
        return Found(inputs, notes, {})

    def plan(
        self,
        inputs: Sequence[FileInfo],
        split_size: int | None,  # noqa: ARG002
        *,
        input_format: formats.Format | None,  # noqa: ARG002
        earlier: Sequence[Split] | None,
        reading: Reading = AS_IT_SAYS,  # noqa: ARG002
        limit: int | None = None,
        partitions: Mapping[str, Partition] | None = None,  # noqa: ARG002
    ) -> tuple[list[Split], int]:
        """Cut partitions into splits of so many offsets, and put short ones together."""
        if earlier is not None:
            return list(earlier), OFFSETS_A_SPLIT
        if limit is not None:
            return _limited(inputs, limit), OFFSETS_A_SPLIT
        splits: list[Split] = []
        small: list[Piece] = []
        for info in inputs:
            for start in range(0, max(info.size, 1), OFFSETS_A_SPLIT):
                end = min(start + OFFSETS_A_SPLIT, info.size)
                piece = Piece(
                    info.path, start, end, info.size, info.mtime_ns, None, "jsonl", end - start
                )
                if small and sum(p.bytes for p in small) + piece.bytes > OFFSETS_A_SPLIT:
                    splits.append(Split(len(splits), tuple(small)))
                    small = []
                small.append(piece)
        if small:
            splits.append(Split(len(splits), tuple(small)))
        return splits, OFFSETS_A_SPLIT

    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a range of offsets."""
        return MessagesReader(piece, wanted)

    def first(self, piece: Piece, records: int, wanted: Wanted | None = None) -> Batch:
        """The first messages of a partition."""
        wanted = wanted or Wanted("record")
        for batch in MessagesReader(piece, wanted, most=records):
            return batch
        return MessageBatch([], wanted.longest)

    def elsewhere(self, piece: Piece) -> Iterator[Batch]:  # noqa: ARG002
        """None: to look elsewhere costs a connection."""
        yield from ()

    def finished(self, inputs: Sequence[FileInfo]) -> None:
        """Commit the offsets of what was read for the group, so that the next run goes on there."""
        kafka, settings = client(), _settings()
        ends: dict[str, list[Any]] = {}
        for info in inputs:
            topic, partition = _partition_of(info.path)
            place = kafka.TopicPartition(topic.name, partition, info.mtime_ns + info.size)
            ends.setdefault(topic.brokers, []).append(place)
        for brokers, places in ends.items():
            Cluster(brokers, settings).commit(_asked.group, places)


def _ranges(cluster: Cluster, topic: Topic) -> tuple[list[FileInfo], list[str]]:
    """The partitions of a topic, each from the group's offset to its end; and notes."""
    partitions = cluster.partitions(topic, "--input")
    ranges = cluster.ranges(topic.name, partitions)
    committed = cluster.committed(_asked.group, topic.name, partitions)
    begin, notes = _asked.begin, []
    times = cluster.offsets_at(topic.name, partitions, begin) if isinstance(begin, int) else {}
    inputs = []
    for partition in partitions:
        first, end, high = ranges[partition]
        start = committed.get(partition)
        if start is None:
            fresh = not committed
            if begin == "earliest" or not fresh:
                start = first
            else:
                start = times.get(partition, end) if isinstance(begin, int) else end
        elif not first <= start <= high:
            lost = gone(topic, _asked.group, partition, start, first, high)
            if not _asked.skip_lost:
                raise RequestError(
                    f"{lost}. To go on at the first record that is there, add --on-data-loss "
                    f"earliest."
                )
            notes.append(f"{lost}.")
            start = first
        if high > end:
            notes.append(
                f"{topic.url}, partition {partition}: offsets {end} to {high - 1} are behind a "
                f"transaction that is still open; they are left for the next run."
            )
        inputs.append(FileInfo(f"{topic.url}/{partition}", max(0, end - start), start))
    return inputs, notes


def _limited(inputs: Sequence[FileInfo], limit: int) -> list[Split]:
    """One split of the first records; offsets do not tell how many there are, so they are read."""
    pieces: list[Piece] = []
    for info in inputs:
        piece = Piece(info.path, 0, info.size, info.size, info.mtime_ns, None, "jsonl", info.size)
        left, end = limit, 0
        for batch in MessagesReader(piece, Wanted("record"), most=limit):
            assert isinstance(batch, MessageBatch)
            taken = batch.messages[:left]
            left -= len(taken)
            end = taken[-1].offset() + 1 - info.mtime_ns
            if not left:
                break
        pieces.append(replace(piece, end=end, bytes=end))
        limit = left
        if not limit:
            break
    return [Split(0, tuple(pieces))]


class MessagesReader(Reader):
    """The messages of a range of offsets of one partition.

    It ends by position: the last offset may be a marker, or have been compacted away.

    Args:
        piece: the range.
        wanted: how.
        most: of the first batch, which is then the only one that matters.
    """

    units = 0

    def __init__(self, piece: Piece, wanted: Wanted, most: int | None = None) -> None:
        self._piece, self._wanted, self._most = piece, wanted, most
        self._topic, self._partition = _partition_of(piece.path)
        self._at = piece.start

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order.

        Raises:
            InputReadError: they are gone, or the cluster does not answer.
        """
        piece, kafka = self._piece, client()
        base, end = piece.mtime_ns, piece.mtime_ns + (piece.end or 0)
        if self._at >= (piece.end or 0):
            return
        consumer = kafka.Consumer(
            {
                "client.id": "modelbeam",
                "log_level": "3",
                "fetch.message.max.bytes": 8 << 20,
                **address.for_consumers(_settings()),
                "bootstrap.servers": self._topic.brokers,
                "group.id": _asked.group or "modelbeam-reads",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
            },
            logger=log,
        )
        try:
            place = kafka.TopicPartition(self._topic.name, self._partition, base + self._at)
            consumer.assign([place])
            heard = time.monotonic()
            position = base + self._at
            while position < end:
                good = []
                for message in consumer.consume(self._most or OFFSETS_A_BATCH, 0.2):
                    heard = time.monotonic()
                    if message.error() is None:
                        position = message.offset() + 1
                        if message.offset() < end:
                            good.append(message)
                    elif message.error().name() == "_PARTITION_EOF":
                        position = message.offset()
                    else:
                        raise self._failed(message.error().str())
                if time.monotonic() - heard > 3 * ANSWER_SECONDS:
                    raise self._failed("the cluster does not answer")
                if good:
                    self._at = good[0].offset() - base
                    yield MessageBatch(good, self._wanted.longest, self._wanted.keep)
                    heard = time.monotonic()
                self._at = min(position, end) - base
        except kafka.KafkaException as error:
            raise self._failed(error.args[0].str()) from None
        finally:
            with contextlib.suppress(Exception):
                consumer.close()

    def _failed(self, why: str) -> InputReadError:
        return InputReadError(
            f"{self._topic.url}, partition {self._partition}, cannot be read after offset "
            f"{self._piece.mtime_ns + self._at}: {why}. Run the same command with --resume."
        )

    def progress(self) -> tuple[int, int]:
        """How many offsets are done, and the offset of the batch."""
        return self._at - self._piece.start, self._piece.mtime_ns + self._at
