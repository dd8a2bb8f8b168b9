"""Memory that runs out over a partition: fewer leaves in a task, the same bits."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from tests.cluster.faults import bits
from tests.cluster.overlapping import fit, overlapping

ROOT = Path(__file__).resolve().parents[2]
POINTS = 1 << 20  # 8 MiB a block, 128 MiB a partition

# Fits undisturbed, then with so many MiB to spare.
LIMITED = f"""
import ctypes, logging, resource, sys
from pathlib import Path
import dask
import dfit.planning
from tests.cluster.faults import bits
from tests.cluster.overlapping import fit, overlapping

dfit.planning.TASKS_PER_THREAD, dfit.planning.KEEP_FRACTION = 1, 0.0
dask.config.set(scheduler="threads", num_workers=1)
logging.basicConfig(stream=sys.stdout, level=logging.WARNING)
ctypes.CDLL(None).mallopt(-3, 1 << 20)  # blocks are given back when they are freed
y = overlapping({POINTS})
free = fit(y, 2)
for spare in sys.argv[1:]:
    print("spare:", spare)
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line)
    limit = int(held.split()[1]) * 1024 + int(spare) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    try:
        limited = fit(y, 2)
    except dfit.WorkerError as error:
        print("error:", error)
    else:
        print("same bits:", bits(limited) == bits(free), limited.npasses)
        for action in limited.recovery_actions:
            print("done:", action["strategy"], "at", action["partition"], action["detail"])
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.fixture(scope="module")
def said(source_environment: dict[str, str]) -> list[str]:
    """What the script prints with little memory to spare, and with next to none."""
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, "90", "10"],
        env=source_environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    return found.stdout.split("spare:")[1:]


def test_a_partition_too_large_for_this_process_is_summed_in_pieces_to_the_same_bits(
    said: list[str],
) -> None:
    assert (
        said[0].count("partition 0: memory ran out: 64 leaves in one task, from now on 32 and 32 in two") == 1
    )
    assert "same bits: True 2" in said[0]
    assert "error" not in said[0]
    assert said[0].count("done: fewer leaves per task at 0 memory ran out: 64 leaves") == 1


def test_a_chunk_too_large_for_this_process_ends_the_fit_with_the_line_to_type(said: list[str]) -> None:
    assert "same bits" not in said[1]
    assert "memory ran out, even alone in its task" in said[1]
    assert "y = y.chunk(...) with smaller chunks" in said[1]


@pytest.mark.slow
def test_a_partition_that_kills_its_workers_is_summed_in_pieces_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dfit.planning.TASKS_PER_THREAD", 1)
    monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 0.0)
    y = overlapping(3 * POINTS, 0.03)  # 384 MiB a partition, beside some 300 of the worker itself
    with dask.config.set(scheduler="synchronous"):
        expected = fit(y)
    few = dask.config.set({"distributed.scheduler.allowed-failures": 1})
    with (
        few,
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", memory_limit="560MiB"
        ) as cluster,
        Client(cluster),
        caplog.at_level(logging.WARNING, "dfit"),
    ):
        found = fit(y)
    said = [record.getMessage() for record in caplog.records if record.name == "dfit"]
    assert any("its worker was killed again and again: 192 leaves in one task" in line for line in said)
    assert bits(found) == bits(expected)
    assert "fewer leaves per task" in {action["strategy"] for action in found.recovery_actions}
