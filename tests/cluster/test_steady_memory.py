"""Data ten times as large as the worker's memory, pass after pass: memory stays as it was, nothing is left."""

from __future__ import annotations

import os
import statistics
from operator import sub
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import dfit
from dfit.events import PassDone
from tests.cluster.faults import resident_mib, wait_until

LIMIT = 640 << 20
POINTS = 1 << 17  # of a chunk
COORDINATES = 14  # with y 120 bytes a point, of which only the reading is dear
CHUNKS = 10 * LIMIT // (8 * (1 + COORDINATES) * POINTS) + 1


def slow_to_converge(*arguments: Any) -> Any:
    """Of y = 0: a falls by a fifth in every pass."""
    *x, a = arguments
    return x[0] * a**5


def block(number: int, block_id: Any = None) -> np.ndarray:
    """A chunk of one of the arrays; that of y is 0."""
    return np.full(POINTS, number / (1 + block_id[0]))


def array(number: int, chunks: int) -> xr.DataArray:
    lazy = da.map_blocks(block, number, chunks=((POINTS,) * chunks,), dtype=float, meta=np.empty(0))
    return xr.DataArray(lazy, dims="i")


class Watch:
    """Memory of this process and of the workers after each pass, in MiB; refuses tasks that stay."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pids = {os.getpid(), *client.run(os.getpid).values()}
        self.memory: dict[int, list[float]] = {pid: [] for pid in self._pids}

    def __call__(self, event: PassDone) -> None:
        for pid, seen in self.memory.items():
            seen.append(resident_mib(pid))
        wait_until(lambda: self._left() <= 1)  # the last ones are let go of a moment later

    def _left(self) -> int:
        """Tasks that the scheduler still knows."""
        return self._client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))

    def growth(self, apart: int) -> float:
        """Largest growth of a process over all passes, as fast as in the median from one to that so many later.

        What leaks grows from pass to pass. The allocator's own hold goes up and down, or up once and stays, by
        up to a fifth of a worker: no pass means anything by its difference to one other.
        """
        return max(
            len(seen) / apart * statistics.median(map(sub, seen[apart:], seen)) / seen[0]
            for seen in self.memory.values()
        )


@pytest.mark.parametrize(
    ("passes", "part"),
    [
        pytest.param(10, 8, marks=pytest.mark.long),
        pytest.param(100, 1, marks=[pytest.mark.slow, pytest.mark.timeout(7200)]),
    ],
)
def test_memory_stays_flat_and_no_future_is_left(passes: int, part: int) -> None:
    chunks = CHUNKS // part
    y = array(0, chunks)
    x = {f"x{k}": array(1 + k, chunks) for k in range(COORDINATES)}
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", memory_limit=LIMIT
        ) as cluster,
        Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        watch = Watch(client)
        found = dfit.fit(
            slow_to_converge,
            y,
            x,
            p0={"a": 1.0},
            param_names=["a"],
            max_passes=passes,
            warmup=False,
            callback=watch,
        )
        wait_until(lambda: not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))
        assert client.futures == {}
        assert client.run(os.getpid) == pids, "a worker was started again"
    assert found.npasses == passes
    size = (1 + COORDINATES) * y.nbytes
    growth = watch.growth(passes // 10)
    print(
        f"\n{passes} passes over {size / LIMIT:.1f} times the worker's memory: grown by {100 * growth:.1f} %"
    )
    assert growth < 0.05


@pytest.mark.parametrize("strategy", ["streaming", "cached"])
def test_passes_send_little_and_go_on_after_workers_were_started_again(strategy: str) -> None:
    """What is sent below 1 MB distributed remembers."""
    chunks = 400
    y, x = (array(k, chunks).isel(i=slice(0, None, POINTS // 4)) for k in (0, 1))
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        sent = [client.scheduler_comm.byte_count]

        def count(event: PassDone) -> None:
            if len(sent) == 2:
                client.restart()
            sent.append(client.scheduler_comm.byte_count)

        settings = {"param_names": ["a"], "max_passes": 4, "warmup": False, "callback": count}
        found = dfit.fit(slow_to_converge, y, {"x": x}, p0={"a": 1.0}, strategy=strategy, **settings)
    assert found.npasses == 4
    _, *later = np.diff(sent)
    assert max(later) < 150 * chunks  # bytes; 750 without compression
