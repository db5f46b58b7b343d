"""Beam's pool of external workers, made fit for several TaskManagers or executors on one machine.

Each of those counts its workers from one, and Beam's pool takes two workers with one id for one:
the first engine that is done has the other's worker ended. Here a worker is ended only if there is
no doubt; one whose engine has gone ends by itself.

A script, as it also runs in a Python that has Beam alone.
"""

from __future__ import annotations

import subprocess
from typing import Any

from apache_beam.runners.worker import worker_pool_main

_Servicer = worker_pool_main.BeamFnExternalWorkerPoolServicer


class _Pool(_Servicer):  # type: ignore[misc, valid-type]
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._by_id: dict[str, list[subprocess.Popen[bytes]]] = {}

    def StartWorker(self, request: Any, context: Any) -> Any:
        answer = super().StartWorker(request, context)
        process = self._worker_processes.pop(request.worker_id, None)
        if process is not None:
            self._worker_processes[f"{request.worker_id} {process.pid}"] = process
            self._by_id.setdefault(request.worker_id, []).append(process)
        return answer

    def StopWorker(self, request: Any, context: Any) -> Any:
        started = self._by_id.get(request.worker_id, [])
        living = [process for process in started if process.poll() is None]
        if len(living) == 1:
            self._worker_processes[request.worker_id] = living[0]
        return super().StopWorker(request, context)


if __name__ == "__main__":
    worker_pool_main.BeamFnExternalWorkerPoolServicer = _Pool
    worker_pool_main.main()
