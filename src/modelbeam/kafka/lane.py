"""A lane: one consumer, one producer and one model, from a topic to others.

A lane is a member of the consumer group, so Kafka shares the partitions out among all lanes, here
and on other machines. Each turn takes some messages, predicts, and commits predictions, errors
and offsets in one transaction; Kafka holds the truth. Whatever fails before the commit has not
happened: the lane asks Kafka where it was, and goes on there. It never goes by its own memory.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from modelbeam.errors import JobError
from modelbeam.kafka import address
from modelbeam.kafka.address import Topic
from modelbeam.kafka.batch import MessageBatch
from modelbeam.kafka.cluster import Limits, client, gone, log
from modelbeam.kafka.delays import Delays, sampled
from modelbeam.kafka.identity import Identity, Numbered
from modelbeam.kafka.producing import (
    CALL_SECONDS,
    FENCED,
    HOPELESS,
    Deliveries,
    gone_away,
    put_offsets,
    settings_of,
)
from modelbeam.kafka.recent import Pair, with_newer
from modelbeam.kafka.records import Maker, Message
from modelbeam.kafka.tally import Tally
from modelbeam.models.base import LoadedModel
from modelbeam.models.turns import at_work
from modelbeam.predicting.batch import Keep
from modelbeam.predicting.counts import Counts
from modelbeam.predicting.outcome import outcome_of

SESSION_SECONDS = 6
"""After which a lane that is not heard of loses its partitions; the least that brokers take."""

TRANSACTION_SECONDS = 10
"""After which a transaction that a dead lane left open is ended by the broker."""

TURN_SECONDS = 1.0
"""How long a turn should take at most; as many records are taken as fit into it."""

MOST, FIRST = 10_000, 200
"""Records of a turn: at most, and of the first one."""

WAIT_SECONDS = 0.05
"""How long a turn waits for more messages."""

QUIET_SECONDS = 0.5
"""A model that takes longer is waited for while the consumer is kept in its group."""


@dataclass(frozen=True, slots=True)
class LaneJob:
    """What a lane is told; plain data that crosses process boundaries.

    Attributes:
        input, output, errors: topics.
        group: the consumer group.
        settings: of librdkafka's; they may hold secrets.
        keep: input columns that stand beside the predictions.
        batch_size: records a model call, or ``None`` for the model's best.
        longest: bytes that a record may have.
        exactly_once: whether there are transactions.
        form: what an error record holds.
        skip_lost: whether to go on at the first offset that is there where records are gone.
        ends: the offset of each partition at which to stop; ``None`` to go on.
        limits: what the output and the errors topic take.
        run: the run's name if it is to be found in the group's offsets how many records are done;
            see :class:`.tally.Tally`.
    """

    input: Topic
    output: Topic
    errors: Topic
    group: str
    settings: dict[str, str] = field(repr=False)
    keep: Keep
    batch_size: int | None
    longest: int
    exactly_once: bool
    form: Literal["original", "json"]
    skip_lost: bool
    ends: dict[int, int] | None
    limits: tuple[Limits, Limits]
    run: str = ""


@dataclass(slots=True)
class LaneProgress:
    """How a lane is.

    Attributes:
        counts: of the records whose transactions are committed.
        partitions: how many it has; ``None`` before it has joined its group.
        ended: partitions that it has brought to their ends.
        done: partitions of which there is nothing left to read now.
        turns: transactions with records that it has committed.
        idle: seconds since it had a message.
        latencies: milliseconds from a message's time to its commit, some of each turn since the
            last progress.
        delays: the same of all messages, by span.
        lost: what was passed over, a sentence each.
        name: who it is.
    """

    counts: Counts
    partitions: int | None = None
    ended: frozenset[int] = frozenset()
    done: frozenset[int] = frozenset()
    turns: int = 0
    idle: float = 0.0
    latencies: list[float] = field(default_factory=list)
    delays: Delays = field(default_factory=Delays)
    lost: tuple[str, ...] = ()
    name: str = ""


_Work = tuple[list[Message], list[Message], Counts, list[int]]
"""Predictions, error records, counts, and the rows that failed."""


class DataLossError(JobError):
    """Records that were not read yet are gone from the topic."""

    code = "MB210"


class Lane:
    """One lane.

    Args:
        job: what it does.
        model: loaded and ready.
        report: told of the progress, some times a second.
        stopped: asked whether to end.
        identity: who it is; by default a number that is free on this machine.
        careful: makes the model in a process apart, for records over which this lane's older self
            may have died; by default nobody asks (on this machine the processes are watched).

    Attributes:
        fenced: whether another with the same name has taken over since the last turn.
        recent: some of the records that it has predicted last.
    """

    def __init__(
        self,
        job: LaneJob,
        model: LoadedModel,
        report: Callable[[LaneProgress], None],
        stopped: Callable[[], bool],
        identity: Numbered | None = None,
        careful: Callable[[], LoadedModel] | None = None,
    ) -> None:
        self._job, self._model = job, model
        self._report, self._stopped = report, stopped
        self._kafka = client()
        self._identity = identity or Identity(job.group)
        self.fenced = False
        self.recent: tuple[Pair, ...] = ()
        self._careful = careful
        self._known = False
        self._doubtful = 0
        self._maker = Maker(model.info, *job.limits, job.form, job.input.url)
        self._progress = LaneProgress(Counts(), name=self._identity.name)
        self._producer: Any = None
        self._consumer: Any = None
        self._positions: dict[int, int] = {}
        self._tallies: dict[int, Tally] = {}
        self._begun: set[int] = set()
        self._changes = 0
        self._size = FIRST
        self._active = time.monotonic()
        self._at_end: set[int] = set()
        self._ending: set[int] = set()
        self._reported = 0.0
        self._loss: DataLossError | None = None
        self._deliveries = Deliveries()
        self._thread = ThreadPoolExecutor(1, "predict")

    def run(self, turns: int | None = None) -> LaneProgress:
        """Go on until it is stopped.

        Args:
            turns: end after so many that held messages.

        Raises:
            DataLossError: records are gone.
            JobError: a topic cannot be read or written.
        """
        done = 0
        try:
            while not self._stopped() and (turns is None or done < turns):
                done += self.turn()
            return self._told()
        finally:
            self.close()

    def turn(self) -> bool:
        """Some messages, if there are any within a moment; whether there were.

        Raises:
            DataLossError: records are gone.
            JobError: a topic cannot be read or written.
        """
        done = False
        try:
            if self._consumer is None:
                self._open()
            done = self._turn()
        except self._kafka.KafkaException as error:
            self._recover(error)
        self._tell()
        return done

    @property
    def doubtful(self) -> bool:
        """Whether the next records may be those over which its older self died."""
        return self._doubtful > 0

    @property
    def counts(self) -> Counts:
        """Of what this object has committed."""
        return self._progress.counts

    def close(self) -> None:
        """Leave the group; what is not committed has not happened."""
        self._close()
        self._identity.release()
        self._thread.shutdown(wait=False)

    def _open(self) -> None:
        """Producer first: it ends what the older self left open, so that its offsets are there."""
        self._positions.clear()
        self._deliveries.clear()
        self.fenced = False
        job = self._job
        shared = {"client.id": "modelbeam", "log_level": "3", **job.settings}
        shared["bootstrap.servers"] = job.input.brokers
        producing = settings_of(shared, job.output.brokers, job.limits)
        if job.exactly_once:
            producing["transactional.id"] = self._identity.name
            producing["transaction.timeout.ms"] = TRANSACTION_SECONDS * 1000
        self._producer = self._kafka.Producer(producing, logger=log)
        if job.exactly_once:
            self._producer.init_transactions(CALL_SECONDS)
        consuming = {
            "session.timeout.ms": SESSION_SECONDS * 1000,
            "heartbeat.interval.ms": SESSION_SECONDS * 1000 // 4,
            "fetch.wait.max.ms": 50,
            "partition.assignment.strategy": "roundrobin",  # eager: no partition is ever nobody's
            "fetch.message.max.bytes": 8 << 20,
            **address.for_consumers(shared),
            "group.id": job.group,
            "group.instance.id": self._identity.name,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }
        self._consumer = self._kafka.Consumer(consuming, logger=log)
        self._consumer.subscribe(
            [job.input.name],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._revoked,
        )

    # Partitions

    def _assigned(self, consumer: Any, places: list[Any]) -> None:
        """Begin each partition where the group is, or at its first offset."""
        try:
            consumer.assign(self._starts(consumer, places))
        except DataLossError as error:  # an exception in a callback would be lost
            self._loss = error
        self._changes += 1
        self._progress.partitions = len(places)
        self._active = time.monotonic()

    def _starts(self, consumer: Any, places: list[Any]) -> list[Any]:
        kafka, topic, job = self._kafka, self._job.input.name, self._job
        if not places:
            return []
        answers = consumer.committed(places, timeout=CALL_SECONDS)
        known = {place.partition: place.offset for place in answers}
        for place in answers:
            tally = Tally.read_from(place.metadata, job.run)
            self._tallies[place.partition] = tally
            if self._careful is not None and not self._known and tally.lane == self._identity.name:
                self._doubtful = max(self._doubtful, tally.most)
        starts = []
        for partition, offset in known.items():
            place = kafka.TopicPartition(topic, partition)
            first, high = consumer.get_watermark_offsets(place, timeout=CALL_SECONDS)
            new = False
            if offset < 0:  # see :mod:`.beginning`
                offset, new = first, True
            elif not first <= offset <= high:
                offset, new = self._lost(partition, offset, first, high), True
            if new or self._careful is not None:  # whoever dies over its records is to be known
                self._positions[partition] = offset  # committed with the next transaction
                self._begun.add(partition)
            starts.append(kafka.TopicPartition(topic, partition, offset))
        return starts

    def _lost(self, partition: int, offset: int, first: int, high: int) -> int:
        """What is gone, and where to go on."""
        job = self._job
        what = gone(job.input, job.group, partition, offset, first, high)
        if not job.skip_lost:
            raise DataLossError(
                f"{what}. Nothing was predicted beyond that. To go on at the first record that is "
                f"there, add --on-data-loss earliest."
            )
        self._progress.lost += (what,)
        return first

    def _revoked(self, _: Any, places: list[Any]) -> None:
        self._changes += 1
        for place in places:
            self._positions.pop(place.partition, None)
            self._begun.discard(place.partition)
        self._at_end.clear()
        self._ending.clear()
        self._progress.partitions = None

    # Turns

    def _turn(self) -> bool:
        """Some messages from consuming to commit; whether there were any."""
        began, changes = time.monotonic(), self._changes
        consumed = self._consumer.consume(self._size, WAIT_SECONDS)
        if self._loss is not None:
            raise self._loss
        if consumed and changes != self._changes:  # some may be from before; not predicted twice
            self._back()
            return False
        messages = self._messages(consumed)
        if not messages:
            if self._begun:
                self._commit([], [])
            self._progress.ended |= self._ending
            self._progress.done = frozenset(self._at_end)
            return False
        self._active = time.monotonic()
        self._progress.done = frozenset()  # what it has taken is not done yet
        if self._careful is not None and self._begun:
            self._commit([], [])
        self._known = True
        predicted, failed, counts, rows = self._predicted(messages)
        partitions = [message.partition() for message in messages]
        last = dict(zip(partitions, messages, strict=True))  # of each partition the last one
        self._positions.update((one, message.offset() + 1) for one, message in last.items())
        if not self._owns(last, changes):
            return False  # taken away meanwhile: whoever has them does them
        for partition, number in Counter(partitions).items():
            self._tallies[partition].read += number
        for row in rows:
            self._tallies[messages[row].partition()].failed += 1
        self._commit(predicted, failed)
        self._progress.ended |= self._ending
        self._progress.done = frozenset(self._at_end)
        self._progress.counts.add(counts, 0)
        self._progress.turns += 1
        self.recent = with_newer(
            self.recent, messages, rows, [one.value or b"" for one in predicted]
        )
        self._note_latency(messages)
        self._doubtful = max(0, self._doubtful - len(messages))
        seconds = time.monotonic() - began
        fitting = int(len(messages) * TURN_SECONDS / max(seconds, 1e-3))
        self._size = max(1, min(MOST, fitting, 4 * self._size))
        return True

    def _messages(self, consumed: list[Any]) -> list[Any]:
        """Those that are records; the others say that a partition ends, or what is wrong."""
        good = []
        for message in consumed:
            error = message.error()
            if error is None:
                self._at_end.discard(message.partition())
                if self._beyond(message.partition(), message.offset()):
                    self._end(message.partition())
                else:
                    good.append(message)
            elif error.name() == "_PARTITION_EOF":
                self._at_end.add(message.partition())
                if self._beyond(message.partition(), message.offset()):
                    self._end(message.partition())
            elif error.name() in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"):
                raise DataLossError(
                    f"Records of {self._job.input.url}, partition {message.partition()}, are gone "
                    f"(expired or deleted) before they were read: {error.str()}. To go on at the "
                    f"first record that is there, start again with --on-data-loss earliest."
                )
            elif error.name() in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"):
                raise JobError(f"The topic {self._job.input.url} is gone: {error.str()}.")
            elif error.name() in ("TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED"):
                raise JobError(f"{self._job.input.url} may not be read: {error.str()}.")
            else:
                raise self._kafka.KafkaException(error)
        return good

    def _beyond(self, partition: int, offset: int) -> bool:
        ends = self._job.ends
        return ends is not None and offset >= ends.get(partition, 0)

    def _end(self, partition: int) -> None:
        self._ending.add(partition)
        place = self._kafka.TopicPartition(self._job.input.name, partition)
        self._consumer.pause([place])

    def _predicted(self, messages: list[Any]) -> _Work:
        """Predict, and stay a member of the group however long that takes."""
        work: Future[_Work]
        work = self._thread.submit(self._work, messages)
        try:
            return work.result(QUIET_SECONDS)
        except TimeoutError:
            return self._waited(work)

    def _waited(self, work: Future[_Work]) -> _Work:
        """The result of what takes long; meanwhile the consumer is heard of, and given nothing."""
        consumer = self._consumer
        held = consumer.assignment()
        consumer.pause(held)
        while not work.done():
            stray = consumer.poll(0.1)
            if stray is not None and stray.error() is None:  # of a partition that has just come
                place = self._kafka.TopicPartition(stray.topic(), stray.partition(), stray.offset())
                consumer.seek(place)
                consumer.pause([place])
            self._tell()
        held = self._ending
        going = [place for place in consumer.assignment() if place.partition not in held]
        consumer.resume(going)
        return work.result()

    def _work(self, messages: list[Any]) -> _Work:
        job, counts = self._job, Counts()
        batch = MessageBatch(messages, job.longest, job.keep)
        careful = self._careful if self._doubtful > 0 else None
        model = self._model if careful is None else careful()
        with at_work():
            outcome = outcome_of(batch, model, job.keep, job.batch_size)
        predicted, failed = self._maker.made(batch, outcome)
        if outcome.read != len(messages) or len(predicted) + len(failed) != len(messages):
            raise JobError(
                f"{job.input.url}: of {len(messages)} records {len(predicted)} were predicted and "
                f"{len(failed)} failed. This is a defect of modelbeam; please report it."
            )
        for failure, _ in failed:
            counts.add_failure(failure, batch.position(failure.row), job.input.url)
        counts.predicted += len(predicted)
        counts.read += len(messages)
        counts.recovered += outcome.recovered
        rows = [failure.row for failure, _ in failed]
        return predicted, [message for _, message in failed], counts, rows

    def _owns(self, partitions: Iterable[int], changes: int) -> bool:
        """Whether some partitions have been this lane's ever since.

        One that was taken away and given back meanwhile may have been another's in between, which
        has done the same messages.
        """
        mine = {place.partition for place in self._consumer.assignment()}
        if mine.issuperset(partitions) and changes == self._changes:
            return True
        self._back()
        return False

    def _commit(self, predicted: list[Message], failed: list[Message]) -> None:
        """One transaction: all of it, or nothing."""
        job = self._job
        if job.exactly_once:
            self._producer.begin_transaction()
        for topic, made in ((job.output.name, predicted), (job.errors.name, failed)):
            for message in made:
                self._deliveries.produce(self._producer, topic, message)
        places = [self._place(partition, offset) for partition, offset in self._positions.items()]
        self._deliveries.flush(self._producer)
        if job.exactly_once:
            member = self._consumer.consumer_group_metadata()
            if not put_offsets(self._producer, places, member):
                self._producer = None  # it is left behind
                raise gone_away()
            self._producer.commit_transaction(CALL_SECONDS)
        else:
            self._consumer.commit(offsets=places, asynchronous=False)
        self._begun.clear()

    def _place(self, partition: int, offset: int) -> Any:
        """An offset to commit, and what is to stand beside it."""
        beside: list[str] = []
        if self._job.run:
            tally = self._tallies[partition]
            tally.lane = self._identity.name
            tally.most = max(min(MOST, 4 * self._size), self._doubtful)
            beside = [tally.written(self._job.run)]
        return self._kafka.TopicPartition(self._job.input.name, partition, offset, *beside)

    # When something fails

    def _recover(self, cause: Any) -> None:
        """Abort, and go on where Kafka says that the group is."""
        error = cause.args[0]
        log.info("lane %s: %s", self._identity.name, error.str())
        self.fenced = error.name() in FENCED
        if error.name() in HOPELESS:
            raise JobError(f"{self._job.input.url}: {error.str()}.") from None
        try:
            if error.fatal() or self._consumer is None:
                raise cause
            self._deliveries.clear()
            if self._job.exactly_once:
                self._producer.abort_transaction(CALL_SECONDS)
            self._back()
        except self._kafka.KafkaException:
            self._close()
            if not self._stopped():
                time.sleep(0.3)

    def _back(self) -> None:
        """Forget what is not committed."""
        self._positions.clear()
        self._at_end.clear()
        self._ending.clear()
        mine = self._consumer.assignment()
        if mine:
            self._consumer.resume(mine)
            for place in self._starts(self._consumer, mine):
                self._consumer.seek(place)

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        producer, self._producer = self._producer, None
        self._progress.partitions = None
        with suppress(Exception):
            if producer is not None and self._job.exactly_once:
                producer.abort_transaction(2.0)
        with suppress(Exception):
            if consumer is not None:
                consumer.close()

    # What is said of it

    def _note_latency(self, messages: list[Any]) -> None:
        progress = self._progress
        found = sampled(messages, time.time() * 1000)
        for milliseconds, number in found:
            progress.delays.add(milliseconds, number)
        if len(progress.latencies) < 1000:
            progress.latencies += [one for one, _ in found[:: max(1, len(found) // 10)]]

    def _tell(self) -> None:
        if time.monotonic() - self._reported >= 0.2:
            self._report(self._told())
            self._progress.latencies = []
            self._reported = time.monotonic()

    def _told(self) -> LaneProgress:
        progress = self._progress
        if progress.partitions and len(self._at_end) < progress.partitions:
            self._active = time.monotonic()  # there is more, or that is not known yet
        progress.idle = time.monotonic() - self._active
        return progress
