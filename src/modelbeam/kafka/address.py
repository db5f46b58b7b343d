"""Where a topic is, and the client settings that a file names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from modelbeam.errors import RequestError

SCHEME = "kafka://"
PORT = 9092

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Topic(NamedTuple):
    """A topic.

    Attributes:
        brokers: ``host:port``, several separated by commas.
        name: the topic's.
    """

    brokers: str
    name: str

    @property
    def url(self) -> str:
        """As the command line has it."""
        return f"{SCHEME}{self.brokers}/{self.name}"


class Asked(NamedTuple):
    """What a job says of its topics.

    Attributes:
        config: the file of client settings, if there is one.
        group: the consumer group.
        begin: where a group without offsets begins: ``earliest``, ``latest``, or milliseconds
            since the epoch.
        skip_lost: whether to go on at the first offset that is there where records are gone.
    """

    config: str | None = None
    group: str = ""
    begin: str | int = "earliest"
    skip_lost: bool = False


def is_topic(path: str) -> bool:
    """Whether a path is a topic's URL."""
    return path.lower().startswith(SCHEME)


def parse(url: str, flag: str) -> Topic:
    """Read ``kafka://host:port,host:port/topic``.

    Raises:
        RequestError: it is none; the message names ``flag``.
    """
    brokers, _, name = url[len(SCHEME) :].partition("/")
    if "@" in brokers:
        raise RequestError(
            f"{flag}: a Kafka URL holds no user and no password, since it is written to logs. Put "
            f"sasl.username and sasl.password into a file, and name it with --kafka-config."
        )
    listed = [broker if ":" in broker else f"{broker}:{PORT}" for broker in brokers.split(",")]
    if not all(re.fullmatch(r"(\[[0-9A-Fa-f:]+\]|[^:\s/]+):\d+", broker) for broker in listed):
        raise RequestError(f"{flag} {url}: write it as kafka://HOST:PORT/TOPIC.")
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise RequestError(
            f"{flag} {url}: '{name}' is no name of a topic, which has letters, digits, '.', '_' "
            f"and '-', at most 249 of them. Write it as kafka://HOST:PORT/TOPIC."
        )
    return Topic(",".join(listed), name)


OURS = {
    "bootstrap.servers": "it is a part of the URLs",
    "group.id": "use --group",
    "group.instance.id": "modelbeam needs it to tell lanes apart",
    "transactional.id": "modelbeam needs it to tell lanes apart",
    "enable.auto.commit": "offsets are committed with the predictions",
    "enable.auto.offset.store": "offsets are committed with the predictions",
    "enable.idempotence": "it is always on",
    "auto.offset.reset": "use --from and --on-data-loss",
    "isolation.level": "records of an aborted transaction are no data",
    "enable.partition.eof": "modelbeam needs it to know where it is",
}
"""Settings that a file may not have, and why."""


def read_settings(path: str) -> dict[str, str]:
    """The settings in a file of librdkafka's ``name=value`` lines; ``#`` begins a comment line.

    Raises:
        RequestError: it cannot be read, or has what it may not have. Values are never shown: they
            may be secrets.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RequestError(f"--kafka-config {path}: it cannot be read ({why}).") from None
    settings: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise RequestError(f"--kafka-config {path}, line {number}: write it as name=value.")
        if name in OURS:
            raise RequestError(
                f"--kafka-config {path}, line {number}: {name} cannot be set; {OURS[name]}."
            )
        if name in settings:
            raise RequestError(f"--kafka-config {path}, line {number}: {name} is there twice.")
        settings[name] = value.strip()
    return settings


_PRODUCERS = ("linger.", "batch.", "compression.", "queue.buffering.", "message.", "partitioner",
              "request.required.acks", "acks", "delivery.", "transaction.", "sticky.")  # fmt: skip
_CONSUMERS = ("fetch.", "session.", "heartbeat.", "max.poll.", "queued.", "partition.assignment.",
              "check.crcs", "group.")  # fmt: skip


def for_producers(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings without those that only consumers have."""
    return {name: value for name, value in settings.items() if not name.startswith(_CONSUMERS)}


def for_consumers(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings without those that only producers have."""
    return {name: value for name, value in settings.items() if not name.startswith(_PRODUCERS)}


def for_all(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings that every client has: how the cluster is reached."""
    return for_producers(for_consumers(settings))
