"""Data for fits that begin on a sample: chunks that tell when they are read; and how far answers are apart."""

from __future__ import annotations

from typing import Any

import dask.array as da
import jax.numpy as jnp
import numpy as np
import xarray as xr

import dfit

N, CHUNK = 20_000, 2000
T = np.linspace(0, 10, N)
Y = 3 * np.exp(-T / 2) + 1 + np.random.default_rng(0).normal(0, 0.1, N)
P0 = [1.0, 1.0, 0.0]
SAMPLE = dfit.Warmup(sample_points=1000)


def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c


def numpy_decay(t, a, tau, c):
    return a * np.exp(-t / tau) + c


def edge(t, a, b):
    return a * jnp.sqrt(b - t)


class Reads(list[int]):
    """The chunks that were read, in order, and how many passes they make."""

    def array(self, y: np.ndarray = Y, t: np.ndarray = T, chunk: int = CHUNK) -> xr.DataArray:
        def block(block_info: Any = None) -> np.ndarray:
            start, end = block_info[None]["array-location"][0]
            self.append(start // chunk)
            return y[start:end]

        chunks = ((chunk,) * (y.size // chunk),)
        lazy = da.map_blocks(block, chunks=chunks, dtype=y.dtype, meta=np.empty(0, y.dtype))
        return xr.DataArray(lazy, dims="i", coords={"t": ("i", t)})


def apart(found: Any, other: Any) -> float:
    """How far two answers are apart, in standard errors of the second."""
    free = [name for name, p in other.params.items() if p.stderr and np.isfinite(p.stderr)]
    return max(
        abs(found.best_values[name] - other.best_values[name]) / other.params[name].stderr for name in free
    )
