"""``modelbeam predict``."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import Any

from modelbeam.cli.job import job_of
from modelbeam.cli.output import show
from modelbeam.cli.signals import end_the_job, on_hangup, on_stop, stoppable
from modelbeam.errors import InterruptedRunError


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Run a job, and say what it came to."""
    from modelbeam.job.flags import is_local
    from modelbeam.local.start import start_worker
    from modelbeam.machine import available_cores

    # first of all, so that the model's process and this one import their libraries side by side
    workers = (flags.workers or available_cores()) if is_local(rest) else 1
    started = start_worker(workers) if not flags.config and workers >= 1 else None
    from modelbeam.engines.run import Submitted
    from modelbeam.report.progress import left_running, summary, watcher
    from modelbeam.run import is_stream, run_job

    job = job_of(flags, rest, "predict")
    if is_stream(job):
        return _stream(job, flags, started)
    try:
        told = watcher(quiet=flags.quiet, progress=not flags.no_progress)
        stoppable()
        done = run_job(job, told, started, choose=_cancel_or_leave)
    except KeyboardInterrupt as stopped:
        kept = "Stopped. What is done is kept. Run the same command with --resume to finish."
        raise InterruptedRunError(str(stopped) or kept) from None
    if isinstance(done, Submitted):
        return show(flags, done.to_dict(), left_running(done))
    return show(flags, done.description, summary(done))


def _stream(job: Any, flags: argparse.Namespace, started: Any) -> int:
    """Run a job that goes on as data arrives; Ctrl-C and SIGTERM are its usual end."""
    from modelbeam.engines.run import Submitted
    from modelbeam.report.stream import left_streaming, stream_summary, stream_watcher
    from modelbeam.run import stream_job

    stoppable()
    asked = threading.Event()
    on_hangup(asked.set)
    told = stream_watcher(quiet=flags.quiet, progress=not flags.no_progress)
    try:
        done = stream_job(job, told, started, asked)
    except KeyboardInterrupt:
        raise InterruptedRunError("Stopped before the first record was taken.") from None
    finally:
        told.end()
    if isinstance(done, Submitted):
        return show(flags, done.to_dict(), left_streaming(done))
    return show(flags, done.description, stream_summary(done))


def _cancel_or_leave(job: Any) -> bool:
    """After Ctrl-C: whether to cancel the job. Without a terminal nobody can be asked: it is."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    on_stop(end_the_job)  # a second Ctrl-C, at the question, cancels
    print(f"\nThe job runs on {job.engine}{f' ({job.link})' if job.link else ''}.", file=sys.stderr)
    try:
        while True:
            print("Cancel it, or leave it running? [c/l] ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.readline().strip().lower()
            if answer in ("c", "cancel", "l", "leave"):
                return answer.startswith("c")
            if not answer:  # Enter, or the end of input
                return True
    except KeyboardInterrupt:
        return True
