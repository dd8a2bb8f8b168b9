"""A client that is killed, with all it has started: the same call goes on and ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import dfit
from dfit.store.snapshot import Snapshot
from tests.cluster.faults import is_gone, wait_until
from tests.cluster.killed_client import PARTITIONS, fit, numbers, reads

PROBED = 3  # chunks that every process looks at before its first pass
WIDTH = 2  # tasks at a time
PASSES = 5


class Kill(NamedTuple):
    """What a kill met.

    Attributes
    ----------
    running : chunks that were being read.
    kept : finished partitions of the running pass in the newest checkpoint.
    twice : reads of which no checkpoint knows.
    saving : whether a save was under way.
    """

    running: int
    kept: int
    twice: int
    saving: bool


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    log = tmp_path_factory.mktemp("undisturbed") / "log"
    found = fit(log)
    assert found.success and reads(log) == (PARTITIONS * PASSES, PARTITIONS * PASSES)
    return numbers(found)


class Program:
    """The program, started again and again in one folder.

    Parameters
    ----------
    workers : processes of its cluster, 0 for threads.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._log, self._output = folder / "log", folder / "output"

    def start(self, workers: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.cluster.killed_client", str(self._folder)]
        command += ["--workers", str(workers)]
        with self._output.open("a") as output:
            return subprocess.Popen(
                command, env=self._environment, stdout=output, stderr=output, start_new_session=True
            )

    def kill(self, after: int, workers: int = 0, everything: bool = False) -> Kill:
        """Start it, and kill it while chunks are being read, after so many partitions more."""
        before, known = reads(self._log), self._known()[0]
        process, seen = self.start(workers), [before]

        def reading() -> bool:
            assert process.poll() is None, self._output.read_text()
            seen[0] = now = reads(self._log)
            inside = (known + now.begun - before.begun - PROBED) % PARTITIONS > WIDTH + 2
            return (
                inside
                and now.begun >= before.begun + PROBED + after
                and now.ended - before.ended < now.begun - before.begun
            )

        wait_until(reading)
        (os.killpg if everything else os.kill)(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        wait_until(lambda: not self.left())  # a task that outlives its client would be counted later
        running = (seen[0].begun - seen[0].ended) - (before.begun - before.ended)
        now, kept = self._known()
        twice = reads(self._log).begun - before.begun - PROBED - (now - known)
        saving = any(not path.name.endswith(".h5") for path in (self._folder / "run").iterdir())
        return Kill(running, kept, twice, saving)

    def _known(self) -> tuple[int, int]:
        """Partitions that the newest checkpoint knows of, of all passes and of the running one."""
        found = dfit.Checkpoint(self._folder / "run").folder.latest()
        if found is None:
            return 0, 0
        snapshot = Snapshot.from_tree(found[0])
        kept = 0 if snapshot.running is None else int(np.count_nonzero(snapshot.running.table["leaves"]))
        return PARTITIONS * int(snapshot.account["passes"]) + kept, kept

    def finish(self, workers: int = 0) -> dict[str, bytes]:
        """Start it and let it end; the bits of its result."""
        assert self.start(workers).wait() == 0, self._output.read_text()
        found = np.load(self._folder / "result.npz")
        assert not self.left()
        return {name: found[name].tobytes() for name in found}

    def left(self) -> list[int]:
        """Worker processes that have not ended."""
        noted = self._folder / "workers"
        pids = map(int, noted.read_text().split()) if noted.exists() else ()
        return [pid for pid in pids if not is_gone(pid)]


def bits(expected: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in expected.items()}


def moments(rng: np.random.Generator, times: int) -> list[int]:
    """Partitions after which each of several processes is killed, so that none of them finishes."""
    return [int(rng.integers(2, PARTITIONS * PASSES // times - PARTITIONS // 4)) for _ in range(times)]


def require_struck(kill: Kill) -> None:
    assert kill.running > 0 and kill.kept > 0


@pytest.mark.long
def test_a_client_killed_again_and_again_ends_with_the_same_bits(
    tmp_path: Path, source_environment: dict[str, str], expected: dict[str, np.ndarray]
) -> None:
    program = Program(tmp_path, source_environment)
    for after in moments(np.random.default_rng(), 3):
        kill = program.kill(after)
        require_struck(kill)
        assert kill.twice <= WIDTH + 1  # under way, or just being saved
    assert program.finish() == bits(expected)


@pytest.mark.long
def test_what_was_killed_with_its_cluster_goes_on_on_one_of_another_size(
    tmp_path: Path, source_environment: dict[str, str], expected: dict[str, np.ndarray]
) -> None:
    program = Program(tmp_path, source_environment)
    require_struck(program.kill(2 * PARTITIONS + PARTITIONS // 2, workers=2))
    assert program.finish(workers=1) == bits(expected)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", [0, WIDTH], ids=["threads", "cluster"])
def test_fifty_killed_clients_end_with_the_same_bits(
    workers: int, tmp_path: Path, source_environment: dict[str, str], expected: dict[str, np.ndarray]
) -> None:
    rng, kills, same = np.random.default_rng(50), [], 0
    for turn in range(10):
        folder = tmp_path / str(turn)
        folder.mkdir()
        program = Program(folder, source_environment)
        for after in moments(rng, 5):
            kills.append(program.kill(after, workers, everything=bool(turn % 2)))
            require_struck(kills[-1])
        same += program.finish(workers) == bits(expected)
    twice = [kill.twice for kill in kills]
    print(
        f"\n{len(kills)} clients killed in {same} fits that ended with the same bits; {sum(k.saving for k in kills)} "
        f"of them in the midst of a save. Computed twice: {np.mean(twice):.1f} of {PARTITIONS * PASSES} partitions "
        f"by kill, {max(twice)} at most"
    )
    assert same == 10
