"""Programs that write a map and are killed: the same call goes on and ends with the same map."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr

from tests.cluster.faults import is_gone, wait_until
from tests.cluster.killed_map import REGIONS, SIZE, fit

LOOKED_AT = 3  # chunks of which every process looks at some points
AT_A_TIME = 2


class Kill(NamedTuple):
    """What a kill met: regions that were finished before and after it began, and region reads in between."""

    before: int
    after: int
    read: int


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    found = fit(tmp_path_factory.mktemp("undisturbed") / "log").compute()
    assert bool(found.curvefit_success.all()) and found.sizes["y"] == SIZE
    return found


class Program:
    """The program, started again and again in one folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment, self._output = folder, environment, folder / "output"

    @property
    def marks(self) -> int:
        """How many regions are finished."""
        place = self._folder / "map.zarr" / "dfit_regions"
        return sum(path.name.startswith("0-") for path in place.iterdir()) if place.exists() else 0

    @property
    def reads(self) -> list[str]:
        """What the processes have read; "begin" where one of them began."""
        log = self._folder / "log"
        return log.read_text().split() if log.exists() else []

    def start(self, workers: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.cluster.killed_map", str(self._folder)]
        with self._output.open("a") as output:
            return subprocess.Popen(
                [*command, "--workers", str(workers)],
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill(self, after: int, delay_s: float = 0.0, workers: int = 0, everything: bool = False) -> Kill:
        """Start it, and kill it some time after it has finished so many regions more."""
        before, known = self.marks, len(self.reads)
        process = self.start(workers)

        def struck() -> bool:
            assert process.poll() is None, self._output.read_text()
            return len(self.reads) > known and self.marks >= before + after

        wait_until(struck)
        time.sleep(delay_s)  # where in the writing of a region it strikes is left to chance
        (os.killpg if everything else os.kill)(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        noted = self._folder / "workers"
        pids = list(map(int, noted.read_text().split())) if noted.exists() else []
        wait_until(lambda: all(map(is_gone, pids)))
        return Kill(before, self.marks, len(self.reads) - known - 1)

    def finish(self, workers: int = 0) -> xr.Dataset:
        """Start it and let it end; its map."""
        assert self.start(workers).wait() == 0, self._output.read_text()
        return xr.open_zarr(self._folder / "map.zarr").compute()


def require_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Refuse a map that is not the undisturbed one, bit for bit."""
    xr.testing.assert_equal(found[list(expected)], expected)
    for name in expected:
        assert found[name].values.tobytes() == expected[name].values.tobytes()


def test_a_killed_program_goes_on_and_ends_with_the_same_map(
    tmp_path: Path, source_environment: dict[str, str], expected: xr.Dataset
) -> None:
    program = Program(tmp_path, source_environment)
    for after in (9, 11):
        kill = program.kill(after)
        assert kill.before + after <= kill.after < REGIONS
        assert kill.read <= 2 * (kill.after - kill.before + AT_A_TIME) + LOOKED_AT
    missing = REGIONS - program.marks
    known = len(program.reads)
    require_same(program.finish(), expected)
    assert program.marks == REGIONS
    assert len(program.reads) - known <= 1 + LOOKED_AT + 2 * missing


@pytest.mark.long
def test_a_map_killed_with_its_cluster_goes_on_in_threads(
    tmp_path: Path, source_environment: dict[str, str], expected: xr.Dataset
) -> None:
    program = Program(tmp_path, source_environment)
    kill = program.kill(8, workers=2, everything=True)
    assert 8 <= kill.after < REGIONS
    require_same(program.finish(), expected)
    assert program.marks == REGIONS


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thirty_killed_programs_end_with_the_same_maps(
    tmp_path: Path, source_environment: dict[str, str], expected: xr.Dataset
) -> None:
    rng, kills = np.random.default_rng(30), []
    for turn in range(6):
        folder = tmp_path / str(turn)
        folder.mkdir()
        program = Program(folder, source_environment)
        workers = AT_A_TIME if turn == 5 else 0
        for k in range(5):
            # the first ones while the store is laid out
            after, delay = (
                (0, rng.uniform(0, 0.4)) if k == 0 else (int(rng.integers(1, 6)), rng.uniform(0, 0.1))
            )
            kills.append(program.kill(after, delay, workers, everything=bool(turn % 2)))
        require_same(program.finish(workers), expected)
    early = sum(kill.after == 0 for kill in kills)
    twice = [kill.read / 2 - (kill.after - kill.before) for kill in kills]
    print(
        f"\n{len(kills)} programs killed, {early} before a region was finished; 6 maps with the same bits. Read "
        f"twice by a kill: {np.mean(twice):.1f} of {REGIONS} regions, {max(twice):.1f} at most"
    )
    assert len(kills) == 30 and early > 0 and max(twice) <= AT_A_TIME + LOOKED_AT
