"""What every kind of model and every format must do, as tests to subclass (docs/extending.md).

::

    class TestScorecard(ModelKindContract):
        @pytest.fixture
        def target(self, tmp_path): ...
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from modelbeam import formats, models
from modelbeam.errors import ModelError
from modelbeam.formats.base import Piece, Wanted
from modelbeam.formats.layout import Layout, of_rows, together
from modelbeam.models import LoadedModel, Target
from modelbeam.predicting.conform import misfits
from modelbeam.predicting.dicts import DictsBatch
from modelbeam.predicting.failures import Failure, error_line
from modelbeam.predicting.outcome import Outcome, outcome_of
from modelbeam.sources import source_of


def predict(model: LoadedModel, records: list[Any], batch_size: int | None = None) -> Outcome:
    """What becomes of some records, without files and without Beam."""
    return outcome_of(DictsBatch(records), model, (), batch_size)


def written(outcome: Outcome) -> list[dict[str, Any]]:
    """The predictions of an outcome as they are written to JSON Lines, parsed again."""
    made = io.BytesIO()
    failures = formats.find("jsonl").writer(made).write(outcome)
    assert failures == [], "a prediction cannot be written as JSON"
    return [json.loads(line) for line in made.getvalue().splitlines()]


class ModelKindContract:
    """Subclass it, give the four fixtures, and pytest does the rest.

    Fixtures:
        target: what ``--model`` names: a path that is there, or ``module:Class``.
        records: some dicts that are predicted, at least three.
        expected: for each what is written.
        broken: some records that each fail.
    """

    def test_its_target_is_of_one_kind(self, target: Any) -> None:
        parsed = Target.parse(str(target))
        assert models.kind_of(parsed).takes(parsed)
        assert pickle.loads(pickle.dumps(parsed)) == parsed

    def test_its_description_is_plain_and_crosses_processes(self, target: Any) -> None:
        info = models.load(str(target)).info
        assert info.target == str(target)
        assert info.name
        assert info.style in ("record", "batch", "table")
        assert json.loads(json.dumps(info.to_dict()))["interface"]
        assert pickle.loads(pickle.dumps(info)) == info
        assert models.load(str(target), "other name").info.name == "other name"

    def test_it_predicts(
        self, target: Any, records: list[dict[str, Any]], expected: list[dict[str, Any]]
    ) -> None:
        outcome = predict(models.load(str(target)), records)
        assert outcome.failures == []
        assert written(outcome) == expected

    def test_its_output_is_as_its_schema_says(
        self, target: Any, records: list[dict[str, Any]]
    ) -> None:
        model = models.load(str(target))
        assert misfits(model.info.output_schema, written(predict(model, records))) == []

    def test_a_prediction_depends_on_its_record_alone(
        self, target: Any, records: list[dict[str, Any]], expected: list[dict[str, Any]]
    ) -> None:
        model = models.load(str(target))
        assert written(predict(model, records[::-1])) == expected[::-1]
        for size in (1, 2):
            assert written(predict(model, records, size)) == expected
        assert [written(predict(model, [record]))[0] for record in records] == expected

    def test_a_record_that_is_broken_fails_alone(
        self,
        target: Any,
        records: list[dict[str, Any]],
        expected: list[dict[str, Any]],
        broken: list[Any],
    ) -> None:
        model = models.load(str(target))
        for one in broken:
            outcome = predict(model, [records[0], one, *records[1:]])
            assert [failure.row for failure in outcome.failures] == [1], one
            assert outcome.failures[0].error
            assert written(outcome) == expected

    def test_records_and_earlier_predictions_stay_as_they_are(
        self, target: Any, records: list[dict[str, Any]], expected: list[dict[str, Any]]
    ) -> None:
        model = models.load(str(target))
        given = copy.deepcopy(records)
        first = predict(model, given)
        predict(model, records[::-1])
        assert given == records
        assert written(first) == expected

    def test_its_digest_is_that_of_what_it_is(self, target: Any) -> None:
        digest = models.load(str(target)).info.fingerprint
        assert digest
        assert models.load(str(target)).info.fingerprint == digest

    def test_one_that_is_not_there_is_an_error_that_names_it(self, target: Any) -> None:
        parsed = Target.parse(str(target))
        missing = f"{parsed.module}:NoSuchModel" if parsed.module else f"/no-such{parsed.suffix}"
        try:
            models.load(missing)
        except ModelError as error:
            message = str(error)
        else:
            message = "it was loaded"
        assert missing in message


class FormatContract:
    """Subclass it, give the three fixtures, and pytest does the rest.

    Fixtures:
        name: the format's, which is its suffix as well.
        content: a file of at least four records, the same as :attr:`records`.
        records: what it holds, as dicts of text, numbers, booleans and null.

    Attributes:
        typed: whether the format knows numbers from text without being told.
    """

    typed = True

    @pytest.fixture
    def path(self, tmp_path: Path, name: str, content: bytes) -> Path:
        """The file."""
        file = tmp_path / f"in.{name}"
        file.write_bytes(content)
        return file

    def test_its_suffix_names_it(self, name: str) -> None:
        known = formats.from_suffix(f"in.{name}")
        assert known is not None
        assert formats.find(known.name).name == known.name
        assert formats.from_suffix(f"in.{name}.gz") == formats.Format(known.name, "gzip")

    @pytest.mark.parametrize("size", [1, 7, 1 << 30])
    def test_every_record_is_read_once_whatever_the_pieces(
        self, path: Path, records: list[dict[str, Any]], size: int
    ) -> None:
        read = []
        for piece in _pieces(path, size):
            for batch in source_of(piece.path).reader(piece, Wanted("record")):
                decoded = batch.records()
                assert decoded.failures == []
                read += decoded.records
        assert read == records

    def test_a_compressed_file_is_read_as_the_plain_one(
        self, path: Path, records: list[dict[str, Any]]
    ) -> None:
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        (piece,) = _pieces(packed, 1 << 30)
        read = [
            record
            for batch in source_of(piece.path).reader(piece, Wanted("record"))
            for record in batch.records().records
        ]
        assert (piece.compression, read) == ("gzip", records)

    def test_the_first_records_are_found(self, path: Path, records: list[dict[str, Any]]) -> None:
        (piece,) = _pieces(path, 1 << 30)
        assert source_of(piece.path).first(piece, 2).records().records == records[:2]

    def test_a_record_says_where_it_is_and_what_it_was(
        self, path: Path, records: list[dict[str, Any]]
    ) -> None:
        (piece,) = _pieces(path, 1 << 30)
        found = []
        for batch in source_of(piece.path).reader(piece, Wanted("record")):
            decoded = batch.records()
            for row in decoded.rows or range(len(decoded.records)):
                found.append(next(iter(batch.position(row)._asdict().values())))
                original = batch.original(row, parsed=True)
                line = error_line("in", batch.position(row), "m", _FAILURE, original)
                assert json.loads(line)["record"] == records[len(found) - 1]
        assert found == sorted(set(found))
        assert found[0] >= 1

    def test_what_is_written_is_read_back(
        self, tmp_path: Path, name: str, path: Path, records: list[dict[str, Any]]
    ) -> None:
        (piece,) = _pieces(path, 1 << 30)
        written_to = tmp_path / f"out.{name}"
        rows = 0
        with written_to.open("wb") as handle:
            writer = formats.find(formats.parse(name, "name").name).writer(
                handle, _layout(records, {"predicted": "", "score": 0.5})
            )
            for batch in source_of(piece.path).reader(piece, Wanted("record")):
                decoded = batch.records()
                kept = batch.keep("all", decoded.rows)
                values = [{"predicted": f"a b={rows + n}", "score": 0.5} for n in range(len(kept))]
                made = Outcome(len(kept), values, False, None, kept, [])
                assert writer.write(made) == []
                rows += len(kept)
                bad = Outcome(1, [{"predicted": object()}], False, None, None, [])
                assert [failure.row for failure in writer.write(bad)] == [0]
            writer.close()
        assert writer.rows == rows == len(records)
        read = _read(written_to)
        assert [record.pop("predicted") for record in read] == [f"a b={n}" for n in range(rows)]
        assert [record.pop("score") for record in read] == [0.5 if self.typed else "0.5"] * rows
        assert read == records

    def test_parts_are_joined_in_order(
        self, tmp_path: Path, name: str, path: Path, records: list[dict[str, Any]]
    ) -> None:
        found = formats.find(formats.parse(name, "name").name)
        parts = []
        for number in range(3):
            part = tmp_path / f"part-{number}.{name}"
            with part.open("wb") as handle:
                writer = found.writer(handle, _layout(records, {"part": ""}), number)
                for batch in source_of(str(path)).reader(_pieces(path, 1 << 30)[0], _WANTED):
                    if number == 1:
                        continue  # one that has no records
                    kept = batch.keep("all", batch.records().rows)
                    values = [{"part": f"part {number}"}] * len(kept)
                    assert writer.write(Outcome(len(kept), values, False, None, kept, [])) == []
                writer.close()
            parts.append((str(part), part.stat().st_size))
        whole = tmp_path / f"whole.{name}"
        found.join(parts, str(whole))
        assert _read(whole) == [
            {**record, "part": f"part {number}"} for number in (0, 2) for record in records
        ]


_WANTED = Wanted("record")


def _layout(records: list[dict[str, Any]], predicted: dict[str, Any]) -> Layout:
    """The columns of an output that keeps all of the records beside what is predicted."""
    return together(of_rows(records), of_rows([predicted]))


def _read(path: Path) -> list[dict[str, Any]]:
    """All records of a file."""
    return [
        record
        for piece in _pieces(path, 1 << 30)
        for batch in source_of(piece.path).reader(piece, _WANTED)
        for record in batch.records().records
    ]


_FAILURE = Failure(0, "predict", "E", "why")


def _pieces(path: Path, size: int) -> list[Piece]:
    """The pieces of a file when splits have so many bytes."""
    source = source_of(str(path))
    files, *_ = source.discover([str(path)], any_suffix=False, excluded=())
    splits, _ = source.plan(files, size, input_format=None, earlier=None)
    return [piece for split in splits for piece in split.pieces]
