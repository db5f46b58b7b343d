"""``python -m engines ENGINE``, or ``chromium`` or ``prepare``, from the root of the repository."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from engines import install
from engines.clusters import FlinkCluster, Hdfs, JobServer, Kafka, Prism, SparkCluster, WorkerPool
from engines.processes import EngineError

SERVED = ["flink", "spark", "prism", "hdfs", "kafka"]
EXAMPLE = "modelbeam predict -m iris_model.iris_predict:IrisModel"


def main() -> int:
    """Prepare everything, or start one engine and say how to use it until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m engines", description=main.__doc__)
    parser.add_argument("what", choices=[*SERVED, "chromium", "prepare"])
    parser.add_argument("--staged", action="store_true", help="workers have only what a job brings")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        if arguments.what == "prepare":
            for prepare in install.EVERYTHING.values():
                print(prepare())
        elif arguments.what == "chromium":
            print(install.chromium())
        else:
            _serve(arguments.what, arguments.staged)
    except EngineError as error:
        print(f"engines: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped")
    return 0


def _serve(engine: str, staged: bool) -> None:
    with contextlib.ExitStack() as stack:
        if engine == "hdfs":
            hdfs = stack.enter_context(Hdfs())
            _show("HDFS", f"http://localhost:{hdfs.port}", hdfs.flags, output="hdfs:///demo")
            _wait()
        if engine == "kafka":
            _show_kafka(stack.enter_context(Kafka()))
            _wait()
        pool = stack.enter_context(WorkerPool(staged))
        if engine == "prism":
            prism = stack.enter_context(Prism())
            _show("Prism", prism.endpoint, prism.flags, pool.flags)
        else:
            kinds = {"flink": FlinkCluster, "spark": SparkCluster}
            cluster: FlinkCluster | SparkCluster = stack.enter_context(kinds[engine]())
            server: JobServer = stack.enter_context(cluster.job_server())
            if isinstance(cluster, FlinkCluster):
                page, follow = cluster.rest_url, [f"--flink_master={cluster.master}"]
            else:
                page, follow = cluster.ui_url, []
            _show(f"{engine.title()}'s page", page, server.flags, follow, pool.flags)
            _show("or, without the job server,", "", cluster.flags, pool.flags)
        _wait()


def _wait() -> None:
    print(f"\nlogs: {install.BUILD / 'runs'}\nCtrl-C stops everything", flush=True)
    while True:
        time.sleep(3600)


def _show(what: str, where: str, *flags: list[str], output: str | None = None) -> None:
    root = Path.cwd()
    output = output or str(root / "demo-output" / "engine")
    data = ["-i", str(root / "data" / "input.json"), "-o", output]
    lines = [EXAMPLE, shlex.join(data), *(shlex.join(group) for group in flags if group)]
    print(f"\n{what} {where}".rstrip() + "\n\n  " + " \\\n    ".join(lines))


def _show_kafka(kafka: Kafka) -> None:
    inputs, output, errors = (kafka.make_topic(name, 4) for name in ("in", "out", "errors"))
    where = ["-i", inputs, "-o", output, "--errors", errors]
    print(f"\nKafka {kafka.brokers}, with the topics in, out and errors\n")
    print(f"  {EXAMPLE} \\\n    {shlex.join(where)} --streaming")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
