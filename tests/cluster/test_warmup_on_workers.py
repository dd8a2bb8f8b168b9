"""A fit that begins on a sample, on worker processes: the bits of this process."""

from __future__ import annotations

from typing import Any

import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import dfit

N, CHUNK = 60_000, 3000
SAMPLE = dfit.Warmup(sample_points=2000)


def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c


def fitted(**options: Any) -> dfit.FitResult:
    t = np.linspace(0, 9, N)
    y = 3 * np.exp(-t / 2) + 1 + np.random.default_rng(3).normal(0, 0.1, N)
    data = xr.DataArray(y, dims="i", coords={"t": ("i", t)}).chunk(i=CHUNK)
    return dfit.fit(decay, data, "t", p0=[1, 1, 0], warmup=SAMPLE, **options)


def same(found: dfit.FitResult, expected: dfit.FitResult) -> None:
    assert found.success is expected.success and found.npasses == expected.npasses
    assert found.theta.tobytes() == expected.theta.tobytes()
    assert found.covar.tobytes() == expected.covar.tobytes()
    assert found.warmup.cost == expected.warmup.cost


@pytest.mark.parametrize("keep", [pytest.param(0.4, marks=pytest.mark.long), 1e-9])
def test_one_worker_two_and_none_give_the_same_bits(
    keep: float, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 4096)  # on the client, which plans
    monkeypatch.setattr("dfit.planning.KEEP_FRACTION", keep)
    with dask.config.set({"dfit.partition-bytes": "64 kiB"}):
        by_two, only = fitted(), fitted(max_passes=0)
    assert ("collected" in by_two.warmup.sample) is (keep < 0.1)
    assert (only.npasses, only.run.npasses) == (0, 0) and "sample's answer" in only.message
    with dask.config.set(scheduler="synchronous"):
        same(by_two, fitted())
        same(only, fitted(max_passes=0))
    cluster = LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0")
    with cluster, Client(cluster, set_as_default=False) as one, one.as_current():
        same(fitted(), by_two)
