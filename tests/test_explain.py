"""Every kind of error and of failed record has one code that never changes, and is explained."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import modelbeam
from modelbeam import cli, errors
from modelbeam.errors import ModelbeamError
from modelbeam.explain import ALL, Explanation, code_of_failure, find
from modelbeam.report.progress import failure_lines

FROZEN = {
    "ModelbeamError": "MB001", "InterruptedRunError": "MB002", "RequestError": "MB100",
    "InputNotFoundError": "MB101", "OutputExistsError": "MB102", "ResumeError": "MB103",
    "ModelError": "MB110", "ModelNotFoundError": "MB111", "NotAModelError": "MB112",
    "ModelLoadError": "MB113", "PackageError": "MB114", "SchemaMismatchError": "MB115",
    "JobError": "MB200", "InputReadError": "MB201", "OutputWriteError": "MB202",
    "StorageError": "MB203", "WorkerDiedError": "MB204", "WorkerVersionError": "MB205",
    "TooManyErrorsError": "MB206", "TooManyCrashesError": "MB207",
    "NothingPredictedError": "MB208", "ReconciliationError": "MB209", "DataLossError": "MB210",
    "StoppedError": "MB211", "SplitsDiedError": "MB212", "DriftError": "MB213",
    "EngineError": "MB220",
    "EngineUnreachableError": "MB221", "JobNotFoundError": "MB222",
    "InvisibleStateError": "MB223",
    "JSONDecodeError": "MB301", "NotAnObjectError": "MB302", "RecordTooLongError": "MB303",
    "UnicodeDecodeError": "MB304", "CsvError": "MB305", "HeaderAgainError": "MB306",
    "PartitionMismatchError": "MB307", "NotARecordError": "MB308", "SchemaValidationError": "MB311",
    "WrongTypeError": "MB312", "NoTypeError": "MB313", "UnknownRouteError": "MB314",
    "UnknownCategoryError": "MB315", "WrongNumberOfPredictionsError": "MB321",
    "EmptyPredictionError": "MB322", "ProcessDiedError": "MB323", "TimeoutError": "MB324",
    "TooMuchMemoryError": "MB325", "NotAPredictionError": "MB331", "ColumnClashError": "MB332",
    "UnknownColumnError": "MB333", "DoesNotFitError": "MB334", "MessageTooLargeError": "MB335",
    "an exception of the model": "MB390", "an exception of the schema": "MB391",
    "a prediction that cannot be written": "MB392", "a record that cannot be read": "MB393",
}  # fmt: skip
"""Never change a line of this: people search for codes, and scripts compare them. Only add."""

INTERNAL = {
    "CutOffError", "DamagedError", "GoneError", "DialectError", "NotFiniteError", "NotThatError",
    "PreconditionError", "RefusedError", "SourceError", "TooLargeError", "TransientError",
    "_BetweenError", "_GoneError",
}  # fmt: skip
"""Exceptions that are always caught by ours, and turned into one of the others."""

SOURCE = Path(modelbeam.__file__).parent


def subclasses(cls: type[ModelbeamError]) -> Iterator[type[ModelbeamError]]:
    """A class and all below it that are modelbeam's own."""
    yield cls
    for one in cls.__subclasses__():
        if one.__module__.startswith("modelbeam."):
            yield from subclasses(one)


def our_errors() -> list[type[ModelbeamError]]:
    """The whole tree, with what is outside of errors.py."""
    for module in ("kafka.lane", "local.pool", "local.worker"):
        importlib.import_module(f"modelbeam.{module}")
    return list(subclasses(ModelbeamError))


def defined() -> dict[str, str]:
    """The exceptions that are defined anywhere in the package, by name: what they derive from."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Exception")):
                found[node.name] = ast.unparse(node.bases[0])
    return found


def test_codes_are_as_they_were() -> None:
    assert {one.name: one.code for one in ALL} == FROZEN
    codes = [one.code for one in ALL]
    assert len(set(codes)) == len(codes)
    assert codes == sorted(codes)


def test_each_class_of_the_tree_has_a_code_of_its_own() -> None:
    found = our_errors()
    assert len(found) == 30
    assert {cls.__name__: cls.__dict__.get("code") for cls in found} == {
        name: code for name, code in FROZEN.items() if code[2] < "3"
    }
    for cls in found:
        first = {"RequestError": "1", "JobError": "2"}
        place = next(
            (n for base, n in first.items() if issubclass(cls, getattr(errors, base))), "0"
        )
        assert cls.code[2] == place, cls


def test_there_is_no_exception_without_a_code() -> None:
    found = defined()
    assert found.keys() >= {"DataLossError", "CsvError", "DamagedError"}
    assert found.keys() - INTERNAL - FROZEN.keys() == set()
    assert found.keys() >= INTERNAL


def test_every_type_that_a_failed_record_is_given_has_a_code() -> None:
    """Of types that are written out where a failure is made."""
    known = {(one.name, stage) for one in ALL for stage in one.stages}
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "Failure"):
                continue
            if len(node.args) >= 3:
                stage, type_ = (ast.unparse(one).strip("'") for one in node.args[1:3])
                found.add((type_.removesuffix(".__name__"), stage))
    own = {pair for pair in found if pair[0].endswith("Error")}
    assert len(own) >= 10
    builtin = {("ValueError", "encode")}
    assert own - known - builtin == set()


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.code)
def test_an_explanation_is_more_than_the_docstring_again(one: Explanation) -> None:
    docs = [cls.__doc__ or "" for cls in our_errors() if cls.__name__ == one.name]
    for doc in docs:
        known = set(re.findall(r"\w+", doc.lower()))
        new = [word for word in re.findall(r"\w+", one.meaning.lower()) if word not in known]
        assert len(new) >= 8
    assert len(one.meaning) >= 70
    assert len(one.remedy) >= 30
    assert one.meaning[0].isupper()
    assert one.remedy.endswith(".")
    assert one.meaning.endswith(".")
    assert bool(one.stages) == (one.code[2] == "3")


@pytest.mark.parametrize(
    ("stage", "type_", "code"),
    [
        ("decode", "JSONDecodeError", "MB301"),
        ("predict", "JSONDecodeError", "MB390"),
        ("predict", "ZeroDivisionError", "MB390"),
        ("validate", "SchemaError", "MB391"),
        ("encode", "ColumnClashError", "MB332"),
        ("", "other failures", None),
    ],
)
def test_the_code_of_a_failure_is_by_stage_and_type(
    stage: str, type_: str, code: str | None
) -> None:
    assert code_of_failure(stage, type_) == code


def test_the_summary_names_the_code_last() -> None:
    kind = {"stage": "encode", "type": "ColumnClashError", "count": 2, "error": "it clashes",
            "source": "a.jsonl", "line": 3, "where": "m.py:1 in predict"}  # fmt: skip
    [line] = failure_lines({"failures": [kind]})
    assert line.endswith("a.jsonl:3: it clashes [m.py:1 in predict] [MB332]")


def test_an_error_ends_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["check", "-i", "a", "-o", "b", "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.err == "modelbeam: --model is missing; every job needs it. [MB100]\n"
    said = json.loads(shown.out)["error"]
    assert (said["code"], said["message"]) == ("MB100", "--model is missing; every job needs it.")


@pytest.mark.parametrize("asked", ["MB115", "mb115", "[MB115]", "SchemaMismatchError"])
def test_a_code_or_a_type_is_explained(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["explain", asked]) == 0
    shown = capsys.readouterr().out
    wanted = find("MB115")
    assert wanted is not None
    for part in (wanted.code, wanted.name, wanted.meaning, wanted.remedy, "exit code 2"):
        assert part in shown
    assert cli.run(["explain", asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["meaning"] == wanted.meaning


def test_all_are_listed_and_what_is_unknown_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["explain"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ALL)
    assert cli.run(["explain", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["codes"]) == len(ALL)
    assert cli.run(["explain", "ColumnClashEror"]) == 2
    assert "did you mean 'ColumnClashError'?" in capsys.readouterr().err
    assert cli.run(["explain", "MB101", "more"]) == 2


def test_what_remedies_name_is_there() -> None:
    """Flags, commands and pages; so that a remedy never leads nowhere."""
    from modelbeam.cli.main import COMMANDS
    from modelbeam.cli.parser import flags_of

    flags = {flag for command in COMMANDS for flag in flags_of(command)}
    docs = SOURCE.parents[1] / "docs"
    for one in ALL:
        text = f"{one.meaning} {one.remedy}"
        assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", text)) <= flags, one.code
        commands = set(re.findall(r"(?<!\S)modelbeam ([a-z]+)(?= -| [A-Z]| with)", text))
        assert commands <= set(COMMANDS), one.code
        for page in re.findall(r"docs/(\S+\.md)", text):
            assert (docs / page).exists(), one.code


def test_codes_survive_pickling() -> None:
    import pickle

    error: Any = pickle.loads(pickle.dumps(errors.InputNotFoundError("gone")))
    assert error.code == "MB101"
