"""A sample that is all of the data, and data of every kind: the answers are those of the passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from tests.warmed import P0, SAMPLE, N, T, Y, apart, decay

COMPLETE: dict[str, dict[str, Any]] = {
    "plain": {},
    "sigma": {"sigma": 0.1 + 0.01 * T, "absolute_sigma": True},
    "where": {"where": T > 0.3},
    "bounds": {"bounds": {"a": (0, 2.9)}, "p0": [1, 1, 0]},
    "fixed": {"fixed": {"c": 1.0}},
    "tie": {"tie": {"c": lambda p: p["a"] / 3}},
    "huber": {"loss": "huber", "f_scale": 0.1},
    "hc1": {"cov": "hc1"},
    "groups": {"cov": {"groups": xr.DataArray(np.arange(N) // 1000, dims="dim_0")}},
    "huber with groups": {
        "loss": "huber",
        "f_scale": 0.1,
        "cov": {"groups": xr.DataArray(np.arange(N) // 1000, dims="dim_0")},
    },
    "jac": {
        "jac": lambda t, a, tau, c: jnp.stack(
            [jnp.exp(-t / tau), a * t / tau**2 * jnp.exp(-t / tau), jnp.ones_like(t)], axis=-1
        )
    },
}


@pytest.mark.parametrize("what", COMPLETE)
def test_a_sample_of_all_points_gives_the_fit_of_the_passes(what: str) -> None:
    options = {"p0": P0, "tol": 1e-10, **COMPLETE[what]}
    expected = dfit.fit(decay, Y, {"t": T}, warmup=False, **options)
    for passes in (0, 100):
        found = dfit.fit(decay, Y, {"t": T}, warmup=True, max_passes=passes, **options)
        assert found.warmup.complete and found.success is (passes > 0)
        assert apart(found, expected) < 1e-8
        np.testing.assert_allclose(found.covar, expected.covar, rtol=1e-6)
        assert (found.ndata, found.cost) == (expected.ndata, pytest.approx(expected.cost, rel=1e-10))


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": lambda y: y.astype("f4"),
    "integers": lambda y: np.rint(100 * y).astype("i2"),
    "missing": lambda y: np.where(np.arange(y.size) % 7, y, np.nan),
    "small": lambda y: 1e-21 * y,
}


@pytest.mark.filterwarnings("ignore::dfit.DfitWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [True, SAMPLE])
def test_data_of_any_kind_are_warmed_up(kind: str, warmup: Any) -> None:
    y = KINDS[kind](Y)
    p0 = np.array(P0) * [np.nanmax(y) / 4, 1, 1]
    expected = dfit.fit(decay, y, {"t": T}, p0=p0, warmup=False)
    found = dfit.fit(decay, y, {"t": T}, p0=p0, warmup=warmup)
    assert found.success and found.ndata == expected.ndata
    assert apart(found, expected) < 1e-6


@pytest.mark.parametrize("warmup", [True, SAMPLE])
def test_complex_data_are_warmed_up(warmup: Any) -> None:
    def turning(t, a, w, d):
        return a * jnp.exp((1j * w - d) * t)

    rng = np.random.default_rng(4)
    y = 2 * np.exp((1.5j - 0.2) * T) + 0.1 * (rng.normal(size=N) + 1j * rng.normal(size=N))
    expected = dfit.fit(turning, y, {"t": T}, p0=[1.0, 1.4, 0.1], warmup=False)
    found = dfit.fit(turning, y, {"t": T}, p0=[1.0, 1.4, 0.1], warmup=warmup)
    assert found.success and found.best_values["w"] == pytest.approx(1.5, abs=1e-3)
    assert apart(found, expected) < 1e-6
