"""What the submitting and the publishing process do for very many splits: ``scale.py [SPLITS]``.

The splits are planned from sizes alone and each is committed by a real attempt of one line, so what
is measured is what does not shrink with more workers: the plan, the manifests and the publishing.
Prints seconds, microseconds a split, and the peak of this process's resident memory.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelbeam.commit import Attempt, Counts, JobRecord, Output, State, find_manifest
from modelbeam.formats import Format
from modelbeam.plan import PLAN_FILE, Split, plan_splits
from modelbeam.publish import Publication, publish
from modelbeam.storage import FileInfo, join, read_bytes, write_atomically

FILES = 100
SPLIT_BYTES = 10 << 20


def main(number: int) -> None:
    """Plan, commit, resume and publish so many splits."""
    directory = Path(tempfile.mkdtemp(prefix="modelbeam-scale-"))
    try:
        print(f"{number:,} splits of {SPLIT_BYTES >> 20} MB in {FILES} files")
        print(f"{'step':<28}{'s':>8}{'us a split':>12}{'peak MB':>9}")
        run(directory, number)
    finally:
        shutil.rmtree(directory)


def run(directory: Path, number: int) -> None:
    """Take the steps; what each makes is what the next one needs."""
    size = number // FILES * SPLIT_BYTES
    inputs = tuple(FileInfo(f"/data/part-{n:05d}.jsonl", size, 1) for n in range(FILES))
    record = JobRecord({"model": "scale"}, SPLIT_BYTES, inputs)
    output = Output(str(directory / "out"), False, Format("jsonl"))
    state = State(output, record, fresh=True)
    with step("plan", number):
        splits = plan_splits(inputs, SPLIT_BYTES)
    with step("write and read plan.jsonl", number):
        path = join(output.state, PLAN_FILE)
        write_atomically(path, "".join(split.to_json() + "\n" for split in splits).encode())
        splits = [Split.from_json(line.decode()) for line in read_bytes(path).splitlines()]
        print(f"{'':<28}{Path(path).stat().st_size / 1e6:>8.1f} MB in it")
    with step("attempts and manifests", number):
        for split in splits:
            attempt = Attempt(output.state, split, output.format)
            attempt.write_predictions(b'{"y":1}\n', 1)
            attempt.commit(record.fingerprint, Counts(read=1, predicted=1), 1)
    with step("resume: find all manifests", number):
        found = sum(find_manifest(output.state, s, record.fingerprint) is not None for s in splits)
    with step("publish", number):
        made = publish(
            Publication(output, record, {}, None, "scale", "1 process", time.time(), 0), splits
        )
    state.close()
    assert found == made["counts"]["predicted"] == len(splits)
    print(f"run.json: {Path(output.run_file).stat().st_size / 1e6:.1f} MB")


@contextmanager
def step(name: str, number: int) -> Iterator[None]:
    """Print what a step took."""
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:<28}{seconds:>8.1f}{seconds / number * 1e6:>12.0f}{peak:>9.0f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
