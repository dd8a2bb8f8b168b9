"""The examples of xarray's own documentation and tests of curvefit, with `fit` in its place.

Models, data and starts are those of xarray 2026.9: the docstring of `xarray.DataArray.curvefit`, "Fitting arbitrary
functions" of its user guide, and its tests of curvefit.  Fewer points where a smaller example says as much.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit

TIGHT = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
CHUNKED = pytest.mark.parametrize("chunks", [None, {"x": 1}], ids=["memory", "dask"])

pytestmark = pytest.mark.filterwarnings("ignore:no initial value:dfit.DfitWarning")
plain = pytest.mark.filterwarnings("ignore:JAX cannot compile:dfit.DfitWarning")


def decays(t, time_constant, amplitude):
    return np.exp(-t / time_constant) * amplitude


def sine(t, a, f, p):
    return a * jnp.sin(2 * jnp.pi * (f * t + p))


def plain_sine(t, a, f, p):
    return a * np.sin(2 * np.pi * (f * t + p))


@pytest.fixture
def decaying() -> xr.DataArray:
    t = np.arange(11)
    noise = np.random.default_rng(seed=0).normal(size=(3, t.size)) * 0.01
    signal = np.stack([decays(t, k, k / 10) for k in (1, 2, 3)])
    return xr.DataArray(signal + noise, coords={"x": [0, 1, 2], "time": t})


@pytest.fixture
def waves() -> xr.DataArray:
    t = np.arange(0, 2, 0.02)
    return xr.DataArray(np.stack([plain_sine(t, 1.0, 2, 0)] * 2), coords={"x": [0, 1], "t": t})


def assert_same_fit(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Coefficients within 1e-6 standard errors, and nothing of curvefit's missing."""
    expected = expected.transpose(*found.dims, missing_dims="ignore")
    stderr = np.sqrt(np.diagonal(expected.curvefit_covariance, axis1=-2, axis2=-1))
    gap = abs(found.curvefit_coefficients - expected.curvefit_coefficients) / stderr
    np.testing.assert_array_less(gap, 1e-6)
    gap = found.curvefit_covariance - expected.curvefit_covariance
    # Of curvefit's differences, whose covariance has six digits.
    np.testing.assert_array_less(abs(gap) / (stderr[..., :, None] * stderr[..., None, :]), 1e-5)
    for name, variable in expected.variables.items():
        assert (found[name].dims, found[name].dtype) == (variable.dims, variable.dtype)
        assert name in found.data_vars or found[name].equals(expected[name])


@CHUNKED
@pytest.mark.parametrize("given", [False, True], ids=["no p0", "p0 by pixel"])
def test_decays_of_the_docstring_are_fitted_as_by_curvefit(
    decaying: xr.DataArray, chunks, given: bool
) -> None:
    data = decaying if chunks is None else decaying.chunk(chunks)
    p0 = None
    if given:
        p0 = {"amplitude": 0.2, "time_constant": xr.DataArray([1, 2, 3], coords=[decaying.x])}
    with pytest.warns(dfit.DfitWarning, match="jnp"):
        found = data.fit("time", decays, p0=p0).compute()
    assert_same_fit(found, decaying.curvefit("time", decays, p0=p0, kwargs=TIGHT))


@plain
@CHUNKED
def test_a_pixel_without_data_is_nan_as_by_curvefit(chunks) -> None:
    def exp_decay(t, n0, tau=1):
        return n0 * np.exp(-t / tau)

    t = np.arange(0, 5, 0.5)
    da = xr.DataArray(
        np.stack([exp_decay(t, 3, 3), exp_decay(t, 5, 4), np.nan * t], axis=-1),
        dims=("t", "x"),
        coords={"t": t, "x": [0, 1, 2]},
    )
    da[0, 0] = np.nan
    data = da if chunks is None else da.chunk(chunks)
    found = data.fit(coords=[data.t], func=exp_decay, p0={"n0": 4}, bounds={"tau": (2, 6)}).compute()
    np.testing.assert_allclose(found.curvefit_coefficients, [[3, 3], [5, 4], [np.nan, np.nan]], rtol=1e-9)
    assert found.curvefit_ndata.values.tolist() == [9, 10, 0]


@plain
@pytest.mark.filterwarnings("ignore:1 points were left out:dfit.DfitWarning")
def test_names_of_parameters_are_taken_where_a_ufunc_has_none() -> None:
    rng = np.random.default_rng(3)
    da = xr.DataArray(1.5 + rng.normal(size=(8, 2)), coords={"t": np.linspace(1, 4, 8), "x": [0, 1]})
    da[0, 0] = np.nan
    arguments = {"coords": "t", "func": np.power, "reduce_dims": "x", "param_names": ["a"]}
    assert_same_fit(da.fit(**arguments), da.curvefit(**arguments, kwargs=TIGHT))


@CHUNKED
def test_starts_by_pixel_lead_to_different_optima(waves: xr.DataArray, chunks) -> None:
    data = waves if chunks is None else waves.chunk(chunks)
    a, p = xr.DataArray([1, -1], coords=[waves.x]), xr.DataArray([0, 0.5], coords=[waves.x])
    found = data.fit(coords=[data.t], func=sine, p0={"a": a, "p": p, "f": 2}).compute()
    np.testing.assert_allclose(found.curvefit_coefficients, [[1, 2, 0], [-1, 2, 0.5]], atol=1e-12)


@CHUNKED
@pytest.mark.parametrize("low", ["by pixel", "number"])
def test_bounds_by_pixel_lead_to_different_optima(waves: xr.DataArray, chunks, low: str) -> None:
    data = waves if chunks is None else waves.chunk(chunks)
    lower = xr.DataArray([0, -2], coords=[waves.x]) if low == "by pixel" else -2
    bounds = {"a": (lower, xr.DataArray([2, 0], coords=[waves.x]))}
    found = data.fit(coords=[data.t], func=sine, p0={"f": 2, "p": 0.25}, bounds=bounds).compute()
    np.testing.assert_allclose(found.curvefit_coefficients, [[1, 2, 0], [-1, 2, 0.5]], atol=1e-7)


def test_a_start_or_bound_along_a_foreign_dimension_is_refused(waves: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="p0 of 'a' has the dimension 'foo'"):
        waves.fit(coords=[waves.t], func=sine, p0={"a": xr.DataArray([1, 2], coords={"foo": [1, 2]})})
    with pytest.raises(ValueError, match="the upper bound of 'a' has the dimension 'foo'"):
        waves.fit(coords=[waves.t], func=sine, bounds={"a": (0, xr.DataArray([1], coords={"foo": [1]}))})


@plain
@CHUNKED
def test_a_failed_fit_raises_a_runtime_error_or_gives_nan(chunks) -> None:
    def line(x, a, b):
        # As in xarray's test, but of floats: fit refuses a model that turns into whole numbers.
        return 0.0 if a > 10 else a * x + b

    da = xr.DataArray([[1, 3, 5], [0, 20, 40]], coords={"x": [1, 2], "t": [0.0, 1.0, 2.0]})
    data = da if chunks is None else da.chunk(chunks)
    with pytest.raises(RuntimeError, match="max_passes"):
        data.fit(coords="t", func=line, max_passes=5).compute()
    found = data.fit(coords="t", func=line, max_passes=5, errors="ignore").compute()
    np.testing.assert_allclose(found.curvefit_coefficients, [[2, 1], [np.nan, np.nan]], rtol=1e-6)


def test_options_of_scipy_are_keywords_of_the_call(waves: xr.DataArray) -> None:
    with pytest.raises(dfit.InputError, match="keywords of this call"):
        waves.fit("t", sine, kwargs={"maxfev": 5})


def test_a_relation_of_two_variables_is_fitted_at_each_place() -> None:
    def exponential(x, a, xc):
        return jnp.exp((x - xc) / a)

    x, t = np.linspace(-5, 5, 9), np.linspace(-5, 5, 20)
    rng = np.random.default_rng(0)
    z1 = rng.uniform(low=-5, high=5, size=(t.size, x.size))
    noise = 0.01 * rng.normal(size=(2, *z1.shape))
    ds = xr.Dataset(
        {
            "var1": (("t", "x"), z1),
            "var2": (("t", "x"), np.exp((z1 - x) / 3) + noise[0]),
            "var3": (("t", "x"), np.exp(z1 + x) + noise[1]),
        },
        {"t": t, "x": x},
    )
    arguments = {"coords": ds.var1, "reduce_dims": "t", "bounds": {"a": (0.5, 5), "xc": (-6, 6)}}
    both = ds[["var2", "var3"]]
    found = both.fit(func=exponential, **arguments)
    for name, a, sign in (("var2", 3, 1), ("var3", 1, -1)):
        values = found[f"{name}_curvefit_coefficients"]
        assert values.dims == ("x", "param")
        stderr = found[f"{name}_curvefit_stderr"]
        expected = np.stack([np.full(x.size, a), sign * x], axis=1)
        assert float(abs((values - expected) / stderr).max()) < 5
    theirs = both.isel(x=[2, 6]).curvefit(
        **{**arguments, "coords": ds.var1.isel(x=[2, 6])},
        func=lambda x, a, xc: np.exp((x - xc) / a),
        kwargs=TIGHT,
    )
    for name in ("var2", "var3"):
        gap = found[f"{name}_curvefit_coefficients"].isel(x=[2, 6]) - theirs[f"{name}_curvefit_coefficients"]
        assert float(abs(gap / found[f"{name}_curvefit_stderr"].isel(x=[2, 6])).max()) < 1e-6


@plain
def test_a_sum_of_peaks_takes_its_parameters_as_args() -> None:
    def peak(coords, a, xc, yc, xalpha, yalpha):
        x, y = coords
        return a * np.exp(-np.square((x - xc) / xalpha) / 2 - np.square((y - yc) / yalpha) / 2)

    def peaks(coords, *args):
        z = np.zeros(np.shape(coords[0]))
        for i in range(len(args) // 5):
            z += peak(coords, *args[i * 5 : i * 5 + 5])
        return z

    x = np.arange(-5, 5, 0.4)
    grid = np.meshgrid(x, x)
    truth = [3, 1, 1, 2, 1, 2, -1, -2, 1, 1]
    noise = np.random.default_rng(1).normal(scale=0.1, size=grid[0].shape)
    da = xr.DataArray(peaks(grid, *truth) + noise, dims=["y", "x"], coords={"y": x, "x": x})
    names = [f"{name}{i}" for i in range(2) for name in ("a", "xc", "yc", "xalpha", "yalpha")]
    start = dict(zip(names, [2.0, 0.5, 0.5, 1.5, 1.5, 2.0, -0.5, -1.5, 1.5, 1.5], strict=True))
    arguments = {"coords": ["x", "y"], "func": peaks, "param_names": names, "p0": start}
    assert_same_fit(da.fit(**arguments), da.curvefit(**arguments, kwargs=TIGHT))
