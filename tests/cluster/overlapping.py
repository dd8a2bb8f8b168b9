"""Data whose whole partition needs all of its blocks at once, and half of it two: and their fit."""

from __future__ import annotations

import time
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

import dfit

BLOCKS = 16


def decay(t, a, tau, c):
    import jax.numpy as jnp

    return a * jnp.exp(-t / tau) + c


def block(points: int, read_s: float, block_id: Any = None) -> np.ndarray:
    time.sleep(read_s)
    noise = np.random.default_rng(block_id[0]).normal(0, 0.1, 4096)
    out = np.linspace(0, -3, points)
    np.exp(out, out=out)
    out *= 3
    out += 1
    out.reshape(-1, 4096)[:] += noise
    return out[None]


def overlapping(points: int, read_s: float = 0.0) -> xr.DataArray:
    """Means of shots k and k + 8: read in order, a block is needed again eight shots later."""
    chunks = ((1,) * BLOCKS, (points,))
    shots = da.map_blocks(block, points, read_s, chunks=chunks, dtype=float, meta=np.empty((0, 0)))
    half = BLOCKS // 2
    later = da.concatenate([shots[half:], shots[:half]])
    t = da.linspace(0, 6, points, chunks=points)
    return xr.DataArray((shots + later) / 2, dims=("shot", "time"), coords={"t": ("time", t)})


def fit(y: xr.DataArray, passes: int = 1) -> dfit.FitResult:
    """The fit of all of y as one partition, where there is one task a thread."""
    with dask.config.set({"dfit.partition-bytes": "4 GiB"}):
        return dfit.fit(decay, y, "t", p0=[2, 1, 0], max_passes=passes, warmup=False)
