"""The command line as a user meets it: exit codes, messages, what goes to which stream."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import environment, read_lines, write_lines

from modelbeam.cli.describe import fields_of
from modelbeam.job.task import Totals
from modelbeam.predicting.counts import Counts
from modelbeam.report import progress

Done = subprocess.CompletedProcess[str]
Call = Callable[..., Done]

DATA = Path(__file__).parents[1] / "data"
OLDER = "iris_model.iris_predict:IrisModel"
NEWER = "iris_ml_base.model:IrisModel"
DOUBLER = "small_models:Doubler"
BUFFERED = {"PYTHONUNBUFFERED": ""}  # as it is for a user: what is not flushed is lost


@pytest.fixture
def call(modelbeam: Call, tmp_path: Path) -> Call:
    """Run the command in a directory that holds ``in.jsonl`` with three records for a doubler."""
    write_lines(tmp_path / "in.jsonl", [{"x": 1.0}, {"x": -1.0}, {"x": 2.0}])
    return lambda *arguments: modelbeam(*arguments, cwd=tmp_path, env=BUFFERED)


@pytest.fixture
def refused(call: Call, tmp_path: Path) -> Callable[..., str]:
    """Run a command that is wrong; nothing may come of it but one paragraph on stderr."""

    def refuse(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        done = call(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("modelbeam: ")
        assert "Traceback" not in done.stderr
        assert sorted(tmp_path.rglob("*")) == before
        return done.stderr

    return refuse


def job(*more: str, model: str = DOUBLER, output: str = "out.jsonl") -> tuple[str, ...]:
    """The arguments of a small job, after the command."""
    return ("--model", model, "--input", "in.jsonl", "--output", output, *more)


# Finished runs


def test_a_run_tells_its_summary_on_stderr_and_nothing_on_stdout(call, tmp_path):
    done = call("predict", *job())
    assert (done.returncode, done.stdout) == (0, "")
    assert "modelbeam: 1 file, 34 bytes, 1 split, " in done.stderr
    assert "3 records read, 2 predicted, 1 failed" in done.stderr
    assert "1 x ValueError (predict), first at in.jsonl:2: x is negative: -1.0" in done.stderr
    assert "failed records in out.errors.jsonl" in done.stderr
    assert read_lines(tmp_path / "out.jsonl") == [{"y": 2.0}, {"y": 4.0}]
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr


def test_quiet_prints_nothing(call, tmp_path):
    done = call("predict", "-m", DOUBLER, "-i", "in.jsonl", "-o", "out.jsonl", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out.jsonl").exists()


def test_json_is_the_run_on_stdout_and_quiet_leaves_only_that(call, tmp_path):
    done = call("predict", *job("--json", "--quiet"))
    run = json.loads(done.stdout)
    assert run["counts"] == {"read": 3, "predicted": 2, "failed": 1}
    assert run == json.loads((tmp_path / "out.run.json").read_text())
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_a_model_that_prints_does_not_reach_stdout(call):
    done = call("predict", *job("--json", model="cli_models:Talker"))
    assert json.loads(done.stdout)["counts"]["predicted"] == 2
    assert "3 records read" in done.stderr


def test_what_a_model_prints_goes_to_stderr(call):
    done = call("check", *job(model="cli_models:Talker"))
    for words in ("cli_models is imported", "talker is built", "talker predicts", "talker writes"):
        assert words in done.stderr


def test_records_of_which_not_one_is_predicted_are_exit_code_1(call, tmp_path):
    write_lines(tmp_path / "in.jsonl", [{"x": -1.0}, {"x": -2.0}])
    done = call("predict", *job("--json", output="out"))
    assert done.returncode == 1
    assert "Not one of 2 records could be predicted" in done.stderr
    assert "in.jsonl:1 ValueError: x is negative: -1.0" in done.stderr
    assert json.loads(done.stdout)["status"] == "failed"
    assert len(read_lines(tmp_path / "out" / "errors-00000-of-00001.jsonl")) == 2
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_passing_max_errors_is_exit_code_1(call, tmp_path):
    done = call("predict", *job("--max-errors", "0"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "more than --max-errors 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert "x is negative: -1.0" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_python_m_is_the_same_as_the_command():
    command = Path(sys.executable).with_name("modelbeam")
    shown = [
        subprocess.run([*start, "--help"], capture_output=True, text=True, check=True, timeout=60)
        for start in ([str(command)], [sys.executable, "-m", "modelbeam"])
    ]
    assert shown[0].stdout == shown[1].stdout


# Beam's flags


def test_beams_flags_are_handed_on(call):
    done = call(
        "predict",
        *job("--runner", "DirectRunner", "--temp_location", "x", "--job_name=y", "--json"),
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["runner"] == "DirectRunner"


def test_an_unknown_flag_gets_the_nearest_of_ours(refused):
    assert "--batch-sise; did you mean '--batch-size'?" in refused(
        "predict", *job("--batch-sise", "3")
    )


def test_an_unknown_flag_gets_the_nearest_of_beams(refused):
    assert "--temp_locaton; did you mean '--temp_location'?" in refused(
        "predict", *job("--temp_locaton=x")
    )


def test_a_flag_like_no_other_is_unknown(refused):
    assert "unknown flag --qqqqqq" in refused("predict", *job("--qqqqqq"))


def test_a_beam_flag_with_a_wrong_value_is_refused(refused):
    message = refused("predict", *job("--direct_num_workers", "two"))
    assert "--direct_num_workers: invalid int value: 'two'" in message
    assert "Beam" in message


def test_a_runner_that_beam_does_not_know_is_refused(refused):
    message = refused("predict", *job("--runner", "DirektRunner"))
    assert "DirektRunner" in message
    assert "DirectRunner" in message


def test_a_stray_word_is_refused(refused):
    assert "'stray' is not a flag" in refused("predict", *job("stray"))


# Wrong requests


def test_a_mistyped_command_gets_the_nearest(refused):
    message = refused("predikt", *job())
    assert "'predikt' is not a command; did you mean 'predict'?" in message
    assert "describe" in message


@pytest.mark.parametrize("flag", ["--verzion", "--hepl"])
def test_an_unknown_flag_before_the_command_is_refused(refused, flag):
    assert f"unknown flag {flag}" in refused(flag)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "in.jsonl", "--output", "o"), "--model is missing"),
        (("--model", DOUBLER, "--output", "o"), "--input is missing"),
        (("--model", DOUBLER, "--input", "in.jsonl"), "--output is missing"),
        (job("--model", DOUBLER), "with several models each has a name"),
        (job("--resume", "--overwrite"), "--resume and --overwrite exclude each other"),
        (job("--batch-size", "0"), "--batch-size 0: a batch has at least one record"),
        (job("--batch-size", "many"), "--batch-size 'many'"),
        (job("--workers", "0"), "--workers 0: "),
        (job("--workers", "two"), "--workers: invalid int value: 'two'"),
        (job("--worker-mode", "fibres"), "invalid choice: 'fibres'"),
        (job("--max-errors", "abc"), "--max-errors 'abc': give a number of records"),
        (job("--max-errors", "101%"), "--max-errors '101%': give a number"),
        (job("--split-size", "big"), "--split-size 'big': 'big' is not a size; write it as 64MB"),
        (job("--max-record-size", "0"), "--max-record-size"),
        (job("--output-format", "xml"), "--output-format 'xml': no such format"),
        (job("--input-format", "jsonk"), "did you mean 'json"),
        ([*job(), "--limit", "0"], "--limit 0"),
        ([*job(), "--rename", "y"], "OLD=NEW"),
        (job("--keep"), "--keep: expected one argument"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_setting_is_refused(refused, arguments, words):
    assert words in refused("check", *arguments)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("nothing-*.jsonl", "--input nothing-*.jsonl matches no file"),
        ("in.jsonk", "did you mean 'in.jsonl'?"),
        ("nowhere/in.jsonl", "there is no directory 'nowhere'"),
    ],
)
def test_an_input_that_matches_nothing_is_refused(refused, pattern, words):
    message = refused("check", "-m", DOUBLER, "-i", pattern, "-o", "out.jsonl")
    assert words in message


def test_a_directory_without_data_is_refused(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    message = refused("check", "-m", DOUBLER, "-i", "empty", "-o", "out.jsonl")
    assert "the directory holds no file with a data suffix" in message


def test_an_output_file_that_exists_is_refused(refused, tmp_path):
    (tmp_path / "out.jsonl").write_text("mine\n")
    assert "out.jsonl exists already. Add --overwrite" in refused("predict", *job())
    assert (tmp_path / "out.jsonl").read_text() == "mine\n"


def test_an_output_directory_that_is_not_empty_is_refused(refused, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert "exists already and is not empty" in refused("predict", *job(output="out"))


def test_resume_does_not_replace_what_modelbeam_did_not_write(refused, tmp_path):
    (tmp_path / "out.jsonl").write_text("mine\n")
    assert "out.jsonl" in refused("predict", *job("--resume"))
    assert (tmp_path / "out.jsonl").read_text() == "mine\n"


def test_a_model_that_is_not_there_is_refused(refused):
    message = refused("predict", *job(model="small_models:Dubler"))
    assert "did you mean 'Doubler'?" in message


def test_verbose_adds_the_traceback_of_a_model_that_raises(call, tmp_path):
    (tmp_path / "broken.py").write_text("def inner():\n    return {}['weights']\ninner()\n")
    quiet = call("predict", *job(model="broken:Model"))
    loud = call("predict", *job("--verbose", model="broken:Model"))
    assert (quiet.returncode, loud.returncode) == (2, 2)
    message = "--model broken:Model raised KeyError while it was imported (broken.py:2)"
    assert message in quiet.stderr
    assert message in loud.stderr
    assert "Traceback" not in quiet.stderr
    assert re.search(r"Traceback.*line 3, in <module>.*in inner", loud.stderr, re.DOTALL)


# Settings from a file


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    """Write ``job.yaml``."""

    def write(text: str) -> str:
        (tmp_path / "job.yaml").write_text(text)
        return "job.yaml"

    return write


COMPLETE = f"model: {DOUBLER}\ninput: in.jsonl\noutput: out.jsonl\n"


def test_a_config_file_holds_the_whole_job(call, config, tmp_path):
    path = config(
        "models:\n  - target: cli_models:Times\n    name: triple\n    arguments: {factor: 3.0}\n"
        "inputs: [in.jsonl]\noutput: out.jsonl\nkeep: [x]\nmax-errors: 1\nbatch_size: auto\n"
        "beam-options: [--runner, DirectRunner]\n"
    )
    assert call("predict", "--config", path).returncode == 0
    assert read_lines(tmp_path / "out.jsonl")[0] == {"x": 1.0, "y": 3.0}
    run = json.loads((tmp_path / "out.run.json").read_text())
    assert run["models"][0]["name"] == "triple"


def test_a_flag_wins_over_the_config_file(call, config, tmp_path):
    path = config(COMPLETE + "keep: [x]\nworkers: 1\n")
    done = call("predict", "--config", path, "--output", "mine.jsonl", "--keep", "all")
    assert done.returncode == 0
    assert not (tmp_path / "out.jsonl").exists()
    assert read_lines(tmp_path / "mine.jsonl")[0] == {"x": 1.0, "y": 2.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (COMPLETE + "workrs: 1", "unknown setting 'workrs'; did you mean 'workers'?"),
        (COMPLETE + "workers: many", "line 4, 'workers' is 'many'"),
        (COMPLETE + "max-errors: 0.5", "'max_errors' is 0.5: give a number of records"),
        (COMPLETE + "resume: perhaps", "'resume' is 'perhaps'"),
        (COMPLETE + "beam-options: [--runnr, DirectRunner]", "did you mean '--runner'?"),
        ("model: {targt: a:b}\ninput: in.jsonl\noutput: o\n", "targ"),
        (f"model: {DOUBLER}\ninput: 3\noutput: o\n", "line 2, 'inputs'"),
        (f"model: {DOUBLER}\noutput: o\n", "--input is missing"),
        ("output: [1", "is not YAML"),
        ("only text", "must hold settings by name"),
        ("", "must hold settings by name"),
    ],
)
def test_a_wrong_config_file_is_refused(refused, config, text, words):
    assert words in refused("check", "--config", config(text))


def test_a_config_file_that_is_not_there_is_refused(refused):
    assert "--config nope.yaml cannot be read" in refused("predict", "--config", "nope.yaml")


# Progress


def test_a_plain_line_tells_how_far_the_run_is(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    lines = progress.Lines()
    totals = Totals()
    job = SimpleNamespace(beam_options=())
    lines.begin(SimpleNamespace(job=job, inputs=[1, 2], splits=[1], workers=2, bytes=4096))
    totals.add(Counts(read=1500, predicted=1490, failed=10), 1024)
    lines.update(totals)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "modelbeam: 2 files, 4.0 KB, 1 split, 2 workers"
    assert second == "modelbeam: 1,500 records, 10 failed, 1.0 KB of 4.0 KB"  # no rate yet


@pytest.mark.parametrize(
    ("seconds", "words"), [(9.4, "9 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_times_are_told_in_two_units(seconds, words):
    assert progress.duration(seconds) == words


def on_a_terminal(cwd: Path, *arguments: str) -> tuple[int, str]:
    """Run the command with stderr on a pseudo terminal; its exit code and what was drawn."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    command = [sys.executable, "-m", "modelbeam", *arguments]
    env = environment(TERM="xterm", **BUFFERED)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=cwd, env=env
    )
    os.close(theirs)
    drawn = b""
    try:
        while chunk := os.read(ours, 4096):
            drawn += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    return process.wait(timeout=60), drawn.decode()


def test_progress_is_a_bar_on_a_terminal(tmp_path):
    write_lines(tmp_path / "in.jsonl", [{"x": float(n - 1)} for n in range(50)])
    arguments = job("--split-size", "100", model="cli_models:Slow")
    code, drawn = on_a_terminal(tmp_path, "predict", *arguments)
    assert code == 0
    assert re.search(r"[1-9]\d%", drawn)
    assert re.search(r"\d+ records, [01] failed", drawn)
    assert "\x1b[?25h" in drawn  # the cursor is shown again
    assert "50 records read, 49 predicted, 1 failed" in drawn


def test_a_model_that_loads_for_long_is_told_with_the_seconds(call, tmp_path):
    write_lines(tmp_path / "in.jsonl", [{"x": 1.0}])
    done = call("predict", *job(model="cli_models:LoadsSlowly"))
    assert done.returncode == 0
    assert re.search(r"modelbeam: Loading the model \(2 s\)\nmodelbeam: 1 file", done.stderr)
    code, drawn = on_a_terminal(
        tmp_path, "predict", *job(model="cli_models:LoadsSlowly", output="again.jsonl")
    )
    assert code == 0
    assert "Loading the model (2 s)" in drawn
    assert "Loading the model (3 s)" in drawn
    assert "Loading" not in drawn[drawn.index("1 record read") :]


def test_no_progress_draws_no_bar_on_a_terminal(tmp_path):
    write_lines(tmp_path / "in.jsonl", [{"x": 1.0}])
    code, drawn = on_a_terminal(tmp_path, "predict", *job("--no-progress"))
    assert code == 0
    assert "%" not in drawn
    assert "1 record read" in drawn


# check


def test_check_shows_the_plan_and_tries_the_first_records(call, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = call("check", *job(output="out"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "doubler 1.2, MLModel (schema), takes one record" in done.stdout
    assert "1 file, 34 bytes" in done.stdout
    assert "out (jsonl, a directory of shards)" in done.stdout
    assert "3 records: 2 predicted, 1 failed" in done.stdout
    assert '{"y":2.0}' in done.stdout
    assert "in.jsonl:2 predict, ValueError: x is negative: -1.0" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_check_as_json_has_model_plan_and_sample(call):
    found = json.loads(call("check", *job("--json")).stdout)
    assert found["model"]["qualified_name"] == "doubler"
    assert found["plan"]["splits"] == 1
    sample = found["sample"]
    assert (sample["read"], sample["predicted"], sample["failed"]) == (3, 2, 1)
    assert sample["files"][0]["failures"] == [[2, "predict", "ValueError", "x is negative: -1.0"]]


def test_check_of_records_that_all_fail_is_exit_code_1(call, tmp_path):
    write_lines(tmp_path / "in.jsonl", [{"x": -1.0}])
    done = call("check", *job())
    assert done.returncode == 1
    assert "1 record: 0 predicted, 1 failed" in done.stdout


@pytest.mark.parametrize("command", ["check", "predict"])
def test_columns_that_do_not_fit_are_refused(refused, tmp_path, command):
    write_lines(tmp_path / "in.jsonl", [{"sepal_lenght": 1.0, "sepal_width": 1.0}])
    message = refused(command, *job(model=OLDER))
    assert "'sepal_length' (did you mean 'sepal_lenght'?)" in message
    assert "'petal_width'" in message
    assert message.endswith("Their columns are sepal_lenght, sepal_width. [MB115]\n")


def test_check_refuses_what_predict_refuses(refused):
    assert "did you mean '--max-errors'?" in refused("check", *job("--max-error", "1"))


# describe


@pytest.mark.parametrize(
    ("model", "name", "version", "field"),
    [(OLDER, "iris_model", "0.1", "species"), (NEWER, "iris_ml_base", "0.1.0", "probability")],
)
def test_describe_shows_name_version_and_both_schemas(call, model, name, version, field):
    shown = call("describe", "--model", model).stdout
    assert re.search(rf"^name +{name}$", shown, re.MULTILINE)
    assert re.search(rf"^version +{re.escape(version)}$", shown, re.MULTILINE)
    assert re.search(r"^description +Predicts the species of an iris", shown, re.MULTILINE)
    before, _, after = shown.partition("\noutput\n")
    assert re.search(r"^  sepal_length +number +required", before, re.MULTILINE)
    assert re.search(rf"^  {field} +\w+", after, re.MULTILINE)


def test_fields_are_a_table() -> None:
    schema = {
        "properties": {
            "age": {"type": "integer", "minimum": 0},
            "colour": {"$ref": "#/$defs/Colour"},
            "parts": {"type": "array", "items": {"type": "number"}},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["age", "colour"],
        "$defs": {"Colour": {"enum": ["red", "blue"]}},
    }
    assert fields_of(schema) == [
        "age     integer           required  minimum 0",
        "colour  one of red, blue  required",
        "parts   array of number   optional",
        "note    string or null    optional  default None",
    ]
    assert fields_of(None) == ["not expressible as JSON Schema"]


def test_an_error_is_an_object_with_json(call, tmp_path) -> None:
    done = call("predict", "-m", DOUBLER, "-i", "nothing.jsonl", "-o", "out.jsonl", "--json", "-q")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["type"], error["exit_code"]) == (2, "InputNotFoundError", 2)
    assert error["message"] in done.stderr
    write_lines(tmp_path / "bad.jsonl", [{"x": "no"}, {"x": "number"}])
    done = call("predict", "-m", DOUBLER, "-i", "bad.jsonl", "-o", "out.jsonl", "--json", "-q")
    run = json.loads(done.stdout)
    assert (run["counts"]["failed"], run["error"]["type"]) == (2, "NothingPredictedError")


def test_a_limit_holds_for_a_finished_run_and_names_the_error_lines(call, tmp_path) -> None:
    write_lines(tmp_path / "some.jsonl", [{"x": 1.0}, {"x": "no"}, {"x": "no"}])
    some = ("predict", "-m", DOUBLER, "-i", "some.jsonl", "-o", "out.jsonl", "-q")
    limited = call(*some, "--max-errors", "1")
    assert limited.returncode == 1
    assert "out._modelbeam/attempts/*.errors.jsonl" in limited.stderr
    assert list((tmp_path / "out._modelbeam" / "attempts").glob("*.errors.jsonl"))
    assert call(*some, "--resume").returncode == 0
    again = call(*some, "--resume", "--max-errors", "50%", "--json")
    assert again.returncode == 1
    assert "The error lines are in out.errors.jsonl" in again.stderr
    assert json.loads(again.stdout)["counts"] == {"read": 3, "predicted": 1, "failed": 2}


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_text_of_the_bar_fits_and_keeps_what_matters_most(width: int) -> None:
    plan = SimpleNamespace(bytes=10 * 2**30)
    totals = Totals()
    totals.counts.read, totals.counts.failed, totals.bytes = 123_456_789, 1_234_567, 2**30
    shown = progress._text(plan, totals, (1_234_567.0, 2.0**20), width - 20)
    assert len(shown) <= width - 20
    assert shown.startswith("123,456,789 records")
    assert ("left" in shown) == (width > 60)
    full = progress._text(plan, totals, (1_234_567.0, 2.0**20), 180)
    assert full == (
        "123,456,789 records, 1,234,567 failed, 1,234,567/s, 1.0 GB of 10.0 GB, 2 h 33 min left"
    )


@pytest.mark.parametrize("model", [OLDER, NEWER])
def test_describe_as_json_has_both_schemas(call, model):
    described = json.loads(call("describe", "--model", model, "--json").stdout)
    assert described["target"] == model
    assert "petal_width" in described["input_schema"]["properties"]
    assert "species" in described["output_schema"]["properties"]


def test_describe_refuses_an_unknown_flag(refused):
    message = refused("describe", "--model", DOUBLER, "--jsn")
    assert "unknown flag --jsn; did you mean '--json'?" in message


# completion, help


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_flags(call, shell):
    script = call("completion", shell).stdout
    for word in ("predict", "describe", "--model", "--max-errors", "--worker-mode", "processes"):
        assert word in script


def test_completion_for_bash_completes_a_flag(call):
    script = call("completion", "bash").stdout
    ask = (
        f"{script}\nCOMP_WORDS=(modelbeam predict --max-e); COMP_CWORD=2; _shtab_modelbeam\n"
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("--max-errors", "")


def test_completion_for_bash_is_valid(call):
    script = call("completion", "bash").stdout
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [("fish",), (), ("bash", "--loud")])
def test_completion_refuses_what_it_does_not_know(refused, arguments):
    assert refused("completion", *arguments)


@pytest.mark.parametrize("arguments", [("--help",), ("predict", "--help"), ()])
def test_help_goes_to_stdout(call, arguments):
    done = call(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: modelbeam")
    assert "example" in done.stdout


def test_the_version_goes_to_stdout(call):
    done = call("--version")
    assert re.fullmatch(r"modelbeam \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("completion", "bash"), ("describe", "-m", DOUBLER, "--json")]
)
def test_a_reader_that_is_gone_is_no_traceback(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "modelbeam", *arguments]
    env = environment(**BUFFERED)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=env, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_stdout_that_cannot_be_written_is_no_traceback():
    command = [sys.executable, "-m", "modelbeam", "completion", "bash"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=environment(**BUFFERED), timeout=60
        )
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
