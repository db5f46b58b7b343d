"""What docs/security.md says, where no other test shows it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import audit
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


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="reads Linux's lists of sockets")
def test_what_is_started_for_an_engine_listens_on_loopback_only(done, engine, tmp_path, modelbeam):
    directory, _ = done
    (tmp_path / "in.jsonl").write_text('{"x": "ports"}\n')
    flags = ["-m=security_model:Model", f"-i={tmp_path / 'in.jsonl'}", f"-o={tmp_path}/out.jsonl"]
    env = {"PYTHONPATH": str(directory)}
    made = modelbeam("predict", *flags, *engine.flags("LOOPBACK"), env=env)
    assert made.returncode == 0, made.stderr
    [line] = (tmp_path / "out.jsonl").read_text().splitlines()
    ports = json.loads(line)["ports"]
    assert ports  # the worker's
    loopback = ("0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F")
    assert {port.partition(":")[0] for port in ports} <= set(loopback)


@pytest.mark.skipif(sys.platform != "linux", reason="connects to 127.0.0.2")
def test_servers_of_others_in_this_process_listen_where_they_say():
    import grpc
    from apache_beam.runners.worker import worker_pool_main

    from modelbeam.beam.private import listen_on_loopback

    listen_on_loopback()
    listen_on_loopback()
    address, pool = worker_pool_main.BeamFnExternalWorkerPoolServicer.start()
    own = grpc.server(ThreadPoolExecutor(1))
    try:
        port = own.add_insecure_port("0.0.0.0:0")
        own.start()
        with socket.create_connection(("127.0.0.2", port), 5):
            pass
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", int(address.rpartition(":")[2])), 5).close()
        with socket.create_connection(("localhost", int(address.rpartition(":")[2])), 5):
            pass
    finally:
        own.stop(None).wait()
        pool.stop(None).wait()


def test_an_audit_fails_over_what_is_known_and_says_what_it_could_not_ask():
    found = {"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "fix_versions": ["2.1"]}
    packages = [
        {"name": "good", "version": "1", "vulns": []},
        {"name": "bad", "version": "2.0", "vulns": [found]},
        {"name": "ours", "skip_reason": "not on PyPI"},
    ]
    code, text = audit.verdict(json.dumps({"dependencies": packages}), "Found 1")
    assert code == 1
    assert "bad 2.0: PYSEC-1, CVE-2026-1; fixed in 2.1" in text
    assert "2 packages audited; not in the database: ours" in text
    code, text = audit.verdict(json.dumps({"dependencies": packages[::2]}), "")
    assert (code, text) == (0, "1 packages audited; not in the database: ours")
    code, text = audit.verdict(json.dumps({"dependencies": packages[2:]}), "")
    assert (code, text[:11]) == (0, "NOT AUDITED")
    code, text = audit.verdict("", "a\nERROR: Name or service not known\n")
    assert code == 0
    assert text.startswith("NOT AUDITED")
    assert "Name or service not known" in text


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


@pytest.mark.parametrize("page", ["security.md", "guarantees.md"])
def test_each_test_that_the_page_names_is_there(page: str):
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(named) > 12
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in named if f"def {name}(" not in tests] == []
