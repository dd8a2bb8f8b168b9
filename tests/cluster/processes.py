"""A scheduler and workers that are programs of their own, as on a computing centre: each may be killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from distributed import Client

from tests.cluster.faults import is_gone, wait_until

DEATH_TIMEOUT_S = 10


class Processes:
    """Some workers with nannies and their scheduler, on loopback.

    Attributes
    ----------
    scheduler : its process.
    workers : processes of the nannies.
    """

    def __init__(self, folder: Path, workers: int, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        place = folder / "scheduler.json"
        self.scheduler = self._run("scheduler", "--host", "127.0.0.1", "--port", "0", at=place)
        self.address = json.loads(wait_until(lambda: place.exists() and place.read_text()))["address"]
        options = ["--nthreads", "1", "--memory-limit", "2GiB", "--death-timeout", str(DEATH_TIMEOUT_S)]
        options += ["--local-directory", str(folder)]
        self.workers = [self._run("worker", *options, at=place) for _ in range(workers)]
        self.client = Client(self.address, timeout=60, set_as_default=False)
        self.client.wait_for_workers(workers, timeout=60)
        self.worker_ids = list(self.client.run(os.getpid).values())

    def _run(self, what: str, *options: str, at: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options, "--no-dashboard"]
        with (self._folder / f"{what}.log").open("a") as log:
            return subprocess.Popen(
                [*command, "--scheduler-file", str(at)], env=self._environment, stdout=log, stderr=log
            )

    def left(self) -> list[int]:
        """Processes of workers and nannies that have not ended."""
        ended = [nanny.poll() for nanny in self.workers]  # asked after, so that they leave the table
        nannies = [nanny.pid for nanny, code in zip(self.workers, ended, strict=True) if code is None]
        return nannies + [pid for pid in self.worker_ids if not is_gone(pid)]

    def close(self) -> None:
        """End all of them, also those that are stopped; a nanny ends its worker."""
        with contextlib.suppress(OSError):  # a scheduler that is gone cannot say good-bye
            self.client.close(timeout=2)
        self.scheduler.kill()
        for nanny in self.workers:
            nanny.send_signal(signal.SIGTERM)
        wait_until(lambda: not self.left())
        for process in (self.scheduler, *self.workers):
            process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
