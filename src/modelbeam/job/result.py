"""What a run came to: its counts and files, read from ``run.json``."""

from __future__ import annotations

import html
import importlib
from dataclasses import dataclass
from typing import Any

from modelbeam import text
from modelbeam.errors import JobError, NothingPredictedError, RequestError


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A finished run; in a notebook it shows itself as a small table.

    Attributes:
        read, predicted, failed: records; ``read == predicted + failed``.
        shards: the files of predictions, in the order of the input.
        errors: the files of error lines.
        output: where it all is.
        seconds: from start to finish.
        failures: for each stage and type of failure ``stage``, ``type``, ``count`` and the first
            one's ``source``, ``line``, ``offset`` and ``error``.
        description: all of ``run.json``.
    """

    read: int
    predicted: int
    failed: int
    shards: tuple[str, ...]
    errors: tuple[str, ...]
    output: str
    seconds: float
    failures: tuple[dict[str, Any], ...]
    description: dict[str, Any]

    @classmethod
    def of(cls, description: dict[str, Any]) -> Run:
        """Read it from the content of ``run.json``."""
        counts, files = description["counts"], description["files"]
        errors = tuple(f for f in files if _is_errors_file(f))
        return cls(
            read=counts["read"],
            predicted=counts["predicted"],
            failed=counts["failed"],
            shards=tuple(f for f in files if f not in errors),
            errors=errors,
            output=description["output"],
            seconds=description["seconds"],
            failures=tuple(description["failures"]),
            description=description,
        )

    def to_arrow(self) -> Any:
        """All predictions as a ``pyarrow.Table``, in the order of the input.

        Types are those of the files; of JSON those that hold all values of a column, else text.

        Raises:
            RequestError: the run is a stream, which has no end.
            InputReadError: a file of predictions is gone or cannot be read.
        """
        from modelbeam.job.frames import arrow_table

        return arrow_table(self.shards, self.description)

    def to_polars(self) -> Any:
        """The same as a ``polars.DataFrame``."""
        polars = _library("polars", "to_polars")
        return polars.from_arrow(self.to_arrow())

    def to_pandas(self) -> Any:
        """The same as a ``pandas.DataFrame``; needs pandas."""
        _library("pandas", "to_pandas")
        return self.to_arrow().to_pandas()

    def __repr__(self) -> str:
        return (
            f"<Run: {self.read:,} read, {self.predicted:,} predicted, {self.failed:,} failed in "
            f"{self.seconds:.1f} s, in {self.output}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        models = self.description.get("models") or [self.description.get("model") or {}]
        counts = f"{self.read:,} read, {self.predicted:,} predicted, {self.failed:,} failed"
        rows = [
            ("models", ", ".join(map(_model_text, models))),
            ("records", counts),
            ("seconds", f"{self.seconds:,.1f}"),
            ("output", self.output),
            *(("failed records", path) for path in self.errors[:1]),
            *(
                (f"{kind['count']:,} x {kind['type']}", f"{place_of(kind)}: {kind['error'][:200]}")
                for kind in self.failures[:SHOWN]
            ),
        ]
        cells = "".join(
            f'<tr><th style="text-align: left">{html.escape(name)}</th>'
            f'<td style="text-align: left">{html.escape(said)}</td></tr>'
            for name, said in rows
        )
        return f"<table>{cells}</table>"


SHOWN = 5
"""Kinds of failures that a notebook shows."""


def _model_text(model: dict[str, Any]) -> str:
    name, version = str(model.get("name", "")), str(model.get("version", "unknown"))
    return name if version == "unknown" else f"{name} {version}"


def _library(name: str, method: str) -> Any:
    """Import a library that a frame is of.

    Raises:
        RequestError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RequestError(
            f"run.{method}() needs {name}, which cannot be imported ({error}). Install it with: "
            f"pip install {name}. run.to_arrow() does without."
        ) from error


def _is_errors_file(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.startswith("errors-") or name.endswith(".errors.jsonl")


def place_of(failure: dict[str, Any]) -> str:
    """Where the first failure of a kind is, for people."""
    source = failure["source"]
    if "partition" in failure:
        return f"{source}, offset {failure['offset']}"
    number = failure.get("line", failure.get("row"))
    return f"{source}" if number is None else f"{source}:{number}"


def finished_run(description: dict[str, Any] | None) -> Run:
    """The run that a description tells of.

    Raises:
        NothingPredictedError: there were records and every one failed.
    """
    if description is None:
        raise JobError("The pipeline ended without publishing. Run again with --resume.")
    run = Run.of(description)
    if run.description["status"] != "succeeded":
        if not run.read:
            files = text.count(len(description["job"]["inputs"]), "file")
            empty = NothingPredictedError(
                f"No record was found in the input ({files}, "
                f"{text.size(description['bytes_read'])}), so nothing was predicted."
            )
            empty.run = run
            raise empty
        first = run.failures[0]
        error = NothingPredictedError(
            f"Not one of {run.read} records could be predicted. The first: {place_of(first)} "
            f"{first['type']}: {first['error']}. All of them are in "
            f"{run.errors[0]}{' and others' if len(run.errors) > 1 else ''}."
        )
        error.run = run
        raise error
    return run
