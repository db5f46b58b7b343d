"""How publishing scales: many splits planned, committed and published, without a model.

    python benchmarks/scale.py --splits 100000                     # on a local disk
    python benchmarks/scale.py --splits 2000 --store s3            # on moto: requests a split

Everything is done as a job does it, but that each attempt writes two short lines. The figures of
the process that publishes are taken in a process of its own, which does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelbeam import storage
from modelbeam.formats import Format
from modelbeam.predicting.counts import Counts
from modelbeam.predicting.failures import Failure, Position, error_line
from modelbeam.predicting.outcome import Outcome
from modelbeam.sinks.files import publish
from modelbeam.sinks.files.attempt import FilesAttempt
from modelbeam.sinks.files.manifest import find_manifest, find_manifests
from modelbeam.sinks.files.output import Output
from modelbeam.sinks.files.state import JobRecord, State
from modelbeam.sources.splits import PLAN_FILE, Split, from_lines, plan_splits, to_lines
from modelbeam.storage import FileInfo

FILE_BYTES = 64 << 30
SPLIT_BYTES = 64 << 20


def planned(root: str, splits: int, single: bool) -> tuple[JobRecord, Output, list[Split]]:
    """The plan of a job over files of 64 GiB that are not there; only their names are needed."""
    files = -(-splits * SPLIT_BYTES // FILE_BYTES)
    left = [min(FILE_BYTES, splits * SPLIT_BYTES - n * FILE_BYTES) for n in range(files)]
    inputs = tuple(
        FileInfo(storage.join(root, f"in/part-{n:05d}.jsonl"), size, 10**18)
        for n, size in enumerate(left)
    )
    record = JobRecord({"model": "none"}, SPLIT_BYTES, inputs)
    output = Output(storage.join(root, "out.jsonl" if single else "out"), single, Format("jsonl"))
    return record, output, plan_splits(inputs, SPLIT_BYTES)


def commit_all(record: JobRecord, output: Output, splits: list[Split], failing: int) -> None:
    """Write and commit an attempt at each split; one in ``failing`` has a failed record."""

    def commit(split: Split) -> None:
        attempt = FilesAttempt(output.state, split, output.format, record.fingerprint)
        counts = Counts(1, 1)
        attempt.write(Outcome(1, [{"prediction": "setosa"}], False, None, None, []))
        if split.index % failing == 0:
            (piece,) = split.pieces
            failure, place = Failure(0, "predict", "ValueError", "no"), Position(2, piece.start)
            counts.add_failure(failure, place, piece.path)
            counts.read += 1
            attempt.write_errors(error_line(piece.path, place, "m", failure, {"record": {}}))
        attempt.commit(counts, 2)

    for _ in storage.in_parallel(commit, splits, output.state):
        pass


def publish_all(root: str, splits: int, single: bool) -> dict[str, Any]:
    """Publish, and say how long each part took and how much memory; in a process of its own."""
    before = _peak_mb()
    figures: dict[str, Any] = {}
    with _timed(figures, "plan_s"):
        record, output, made = planned(root, splits, single)
    with _timed(figures, "plan_file_written_and_read_s"):
        file = storage.join(output.state, PLAN_FILE)
        storage.write_atomically(file, to_lines(made))
        made = from_lines(storage.read_bytes(file))
    with _timed(figures, "resume_s"):  # as a resumed job looks at each split
        find = lambda split: find_manifest(output.state, split, record.fingerprint)  # noqa: E731
        found = sum(1 for m in storage.in_parallel(find, made, output.state) if m)
    assert found == splits, f"{found} manifests"
    with _timed(figures, "find_manifests_s"):  # as publishing does, for all at once
        found = sum(1 for m in find_manifests(output.state, made, record.fingerprint) if m)
    assert found == splits, f"{found} manifests"
    publication = publish.Publication(output, record, {}, None, "none", "none", time.time(), 0)
    with _timed(figures, "publish_s"):
        run = publish.publish(publication, made)
    assert run["counts"]["predicted"] == splits
    figures["peak_mb"] = _peak_mb()
    figures["before_mb"] = before
    figures["run_json_mb"] = round(storage.stat(output.run_file).size / 1e6, 2)
    return figures


@contextmanager
def _timed(figures: dict[str, Any], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    figures[name] = round(time.perf_counter() - began, 2)


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=100_000)
    parser.add_argument("--failing", type=int, default=10, help="one split in so many has an error")
    parser.add_argument("--single", action="store_true", help="publish one file")
    parser.add_argument("--store", choices=["s3", "gs"], help="an emulator of it instead of a disk")
    parser.add_argument("--work", default=None, help="where the local files go")
    parser.add_argument("--only-publish", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_publish:
        storage.configure(json.loads(os.environ.get("SCALE_FLAGS", "[]")))
        print(json.dumps(publish_all(options.only_publish, options.splits, options.single)))
        return
    folder = tempfile.mkdtemp(prefix="modelbeam-scale-", dir=options.work)
    root, server = folder, None
    if options.store:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        import stores

        server = stores.StoreServer(options.store, Path(folder))
        os.environ.update(server.environment, SCALE_FLAGS=json.dumps(server.flags))
        storage.configure(server.flags)
        root = f"{options.store}://{stores.BUCKET}/scale"
    try:
        figures: dict[str, Any] = {"splits": options.splits}
        record, output, splits = planned(root, options.splits, options.single)
        figures["plan_file_mb"] = round(len(to_lines(splits)) / 1e6, 2)
        with _timed(figures, "commit_s"):
            State(output, record, fresh=True).close()
            commit_all(record, output, splits, options.failing)
        if server is not None:
            figures["requests_to_commit"] = server.proxy.kinds()
            server.proxy.reset()
        state = storage.files_in(storage.join(output.state, "manifests"))
        figures["manifests_mb"] = round(sum(info.size for info in state) / 1e6, 1)
        if server is not None:
            server.proxy.reset()
        command = [sys.executable, __file__, "--only-publish", root]
        command += [f"--splits={options.splits}", *(["--single"] if options.single else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        figures.update(json.loads(done.stdout))
        if server is not None:
            figures["requests_to_find_and_publish"] = server.proxy.kinds()
        print(json.dumps(figures, indent=2))
    finally:
        if server is not None:
            server.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
