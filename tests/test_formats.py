"""Every format keeps the contract; a third party's is installed and run."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from commands import pip_install
from pyarrow import parquet

from modelbeam import formats
from modelbeam.errors import RequestError
from modelbeam.testing import FormatContract

EXAMPLE = Path(__file__).parents[1] / "examples" / "modelbeam_logfmt"
LOG = b"""\
at=info x=1.5 path="/a b" ok=true
at=warn x=2 path=/c?d ok=false

at="err=or" x=3e2 path="q\\"uote" ok=null
at=info x=4 path="\xc3\xa9" ok=true
"""
LOGGED = [
    {"at": "info", "x": 1.5, "path": "/a b", "ok": True},
    {"at": "warn", "x": 2, "path": "/c?d", "ok": False},
    {"at": "err=or", "x": 300.0, "path": 'q"uote', "ok": None},
    {"at": "info", "x": 4, "path": "\u00e9", "ok": True},
]


class TestJsonLines(FormatContract):
    @pytest.fixture
    def name(self) -> str:
        return "jsonl"

    @pytest.fixture
    def content(self) -> bytes:
        return b"\n".join(json.dumps(record).encode() for record in LOGGED) + b"\n"

    @pytest.fixture
    def records(self) -> list[dict[str, Any]]:
        return LOGGED


class TestJson(FormatContract):
    @pytest.fixture
    def name(self) -> str:
        return "json"

    @pytest.fixture
    def content(self) -> bytes:
        return json.dumps(LOGGED, indent=2).encode()

    @pytest.fixture
    def records(self) -> list[dict[str, Any]]:
        return LOGGED


class TestCsv(FormatContract):
    typed = False

    @pytest.fixture
    def name(self) -> str:
        return "csv"

    @pytest.fixture
    def content(self) -> bytes:
        return b'at,x,"a,b"\ninfo,1.5,"/a ""b"\nwarn,"2\n",\n" ",,""\n\nq"u,001,\xc3\xa9'

    @pytest.fixture
    def records(self) -> list[dict[str, Any]]:
        return [
            {"at": "info", "x": "1.5", "a,b": '/a "b'},
            {"at": "warn", "x": "2\n", "a,b": None},
            {"at": " ", "x": None, "a,b": ""},
            {"at": 'q"u', "x": "001", "a,b": "\u00e9"},
        ]


TABLE = pa.Table.from_pylist(
    LOGGED,
    pa.schema(
        [("at", pa.string()), ("x", pa.float64()), ("path", pa.string()), ("ok", pa.bool_())]
    ),
)


class TestTsv(TestCsv):
    @pytest.fixture
    def name(self) -> str:
        return "tsv"

    @pytest.fixture
    def content(self) -> bytes:
        return b'at\tx\ta,b\ninfo\t1.5\t"/a ""b"\nwarn\t"2\n"\t\n" "\t\t""\n\nq"u\t001\t\xc3\xa9'


class TestParquet(FormatContract):
    @pytest.fixture
    def name(self) -> str:
        return "parquet"

    @pytest.fixture
    def content(self) -> bytes:
        made = io.BytesIO()
        parquet.write_table(TABLE, made, row_group_size=1)
        return made.getvalue()

    @pytest.fixture
    def records(self) -> list[dict[str, Any]]:
        return LOGGED


class TestAvro(FormatContract):
    @pytest.fixture
    def name(self) -> str:
        return "avro"

    @pytest.fixture
    def content(self) -> bytes:
        made = io.BytesIO()
        types = {"at": "string", "x": "double", "path": "string", "ok": ["boolean", "null"]}
        fields = [{"name": name, "type": kind} for name, kind in types.items()]
        schema = {"type": "record", "name": "Row", "fields": fields}
        fastavro.writer(made, schema, LOGGED, sync_interval=1)
        return made.getvalue()

    @pytest.fixture
    def records(self) -> list[dict[str, Any]]:
        return LOGGED


class TestArrow(FormatContract):
    new: Any = staticmethod(pa.ipc.new_file)

    @pytest.fixture
    def name(self) -> str:
        return "arrow"

    @pytest.fixture
    def content(self) -> bytes:
        made = io.BytesIO()
        with self.new(made, TABLE.schema) as writer:
            writer.write_table(TABLE, 1)
        return made.getvalue()

    @pytest.fixture
    def records(self) -> list[dict[str, Any]]:
        return LOGGED


class TestArrowStream(TestArrow):
    new: Any = staticmethod(pa.ipc.new_stream)

    @pytest.fixture
    def name(self) -> str:
        return "arrows"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example package is installed with pip, as its users would."""
    return pip_install(EXAMPLE, tmp_path_factory.mktemp("example"))


@pytest.fixture
def logfmt(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment that has the package."""
    monkeypatch.syspath_prepend(installed)
    formats.forget()
    yield installed
    formats.forget()
    for name in [name for name in sys.modules if name.startswith("modelbeam_logfmt")]:
        del sys.modules[name]


@pytest.mark.usefixtures("logfmt")
class TestLogfmt(FormatContract):
    @pytest.fixture
    def name(self) -> str:
        return "logfmt"

    @pytest.fixture
    def content(self) -> bytes:
        return LOG

    @pytest.fixture
    def records(self) -> list[dict[str, Any]]:
        return LOGGED


def test_a_format_that_nobody_brings_is_not_known() -> None:
    with pytest.raises(RequestError, match="no such format"):
        formats.parse("logfmt", "--input-format")


def test_the_page_shows_the_package_as_it_is() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    files = [path.read_text("utf-8") for path in EXAMPLE.rglob("*.*") if path.is_file()]
    shown = re.findall(r"```(?:toml|python)\n(.*?)```", page, re.DOTALL)
    ours = [code for code in shown if "logfmt" in code.lower() and "FormatContract" not in code]
    assert len(ours) == 2
    assert [code for code in ours if not any(code in text for text in files)] == []


def test_a_format_of_a_third_party_runs_from_the_command_line(logfmt: Path, tmp_path: Path) -> None:
    bad = b"no pairs at all\nx=text\n"
    (tmp_path / "in.logfmt").write_bytes(LOG + bad)
    models = Path(__file__).parent / "models"
    environment = {**os.environ, "PYTHONPATH": f"{logfmt}{os.pathsep}{models}"}
    command = [sys.executable, "-m", "modelbeam", "predict", "-m", "small_models:Doubler", "-q"]
    command += ["-i", "in.logfmt", "-o", "out.logfmt", "--keep", "path", "--split-size", "40"]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=120)
    assert (tmp_path / "out.logfmt").read_text("utf-8").splitlines() == [
        *('path="/a b" y=3.0', "path=/c?d y=4", 'path="q\\"uote" y=600.0', "path=\u00e9 y=8"),
    ]
    errors = (tmp_path / "out.errors.jsonl").read_text().splitlines()
    failed = [json.loads(line) for line in errors]
    assert [(line["line"], line["stage"], line["record"]) for line in failed] == [
        (6, "decode", "no pairs at all"),
        (7, failed[1]["stage"], {"x": "text"}),
    ]
