"""Everything that modelbeam raises on purpose.

::

    ModelbeamError
    ├── RequestError               the request is wrong and nothing ran (exit code 2)
    │   ├── InputNotFoundError     an input pattern matches no file
    │   ├── OutputExistsError      the output is there already
    │   ├── ResumeError            the run to be resumed was a different one
    │   └── ModelError             the model cannot be used
    │       ├── ModelNotFoundError the module or the class is not there
    │       ├── NotAModelError     the target is not a model
    │       ├── ModelLoadError     the model raised while it was imported or built
    │       ├── PackageError       it cannot be brought to the workers
    │       └── SchemaMismatchError  its input schema does not fit the data's columns
    ├── JobError                   the job ran and failed (exit code 1)
    │   ├── InputReadError         an input vanished, changed or cannot be read
    │   ├── OutputWriteError       the output cannot be written
    │   ├── StorageError           a store refuses: credentials, permission, bucket, library
    │   ├── WorkerDiedError        the process that held the model died
    │   ├── WorkerVersionError     a worker has other versions than the submission
    │   ├── TooManyErrorsError     more records failed than --max-errors allows
    │   ├── TooManyCrashesError    more records killed their process than --max-crashes allows
    │   ├── DriftError             a column is farther from the baseline than --fail-on-drift
    │   ├── NothingPredictedError  there were records and every one of them failed
    │   ├── EngineError            the engine refused, lost or cancelled the job
    │   │   ├── EngineUnreachableError  it does not answer
    │   │   ├── JobNotFoundError   it answers, and does not know the job
    │   │   └── InvisibleStateError  its workers do not see the job's state
    │   └── ReconciliationError    the counts do not add up
    └── InterruptedRunError        Ctrl-C or a termination signal (exit code 130)

Each has one message in plain words: what happened, where, and what to do. All of them survive
pickling, since they cross process boundaries.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar


class ModelbeamError(Exception):
    """The root of the tree.

    Attributes:
        code: what ``modelbeam explain`` takes; each class has its own, which never changes.
        exit_code: what the command line returns for it.
        details: the traceback's text, where it was raised in another process; else ``None``.
    """

    code: ClassVar[str] = "MB001"
    exit_code: int = 1
    details: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)


class RequestError(ModelbeamError):
    """The request is wrong; nothing ran."""

    code = "MB100"
    exit_code = 2


class InputNotFoundError(RequestError):
    """An input pattern matches no file."""

    code = "MB101"


class OutputExistsError(RequestError):
    """The output, or an unfinished run of it, is there already."""

    code = "MB102"


class ResumeError(RequestError):
    """The run to be resumed had another model, other settings or other inputs."""

    code = "MB103"


class ModelError(RequestError):
    """The model cannot be used."""

    code = "MB110"


class ModelNotFoundError(ModelError):
    """The model's module or class is not there."""

    code = "MB111"


class NotAModelError(ModelError):
    """The target exists and is not a model."""

    code = "MB112"


class ModelLoadError(ModelError):
    """The model raised while it was imported or built."""

    code = "MB113"


class PackageError(ModelError):
    """The model, or something that it needs, cannot be brought to the workers."""

    code = "MB114"


class SchemaMismatchError(ModelError):
    """The model needs columns that the data does not have."""

    code = "MB115"


class JobError(ModelbeamError):
    """The job ran and failed."""

    code = "MB200"


class InputReadError(JobError):
    """An input file vanished, changed during the run or cannot be read.

    Attributes:
        damaged: whether it cannot be read as it is; then it may be another one when the run is
            resumed.
        path: of the file that is damaged.
    """

    code = "MB201"
    damaged: bool = False
    path: str = ""


def is_damage(error: BaseException) -> bool:
    """Whether an input cannot be read as it is, so that all others can still be done."""
    return isinstance(error, InputReadError) and error.damaged


class OutputWriteError(JobError):
    """The output or the job's state cannot be written."""

    code = "MB202"


class StorageError(JobError):
    """A store refuses until someone fixes it: credentials, permission, bucket or library."""

    code = "MB203"


class WorkerDiedError(JobError):
    """The process that held the model died."""

    code = "MB204"


class WorkerVersionError(JobError):
    """A worker has other versions than the job was submitted with."""

    code = "MB205"


class TooManyErrorsError(JobError):
    """More records failed than ``--max-errors`` allows.

    Attributes:
        run: the run, if it was finished before; a :class:`modelbeam.Run`.
    """

    code = "MB206"
    run: Any = None


class TooManyCrashesError(JobError):
    """More records killed their process, or processes died, than ``--max-crashes`` allows."""

    code = "MB207"


class DriftError(JobError):
    """A column is farther from that of the baseline than ``--fail-on-drift`` allows.

    Attributes:
        run: what was published all the same.
    """

    code = "MB213"
    run: Any = None


class NothingPredictedError(JobError):
    """Not one record was predicted: every one failed, or there was none.

    Attributes:
        run: the run, with its counts and its errors files; a :class:`modelbeam.Run`.
    """

    code = "MB208"
    run: Any = None


class EngineError(JobError):
    """The engine refused, lost or cancelled the job."""

    code = "MB220"


class EngineUnreachableError(EngineError):
    """The engine does not answer."""

    code = "MB221"


class JobNotFoundError(EngineError):
    """The engine answers, and does not know the job."""

    code = "MB222"


class InvisibleStateError(EngineError):
    """The engine's workers do not see the job's state, or its inputs."""

    code = "MB223"


class ReconciliationError(JobError):
    """Records read, predicted and failed do not add up: a defect, never published."""

    code = "MB209"


class InterruptedRunError(ModelbeamError):
    """The run was stopped by Ctrl-C or a termination signal."""

    code = "MB002"
    exit_code = 130


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of ``known``, or an empty string."""
    import difflib

    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{nearest[0]}'?" if nearest else ""
