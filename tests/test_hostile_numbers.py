"""Types and sizes of numbers that a computation loses without a sign."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit

T = 1.7e9 + np.arange(400.0)
AGED = 5 * np.exp(-(T - T[0]) / 80) + 1 + np.random.default_rng(0).normal(0, 0.01, T.size)
AT_START = {"a": 3.0, "tau": 100.0, "c": 0.0}


def aged(t, a, tau, c):
    return a * jnp.exp(-(t - 1.7e9) / tau) + c


DOORS: dict[str, Callable] = {
    "fit": lambda t: dfit.fit(aged, AGED, {"t": t}, p0=AT_START),
    "fit of a chunked coordinate": lambda t: dfit.fit(
        aged, da.from_array(AGED, chunks=70), {"t": da.from_array(t, chunks=70)}, p0=AT_START
    ),
    "curve_fit": lambda t: dfit.curve_fit(aged, t, AGED, p0=[3, 100, 0]),
    "accessor": lambda t: xr.DataArray(AGED, dims="t", coords={"t": t}).fit(
        "t", aged, reduce_dims=..., p0=AT_START
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_seconds_since_1970_in_float32_are_warned_about(door: str) -> None:
    with pytest.warns(
        dfit.DfitWarning, match=r"'t' is float32 near 1.7e\+09.* 128 apart.*\(t - t\[0\]\)"
    ) as caught:
        DOORS[door](T.astype("f4"))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("door", DOORS)
def test_seconds_since_1970_in_float64_or_from_their_first_are_right_without_a_word(door: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DOORS[door](T) is not None
        found = dfit.fit(aged, AGED, {"t": T}, p0=AT_START)
        near = dfit.fit(
            lambda t, a, tau, c: aged(t + 1.7e9, a, tau, c), AGED, {"t": (T - T[0]).astype("f4")}, p0=AT_START
        )
    assert found.best_values == pytest.approx(near.best_values, rel=1e-7)
    assert found.best_values["tau"] == pytest.approx(80, abs=5 * found.params["tau"].stderr)
