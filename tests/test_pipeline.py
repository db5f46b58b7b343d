"""The transforms in pipelines of one's own, and the job's own pipeline on more than one runner."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, Sessions, TimestampedValue
from commands import write_lines

import modelbeam
from modelbeam.errors import (
    JobError,
    ModelLoadError,
    ModelNotFoundError,
    NotAModelError,
    RequestError,
)

LOCAL = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
STREAMING = "BundleBasedDirectRunner"  # Beam's local runner for TestStream

IRIS = "iris_model.iris_predict"
FLOWER = {"sepal_length": 5.1, "sepal_width": 3.8, "petal_length": 1.6, "petal_width": 0.2}
STYLES = ["Doubler", "BatchDoubler", "TableDoubler"]


def outputs(
    records: Iterable[Any], transform: beam.PTransform, *flags: str, spread: bool = False
) -> dict[str, Any]:
    """Apply ``Predict`` to records, spread over bundles or in order; each output as a list."""
    kept: dict[str, list[Any]] = {"predictions": [], "failures": []}
    _kept[id(kept)] = kept
    with beam.Pipeline(runner=LOCAL, options=PipelineOptions(list(flags))) as pipeline:
        made = pipeline | beam.Create(list(records), reshuffle=spread) | transform
        for name in kept:
            made[name] | name >> beam.Map(_keep, id(kept), name)
    return _kept.pop(id(kept))


_kept: dict[int, dict[str, list[Any]]] = {}


def _keep(value: Any, key: int, name: str) -> None:
    _kept[key][name].append(value)


# MLModelPredictOperation


def test_the_operation_takes_a_dict_and_gives_the_prediction():
    operation = modelbeam.MLModelPredictOperation(module_name=IRIS, class_name="IrisModel")
    with beam.Pipeline(runner=LOCAL) as pipeline:
        made = pipeline | beam.Create([FLOWER]) | beam.ParDo(operation)
        assert_that(made, equal_to([{"species": "setosa"}]))


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        ("cli_models", "OnlyAName", NotAModelError),
        (IRIS, "Path", NotAModelError),
        (IRIS, "IrisModell", ModelNotFoundError),
        ("no_such_module", "Model", ModelNotFoundError),
    ],
)
def test_the_operation_refuses_what_is_no_model_when_it_is_made(module, name, error):
    with pytest.raises(error, match=f"{module}:{name}"):
        modelbeam.MLModelPredictOperation(module_name=module, class_name=name)


def test_a_record_that_the_model_rejects_raises_in_the_operation():
    operation = modelbeam.MLModelPredictOperation(module_name=IRIS, class_name="IrisModel")
    pipeline = beam.Pipeline(runner=LOCAL)
    pipeline | beam.Create([{"sepal_length": "long"}]) | beam.ParDo(operation)
    with pytest.raises(Exception, match="Failed to validate input data"):
        pipeline.run()


def test_the_operation_builds_its_model_only_in_a_worker():
    operation = modelbeam.MLModelPredictOperation("cli_models", "FailsWhenBuilt")
    pipeline = beam.Pipeline(runner=LOCAL)
    pipeline | beam.Create([{"x": 1.0}]) | beam.ParDo(operation)
    with pytest.raises(Exception, match=r"weights\.bin is not there"):
        pipeline.run()


# Predict


@pytest.mark.parametrize("style", STYLES)
def test_predictions_and_failures_are_two_outputs(style):
    records = [{"x": 1.0}, {"x": -1.0}, {"x": 2.0}]
    made = outputs(records, modelbeam.Predict(f"small_models:{style}"))
    assert made["predictions"] == [{"y": 2.0}, {"y": 4.0}]
    (failure,) = made["failures"]
    assert (failure["stage"], failure["type"]) == ("predict", "ValueError")
    assert failure["error"] == "x is negative: -1.0"
    assert failure["record"] == {"x": -1.0}
    assert failure["model"].endswith("doubler")


@pytest.mark.parametrize("style", STYLES)
def test_a_record_that_does_not_fit_the_schema_is_a_failure(style):
    made = outputs([{"x": 1.0}, {"z": 1.0}], modelbeam.Predict(f"small_models:{style}"))
    assert made["predictions"] == [{"y": 2.0}]
    assert [failure["record"] for failure in made["failures"]] == [{"z": 1.0}]


@pytest.mark.parametrize("style", ["BatchDoubler", "TableDoubler"])
def test_a_record_of_a_wrong_type_fails_in_validation(style):
    made = outputs([{"x": "one"}], modelbeam.Predict(f"small_models:{style}"))
    assert [failure["stage"] for failure in made["failures"]] == ["validate"]


@pytest.mark.parametrize("style", STYLES)
def test_every_record_leaves_once_and_in_order_whatever_the_batch(style):
    records = [{"x": float(n) if n % 7 else -1.0, "n": n} for n in range(50)]
    made = outputs(records, modelbeam.Predict(f"small_models:{style}", keep="all", batch_size=8))
    assert [row["n"] for row in made["predictions"]] == [n for n in range(50) if n % 7]
    assert [row["record"]["n"] for row in made["failures"]] == list(range(0, 50, 7))
    assert all(row["y"] == 2 * row["x"] for row in made["predictions"])


@pytest.mark.parametrize(
    ("keep", "row"),
    [
        ("all", {"id": 7, "x": 1.0, "y": 2.0}),
        ("id", {"id": 7, "y": 2.0}),
        (["x", "none"], {"x": 1.0, "y": 2.0}),
        ((), {"y": 2.0}),
    ],
)
def test_kept_columns_stand_before_the_prediction(keep, row):
    made = outputs([{"id": 7, "x": 1.0}], modelbeam.Predict("small_models:Doubler", keep=keep))
    assert made["predictions"] == [row]
    assert list(made["predictions"][0]) == list(row)


def test_a_column_that_is_kept_and_predicted_is_a_failure():
    made = outputs([{"x": 1.0, "y": 9.0}], modelbeam.Predict("small_models:Doubler", keep="all"))
    assert made["predictions"] == []
    assert [(f["stage"], f["type"]) for f in made["failures"]] == [("encode", "ColumnClashError")]


def test_the_model_is_given_no_more_records_than_the_batch_size():
    records = [{"x": float(n)} for n in range(10)]
    made = outputs(records, modelbeam.Predict("cli_models:BatchSizes", batch_size=4))
    assert [row["size"] for row in made["predictions"]] == [4] * 8 + [2] * 2


def test_a_model_by_its_own_name_with_arguments_of_its_own():
    transform = modelbeam.Predict("triple=cli_models:Times", arguments={"factor": 3.0})
    made = outputs([{"x": 1.0}, {}], transform)
    assert made["predictions"] == [{"y": 3.0}]
    assert [failure["model"] for failure in made["failures"]] == ["triple"]


def test_a_newer_model_predicts_dicts():
    made = outputs([{"Size": 2.0}, {"Size": 0.0}], modelbeam.Predict("cli_models:Newer"))
    assert made["predictions"] == [{"species": "virginica", "garden": None}]
    assert [failure["type"] for failure in made["failures"]] == ["ValidationError"]


def test_a_model_that_cannot_be_pickled_predicts():
    made = outputs([{"x": 1.0}], modelbeam.Predict("cli_models:Unpicklable"))
    assert made["predictions"] == [{"y": 2.0}]


@pytest.mark.parametrize("target", ["model", "models/iris.weights"])
def test_a_target_that_is_no_models_is_refused_when_the_transform_is_made(target):
    with pytest.raises(NotAModelError):
        modelbeam.Predict(target)


def test_a_model_that_cannot_be_loaded_stops_the_pipeline():
    with pytest.raises(Exception, match=r"weights\.bin is not there"):
        outputs([{"x": 1.0}], modelbeam.Predict("cli_models:FailsWhenBuilt"))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("element", [[1.0], None])
def test_an_element_that_is_no_dict_is_a_failure(style, element):
    made = outputs([{"x": 1.0}, element], modelbeam.Predict(f"small_models:{style}"))
    assert made["predictions"] == [{"y": 2.0}]
    assert [failure["record"] for failure in made["failures"]] == [element]


def test_the_same_model_with_other_arguments_is_another_model():
    with beam.Pipeline(runner=LOCAL) as pipeline:
        records = pipeline | beam.Create([{"x": 1.0}])
        for factor in (3.0, 5.0):
            transform = modelbeam.Predict("cli_models:Times", arguments={"factor": factor})
            made = records | f"times {factor}" >> transform
            assert_that(made.predictions, equal_to([{"y": factor}]), label=f"is {factor}")


def test_threads_share_one_model():
    records = [{"x": float(n)} for n in range(200)]
    threads = ["--direct_num_workers=4", "--direct_running_mode=multi_threading"]
    made = outputs(records, modelbeam.Predict("cli_models:Counted"), *threads, spread=True)
    assert len(made["predictions"]) == 200
    assert len({row["thread"] for row in made["predictions"]}) > 1
    assert len({row["object"] for row in made["predictions"]}) == 1
    assert {row["built"] for row in made["predictions"]} == {1}


# Windows


class _WithWindow(beam.DoFn):
    """Puts its window's end and its timestamp beside each element."""

    def process(
        self,
        element: Any,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterable[tuple[float, float, Any]]:
        yield float(window.end), float(timestamp), element


@pytest.mark.parametrize("style", STYLES)
def test_a_stream_keeps_its_windows_and_timestamps(style):
    stream = (
        test_stream.TestStream()
        .advance_watermark_to(0)
        .add_elements(
            [
                TimestampedValue({"x": 1.0}, 1),
                TimestampedValue({"x": 2.0}, 12),
                TimestampedValue({"x": -3.0}, 14),
            ]
        )
        .advance_watermark_to(20)
        .add_elements([TimestampedValue({"x": 4.0}, 25), TimestampedValue({"x": 5.0}, 8)])
        .advance_watermark_to_infinity()
    )
    with beam.Pipeline(runner=STREAMING, options=PipelineOptions(["--streaming"])) as pipeline:
        windowed = pipeline | stream | beam.WindowInto(FixedWindows(10), allowed_lateness=60)
        made = windowed | modelbeam.Predict(f"small_models:{style}", batch_size=2)
        right = made.predictions | "seen" >> beam.ParDo(_WithWindow())
        wrong = made.failures | "failed" >> beam.ParDo(_WithWindow())
        wrong = wrong | beam.MapTuple(lambda end, time, row: (end, time, row["record"]["x"]))
        expected = [(10, 1, 2.0), (20, 12, 4.0), (30, 25, 8.0), (10, 8, 10.0)]
        assert_that(right, equal_to([(e, t, {"y": y}) for e, t, y in expected]), label="right")
        assert_that(wrong, equal_to([(20, 14, -3.0)]), label="wrong")


def test_predictions_can_be_counted_by_window():
    stream = (
        test_stream.TestStream()
        .add_elements([TimestampedValue({"x": float(n)}, n) for n in range(25)])
        .advance_watermark_to_infinity()
    )
    with beam.Pipeline(runner=STREAMING, options=PipelineOptions(["--streaming"])) as pipeline:
        made = (
            pipeline
            | stream
            | beam.WindowInto(FixedWindows(10))
            | modelbeam.Predict("small_models:BatchDoubler", batch_size=4)
        )
        counts = (
            made.predictions
            | beam.CombineGlobally(beam.combiners.CountCombineFn()).without_defaults()
            | beam.ParDo(_WithWindow())
            | beam.MapTuple(lambda end, time, count: (end, count))  # noqa: ARG005
        )
        assert_that(counts, equal_to([(10, 10), (20, 10), (30, 5)]))


# Several models


BOTH = {
    "a": "small_models:Doubler",
    "b": {"target": "cli_models:Times", "arguments": {"factor": 3.0}},
}


def test_several_models_predict_each_record_and_fail_by_themselves():
    records = [{"id": 1, "x": 1.0}, {"id": 2, "x": -1.0}, {"id": 3, "x": "no"}]
    made = outputs(records, modelbeam.Predict(models=BOTH, keep="id"))
    assert made["predictions"] == [
        {"id": 1, "a": {"y": 2.0}, "b": {"y": 3.0}},
        {"id": 2, "a": None, "b": {"y": -3.0}},
    ]
    failed = [(one["model"], one["record"]["id"]) for one in made["failures"]]
    assert sorted(failed) == [("a", 2), ("a", 3), ("b", 3)]


def test_a_column_sends_a_record_to_one_of_several_models():
    records = [{"x": 1.0, "to": "a"}, {"x": 2.0, "to": "b"}, {"x": 3.0, "to": "c"}]
    made = outputs(records, modelbeam.Predict(models=BOTH, route="to"))
    assert made["predictions"] == [{"a": {"y": 2.0}, "b": None}, {"a": None, "b": {"y": 6.0}}]
    [failure] = made["failures"]
    assert (failure["type"], failure["record"]) == ("UnknownRouteError", records[2])


def test_models_of_columns_and_of_records_stand_beside_each_other():
    models = {"columns": "small_models:TableDoubler", "lists": "small_models:BatchDoubler"}
    records = [{"x": float(n)} for n in range(-2, 5)]
    made = outputs(records, modelbeam.Predict(models=models, batch_size=3))
    assert made["predictions"] == [
        {"columns": {"y": 2.0 * n}, "lists": {"y": 2.0 * n}} for n in range(5)
    ]
    assert len(made["failures"]) == 4


def test_a_kept_column_that_is_called_like_a_model_is_refused_or_fails():
    with pytest.raises(RequestError, match=r"column 'a' that is kept.*models=\{'a_model'"):
        modelbeam.Predict(models=BOTH, keep=["a"])
    made = outputs([{"x": 1.0, "a": 5}, {"x": 2.0}], modelbeam.Predict(models=BOTH, keep="all"))
    assert made["predictions"] == [{"x": 2.0, "a": {"y": 4.0}, "b": {"y": 6.0}}]
    assert {(one["model"], one["type"]) for one in made["failures"]} == {
        ("a", "ColumnClashError"),
        ("b", "ColumnClashError"),
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "takes a model"),
        ({"model": "a:B", "models": {"a": "a:B"}}, "takes a model"),
        ({"models": {}}, "there are none"),
        ({"models": {"1 a": "a:B"}}, "'1 a' is no name"),
        ({"models": {"a": {"target": "a:B", "feature": "x"}}}, "unknown key 'feature'"),
        ({"models": {"a": "a:B"}, "arguments": {}}, "each has its own"),
        ({"model": "a:B", "route": "to"}, "but one model"),
        ({"model": "a:B", "max_wait": 0}, "above 0"),
    ],
)
def test_what_does_not_go_together_is_refused_when_it_is_made(given, said):
    with pytest.raises(RequestError, match=said):
        modelbeam.Predict(**given)


# Waiting for a batch


class _Sizes(beam.DoFn):
    """How many records were in the call that predicted this one, with its window's end and time."""

    def process(self, row, timestamp=beam.DoFn.TimestampParam, window=beam.DoFn.WindowParam):
        yield int(window.end), int(timestamp), row["size"]


@pytest.fixture
def clock(monkeypatch):
    """The stream's own time of day."""
    from modelbeam.beam import predict

    monkeypatch.setattr(predict, "_now", lambda: 0.0)


@pytest.mark.usefixtures("clock")
def test_records_wait_for_a_batch_of_their_window_but_not_too_long():
    """Three make a batch; what has waited for 5 s, or whose window ends, leaves with fewer."""
    stream = (
        test_stream.TestStream()
        .advance_watermark_to(0)
        .add_elements([TimestampedValue({"x": 1.0}, 1)])
        .add_elements([TimestampedValue({"x": 1.0}, 12)])
        .add_elements([TimestampedValue({"x": 1.0}, 2), TimestampedValue({"x": 1.0}, 3)])
        .advance_processing_time(6)
        .add_elements([TimestampedValue({"x": 1.0}, 14), TimestampedValue({"x": 1.0}, 13)])
        .advance_watermark_to_infinity()
    )
    with beam.Pipeline(runner=STREAMING, options=PipelineOptions(["--streaming"])) as pipeline:
        made = (
            pipeline
            | stream
            | beam.WindowInto(FixedWindows(10))
            | modelbeam.Predict("cli_models:BatchSizes", batch_size=3, max_wait=5)
        )
        sizes = made.predictions | beam.ParDo(_Sizes())
        expected = [(10, 1, 3), (10, 2, 3), (10, 3, 3), (20, 12, 1), (20, 13, 2), (20, 14, 2)]
        assert_that(sizes, equal_to(expected))


def test_a_bounded_collection_is_predicted_whole_though_its_last_batch_is_not_full():
    records = [{"x": float(n), "n": n} for n in range(-1, 9)]
    transform = modelbeam.Predict("small_models:TableDoubler", keep="n", batch_size=4, max_wait=60)
    made = outputs(records, transform)
    assert sorted(row["n"] for row in made["predictions"]) == list(range(9))
    assert [one["record"] for one in made["failures"]] == [records[0]]


def test_records_do_not_wait_in_windows_that_merge():
    pipeline = beam.Pipeline(runner=LOCAL)
    sessions = pipeline | beam.Create([{"x": 1.0}]) | beam.WindowInto(Sessions(5))
    with pytest.raises(RequestError, match="windows that merge"):
        sessions | modelbeam.Predict("small_models:Doubler", max_wait=1)


# The job's own pipeline


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Records of which some fail, with a blank and a broken line among them."""
    path = tmp_path_factory.mktemp("data") / "in.jsonl"
    write_lines(path, [{"x": n / 8 - 10.0, "id": n} for n in range(6000)])
    with path.open("a") as handle:
        handle.write('\n{"x": 1.0\n{"x": 1.0, "id": 6000}')
    return path


def written(data: Path, directory: Path, model: str, **settings: Any) -> dict[str, bytes]:
    """Run a job of several splits; the content of its data files by name."""
    run = modelbeam.predict(
        model=f"small_models:{model}",
        input=str(data),
        output=str(directory),
        keep=["id"],
        split_size=30_000,
        **settings,
    )
    assert (run.read, run.failed) == (6002, 81)
    assert run.description["splits"] == 5
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix == ".jsonl"}


@pytest.fixture(scope="module")
def by_one_thread(data, tmp_path_factory) -> dict[str, bytes]:
    """What one worker writes."""
    return written(data, tmp_path_factory.mktemp("out") / "one", "TableDoubler", workers=1)


def test_one_worker_writes_a_shard_a_split(by_one_thread):
    names = [f"predictions-{n:05d}-of-00005.jsonl" for n in range(5)]
    assert sorted(by_one_thread) == [
        "errors-00000-of-00005.jsonl",
        "errors-00004-of-00005.jsonl",
        *names,
    ]
    ids = [json.loads(line)["id"] for name in names for line in by_one_thread[name].splitlines()]
    assert ids == list(range(80, 6001))


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_worker_modes_write_the_same_bytes(data, tmp_path, by_one_thread, mode):
    settings: dict[str, Any] = {"workers": 2, "worker_mode": mode}
    assert written(data, tmp_path / "out", "TableDoubler", **settings) == by_one_thread


def test_another_runner_writes_the_same_bytes(data, tmp_path, by_one_thread):
    flags = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    made = written(data, tmp_path / "out", "TableDoubler", beam_options=flags)
    assert made == by_one_thread


def test_a_model_that_cannot_be_loaded_stops_the_job_before_a_runner_sees_it(data, tmp_path):
    flags = ["--runner=PortableRunner", "--job_endpoint=embed"]
    with pytest.raises(ModelLoadError, match=r"weights\.bin is not there"):
        modelbeam.predict(
            model="cli_models:FailsWhenBuilt",
            input=str(data),
            output=str(tmp_path / "out"),
            beam_options=flags,
        )
    assert not (tmp_path / "out").exists()


def test_an_input_that_cannot_be_read_is_one_error_on_another_runner(tmp_path):
    (tmp_path / "in.jsonl.gz").write_bytes(b"\x1f\x8bnot gzip")
    flags = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    with pytest.raises(JobError, match=r"in\.jsonl\.gz"):
        modelbeam.predict(
            model="small_models:Doubler",
            input=str(tmp_path / "in.jsonl.gz"),
            output=str(tmp_path / "out"),
            beam_options=flags,
        )
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_a_model_file_predicts_in_a_pipeline_of_ones_own(tmp_path: Path) -> None:
    import joblib
    from sklearn.tree import DecisionTreeClassifier

    fitted = DecisionTreeClassifier(random_state=0).fit([[0.0], [1.0], [2.0]], ["a", "b", "b"])
    joblib.dump(fitted, tmp_path / "m.joblib")
    rows = [{"x": 0.0, "id": 1}, {"x": 2, "id": 2}, {"x": "no", "id": 3}]
    step = modelbeam.Predict(str(tmp_path / "m.joblib"), keep=["id"], features=["x"], proba=True)
    with beam.Pipeline() as pipeline:
        outcome = pipeline | beam.Create(rows) | step
        assert_that(
            outcome.predictions,
            equal_to(
                [
                    {"id": 1, "prediction": "a", "probability_a": 1.0, "probability_b": 0.0},
                    {"id": 2, "prediction": "b", "probability_a": 0.0, "probability_b": 1.0},
                ]
            ),
        )
        failed = outcome.failures | beam.Map(lambda one: one["record"]["id"])
        assert_that(failed, equal_to([3]), label="failures")
    with pytest.raises(TypeError, match="no argument 'probas'"):
        modelbeam.Predict("m.joblib", probas=True)
