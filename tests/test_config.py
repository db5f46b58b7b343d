"""The YAML file of a job: references to the environment, and how it and the command line meet."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from commands import write_lines
from hypothesis import given
from hypothesis import strategies as st

from modelbeam import cli, models
from modelbeam import testing as model_testing
from modelbeam.beam.options import check_flags
from modelbeam.cli.parser import build_parser
from modelbeam.errors import NotAModelError, RequestError
from modelbeam.job.config import as_flags, grouped, merged_flags
from modelbeam.job.description import Job, build_job
from modelbeam.job.flags import runner_of, storage_flags
from modelbeam.job.schema import schema


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job_of(text: str, **given: object) -> Job:
    Path("job.yaml").write_text("model: m:M\ninput: in.jsonl\noutput: out/\n" + text)
    return build_job(given, "job.yaml")


def test_one_flag_on_the_command_line_leaves_the_files_other_options_alone() -> None:
    text = "beam_options: [--runner=flink, --flink_master, 'host:8081', --parallelism=4]\n"
    job = job_of(text, beam_options=("--parallelism", "8"))
    assert job.beam_options == (
        *("--runner=flink", "--flink_master", "host:8081", "--parallelism", "8"),
    )
    assert runner_of(job.beam_options) == "flink"


def test_beam_options_may_be_a_mapping() -> None:
    text = "beam_options: {runner: flink, parallelism: 4, streaming: true, x: false, e: [a, b]}\n"
    assert job_of(text).beam_options == (
        *("--runner=flink", "--parallelism=4", "--streaming", "--e=a", "--e=b"),
    )
    with pytest.raises(RequestError, match=r"line 4, 'beam_options': give a list of flags"):
        job_of("beam_options: 7\n")


names = st.sampled_from(["--runner", "--job-name", "--job_name", "--experiments", "--region"])
flags = st.lists(
    st.one_of(
        st.tuples(names, st.text("ab", min_size=1)).map(lambda f: [f"{f[0]}={f[1]}"]),
        st.tuples(names, st.text("ab", min_size=1)).map(list),
        names.map(lambda name: [name]),
    ),
    max_size=5,
).map(lambda groups: [token for group in groups for token in group])


@given(flags, flags)
def test_of_each_name_the_command_lines_flags_count_and_else_the_files(
    file: list[str], line: list[str]
) -> None:
    merged = grouped(merged_flags(file, line))
    of_line = {name for name, _ in grouped(line)}
    for name in {name for name, _ in merged} | of_line:
        side = line if name in of_line else file
        assert [t for n, t in merged if n == name] == [t for n, t in grouped(side) if n == name]


def test_references_are_looked_up_and_secrets_are_not_written_down(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    import modelbeam

    monkeypatch.setenv("PLACE", str(here / "somewhere"))
    monkeypatch.setenv("FACTOR", "hunter2")
    write_lines(here / "in.jsonl", [{"x": 1.0}])
    Path("job.yaml").write_text(
        "model: {target: cli_models:Says, arguments: {what: '${FACTOR}', also: '$${FACTOR}'}}\n"
        "input: in.jsonl\noutput: ${PLACE}/out.jsonl\n"
    )
    job = build_job({}, "job.yaml")
    assert job.output == f"{here}/somewhere/out.jsonl"
    assert job.model.arguments == {"what": "${FACTOR}", "also": "$${FACTOR}"}
    assert job.model.keywords() == {"what": "hunter2", "also": "${FACTOR}"}
    Path("somewhere").mkdir()
    run = modelbeam.predict(
        model={"target": "cli_models:Says", "arguments": job.model.arguments},
        input="in.jsonl",
        output=job.output,
    )
    assert json.loads(Path(run.shards[0]).read_text()) == {"what": "hunter2", "also": "${FACTOR}"}
    assert "hunter2" not in json.dumps(run.description)


def test_a_variable_that_is_not_set_is_named_with_its_key() -> None:
    with pytest.raises(RequestError, match=r"line 4, 'keep': the .* variable NO_SUCH is not set"):
        job_of("keep: ['${NO_SUCH}']\n")


@pytest.mark.parametrize("template", ["in/{{ds}}.jsonl", "in/$DATE.jsonl"])
def test_a_template_that_nobody_filled_in_is_said(template: str) -> None:
    with pytest.raises(RequestError, match="a template that nothing has filled in"):
        job_of("", inputs=template)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--force", "--overwrite"),
        ("--dry-run", "modelbeam check"),
        ("--select", "--keep"),
        ("--n-jobs", "--workers"),
        ("--n_jobs=4", "--workers"),
        ("--batch", "--batch-size"),
    ],
)
def test_flags_of_other_programs_are_answered(flag: str, said: str) -> None:
    with pytest.raises(RequestError, match=f"unknown flag .*: .*{said}"):
        check_flags([flag])


class Something:
    """Handed over like a model."""


def test_a_class_of_a_module_is_named_and_what_is_no_model_is_refused() -> None:
    job = build_job({"models": [Something], "inputs": "in.jsonl", "output": "out"})
    assert (str(job.model.target), job.model.target.form) == ("test_config:Something", "class")
    with pytest.raises(NotAModelError, match="test_config:Something is no model"):
        build_job({"models": [Something()], "inputs": "in.jsonl", "output": "out"})


def test_a_table_as_input_is_told_what_to_do() -> None:
    with pytest.raises(RequestError, match="write a table or a list to a file"):
        build_job({"models": "m:M", "inputs": [{"x": 1}], "output": "out"})


def test_workers_are_told_of_storage_and_of_nothing_else() -> None:
    given = ["--runner=flink", "--s3_access_key_id", "k", "--azure_connection_string=s", "--x=1"]
    assert storage_flags([*given, "--no_auth"]) == (
        *("--s3_access_key_id", "k", "--azure_connection_string=s", "--no_auth"),
    )


def test_flags_from_a_mapping_keep_their_order() -> None:
    assert as_flags({"b": 1, "--a": None, "c": "x"}) == ["--b=1", "--c=x"]


def test_every_flag_of_a_job_has_its_key_and_every_key_its_flag() -> None:
    flags = build_parser().parse_args(["predict"])
    talk = {"command", "config", "json", "no_progress", "quiet", "verbose"}
    keys = Job.model_fields.keys() - {"beam_options"}  # which all other flags are
    assert vars(flags).keys() - talk == keys


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keep: [a]\nworkers: many\n", "--config job.yaml, line 5, 'workers' is 'many':"),
        ("\n\nworkrs: 1\n", "--config job.yaml, line 6: unknown setting 'workrs'"),
        ("max_errors: 1\nmax_errors: 2\n", "line 5: 'max_errors' is there already, in line 4"),
        ("max-errors: 1\nmax_errors: 2\n", "line 5: 'max_errors' is there already, as"),
        ("beam_options:\n  - 1\n", "--config job.yaml, line 4, 'beam_options': give a list"),
        ("a: [1\nb: 2\n", "--config job.yaml, line 5, is not YAML"),
    ],
)
def test_an_error_gives_file_line_and_key(text: str, said: str) -> None:
    with pytest.raises(RequestError) as raised:
        job_of(text)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models:\n- m:M\n- target: m:M\n  targt: x\n", "line 3, 'models': unknown key 'targt'"),
        ("models:\n- class_path: m.M\n  target: m:M\n", "'class_path' and 'target' mean the same"),
        (
            "models:\n- class_path: m.M\n  decorators: [{configuration: {}}]\n",
            "line 2, 'models': a decorator has a class_path",
        ),
        ("models:\n- target: m:M\n  arguments: 3\n", "line 3, 'models.arguments'"),
        ("model:\n  target: x.onnx\n  decorators: [{class_path: m.D}]\n", "x.onnx is none"),
    ],
)
def test_an_error_in_a_model_gives_its_line(text: str, said: str) -> None:
    Path("job.yaml").write_text(text + "input: i.jsonl\noutput: o\n")
    with pytest.raises(RequestError) as raised:
        build_job({}, "job.yaml")
    assert said in str(raised.value)


OF_A_SERVICE = """
models:
  - class_path: cli_models.Newer
    name: flowers
    decorators:
      - class_path: cli_models.Suffixed
        configuration: {suffix: "${FIRST}"}
      - class_path: cli_models.Suffixed
        configuration: {suffix: "-outer"}
input: in.jsonl
output: out/
"""


def test_the_last_decorator_is_the_outermost(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("job.yaml").write_text(OF_A_SERVICE)
    job = build_job({}, "job.yaml")
    assert "${FIRST}" in str(job.model.arguments)
    monkeypatch.setenv("FIRST", "-inner")
    spec = job.model.filled()
    model = models.load(spec.target, spec.name, spec.arguments, spec.options)
    [made] = model_testing.predict(model, [{"Size": 2.0, "garden": "g"}]).values
    assert made["garden"] == "g-inner-outer"
    assert model.info.name == "flowers"
    assert [str(leaf) for leaf in spec.target.leaves] == ["cli_models.Newer"] + [
        "cli_models.Suffixed"
    ] * 2
    plain = models.load("cli_models:Newer")
    assert model.info.fingerprint != plain.info.fingerprint


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(["config", *arguments]) == 0
    return capsys.readouterr().out


def test_what_is_printed_is_a_file_of_the_same_job(capsys: pytest.CaptureFixture[str]) -> None:
    text = OF_A_SERVICE + (
        "keep: [a, b]\nrename: {x: y}\nmax_errors: 1%\nstop_after: 5m\nsplit_size: 1MB\n"
        "beam_options: {region: '$${X}', runner: flink}\n"
    )
    Path("job.yaml").write_text(text)
    out = printed(capsys, "--config", "job.yaml", "--workers", "3", "--limit", "7")
    Path("again.yaml").write_text(out)
    job = build_job({"workers": 3, "limit": 7}, "job.yaml")
    assert build_job({}, "again.yaml") == job
    assert "${FIRST}" in out
    jsonschema.validate(yaml.safe_load(out), schema())


def test_secrets_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Path("job.yaml").write_text("model: m:M\ninput: i\noutput: o\n")
    out = printed(capsys, "--config", "job.yaml", "--s3_secret_access_key=hush")
    assert "hush" not in out
    assert "--s3_secret_access_key=${S3_SECRET_ACCESS_KEY}" in out


def test_the_schema_takes_what_a_job_takes(capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(printed(capsys, "--schema"))
    jsonschema.Draft202012Validator.check_schema(said)
    assert {name.replace("-", "_") for name in said["properties"]} == {
        *Job.model_fields, "model", "input",
    }  # fmt: skip
    check = jsonschema.Draft202012Validator(said).is_valid
    assert check(yaml.safe_load(OF_A_SERVICE))
    for text, right in [
        ("workers: 3", True), ("workers: many", False), ("workers: '${N}'", True),
        ("worker-mode: threads", True), ("worker_mode: fibres", False), ("keep: all", True),
        ("batch_size: auto", True), ("batch_size: 0", False), ("split_size: 64MB", True),
        ("split_size: big", False), ("resume: true", True), ("resum: true", False),
        ("models: [{name: a}]", False), ("model: {target: 'm:M', proba: true}", True),
        ("record_timeout: 0", False), ("max_crashes: 0", True), ("limit: null", True),
    ]:  # fmt: skip
        assert check(yaml.safe_load(text)) is right, text
