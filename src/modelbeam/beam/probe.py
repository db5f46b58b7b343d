"""What an engine's workers are asked when the engine is examined."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from modelbeam import models, storage
from modelbeam.beam.on_worker import settle, told
from modelbeam.errors import (
    InvisibleStateError,
    OutputWriteError,
)
from modelbeam.job.description import ModelSpec
from modelbeam.sources.splits import PLAN_FILE
from modelbeam.storage import join


@dataclass(frozen=True)
class ProbeJob:
    """What workers are asked when an engine is examined; plain data.

    Attributes:
        model: what they must be able to load.
        place: a directory that the submitting process made beside the job's state.
        secret: what it wrote there, so that another machine's directory of that name is noticed.
        inputs: path, size in bytes and modification time in ns of some input files.
        versions, flags: as in :class:`WorkerJob`.
    """

    model: ModelSpec
    place: str
    secret: str
    inputs: tuple[tuple[str, int, int], ...]
    versions: dict[str, str]
    flags: tuple[str, ...]

    def answer(self) -> None:
        """Try everything, and leave an answer in the place.

        Raises:
            ModelbeamError: something is not as it must be.
        """
        host = socket.gethostname()
        settle(self.flags, self.versions)
        file = join(self.place, PLAN_FILE)
        if not storage.exists(file) or storage.read_bytes(file).decode() != self.secret:
            raise InvisibleStateError(
                f"the worker on {host} does not see {self.place}. --output must be on storage that "
                f"the workers share with the submitting machine."
            )
        for path, size, _ in self.inputs:
            if not storage.exists(path):
                raise InvisibleStateError(
                    f"the worker on {host} does not see the input {path}. --input must be on "
                    f"storage that the workers share with the submitting machine."
                )
            if (found := storage.stat(path).size) != size:
                raise InvisibleStateError(
                    f"the input {path} has {found} bytes for the worker on {host} and {size} here: "
                    f"it is another file."
                )
        model = self.model
        models.load(model.target, model.name, model.arguments, model.options)
        try:
            content = json.dumps({"host": host}).encode()
            storage.write_atomically(join(self.place, f"answer-{os.urandom(4).hex()}"), content)
        except OSError as error:
            raise OutputWriteError(
                f"the worker on {host} cannot write to {self.place}: {error.strerror or error}."
            ) from error


class Probe(beam.DoFn):
    """Answers whether a worker can do the job.

    Args:
        work: what is asked.
    """

    def __init__(self, work: ProbeJob) -> None:
        self._work = work

    def process(self, _: Any) -> None:
        """Answer."""
        with told("trying the model"):
            self._work.answer()
