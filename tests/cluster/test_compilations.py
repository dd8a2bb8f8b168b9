"""A process compiles a kernel once for all partitions and passes, whatever the chunks look like."""

from __future__ import annotations

import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import dfit

RAGGED = (90_001, 5, 270_000, 1, 140_000, 140_000, 30_000, 300_007)


def data() -> xr.DataArray:
    t = np.linspace(0, 9, sum(RAGGED))
    y = 3 * np.exp(-t / 2) + 1 + np.random.default_rng(0).normal(0, 0.1, t.size)
    return xr.DataArray(y, dims="i", coords={"t": ("i", t)}).chunk(i=RAGGED)


def model(factor: float):
    """A new program for every factor, so that no earlier test has compiled it."""

    def decay(t, a, tau, c):
        return a * jnp.exp(-t / tau) + factor * c

    return decay


@pytest.mark.parametrize(("scheduler", "threads"), [("synchronous", 1), ("threads", 2), ("threads", 8)])
def test_ragged_chunks_and_passes_share_one_compilation(scheduler: str, threads: int) -> None:
    chosen = {"scheduler": scheduler, "num_workers": threads, "dfit.partition-bytes": "1 B"}
    with dask.config.set(chosen):
        found = dfit.fit(model(2.0 + threads), data(), "t", p0=[2, 1, 0])
        again = dfit.fit(model(2.0 + threads), data(), "t", p0=[3, 2, 0])
    assert found.npasses > 2
    assert found.run.compilations == 1
    assert again.run.compilations == 0
    assert found.best_values == pytest.approx({"a": 3, "tau": 2, "c": 1 / (2 + threads)}, rel=1e-2)


def test_a_worker_compiles_once() -> None:
    cluster = LocalCluster(n_workers=1, threads_per_worker=4, dashboard_address=":0")
    with cluster, Client(cluster), dask.config.set({"dfit.partition-bytes": "1 B"}):
        found = dfit.fit(model(1.5), data(), "t", p0=[2, 1, 0])
    assert found.npasses > 2
    assert found.run.compilations == 1
    assert found.best_values["tau"] == pytest.approx(2, rel=1e-2)


@pytest.mark.long
def test_other_processes_of_a_pool_give_the_same_bits() -> None:
    with dask.config.set({"scheduler": "synchronous", "dfit.partition-bytes": "1 B"}):
        expected = dfit.fit(model(2.5), data(), "t", p0=[2, 1, 0])
    with dask.config.set({"scheduler": "processes", "num_workers": 2, "dfit.partition-bytes": "1 B"}):
        found = dfit.fit(model(2.5), data(), "t", p0=[2, 1, 0], max_passes=3)
    assert found.npasses == 3
    with dask.config.set({"scheduler": "synchronous", "dfit.partition-bytes": "1 B"}):
        three = dfit.fit(model(2.5), data(), "t", p0=[2, 1, 0], max_passes=3)
    assert found.theta.tobytes() == three.theta.tobytes() and found.cost == three.cost
    assert expected.success and not found.success


def test_an_untraceable_model_keeps_to_the_bounds_of_its_own_fit() -> None:
    lowest = []

    def power(t, a, b):
        lowest.append(float(b))
        return a * np.power(np.asarray(t, float), b)

    t = np.linspace(1, 3, 50)
    y = 2 * t**0.5
    with pytest.warns(dfit.DfitWarning):
        free = dfit.fit(power, y, {"t": t}, p0=[1, 0.1])
    lowest.clear()
    with pytest.warns(dfit.DfitWarning):
        bounded = dfit.fit(power, y, {"t": t}, p0=[1, 0.5], bounds={"b": (0.5, 1)})
    assert min(lowest) >= 0.5
    assert free.best_values["b"] == pytest.approx(0.5, rel=1e-6)
    assert bounded.best_values["b"] == pytest.approx(0.5, rel=1e-6)
