"""Chunks that end the process that reads them: the partition is parted, and named where that does not help."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import dfit
from tests.cluster.faults import POINTS, bits, decay

CHUNKS, DEADLY = 48, 13


@pytest.fixture(autouse=True)
def four_chunks_to_a_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", POINTS)
    monkeypatch.setattr("dfit.planning.TASKS_PER_THREAD", CHUNKS // 8)


@pytest.fixture(scope="module")
def unforgiving() -> Iterator[Client]:
    """Client of a cluster that blames a task for the first worker that it loses, and no task that waits there."""
    alone = {"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.worker-saturation": 1.0}
    with (
        dask.config.set(alone),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit="2GiB"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def block(lives: Path, block_id: Any = None) -> np.ndarray:
    """A chunk; one of them ends its process while there are lives left in a folder."""
    if block_id[0] == DEADLY:
        for life in lives.glob("*"):
            life.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    rng = np.random.default_rng(block_id[0])
    t = np.linspace(0, 6, POINTS)
    return 3 * np.exp(-t / 2) + 1 + rng.normal(0, 0.1, (1, POINTS))


def deadly(lives: Path, count: int) -> xr.DataArray:
    lives.mkdir(exist_ok=True)
    for life in range(count):
        (lives / str(life)).touch()
    chunks = ((1,) * CHUNKS, (POINTS,))
    y = da.map_blocks(block, lives, chunks=chunks, dtype=float, meta=np.empty((0, 0)))
    return xr.DataArray(y, dims=("shot", "time"), coords={"time": np.linspace(0, 6, POINTS)})


def fit(y: xr.DataArray, client: Client) -> dfit.FitResult:
    client.wait_for_workers(2, timeout=60)  # partitions follow from their number
    with client.as_current():
        return dfit.fit(decay, y, "time", p0=[2, 1, 0], max_passes=2)


@pytest.mark.parametrize(
    ("combined", "kept"), [(False, True), pytest.param(True, False, marks=pytest.mark.long)]
)
def test_a_partition_whose_worker_died_is_summed_in_two_tasks_to_the_same_bits(
    combined: bool,
    kept: bool,
    unforgiving: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("dfit.reduce.cluster.COMBINE_ABOVE", 5 if combined else 1000)
    if not kept:
        monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 0.0)
    expected = fit(deadly(tmp_path / "none", 0), unforgiving)
    with caplog.at_level(logging.WARNING, "dfit"):
        found = fit(deadly(tmp_path / "lives", 1), unforgiving)
    assert list((tmp_path / "lives").glob("*")) == []
    assert "partition 3: its worker was killed again and again: 4 leaves in one task" in caplog.text
    assert "from now on 2 and 2 in two" in caplog.text
    assert bits(found) == bits(expected)


def test_a_chunk_that_always_kills_its_worker_is_named(unforgiving: Client, tmp_path: Path) -> None:
    with pytest.raises(dfit.WorkerError) as caught:
        fit(deadly(tmp_path / "lives", 1000), unforgiving)
    said = str(caught.value)
    assert "partition 3 (shot[" in said and "killed again and again, even alone in its task" in said
    assert "y = y.chunk(...) with smaller chunks" in said
