"""Processes that write into one history at once and are killed: python -m tests.cluster.history_writers.

Prints the ids of all records whose write had returned.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dfit.store.ledger import Ledger
from dfit.store.row import Record

WRITERS, EACH = 16, 3
FILES = 20  # before they are put together: several writers do so in every round
CHANGES = {"close", "flush", "fsync", "mkdir", "open", "rename", "unlink", "write"}
LONGEST_S = 0.05  # from the beginning of a write to a kill, which so comes before, in and after its end


def record(last: str = "") -> Record:
    """Of a workload of its own: none is dropped because there are many of it.

    One whose id ends in 0 puts files together.
    """
    measured = {"pass_s": 1.25, "point_ns": 20.0, "byte_ns": 0.5, "wait": 0.25, "task_ms": 1.5, "spread": 0.1}
    number = uuid.uuid4().hex
    return Record(
        {"model": number},
        {"cpu": "any"},
        {},
        {},
        {},
        measured,
        "static",
        measured,
        id=number[: 32 - len(last)] + last,
    )


def write(folder: Path, said: int, count: int, last: str = "") -> None:
    """Add records; say their ids, each after its write has returned."""
    for _ in range(count):
        one = record(last)
        Ledger(folder).add(one)
        os.write(said, f"{one.id}\n".encode())


def die_at(n: int) -> None:
    """End this process by SIGKILL at the n-th call from now that changes files."""
    seen = 0

    def count(_: Any, kind: str, function: Any) -> None:
        nonlocal seen
        seen += kind == "c_call" and function.__name__ in CHANGES
        if seen == n:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def started(work: Callable[[], None]) -> int:
    """Process number of a copy of this process that does some work."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(0)


def crowd(folder: Path, said: int, rng: random.Random) -> None:
    """Sixteen writers at once, one of which is killed in a write."""
    ready, tell = os.pipe()

    def victim() -> None:
        os.write(tell, b".")
        write(folder, said, EACH)

    killed = started(victim)
    others = [started(lambda: write(folder, said, EACH)) for _ in range(WRITERS - 1)]
    os.read(ready, 1)
    time.sleep(rng.uniform(0, LONGEST_S))
    os.kill(killed, signal.SIGKILL)
    for pid in (killed, *others):
        os.waitpid(pid, 0)
    os.close(ready)
    os.close(tell)


def everywhere(folder: Path, said: int) -> None:
    """A writer that puts files together, killed at its first, second, ... call, each in a copy of a history."""
    before = folder / "0"
    write(before, said, 3, "f")
    for call in range(1, 1000):
        copy = shutil.copytree(before, folder / str(call))

        def work(copy: Path = copy, call: int = call) -> None:
            die_at(call)
            write(copy, said, 1, "0")

        _, status = os.waitpid(started(work), 0)
        if not os.WIFSIGNALED(status):
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=0, help="of sixteen writers; 0: one killed everywhere")
    asked = parser.parse_args()
    heard, said = os.pipe()
    rng = random.Random(0)
    if not asked.rounds:
        with patch("dfit.store.ledger.FILES", 1):
            everywhere(asked.folder, said)
    for _ in range(asked.rounds):
        with patch("dfit.store.ledger.FILES", FILES):
            crowd(asked.folder, said, rng)
        sys.stdout.write(os.read(heard, 1 << 16).decode())
    os.close(said)
    sys.stdout.write(os.read(heard, 1 << 16).decode())


if __name__ == "__main__":
    main()
