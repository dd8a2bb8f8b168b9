"""What is told of how data are stored, on real files; none of the data are read for it."""

from __future__ import annotations

import pickle
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from dask.local import get_sync
from distributed import Client

from dfit.data.storage import Storage, lock_advice, storage_of

SHAPE, CHUNK = (100, 40), (10, 40)
CHUNK_BYTES = 10 * 40 * 8
VALUES = np.arange(4000.0).reshape(SHAPE)
SCAN = xr.DataArray(VALUES, dims=("t", "x"), name="y")


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("data were read")


def told(array: xr.DataArray) -> Storage:
    """What is told of the storage, where a computation by dask fails."""
    with dask.config.set(scheduler=refuse):
        return storage_of(array)


def saved(path: Path, **encoding: Any) -> None:
    engine = encoding.pop("engine", "h5netcdf")
    SCAN.to_dataset().to_netcdf(path, engine=engine, encoding={"y": encoding})


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("compressors", "codec"),
    [(None, "none"), ("zstd", "zstd"), ("gzip", "gzip"), ("blosc", "blosc:lz4")],
)
def test_codec_of_zarr_is_named(tmp_path: Path, version: int, compressors: str | None, codec: str) -> None:
    import numcodecs
    from zarr import codecs

    made = {
        (2, "zstd"): lambda: numcodecs.Zstd(),
        (2, "gzip"): lambda: numcodecs.GZip(),
        (2, "blosc"): lambda: numcodecs.Blosc(cname="lz4"),
        (3, "zstd"): lambda: codecs.ZstdCodec(),
        (3, "gzip"): lambda: codecs.GzipCodec(),
        (3, "blosc"): lambda: codecs.BloscCodec(cname="lz4"),
    }
    chosen = made[version, compressors]() if compressors else None
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    names = (
        {"dimension_names": ("t", "x")} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": ["t", "x"]}}
    )
    group.create_array("y", shape=SHAPE, chunks=CHUNK, dtype="f8", compressors=chosen, **names)
    expected = Storage("zarr", codec, False, CHUNK_BYTES)
    opened = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert told(opened.y) == expected
    assert told(xr.DataArray(da.from_zarr(tmp_path / "a.zarr", component="y"))) == expected


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in")
def test_filters_of_zarr_come_before_its_compressor(tmp_path: Path) -> None:
    from zarr.codecs.numcodecs import Delta, Zlib

    stored = zarr.create_array(
        tmp_path / "a.zarr",
        shape=SHAPE,
        chunks=CHUNK,
        shards=(50, 40),
        dtype="f8",
        filters=[Delta(dtype="<f8")],
        compressors=[Zlib()],
    )
    lazy = xr.DataArray(da.from_array(stored, chunks=(50, 40), inline_array=True))
    assert told(lazy) == Storage("zarr", "delta+zlib", False, CHUNK_BYTES)


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
@pytest.mark.parametrize(
    ("encoding", "codec", "chunk_bytes"),
    [
        ({}, "none", 0),
        ({"chunksizes": CHUNK}, "none", CHUNK_BYTES),
        ({"chunksizes": CHUNK, "zlib": True, "shuffle": True}, "shuffle+gzip", CHUNK_BYTES),
        (
            {"chunksizes": CHUNK, "zlib": True, "shuffle": False, "dtype": "i2", "_FillValue": -1},
            "gzip",
            CHUNK_BYTES // 4,
        ),
    ],
)
def test_netcdf4_is_read_behind_a_lock(
    tmp_path: Path, engine: str, encoding: dict[str, Any], codec: str, chunk_bytes: int
) -> None:
    if engine == "netcdf4":
        pytest.importorskip("netCDF4")
    saved(tmp_path / "a.nc", **encoding)
    with xr.open_dataset(tmp_path / "a.nc", engine=engine, chunks={"t": 20}) as opened:
        assert told(opened.y) == Storage("netcdf", codec, True, chunk_bytes)


def test_classic_netcdf_has_no_codec_and_no_lock(tmp_path: Path) -> None:
    saved(tmp_path / "a.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "a.nc", engine="scipy", chunks={}) as opened:
        assert told(opened.y) == Storage("netcdf", "none", False, 0)


@pytest.mark.parametrize("lock", [True, False])
@pytest.mark.parametrize(
    ("options", "codec", "chunk_bytes"),
    [
        ({}, "none", 0),
        ({"chunks": CHUNK, "compression": "lzf"}, "lzf", CHUNK_BYTES),
        ({"chunks": CHUNK, "compression": "gzip", "shuffle": True}, "shuffle+gzip", CHUNK_BYTES),
    ],
)
def test_h5py_is_locked_whatever_the_user_says(
    tmp_path: Path, lock: bool, options: dict[str, Any], codec: str, chunk_bytes: int
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = file.create_dataset("y", data=VALUES, **options)
        lazy = xr.DataArray(da.from_array(stored, chunks=(20, 40), lock=lock))
        assert told(lazy) == Storage("hdf5", codec, True, chunk_bytes)


def test_a_closed_file_leaves_the_codec_unknown(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        lazy = xr.DataArray(da.from_array(file.create_dataset("y", data=VALUES), chunks=(20, 40), name="y"))
    assert told(lazy) == Storage("hdf5", "unknown", True, 0)


def test_a_removed_file_leaves_the_codec_unknown(tmp_path: Path) -> None:
    saved(tmp_path / "a.nc", chunksizes=CHUNK, zlib=True)
    travelled = pickle.dumps(xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf", chunks={}).y)
    lazy = pickle.loads(travelled)
    lazy.close()
    xr.backends.file_manager.FILE_CACHE.clear()
    (tmp_path / "a.nc").unlink()
    assert told(lazy) == Storage("netcdf", "unknown", True, 0)


def test_the_users_own_lock_counts(tmp_path: Path) -> None:
    stored = zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, chunks=CHUNK, dtype="f8")
    free, locked = (xr.DataArray(da.from_array(stored, chunks=CHUNK, lock=lock)) for lock in (False, True))
    assert [told(array).locked for array in (free, locked)] == [False, True]


def test_arithmetic_keeps_the_storage_of_its_largest_array(tmp_path: Path) -> None:
    saved(tmp_path / "y.nc", chunksizes=CHUNK, zlib=True, shuffle=False)
    SCAN[0].to_dataset(name="dark").chunk().to_zarr(tmp_path / "dark.zarr", zarr_format=2)
    with xr.open_dataset(tmp_path / "y.nc", engine="h5netcdf", chunks={}) as opened:
        dark = xr.open_zarr(tmp_path / "dark.zarr").dark
        flat = xr.DataArray(np.full(40, 2.0), dims="x")
        expected = Storage("netcdf", "gzip", True, CHUNK_BYTES)
        assert told((opened.y - dark) / flat) == expected
        assert told(((dark - opened.y) / flat).transpose("t", "x").chunk(t=35)[7:]) == expected
        assert told(opened.y - opened.y.mean("t")) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.pad(t=10),
        lambda y: xr.concat([xr.full_like(y, 0.0), y], "t"),
        lambda y: y.rolling(t=3).mean(),
        lambda y: y.groupby(y.t % 3).mean(),
        lambda y: xr.apply_ufunc(np.sqrt, y, dask="parallelized", output_dtypes=[float]),
        lambda y: y.stack(p=("t", "x")).isel(p=slice(7, None, 3)),
        lambda y: y.copy(data=da.map_overlap(np.negative, y.data, depth=1, boundary="none")),
        lambda y: y.copy(data=dask.optimize(y.data * 2 + 1)[0]),
        lambda y: xr.DataArray(da.ma.masked_greater(y.data[y.data[:, 0] > -1], 3)),
        lambda y: y.mean(),
    ],
    ids=["pad", "concat", "rolling", "groupby", "ufunc", "stack", "overlap", "optimized", "masked", "mean"],
)
def test_no_operation_hides_the_store_below(tmp_path: Path, change: Callable[[xr.DataArray], Any]) -> None:
    coords = {"t": np.arange(100), "x": np.arange(40)}
    SCAN.assign_coords(coords).to_dataset().chunk(t=10).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    changed = change(xr.open_zarr(tmp_path / "a.zarr").y)
    assert told(changed) == Storage("zarr", "blosc:lz4", False, CHUNK_BYTES)


class Detector:
    """An array that no library knows, and that cannot be read."""

    shape, dtype, ndim = SHAPE, np.dtype("f8"), 2

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("data were read")


def mapped(path: Path) -> Any:
    return da.from_array(np.memmap(path / "a.raw", dtype="f8", shape=SHAPE, mode="w+"), chunks=CHUNK)


@pytest.mark.parametrize(
    ("kind", "codec", "make"),
    [
        ("memory", "none", lambda _: VALUES),
        ("memory", "none", lambda _: da.from_array(VALUES, chunks=CHUNK)),
        (
            "memory",
            "none",
            lambda _: da.ones(SHAPE, chunks=CHUNK).map_blocks(np.negative).persist(scheduler=get_sync),
        ),
        (
            "computed",
            "none",
            lambda _: da.random.random(SHAPE, chunks=CHUNK) - da.from_array(VALUES, chunks=CHUNK),
        ),
        ("computed", "none", lambda _: da.from_delayed(dask.delayed(np.zeros)(SHAPE), SHAPE, "f8")),
        ("other", "unknown", lambda _: da.from_array(Detector(), chunks=CHUNK, meta=np.empty((0, 0)))),
        ("other", "none", mapped),
        ("computed", "none", lambda _: da.Array({("a", 0, 0): (np.ones, SHAPE)}, "a", ((100,), (40,)), "f8")),
    ],
    ids=[
        *("NumPy", "NumPy by dask", "persisted here", "random numbers", "delayed"),
        *("an unknown array", "a memory map", "a graph by hand"),
    ],
)
def test_what_is_in_no_store_is_told_by_kind(
    tmp_path: Path, kind: str, codec: str, make: Callable[[Path], Any]
) -> None:
    assert told(xr.DataArray(make(tmp_path), dims=("t", "x"))) == Storage(kind, codec, False, 0)


def test_blocks_persisted_on_a_cluster_count_as_computed(tmp_path: Path) -> None:
    SCAN.to_dataset().chunk(t=10).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None):
        kept = xr.open_zarr(tmp_path / "a.zarr").y.persist()
        expected = Storage("computed", "none", False, 0)
        assert told(kept) == expected
        assert told((kept - kept.mean("t")) / 2) == expected


def test_a_dataset_opened_without_chunks_counts_as_in_memory(tmp_path: Path) -> None:
    saved(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as opened:
        assert told(opened.y) == Storage("memory", "none", False, 0)
        assert not opened.y.variable._in_memory


def test_storage_tells_nothing_of_where_data_lie(tmp_path: Path) -> None:
    saved(tmp_path / "secret.nc", chunksizes=CHUNK, zlib=True)
    with xr.open_dataset(tmp_path / "secret.nc", engine="h5netcdf", chunks={}) as opened:
        assert "secret" not in repr(told(opened.y))


def test_storage_of_many_chunks_is_told_from_one_of_them(tmp_path: Path) -> None:
    stored = zarr.create_array(tmp_path / "a.zarr", shape=(10_000, 4), chunks=(1, 4), dtype="f8")

    def seconds(chunks: int) -> float:
        lazy = da.from_array(stored, chunks=(10_000 // chunks, 4))
        centred = xr.DataArray((lazy - lazy.mean(0)) / 2)
        start = time.perf_counter()
        assert told(centred).kind == "zarr"
        return time.perf_counter() - start

    pairs = [(seconds(10_000), seconds(10)) for _ in range(7)]
    assert statistics.median(many / few for many, few in pairs) < 5


COMPRESSED = Storage("netcdf", "shuffle+gzip", True, CHUNK_BYTES)


def test_advice_of_a_lock_is_to_read_in_processes_or_convert() -> None:
    said = lock_advice(COMPRESSED, 8)
    assert said is not None and "8 threads" in said and "shuffle+gzip" in said
    assert "Client(processes=True, threads_per_worker=1)" in said and ".to_zarr(path)" in said


@pytest.mark.parametrize(
    ("storage", "threads"),
    [
        (COMPRESSED, 1),
        (Storage("netcdf", "none", True, CHUNK_BYTES), 8),
        (Storage("hdf5", "unknown", True, 0), 8),
        (Storage("zarr", "zstd", False, CHUNK_BYTES), 8),
    ],
    ids=["one thread", "not compressed", "unknown", "no lock"],
)
def test_no_advice_where_threads_do_not_wait(storage: Storage, threads: int) -> None:
    assert lock_advice(storage, threads) is None
