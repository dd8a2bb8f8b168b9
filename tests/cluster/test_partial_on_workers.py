"""Partitions that workers cannot read are left out; an observer on the client stops what they do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client

import dfit
from dfit.events import PartitionDone
from tests.cluster.faults import decay, fit, slow_data, wait_until

CHUNK, CHUNKS, BROKEN = 2000, 12, 4

pytestmark = [
    pytest.mark.usefixtures("small_leaves", "chunk_partitions"),
    pytest.mark.filterwarnings(
        "ignore:.*are left out, because they could not be read or summed:dfit.DfitWarning"
    ),
]


@pytest.fixture(autouse=True)
def on_the_cluster() -> Iterator[None]:
    """The client's scheduler, and not the one that small leaves ask for."""
    with dask.config.set(scheduler=None):
        yield


def dataset() -> xr.Dataset:
    rng = np.random.default_rng(8)
    t = rng.uniform(0, 5, CHUNK * CHUNKS)
    y = 2 * np.exp(-t / 1.3) + 0.3 + rng.normal(0, 0.05, t.size)
    return xr.Dataset({"y": ("i", y)}, {"t": ("i", t)}).chunk(i=CHUNK)


def stored(folder: Path) -> xr.Dataset:
    checked = {"compressors": [zarr.codecs.Crc32cCodec()]}
    path = folder / "data.zarr"
    dataset().to_zarr(path, encoding={"y": checked}, zarr_format=3, consolidated=False)
    return xr.open_zarr(path, chunks={}, consolidated=False)


def damage(folder: Path) -> None:
    path = folder / f"data.zarr/y/c/{BROKEN}"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def fitted(data: xr.Dataset, **settings: Any) -> dfit.FitResult:
    start = {"a": 1.0, "tau": 1.0, "c": 0.0}
    return dfit.fit(decay, data.y, "t", p0=start, **{"warmup": False, "retries": 0, **settings})


def slowly(block: np.ndarray) -> np.ndarray:
    time.sleep(0.05)
    return block


def require_answer_without_it(found: dfit.FitResult) -> None:
    kept = np.arange(CHUNK * CHUNKS) // CHUNK != BROKEN
    expected = fitted(dataset().compute().isel(i=kept))
    np.testing.assert_allclose(found.theta, expected.theta, rtol=1e-10)
    np.testing.assert_allclose(found.covariance.stderr, expected.covariance.stderr, rtol=1e-8)
    assert (found.ndata, found.nfree) == (expected.ndata, expected.nfree)
    assert [one.partition for one in found.left_out] == [BROKEN] and found.partial
    assert (
        found.message == f"partial: 1 of 12 partitions (8.3 % of the points) are left out: {expected.message}"
    )


def running(dask_scheduler: Any) -> int:
    """Tasks of the fit that the scheduler knows, those that have ended among them."""
    return sum(ts.prefix.name.startswith("dfit") for ts in dask_scheduler.tasks.values())


@pytest.mark.parametrize(
    ("kept", "combined", "warmup"),
    [(True, False, False), (False, True, False), (False, False, True), (True, True, True)],
)
def test_partition_that_workers_cannot_read_is_left_out(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool, combined: bool, warmup: bool
) -> None:
    if not kept:
        monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 1e-9)
    if combined:
        monkeypatch.setattr("dfit.reduce.cluster.COMBINE_ABOVE", 1)
    data = stored(tmp_path)
    damage(tmp_path)
    found = fitted(data, min_success_rate=0.9, warmup=dfit.Warmup(sample_points=3000) if warmup else False)
    require_answer_without_it(found)
    assert "checksum" in found.left_out[0].error
    workers = set(client.run(lambda: __import__("os").getpid()).values())
    table = found.partitions
    assert table is not None
    ran = {int(name.rpartition(":")[2]) for name in table.worker.values if name}
    assert ran <= workers and (table.worker.values == "").nonzero()[0].tolist() == [BROKEN]


def test_partition_lost_in_a_later_pass_on_workers_is_no_part_of_the_answer(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 1e-9)
    data = stored(tmp_path)
    data["y"] = data.y.copy(data=data.y.data.map_blocks(slowly, dtype=float, meta=np.empty(0)))
    struck: list[PartitionDone] = []
    busy: list[int] = []

    def strike(event: PartitionDone) -> None:
        if event.npass == 2 and event.done == 3:
            damage(tmp_path)
            struck.append(event)
            busy.append(client.run_on_scheduler(running))

    found = fitted(data, min_success_rate=0.9, on_partition=strike)
    assert len(struck) == 1 and busy[0] > 3  # tasks of the pass were there, and some had ended
    require_answer_without_it(found)


def test_observer_that_stops_a_pass_leaves_nothing_on_the_cluster(client: Client) -> None:
    seen: list[PartitionDone] = []
    busy: list[int] = []

    def stop(event: PartitionDone) -> bool | None:
        seen.append(event)
        if event.npass == 2 and event.done == 5:
            busy.append(client.run_on_scheduler(running))
            return False
        return None

    before = client.run_on_scheduler(running)
    found = fit(slow_data(0.02, partitions=40), on_partition=stop, warmup=False)
    assert busy[0] > 5  # tasks of the pass were there, and some had ended
    assert (seen[-1].npass, seen[-1].done) == (2, 5) and not found.success
    assert found.npasses == 1 and "stopped by on_partition" in found.message
    wait_until(lambda: client.run_on_scheduler(running) <= before)
