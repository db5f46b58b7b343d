"""What docs/security.md says, where no other test shows it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modelbeam.errors import RequestError
from modelbeam.job.description import build_job
from modelbeam.text import printable

ROOT = Path(__file__).parents[1]

MODEL = '''
import os
from schema import Schema


def listening():
    """The ports that this process and the one that started it listen on."""
    inodes = {}
    for name in ("tcp", "tcp6"):
        for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                inodes[f"socket:[{fields[9]}]"] = fields[1]
    ports = []
    for process in (os.getpid(), os.getppid()):
        for descriptor in os.listdir(f"/proc/{process}/fd"):
            try:
                ports.append(inodes.get(os.readlink(f"/proc/{process}/fd/{descriptor}")))
            except OSError:
                pass
    return [port for port in ports if port]


class Model:
    qualified_name = "m"
    input_schema = Schema({"x": str})
    output_schema = Schema(dict)

    def predict(self, data):
        if data["x"] == "ports":
            return {"ports": listening() if os.path.exists("/proc/net/tcp") else []}
        raise ValueError(f"cannot take {data['x']}")
'''


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run over a file whose name and records would steer a terminal."""
    directory = tmp_path_factory.mktemp("steered")
    (directory / "security_model.py").write_text(MODEL)
    records = [{"x": "ports"}, {"x": "\x1b]0;title\x07\x1b[2J\u202eabc\r"}]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (directory / "in\x1b[31m.jsonl").write_text(text)
    command = [sys.executable, "-m", "modelbeam", "predict", "-m", "security_model:Model"]
    command += ["-i", "in*.jsonl", "-o", "out/", "--no-progress"]
    made = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)
    return directory, made


def test_names_and_records_do_not_steer_the_terminal(done):
    directory, made = done
    assert made.returncode == 0, made.stderr
    assert r"\x1b[31m.jsonl:2: cannot take \x1b]0;title\x07" in made.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", made.stderr)
    [line] = (directory / "out" / "errors-00000-of-00001.jsonl").read_text().splitlines()
    assert json.loads(line)["record"] == {"x": "\x1b]0;title\x07\x1b[2J\u202eabc\r"}


def test_a_local_run_listens_on_no_port(done):
    directory, _ = done
    [line] = (directory / "out" / "predictions-00000-of-00001.jsonl").read_text().splitlines()
    assert json.loads(line) == {"ports": []}


def test_what_is_printed_keeps_letters_of_all_languages():
    assert printable("grün 花 \U0001f33c\tx\n") == "grün 花 \U0001f33c\tx\n"
    assert printable("a\x00\x9b\u2066") == r"a\x00\x9b\x2066"


def test_a_configuration_makes_no_objects(tmp_path):
    path = tmp_path / "job.yaml"
    made = f"!!python/object/apply:os.mkdir ['{tmp_path}/made']"
    path.write_text(f"model: {made}\ninput: a\noutput: b\n")
    with pytest.raises(RequestError, match="is not YAML"):
        build_job({}, str(path))
    assert not os.path.exists(tmp_path / "made")


def test_each_test_that_the_page_names_is_there():
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", page)
    assert len(named) > 12
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in named if f"def {name}(" not in tests] == []
