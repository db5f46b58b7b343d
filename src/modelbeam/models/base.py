"""The one protocol behind every kind of model."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from modelbeam.errors import ModelLoadError
from modelbeam.models.signature import MISSING, Signature
from modelbeam.models.turns import Turns
from modelbeam.text import describe

if TYPE_CHECKING:
    from typing_extensions import Self

Style = Literal["record", "batch", "table"]
"""What a model takes in one call: one dict, a list of dicts, or an Arrow ``RecordBatch``."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model says of itself; plain data that crosses process boundaries.

    Only the first three have no default.

    Attributes:
        target: as it was given.
        name: what error lines and the summary call it.
        style: what it takes in one call.
        qualified_name: the model's own unambiguous name; by default ``name``.
        display_name: a name for people.
        version: the model's version, such as ``0.1``.
        description: a sentence or more.
        interface: ``MLModel (schema)``, ``MLModel (pydantic)`` …
        input_schema: JSON Schema of a record, or ``None`` if the model's cannot be expressed.
        output_schema: JSON Schema of a prediction as it is written, or ``None``.
        signature: the columns that the model needs, or ``None`` if they cannot be told.
        distribution: ``name version`` of the installed package that holds the model, or ``None``.
        fingerprint: a digest of the model's file, or of its code and what lies beside it; a job
            with another one is not resumed. By default that of the target's file or directory.
        requires: names of the distributions that it needs on a worker, beside its kind's.
        warnings: what the user should know before a run; a sentence each, without the full stop.
        members: what each of several models says of itself, if this is all of them.
        route: the column that names the model of a record, where it goes to one of several.
    """

    target: str
    name: str
    style: Style
    qualified_name: str = ""
    display_name: str = ""
    version: str = "unknown"
    description: str = ""
    interface: str = ""
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    signature: Signature | None = None
    distribution: str | None = None
    fingerprint: str | None = None
    requires: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    members: tuple[ModelInfo, ...] = ()
    route: str | None = None

    def __post_init__(self) -> None:
        if not self.qualified_name:
            object.__setattr__(self, "qualified_name", self.name)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the signature, which the schemas say in full, for JSON."""
        described = asdict(self)
        for name in ("signature", "requires", "warnings", "members", "route"):
            del described[name]
        return described

    @property
    def each(self) -> tuple[ModelInfo, ...]:
        """Each of several models, or this one."""
        return self.members or (self,)


class WrongNumberOfPredictionsError(Exception):
    """A model returned more or fewer predictions than it was given records."""


class SchemaValidationError(Exception):
    """A record does not fit the columns that a model needs."""


Apart = Callable[[Any, int | None, bool], Any]
"""Predicts in another process: takes records, records per call, whether it must be a fresh one."""


class LoadedModel:
    """A model that is ready to predict. A kind sets ``info`` and has the call of its style.

    It is built in the thread that built the model. Its methods are not safe for threads by
    themselves: callers go through its turns.

    Attributes:
        info: what the model says of itself; its ``style`` tells which call it takes.
        turns: whose turn it is to call it; a kind that is known to be safe for threads sets
            ``turns.thread_safe``.
        trusted: whether what it returns is in nobody else's hands, ``None`` until that is known;
            see :mod:`modelbeam.predicting.results`.
        apart: for a model that is in another process, what predicts there.
        most: records of a call, once one with more ran out of memory.
        rows: records that the library itself gets at once, at most, where a kind cuts what it is
            given.
        validates_itself: whether ``predict`` applies the input schema; else it is applied before.
        members: the models that this is made of, if it is several; see
            :mod:`modelbeam.predicting.several`.
        compares: whether the predictions of several are only to be compared, so that NaN is one.
    """

    info: ModelInfo
    turns: Turns
    trusted: bool | None = None
    apart: Apart | None = None
    most: int | None = None
    rows: int | None = None
    validates_itself: bool = False
    members: tuple[LoadedModel, ...] = ()
    compares: bool = False

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Give every model its turns, whether or not a kind's constructor knows of them."""
        made = super().__new__(cls)
        made.turns = Turns()
        return made

    def predict(self, record: dict[str, Any]) -> Any:
        """Predict one record (style ``record``)."""
        raise NotImplementedError

    def predict_batch(self, records: list[dict[str, Any]]) -> list[Any]:
        """Predict a list of records, as many predictions in the same order (style ``batch``)."""
        raise NotImplementedError

    def predict_table(self, batch: Any) -> Any:
        """Predict a ``pyarrow.RecordBatch``, as many rows in the same order (style ``table``)."""
        raise NotImplementedError

    def validate(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record as the model's input schema has it, or raise what the schema raises.

        By default it is checked against the signature's columns, if there is one.
        """
        for column in self.info.signature.columns if self.info.signature else ():
            problem = column.problem(record.get(column.name, MISSING))
            if problem is not None:
                raise SchemaValidationError(problem)
        return record

    def validate_many(self, records: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Validate records at once; ``None`` if some are wrong, or only one at a time can tell.

        By default they are valid if their types alone say so.
        """
        signature = self.info.signature
        if signature is None:
            return records if type(self).validate is LoadedModel.validate else None
        return signature.plainly_valid(records) if signature.exact else None


def raise_load_error(target: object, when: str, error: BaseException, remedy: str = "") -> NoReturn:
    """Raise :class:`ModelLoadError` for what a model raised, with the line that it came from."""
    inside = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")  # such as <frozen os>
        and "importlib" not in frame.filename
        and os.path.dirname(frame.filename) != _HERE
    ]
    place = f" ({os.path.relpath(inside[-1].filename)}:{inside[-1].lineno})" if inside else ""
    text = describe(error) + (f".{remedy}" if remedy else "")
    raise ModelLoadError(
        f"--model {target} raised {type(error).__name__} {when}{place}: {text}"
    ) from error


_HERE = os.path.dirname(__file__)
