"""Fits that are ready to be sampled, over data that count how often their chunks are read."""

from __future__ import annotations

from typing import Any

import dask.array as da
import jax.numpy as jnp
import numpy as np
import xarray as xr

from dfit.data.domain import build_domain
from dfit.data.plan import Source
from dfit.data.subset import SamplePlan, plan_sample
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.prepare import Prepared, prepare
from dfit.reduce.draw import Sample
from dfit.settings import Settings

CHUNK, CHUNKS = 1500, 200
N = CHUNK * CHUNKS
THETA = np.array([3.0, 2.0])


def decay(t, a, tau):
    return a * jnp.exp(-t / tau)


def values() -> tuple[np.ndarray, np.ndarray]:
    """t and y (N,), in order, a tenth of y missing."""
    rng = np.random.default_rng(5)
    t = np.sort(rng.uniform(0, 9, N))
    y = 3 * np.exp(-t / 2.1) + rng.normal(0, 0.05, N)
    y[rng.random(N) < 0.1] = np.nan
    return t, y.astype("f4")


def counted(reads: list[int], broken: int = 0) -> xr.DataArray:
    """y over t in chunks, the numbers of which go into ``reads``; the first so many reads fail."""
    t, y = values()

    def read(start: int) -> np.ndarray:
        reads.append(start // CHUNK)
        if len(reads) <= broken:
            raise OSError("the disk is away")
        return y[start : start + CHUNK]

    def block(block_info: Any = None) -> np.ndarray:
        return read(block_info[None]["array-location"][0][0])

    lazy = da.map_blocks(block, chunks=((CHUNK,) * CHUNKS,), dtype=y.dtype, meta=np.empty(0, y.dtype))
    return xr.DataArray(lazy, dims="i", coords={"t": ("i", t)})


def in_memory() -> xr.DataArray:
    t, y = values()
    return xr.DataArray(y, dims="i", coords={"t": ("i", t)})


def ready(y: xr.DataArray, retries: int = 0, **options: Any) -> Prepared:
    """A fit of y before its first pass; ``options`` are those of the domain."""
    model = Model.from_callable(decay, ("t",))
    domain = build_domain(model, y, "t", **options)
    parameters = Parameters.resolve(model, p0=[1, 1])
    return prepare(model, parameters, domain, Settings(retries=retries), lambda task: None)


def plan_of(fit: Prepared, wanted: int, seed: int = 0, groups: Source | None = None) -> SamplePlan:
    return plan_sample(fit.partitions, wanted, seed, groups, fit.evaluator.runner.reads_again)


def bits(sample: Sample) -> tuple[bytes, ...]:
    return sample.y.tobytes(), sample.coords[0].tobytes(), sample.held.tobytes()
