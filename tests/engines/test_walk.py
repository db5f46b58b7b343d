"""The walk of docs/streaming.md, block by block, as it stands on the page."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engines.clusters import Kafka
from engines.processes import free_port

PAGE = Path(__file__).parents[2] / "docs" / "streaming.md"


@pytest.mark.timeout(240)
def test_the_walk_through_a_stream(kafka: Kafka, tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    walk = page.partition("## A walk\n")[2].partition("\n## ")[0]
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", walk, re.MULTILINE | re.DOTALL)
    blocks = [text for kind, text in fenced if kind == "sh"]
    (wanted,) = (text for kind, text in fenced if kind == "text")
    assert len(blocks) == 8
    script = "set -e\n" + "".join(blocks)
    script = script.replace("localhost:9092", kafka.brokers)
    for told in ("--metrics-port 9100", "localhost:9100"):
        assert told in script
    script = script.replace("9100", str(free_port()))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            said, _ = shell.communicate(timeout=200)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, said
    assert said.endswith(wanted), said
    assert "a new model has taken over: model" in said
    assert "records read" in said
