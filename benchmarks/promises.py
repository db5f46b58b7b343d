"""What each of modelbeam's promises costs, by switching it off inside one process.

One thread predicts the splits of one file again and again; each variant replaces a function by one
that does less. Only the work on the splits is timed: no start-up, no Beam, no publishing.
``run.py promises`` starts it with the environment of one of modelbeam's workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from harness import Table

from modelbeam import models, storage
from modelbeam.formats import Format, lines
from modelbeam.formats.jsonl import columns as jsonl_columns
from modelbeam.job import split
from modelbeam.job.task import Progress, Task
from modelbeam.models.base import LoadedModel
from modelbeam.predicting import predictor as predicting
from modelbeam.predicting.predictor import Predictions
from modelbeam.sinks.files import attempt
from modelbeam.sources import splits

MODELS = {"IrisTable": "columns", "IrisBatch": "lists of dicts", "NearlyNothing": "one dict"}
Variant = Callable[[], contextlib.AbstractContextManager[Any]]


def measure(source: Path, runs: int) -> Table:
    """Seconds for the file with each promise kept, and with one of them switched off."""
    heading = ["seconds for the file", *(f"{m} ({takes})" for m, takes in MODELS.items())]
    loaded = [models.load(f"iris_lr:{name}") for name in MODELS]
    times = {name: [[] for _ in loaded] for name in VARIANTS}
    for _ in range(runs + 1):  # the first round warms up
        for name, variant in VARIANTS.items():
            for model, taken in zip(loaded, times[name], strict=True):
                with variant():
                    taken.append(_seconds(source, model))
    rows = []
    for name in VARIANTS:
        cells = []
        for taken, base in zip(times[name], times["all promises kept"], strict=True):
            median, whole = statistics.median(taken[1:]), statistics.median(base[1:])
            cells.append(f"{median:.3f} ({median / whole:.2f})")
        rows.append([name, *cells])
    return [heading, *rows]


def _seconds(source: Path, model: LoadedModel) -> float:
    with tempfile.TemporaryDirectory(dir=source.parent) as state:
        for name in ("attempts", "manifests"):
            (Path(state) / name).mkdir()
        task = Task(state, "benchmark", Format("jsonl"), (), None, 32 << 20)
        info = storage.stat(str(source))
        planned = splits.plan_splits([info], splits.default_split_size([info]))
        started = time.perf_counter()
        for one in planned:
            split.predict_split(one, task, model, REPORT)
        return time.perf_counter() - started


def _report_to(descriptor: int) -> Callable[[Progress], None]:
    return lambda progress: os.write(descriptor, pickle.dumps(progress)) and None


REPORT: Callable[[Progress], None] | None = _report_to(os.open(os.devnull, os.O_WRONLY))
"""As a worker reports: pickled and written."""


def _no_validation() -> contextlib.AbstractContextManager[Any]:
    """Lists of dicts go to the model as they are. One dict is validated by the model itself, and
    columns while they are decoded, so neither has anything to switch off."""
    return mock.patch("modelbeam.models.mlmodel.MLModel.validate_many", lambda _, records: records)


@contextlib.contextmanager
def _no_isolation() -> Iterator[None]:
    """The model is called once a batch, and its first exception ends the job."""

    def records(model: LoadedModel, batch: list[dict[str, Any]]) -> Predictions:
        return Predictions(list(map(model.predict, batch)), None, [])

    def lists(model: LoadedModel, batch: list[dict[str, Any]], _: int | None) -> Predictions:
        valid = model.validate_many(batch)
        return Predictions(model.predict_batch(valid or []), None, [])

    def tables(model: LoadedModel, batch: Any, _: int | None) -> Predictions:
        return Predictions([model.predict_table(batch)], None, [])

    with (
        mock.patch.object(predicting, "predict_records", records),
        mock.patch.object(predicting, "predict_batch", lists),
        mock.patch.object(predicting, "predict_table", tables),
    ):
        yield


@contextlib.contextmanager
def _no_manifests() -> Iterator[None]:
    """No manifest, no check that the input is unchanged and that lines and counts agree."""

    def finish(self: attempt.FilesAttempt, *_: Any) -> None:
        self._writer = None
        for kind in list(self._handles):
            self._close(kind)

    with (
        mock.patch.object(attempt.FilesAttempt, "commit", finish),
        mock.patch.object(lines, "_check_unchanged", return_value=None),
        mock.patch.object(jsonl_columns, "decode", _decode_uncounted),
    ):
        yield


_decode = jsonl_columns.decode


def _decode_uncounted(block: lines.LineBlock, signature: Any) -> Any:
    block.count = block.data.count(b"\n")  # the decoder cannot do without it
    return _decode(block, signature)


def _no_progress() -> contextlib.AbstractContextManager[Any]:
    """Nobody is told how far a split is."""
    return mock.patch.dict(globals(), {"REPORT": None})


VARIANTS: dict[str, Variant] = {
    "all promises kept": contextlib.nullcontext,
    "no validation": _no_validation,
    "no error isolation": _no_isolation,
    "no manifests and counts": _no_manifests,
    "no progress": _no_progress,
}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
