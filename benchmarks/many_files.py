"""What many small files cost: planning, memory, and whole runs beside the same lines in one file.

    python benchmarks/many_files.py                        # 20,000 files, and a plan of 100,000
    python benchmarks/many_files.py --files 2000 --planned 10000 --rounds 1

Each figure is of a process of its own; runs take turns, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IRIS = Path(__file__).resolve().parent / "iris_lr"
PREDICT = [sys.executable, "-m", "modelbeam", "predict", "--model=iris_lr:IrisTable", "-q"]


def write_files(folder: Path, files: int, lines: int) -> Path:
    """Write so many files of so many records of four floats, and beside them all in one file."""
    folder.mkdir(parents=True)
    record = '{"sepal_length":%.1f,"sepal_width":3.1,"petal_length":1.4,"petal_width":0.2}\n'
    with folder.with_suffix(".jsonl").open("w") as one:
        for number in range(files):
            text = "".join(record % (4 + (number + line) % 40 / 10) for line in range(lines))
            (folder / f"{number:07d}.jsonl").write_text(text)
            one.write(text)
    return folder


def plan(folder: Path) -> dict[str, float]:
    """Plan a job over a directory, in this process."""
    from modelbeam.job.description import build_job
    from modelbeam.job.prepare import make_plan

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    job = build_job({"models": ["none:None"], "inputs": str(folder), "output": f"{folder}.planned"})
    began = time.perf_counter()
    made = make_plan(job)
    return {
        "files": len(made.inputs),
        "splits": len(made.splits),
        "seconds": round(time.perf_counter() - began, 2),
        "before_mb": before,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def predict(data: Path, output: Path, env: dict[str, str]) -> tuple[float, int]:
    """Seconds of a whole run, and the peak memory in MB of its largest process."""
    began = time.perf_counter()
    process = subprocess.Popen([*PREDICT, f"--input={data}", f"--output={output}"], env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"the run over {data} failed")
    shutil.rmtree(output)
    return seconds, usage.ru_maxrss // 1024


def main() -> None:
    """Run it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--planned", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", default=None, help="where the files go; by default a new place")
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plan:
        print(json.dumps(plan(Path(arguments.plan))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.work) as place:
        root = Path(place)
        env = {**os.environ, "PYTHONPATH": str(IRIS), "IRIS_LR_MODEL": str(root / "model")}
        subprocess.run([sys.executable, IRIS / "iris_lr.py"], env=env, check=True)
        sizes = {f"{arguments.files + 1} files of 1 line": (arguments.files + 1, 1)}
        sizes[f"{arguments.files} files of 100 lines"] = (arguments.files, 100)
        print("| input | s | the same in one file, s | ratio | peak MB, of one file |")
        print("|---|---:|---:|---:|---:|", flush=True)
        for number, (name, (files, lines)) in enumerate(sizes.items()):
            folder = write_files(root / f"in{number}", files, lines)
            pairs = []
            for _ in range(arguments.rounds):
                many = predict(folder, root / "out", env)
                one = predict(folder.with_suffix(".jsonl"), root / "out", env)
                pairs.append((*many, *one))
            many_s, many_mb, one_s, one_mb = map(statistics.median, zip(*pairs, strict=True))
            ratio = statistics.median(pair[0] / pair[2] for pair in pairs)
            row = f"| {name} | {many_s:.2f} | {one_s:.2f} | {ratio:.2f} | {many_mb}, {one_mb} |"
            print(row, flush=True)
            shutil.rmtree(folder)
        folder = write_files(root / "planned", arguments.planned, 1)
        command = [sys.executable, __file__, f"--plan={folder}"]
        for _ in range(arguments.rounds):
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
