"""Graphs that lie before the fit: calibrations, means, overlaps, files, persisted arrays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from distributed import Client

import dfit
from dfit.errors import InputError
from dfit.reduce import kept

RNG = np.random.default_rng(3)
T, PLACE = np.linspace(0, 6, 60), np.linspace(-1, 1, 40)
VALUES = 4 * np.exp(-T[:, None] / 1.7) + 0.5 * PLACE + RNG.normal(0, 0.1, (60, 40))
P0 = {"amplitude": 1.0, "tau": 1.0, "c": 0.0}
SMALL = {"dfit.partition-bytes": "1 B"}


def decay(time, amplitude, tau, c):
    return amplitude * jnp.exp(-time / tau) + c


class Stored:
    """An array on disk that leaves a line in a file for each block that is read, from any process."""

    def __init__(self, folder: Path, values: np.ndarray = VALUES) -> None:
        self.log, self.file = folder / "reads.txt", folder / "values.npy"
        np.save(self.file, values)
        self.log.touch()
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        with self.log.open("a") as log:
            log.write(" ".join(f"{part.start}:{part.stop}" for part in key) + "\n")
        return np.array(np.load(self.file, mmap_mode="r")[key])

    def reads(self) -> Counter[str]:
        return Counter(self.log.read_text().splitlines())

    def array(self, chunks: Any = (20, 10)) -> xr.DataArray:
        lazy = da.from_array(self, chunks=chunks, asarray=False, meta=np.empty((0, 0)), name=False)
        return xr.DataArray(lazy, dims=("time", "place"), coords={"time": T, "place": PLACE})


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stored:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 256)  # on the client, which plans
    return Stored(tmp_path)


def fit(y: xr.DataArray, **options: Any) -> dfit.FitResult:
    return dfit.fit(decay, y, "time", p0=P0, **options)


def same(found: dfit.FitResult, values: np.ndarray) -> None:
    expected = fit(xr.DataArray(values, dims=("time", "place"), coords={"time": T}))
    assert found.best_values == pytest.approx(expected.best_values, rel=1e-8)
    assert found.ndata == expected.ndata


def passes_of(y: xr.DataArray, stored: Stored) -> list[Counter[str]]:
    """Reads of every chunk in each pass of a fit."""
    seen: list[Counter[str]] = []

    def look(event: Any) -> None:
        seen.append(stored.reads() - sum(seen, Counter()))

    fit(y, callback=look)
    return seen


@pytest.mark.parametrize("where", ["threads", "synchronous"])
@pytest.mark.parametrize("kept_in_memory", [True, False])
def test_an_anomaly_reads_a_chunk_twice_at_first_and_once_afterwards(
    where: str, kept_in_memory: bool, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept_in_memory:
        monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 0.0)
    y = stored.array()
    with dask.config.set(SMALL, scheduler=where):
        seen = passes_of(y - y.mean("time"), stored)
    assert len(seen) > 2
    assert set(seen[0].values()) == {2} and len(seen[0]) == 12
    for later in seen[1:]:
        assert set(later.values()) == (set() if kept_in_memory else {1})


@pytest.mark.parametrize("kept_in_memory", [True, False])
def test_an_anomaly_on_a_cluster_reads_no_chunk_more_often(
    client: Client, kept_in_memory: bool, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept_in_memory:
        monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 0.0)
        monkeypatch.setattr(kept, "FEW", 100)
    y = stored.array()
    with dask.config.set(SMALL):
        seen = passes_of(y - y.mean("time"), stored)
    assert max(seen[0].values()) <= 2 and len(seen[0]) == 12
    for later in seen[1:]:
        assert set(later.values()) == (set() if kept_in_memory else {1})


def test_an_anomaly_has_the_right_answer(client: Client, stored: Stored) -> None:
    y = stored.array()
    expected = VALUES - VALUES.mean(axis=0)
    with dask.config.set(SMALL):
        same(fit(y - y.mean("time")), expected)
        with dask.config.set(scheduler="threads"):
            same(fit(y - y.mean("time")), expected)


def smooth(block: np.ndarray) -> np.ndarray:
    return (np.roll(block, 1, 0) + block + np.roll(block, -1, 0)) / 3


def test_an_overlap_is_right_and_each_chunk_is_read_once(client: Client, stored: Stored) -> None:
    y = stored.array()
    lazy = y.data.map_overlap(smooth, depth={0: 1, 1: 0}, boundary="reflect", dtype=float)
    expected = lazy.compute(scheduler="synchronous")
    for where in ({}, {"scheduler": "threads"}):
        stored.log.write_text("")
        with dask.config.set(SMALL, **where):
            same(fit(y.copy(data=lazy)), expected)
        assert set(stored.reads().values()) == {1}


def test_a_rechunk_is_right_and_each_chunk_is_read_once(client: Client, stored: Stored) -> None:
    for where in ({}, {"scheduler": "threads"}):
        stored.log.write_text("")
        with dask.config.set(SMALL, **where):
            same(fit(stored.array().chunk(time=60, place=3)), VALUES)
        assert set(stored.reads().values()) == {1}


def test_shared_blocks_that_do_not_fit_are_refused_with_the_line_to_type(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 1e-9)
    with dask.config.set(SMALL, scheduler="threads"), pytest.raises(InputError, match=r"y = y.persist\(\)"):
        fit(stored.array().chunk(time=60, place=3))
    assert sum(stored.reads().values()) < 12


def test_persisted_arrays_are_not_read_again(client: Client, stored: Stored) -> None:
    y = stored.array().persist()
    client.gather(client.futures_of(y.data))
    before = stored.reads()
    with dask.config.set(SMALL):
        same(fit(y), VALUES)
        same(fit(2 * y), 2 * VALUES)
        same(fit(y - y.mean("time")), VALUES - VALUES.mean(axis=0))
    assert stored.reads() == before


def test_sigma_mask_and_coordinates_may_be_persisted(client: Client, stored: Stored) -> None:
    y = stored.array()
    sigma = (0.1 + 0 * y + abs(y.place)).persist()
    expected = fit(xr.DataArray(VALUES, dims=y.dims, coords=y.coords), sigma=sigma.values, where=VALUES > 0)
    with dask.config.set(SMALL):
        found = fit(y, sigma=sigma, where=(y > 0).persist())
    assert found.best_values == pytest.approx(expected.best_values, rel=1e-8)


def test_several_files_are_read_on_the_workers(client: Client, tmp_path: Path) -> None:
    y = xr.DataArray(VALUES, dims=("time", "place"), coords={"time": T, "place": PLACE}, name="signal")
    for i in range(3):
        y[20 * i : 20 * i + 20].to_netcdf(tmp_path / f"{i}.nc", engine="h5netcdf")
    with xr.open_mfdataset(str(tmp_path / "*.nc"), engine="h5netcdf", chunks={"time": 7}) as files:
        same(fit(files.signal * 3 - 1), VALUES * 3 - 1)


@pytest.mark.parametrize("keep", [True, False])
def test_an_array_in_memory_travels_in_pieces_and_once_where_it_is_kept(
    client: Client, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not keep:
        monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 0.0)
    size = 400_000
    t = np.linspace(0, 6, size)
    y = xr.DataArray(4 * np.exp(-t / 1.7) + RNG.normal(0, 0.1, size), dims="time", coords={"time": t})
    sent: list[list[int]] = []
    submit = Client.map

    def record(self: Client, func: Any, blobs: Any, *rest: Any, **options: Any) -> Any:
        sent.append([len(cloudpickle.dumps(blob)) for blob in blobs] or [0])
        return submit(self, func, blobs, *rest, **options)

    monkeypatch.setattr(Client, "map", record)
    with dask.config.set({"dfit.partition-bytes": "1 B"}):
        found = dfit.fit(decay, y.chunk(time=50_000), "time", p0=P0)
    assert found.npasses > 2
    one_pass = 2 * y.nbytes  # y and its coordinate
    assert max(map(max, sent)) < 0.8 * one_pass
    assert sum(map(sum, sent)) < (1.2 if keep else 1.2 * found.npasses) * one_pass
