"""Plans and strategies on worker processes: what is planned is done, with the bits of this process."""

from __future__ import annotations

import os
import time
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
from dfit.history import ledger
from dfit.plans import Plan
from dfit.terms import Origin
from tests.cluster.faults import POINTS, bits, block, decay, slow_data

CHUNKS = 12


@pytest.fixture(autouse=True)
def a_leaf_for_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", POINTS)
    monkeypatch.setattr("dfit.data.first.LEAF_POINTS", POINTS)


OPTIONS: dict[str, Any] = {"p0": [2, 1, 0], "warmup": False, "retries": 0}


def fitted(y: xr.DataArray, **options: Any) -> dfit.FitResult:
    return dfit.fit(decay, y, "time", **OPTIONS | options)


def planned(y: xr.DataArray, **options: Any) -> Plan:
    return dfit.plan(decay, y, "time", **OPTIONS | options)


@pytest.fixture(scope="module")
def here() -> Iterator[dfit.FitResult]:
    """The fit in this process."""
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr("dfit.data.plan.LEAF_POINTS", POINTS)
        yield fitted(slow_data(0, CHUNKS))


@pytest.mark.parametrize("strategy", ["in_memory", "cached", "streaming"])
def test_every_strategy_runs_as_planned_with_the_bits_of_this_process(
    strategy: str, client: Client, here: dfit.FitResult
) -> None:
    y = slow_data(0, CHUNKS)
    plan = planned(y, strategy=strategy, plan=Plan(partition_points=3 * POINTS))
    found = fitted(y, plan=plan)
    assert bits(found) == bits(here)
    assert found.plan == plan
    workers = 0 if strategy == "in_memory" else 2
    assert (plan.strategy, plan.partitions, plan.workers) == (strategy, CHUNKS // 3, workers)
    assert (plan.limit.source == "worker memory_limit") == (workers > 0)
    assert found.partitions.sizes["partition"] == CHUNKS // 3
    passes = found.npasses if strategy == "streaming" else 1
    assert found.run.bytes_read == passes * plan.bytes_per_pass == passes * y.nbytes


@pytest.mark.parametrize("strategy", [None, "cached", "streaming"])
def test_data_persisted_on_workers_are_fitted_there(
    strategy: str | None, client: Client, here: dfit.FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.costing.TRY_ABOVE", 0)
    y = slow_data(0, CHUNKS).persist()
    found = fitted(y, strategy=strategy)
    assert bits(found) == bits(here)
    assert found.plan.strategy == (strategy or "cached")
    assert found.plan.terms.origin == Origin.DRY_RUN


def test_data_persisted_on_workers_are_not_fitted_in_this_process(client: Client) -> None:
    y = slow_data(0, CHUNKS).persist()
    with pytest.raises(dfit.InputError, match=r"persisted on a cluster.*type strategy='cached'"):
        planned(y, strategy="in_memory")
    with dask.config.set(scheduler="threads"), pytest.raises(dfit.InputError, match="persisted on a cluster"):
        planned(y)


def test_costs_are_tried_on_the_workers(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.costing.TRY_ABOVE", 0)
    slow, quick = (planned(slow_data(read_s, CHUNKS)).terms for read_s in (0.3, 0))
    assert slow.origin == quick.origin == Origin.DRY_RUN
    assert slow.byte_ns > 3 * quick.byte_ns
    assert slow.wait > 0.5


def test_what_workers_keep_is_remembered_with_what_reading_it_took(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.costing.TRY_ABOVE", 0)
    with dask.config.set({"dfit.history": str(tmp_path)}):
        fitted(slow_data(0.05, CHUNKS), strategy="cached")
        kept = ledger()
        assert kept is not None
        (record,) = kept.load()
    assert record.measured["byte_ns"] > 0.9 * 0.05e9 / (8 * POINTS)


def test_tasks_that_take_long_are_cut_on_workers(
    client: Client, here: dfit.FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.reduce.cluster.LONGEST_S", 1e-6)
    whole = Plan("streaming", CHUNKS * POINTS)
    found = fitted(slow_data(0, CHUNKS), plan=whole)
    assert bits(found) == bits(here)
    assert found.faults.tasks == 1 + (found.npasses - 1) * CHUNKS
    kept = fitted(slow_data(0, CHUNKS), plan=Plan("cached", CHUNKS * POINTS))
    assert bits(kept) == bits(here) and kept.faults.tasks == kept.npasses


def test_workers_without_a_limit_share_the_memory_of_their_machine() -> None:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, memory_limit=0, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        plan = planned(slow_data(0, CHUNKS))
    assert plan.limit.bytes == dfit.limits.process_limit()[0] // 2
    assert plan.limit.source.endswith("shared by 2 workers")


def test_a_cluster_without_workers_has_no_memory_that_is_known() -> None:
    y = slow_data(0, CHUNKS)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster, Client(cluster):
        with pytest.warns(dfit.DfitWarning, match="no worker yet.*cluster.adapt"):
            planned(y)
        assert planned(y, memory_limit="4 GB").limit.bytes == 4 * 10**9


@pytest.mark.parametrize(("limit", "strategy"), [("1GiB", "streaming"), ("3GiB", "cached")])
def test_memory_of_a_worker_changes_the_decision(limit: str, strategy: str) -> None:
    y = xr.DataArray(da.zeros((64, 1 << 20), chunks=(1, -1)), dims=("time", "i"))
    y = y.assign_coords(time=np.arange(64.0))
    cluster = LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0", memory_limit=limit)
    with cluster, Client(cluster):
        plan = planned(y, plan="static")
        assert (plan.strategy, plan.workers, plan.threads) == (strategy, 1, 2)
        assert planned(y, plan="static", memory_limit="900 MiB").strategy == "streaming"


_reading: list[int] = []


def watched_block(block_info: Any = None) -> np.ndarray:
    """A chunk; `_reading` has how many are read at the same time whenever one is."""
    k = block_info[None]["chunk-location"][0]
    _reading.append(1)
    time.sleep(0.02)
    _reading.append(-1)
    return block(0, (k,))


@pytest.mark.parametrize(("wanted", "most"), [(1, 1), (None, 3), (5, 3)])
def test_threads_of_a_worker_sum_as_many_partitions_as_planned(wanted: int | None, most: int) -> None:
    plain = slow_data(0, CHUNKS)
    y = plain.copy(data=da.map_blocks(watched_block, chunks=plain.chunks, dtype=float, meta=np.empty((0, 0))))
    cluster = LocalCluster(n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0")
    with cluster, Client(cluster):
        plan = planned(y, plan=Plan("streaming", POINTS, wanted, False))
        assert (plan.in_flight, plan.threads) == (most, most)
        _reading.clear()
        assert fitted(y, plan=plan).plan == plan
    assert len(_reading) >= 2 * CHUNKS
    at_once = max(np.cumsum(_reading))
    assert at_once == 1 if most == 1 else 1 < at_once <= most


def deadly_block(folder: Path, block_id: Any = None) -> np.ndarray:
    """A chunk that ends the first process that reads it."""
    try:
        (folder / "read").touch(exist_ok=False)
    except FileExistsError:
        return slow_data(0, CHUNKS).data.blocks[block_id].compute(scheduler="synchronous")
    os._exit(1)


@pytest.mark.long
@pytest.mark.parametrize(("workers", "origin"), [(1, Origin.STATIC), (2, Origin.DRY_RUN)])
def test_a_worker_killed_in_the_dry_run_costs_no_fit(
    workers: int, origin: Origin, tmp_path: Path, here: dfit.FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.costing.TRY_ABOVE", 0)
    plain = slow_data(0, CHUNKS)
    y = plain.copy(
        data=da.map_blocks(deadly_block, tmp_path, chunks=plain.chunks, dtype=float, meta=np.empty((0, 0)))
    )
    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster):
        found = fitted(y)
    assert (tmp_path / "read").exists()
    assert bits(found) == bits(here)
    assert found.plan.terms.origin == origin


@pytest.mark.long
@pytest.mark.parametrize("strategy", [None, "in_memory"])
def test_processes_of_dask_give_the_same_bits(strategy: str | None, here: dfit.FitResult) -> None:
    with dask.config.set(scheduler="processes", num_workers=2):
        found = fitted(slow_data(0, CHUNKS), strategy=strategy)
    assert bits(found) == bits(here)
    assert found.plan.strategy == (strategy or "streaming")
