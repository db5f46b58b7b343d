"""What every kind of model must do, as tests that a kind's own subclass (docs/extending.md).

::

    class TestScorecard(ModelKindContract):
        @pytest.fixture
        def target(self, tmp_path): ...
"""

from __future__ import annotations

import copy
import io
import json
import pickle
from typing import Any

from modelbeam import formats, models
from modelbeam.errors import ModelError
from modelbeam.models import LoadedModel, Target
from modelbeam.predicting.conform import misfits
from modelbeam.predicting.dicts import DictsBatch
from modelbeam.predicting.outcome import Outcome, outcome_of


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
