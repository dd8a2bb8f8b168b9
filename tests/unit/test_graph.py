"""Pieces of dask graphs: each partition gets its own, and what several need is computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cloudpickle
import dask.array as da
import h5py
import numpy as np
import pytest
import xarray as xr
from dask._task_spec import convert_legacy_graph
from dask.local import get_sync

from dfit.data.domain import Domain
from dfit.data.graph import Upstream, upstream
from dfit.data.loading import Loader
from dfit.data.origin import origin
from dfit.data.plan import chunk_grid, chunks_in_order, partitions_of, sources_of
from dfit.errors import DataError


def load(work, sources, kept):
    loader = Loader(work, sources, kept)
    return [loader.chunk(k) for k in range(len(work.items))]


class Counted:
    """An array on "disk" that counts how often each element is read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.reads = values, np.zeros(values.shape, int)
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        self.reads[key] += 1
        return self.values[key]


VALUES = np.random.default_rng(0).normal(size=(12, 8))
T = np.arange(12.0)


def stored() -> tuple[da.Array, Counted]:
    source = Counted(VALUES)
    lazy = da.from_array(source, chunks=(4, 2), asarray=False, meta=np.empty((0, 0)), inline_array=True)
    return lazy, source


def cut(y: Any, points: int = 8, **others: Any) -> tuple[Upstream, list[tuple[str, Any]]]:
    data = xr.DataArray(y, dims=("time", "x"))
    domain = Domain(data, {"t": xr.DataArray(T, dims="time")}, {}, **others)
    sources = sources_of(domain)
    grid = chunk_grid(domain)
    partitions = partitions_of(list(chunks_in_order(grid)), points)
    return upstream(sources, grid, partitions), [(s.role, s.time) for s in sources]


@pytest.fixture(autouse=True)
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 8)


def kept_values(shared: Upstream) -> dict[Any, Any]:
    keys = list(shared.kept)
    return dict(zip(keys, get_sync(shared.kept_graph, keys) if keys else (), strict=True))


def loaded(shared: Upstream, roles: list[tuple[str, Any]], role: str = "y") -> np.ndarray:
    """One source put together again from all the partitions, each read through pickled work."""
    kept = kept_values(shared)
    number = [name for name, _ in roles].index(role)
    out = np.full(VALUES.shape, np.nan)
    for work in shared.works:
        work = cloudpickle.loads(cloudpickle.dumps(work))
        arrays = load(work, roles, {key: kept[key] for key in work.needs})
        for chunk, row in zip(work.partition.chunks, arrays, strict=True):
            place = tuple(slice(a, a + n) for a, n in zip(chunk.start, chunk.shape, strict=True))
            out[place] = row[number].reshape(-1, 1) if row[number].ndim == 1 else row[number]
    return out


def read_once(shared: Upstream, roles: list[tuple[str, Any]]) -> None:
    kept = kept_values(shared)
    for work in shared.works:
        load(work, roles, {key: kept[key] for key in work.needs})


def test_plain_chunks_are_read_by_their_own_partition_only() -> None:
    y, source = stored()
    shared, roles = cut(y * 2 + 1)
    assert shared.kept == ()
    assert len(shared.works) == 12
    read_once(shared, roles)
    assert (source.reads == 1).all()
    np.testing.assert_array_equal(loaded(shared, roles), VALUES * 2 + 1)


def test_a_mean_is_computed_once_and_not_its_ingredients_kept() -> None:
    y, source = stored()
    shared, roles = cut(y - y.mean(axis=0))
    kept = kept_values(shared)
    assert sum(np.asarray(v).size for v in kept.values()) == VALUES.shape[1]
    assert (source.reads == 1).all()
    for work in shared.works:
        load(work, roles, {key: kept[key] for key in work.needs})
    assert (source.reads == 2).all()
    np.testing.assert_allclose(loaded(shared, roles), VALUES - VALUES.mean(axis=0), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("points", [8, 16, 1000])
def test_overlap_and_rechunk_give_the_right_values(points: int) -> None:
    def smooth(block: np.ndarray) -> np.ndarray:
        return (np.roll(block, 1, 0) + block + np.roll(block, -1, 0)) / 3

    y, source = stored()
    smoothed = y.map_overlap(smooth, depth={0: 1, 1: 0}, boundary="reflect", dtype=float)
    expected = smoothed.compute(scheduler="synchronous")
    source.reads[:] = 0
    shared, roles = cut(smoothed, points)
    np.testing.assert_allclose(loaded(shared, roles), expected, rtol=1e-14)
    y, source = stored()
    shared, roles = cut(y.rechunk((3, 8)), points)
    read_once(shared, roles)
    assert (source.reads == 1).all()
    np.testing.assert_array_equal(loaded(shared, roles), VALUES)


def test_one_partition_keeps_nothing() -> None:
    y, source = stored()
    shared, roles = cut(y - y.mean(axis=0), 1000)
    assert shared.kept == ()
    read_once(shared, roles)
    assert (source.reads == 1).all()


def test_sources_with_other_chunks_are_cut_like_y() -> None:
    y, _ = stored()
    sigma = xr.DataArray(da.from_array(VALUES**2 + 1, chunks=(5, 8)), dims=("time", "x"))
    where = xr.DataArray(da.from_array(VALUES > 0, chunks=(12, 3)), dims=("time", "x"))
    shared, roles = cut(y, sigma=sigma, where=where)
    np.testing.assert_array_equal(loaded(shared, roles, "sigma"), VALUES**2 + 1)
    np.testing.assert_array_equal(loaded(shared, roles, "where"), VALUES > 0)


def test_sources_of_one_block_travel_with_those_that_need_them() -> None:
    y, _ = stored()
    sigma = xr.DataArray(da.from_array(T + 1, chunks=4), dims="time")
    shared, roles = cut(y, sigma=sigma)
    np.testing.assert_array_equal(loaded(shared, roles, "sigma")[:, 0], T + 1)


def test_work_of_a_partition_carries_its_own_part_of_an_array_in_memory() -> None:
    big = np.zeros((1000, 800))
    for y in (xr.DataArray(big, dims=("a", "b")).chunk(a=50), xr.DataArray(big, dims=("a", "b"))):
        sources = sources_of(Domain(y, {"t": xr.DataArray(np.arange(1000.0), dims="a")}, {}))
        grid = tuple((50,) * 20 if n == 1000 else (800,) for n in y.shape)
        shared = upstream(sources, grid, partitions_of(list(chunks_in_order(grid)), 40_000))
        sizes = [len(cloudpickle.dumps(work)) for work in shared.works]
        assert len(sizes) == 20
        assert max(sizes) < 2 * big.nbytes / 20
        assert sum(len(cloudpickle.dumps(node)) for node in shared.kept_graph.values()) < big.nbytes / 20


def test_a_chunk_of_another_shape_than_announced_is_refused() -> None:
    y = da.from_array(VALUES, chunks=(4, 2)).map_blocks(lambda block: block[:1], dtype=float)
    shared, roles = cut(y)
    with pytest.raises(DataError, match=r"partition 0: .*\(1, 2\).*\(4, 2\).*compute_chunk_sizes"):
        read_once(shared, roles)


def test_blocks_come_native_contiguous_and_with_nan_for_masked() -> None:
    masked = np.ma.masked_array(VALUES.astype(">f4"), VALUES > 1)
    y = da.from_array(masked, chunks=(4, 2), asarray=False).map_blocks(lambda b: b.T.copy().T, dtype=">f4")
    shared, roles = cut(y)
    row = load(shared.works[0], roles, {})[0][0]
    assert row.flags.c_contiguous and row.dtype.isnative
    expected = np.where(VALUES > 1, np.nan, VALUES.astype("f4").astype(float))
    np.testing.assert_array_equal(loaded(shared, roles), expected)


def test_origin_is_the_file_below_arithmetic_in_any_store(tmp_path: Path) -> None:
    y = xr.DataArray(np.arange(8.0), dims="x", name="y").to_dataset()
    y.to_netcdf(tmp_path / "y.nc", engine="h5netcdf")
    y.to_zarr(tmp_path / "y.zarr", zarr_format=2)
    with h5py.File(tmp_path / "y.nc") as file:
        found = [
            origin(convert_legacy_graph(dict(lazy.__dask_graph__())), (lazy.name, *(0,) * lazy.ndim))
            for lazy in (
                (xr.open_dataset(tmp_path / "y.nc", engine="h5netcdf", chunks={"x": 4}).y * 2).data,
                (xr.open_zarr(tmp_path / "y.zarr", chunks={"x": 4}).y + 1).data,
                da.from_zarr(tmp_path / "y.zarr" / "y") - 1,
                da.from_array(file["y"], chunks=4).mean(),
                da.ones(4),
            )
        ]
    zarr = f"{tmp_path}/y.zarr/y"
    assert found == [f"{tmp_path}/y.nc", f"file://{zarr}", zarr, f"{tmp_path}/y.nc", ""]


def test_coordinate_travels_once_in_a_task_and_not_once_a_chunk() -> None:
    t = np.arange(50_000.0)
    y = xr.DataArray(da.zeros((20, t.size), chunks=(1, t.size)), dims=("x", "time"))
    domain = Domain(y, {"t": xr.DataArray(t, dims="time")}, {})
    partitions = partitions_of(list(chunks_in_order(chunk_grid(domain))), y.size)
    (work,) = upstream(sources_of(domain), chunk_grid(domain), partitions).works
    assert len(work.items) == 20 and len(cloudpickle.dumps(work)) < 1.1 * t.nbytes
