"""What a run came to: its counts and files, read from ``run.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelbeam import text
from modelbeam.errors import JobError, NothingPredictedError


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

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
