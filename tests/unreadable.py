"""What tests of unreadable data share: stores whose chunks are damaged for good, and the fit without them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
import zarr

import dfit
from dfit.events import PartitionDone, PassDone

CHUNK, CHUNKS = 2000, 12
BROKEN = 4
START = {"a": 1.0, "k": 1.0}


def decay(t, a, k):
    return a * jnp.exp(-k * t)


def dataset() -> xr.Dataset:
    rng = np.random.default_rng(8)
    t = rng.uniform(0, 5, CHUNK * CHUNKS)
    signal = 2 * np.exp(-1.3 * t) + rng.normal(0, 0.05, t.size)
    signal[::1000] = np.nan
    days = np.datetime64("2020-01-01") + np.arange(t.size) * np.timedelta64(1, "h")
    return xr.Dataset({"signal": ("i", signal)}, {"t": ("i", t), "i": days}).chunk(i=CHUNK)


def as_zarr(folder: Path) -> xr.Dataset:
    checked = {"compressors": [zarr.codecs.Crc32cCodec()]}
    dataset().to_zarr(folder / "data.zarr", encoding={"signal": checked}, zarr_format=3, consolidated=False)
    return xr.open_zarr(folder / "data.zarr", chunks={}, consolidated=False)


def as_hdf5(folder: Path) -> xr.Dataset:
    stored = {"signal": {"chunksizes": (CHUNK,), "fletcher32": True}}
    dataset().to_netcdf(folder / "data.nc", engine="h5netcdf", encoding=stored)
    return xr.open_dataset(folder / "data.nc", engine="h5netcdf", chunks={"i": CHUNK})


def damage_zarr(folder: Path, chunk: int = BROKEN) -> None:
    """One bit of a chunk is another one."""
    path = folder / f"data.zarr/signal/c/{chunk}"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def hide_zarr(folder: Path, chunk: int = BROKEN) -> None:
    """A chunk's file cannot be opened, by nobody: it is a link to itself."""
    path = folder / f"data.zarr/signal/c/{chunk}"
    path.unlink()
    path.symlink_to(path)


def damage_hdf5(folder: Path, chunk: int = BROKEN) -> None:
    path = folder / "data.nc"
    content = path.read_bytes()
    values = dataset().signal.values[chunk * CHUNK : (chunk + 1) * CHUNK].tobytes()
    at = content.index(values[16:64])
    with path.open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(16))


def fitted(data: xr.Dataset, **settings: Any) -> dfit.FitResult:
    return dfit.fit(decay, data.signal, "t", p0=START, **{"warmup": False, "retries": 0, **settings})


def without(*chunks: int, **settings: Any) -> dfit.FitResult:
    """Fit of the data that do not have these chunks, in memory."""
    kept = np.isin(np.arange(CHUNK * CHUNKS) // CHUNK, chunks, invert=True)
    with pytest.warns(dfit.DfitWarning, match="points were left out"):
        return fitted(dataset().compute().isel(i=kept), **settings)


def require_same(found: dfit.FitResult, expected: dfit.FitResult) -> None:
    np.testing.assert_allclose(found.theta, expected.theta, rtol=1e-10)
    np.testing.assert_allclose(found.covariance.stderr, expected.covariance.stderr, rtol=1e-8)
    np.testing.assert_allclose(found.cost, expected.cost, rtol=1e-10)
    assert (found.ndata, found.nfree) == (expected.ndata, expected.nfree)
    assert found.tallies.dropped == expected.tallies.dropped
    np.testing.assert_allclose(found.rsquared, expected.rsquared, rtol=1e-10)


class Spoiler:
    """Damages a chunk in the midst of a pass, when some of its partitions have ended and the chunk's has not."""

    def __init__(self, strike: Callable[[], None], npass: int | None, after: int = 3) -> None:
        self._strike, self.npass, self._after = strike, npass, after
        self.ended: list[int] | None = None
        self._seen: list[PartitionDone] = []

    def partition(self, event: PartitionDone) -> None:
        self._seen.append(event)
        ended = [e.partition for e in self._seen if e.npass == self.npass]
        if len(ended) == self._after and self.ended is None:
            self.ended = ended
            self._strike()

    def after_convergence(self, event: PassDone) -> None:
        if event.relative_offset <= 1e-8:
            self.npass = event.npasses + 1

    def require(self) -> None:
        assert self.ended is not None and 0 < len(self.ended) < CHUNKS and BROKEN not in self.ended
