"""Where a group without offsets begins, with a real broker: one place, whoever comes when."""

from __future__ import annotations

from typing import Any

import pytest
from topics import Topics

from engines.clusters import Kafka
from modelbeam.kafka import address, beginning
from modelbeam.kafka.cluster import Cluster

pytestmark = pytest.mark.timeout(100)


class Group:
    """A group over a topic of two partitions, each with two records."""

    def __init__(self, kafka: Kafka, name: str) -> None:
        self.topics = Topics(kafka, name, partitions=2)
        self.name, self.cluster = name, Cluster(kafka.brokers, {})
        self.more()

    def more(self) -> None:
        """Two records more in each partition."""
        for partition in range(2):
            self.topics.send({"x": 1.0}, {"x": 2.0}, partition=partition)

    def settle(self, begin: str | int, *, exactly_once: bool = True) -> dict[int, int]:
        """Have it decided; where the group is then."""
        topic = address.parse(self.topics.input, "--input")
        own = (self.cluster, {}, topic, [0, 1], self.name, begin)
        beginning.settle(*own, exactly_once=exactly_once)
        return self.cluster.committed(self.name, topic.name, [0, 1])


@pytest.mark.parametrize("exactly_once", [True, False])
def test_whoever_comes_later_finds_it_for_every_partition(kafka: Kafka, exactly_once: bool) -> None:
    group = Group(kafka, f"later-{exactly_once}")
    assert group.settle("earliest", exactly_once=exactly_once) == {}  # nothing is to be decided
    assert group.settle("latest", exactly_once=exactly_once) == {0: 2, 1: 2}
    group.more()
    assert group.settle("latest", exactly_once=exactly_once) == {0: 2, 1: 2}
    assert group.settle(0, exactly_once=exactly_once) == {0: 2, 1: 2}


def test_of_two_that_begin_at_once_one_decides(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group(kafka, "at-once")
    places = beginning._places

    def slowly(*arguments: Any) -> Any:
        found = places(*arguments)
        monkeypatch.undo()
        group.more()
        assert group.settle("latest") == {0: 4, 1: 4}
        return found

    monkeypatch.setattr(beginning, "_places", slowly)
    assert group.settle("latest") == {0: 4, 1: 4}


def test_a_copy_that_comes_later_passes_nothing_over_and_reads_nothing_before(
    kafka: Kafka,
) -> None:
    group = Group(kafka, "copy")
    own = {"group": "copy", "start_from": "latest"}
    assert group.topics.run(**own, workers=2).read == 0
    group.topics.send({"x": 5.0}, partition=1)
    assert group.topics.run(**own, workers=1).read == 1
    assert group.topics.predictions() == [10.0]
