"""Maps of data and with habits that invite a wrong number: each pixel is its own fit, or says why not."""

from __future__ import annotations

import warnings
from typing import Any

import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.pixel_status import PixelStatus

TIME = np.linspace(0, 10, 30)
SPARSE = xr.DataArray(np.isin(np.arange(30), [0, 6, 20]), dims="time")
AMPLITUDE, TAU, OFFSET = np.array([5.0, 3.0, 8.0, 4.0]), np.array([2.0, 1.5, 3.0, 2.5]), 1.0
P0 = {"amplitude": 4.0, "tau": 2.0, "offset": 0.5}


def decay(time, amplitude, tau, offset):
    return amplitude * jnp.exp(-time / tau) + offset


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("ignore", dfit.DfitWarning)
        yield


@pytest.fixture(scope="module")
def signal() -> xr.DataArray:
    noise = np.random.default_rng(11).normal(scale=0.05, size=(4, TIME.size))
    values = AMPLITUDE[:, None] * np.exp(-TIME / TAU[:, None]) + OFFSET + noise
    return xr.DataArray(values, {"time": TIME}, ("pixel", "time"))


def mapped(data: xr.DataArray, model: Any = decay, **options: Any) -> xr.Dataset:
    return data.chunk(pixel=2).fit("time", model, errors="ignore", **{"p0": P0, **options}).compute()


def test_pixels_whose_squares_underflow_are_flagged_and_not_left_at_p0(signal: xr.DataArray) -> None:
    scale = xr.DataArray([1.0, 1e-160, 1e-200, 1e-140], dims="pixel")
    p0 = {name: value * scale if name != "tau" else value for name, value in P0.items()}
    found = mapped(signal * scale, p0=p0)
    lost = PixelStatus.UNUSABLE_DATA
    np.testing.assert_array_equal(
        found.curvefit_status, [PixelStatus.CONVERGED, lost, lost, PixelStatus.CONVERGED]
    )
    assert np.isnan(found.curvefit_coefficients[1:3]).all()
    amplitude = found.curvefit_coefficients.sel(param="amplitude") / scale
    np.testing.assert_allclose(amplitude[[0, 3]], AMPLITUDE[[0, 3]], rtol=0.05)


@pytest.mark.parametrize("options", [{"cov": "hc0"}, {"cov": "hc1"}, {"loss": "soft_l1", "f_scale": 0.1}])
def test_robust_errors_of_as_many_points_as_parameters_are_not_zero(signal: xr.DataArray, options) -> None:
    few = signal.where(SPARSE)
    few = xr.concat([few[:2], signal[2:]], dim="pixel")
    found = mapped(few, **options)
    assert np.isnan(found.curvefit_stderr[:2]).all()
    for pixel in range(4):
        one = dfit.fit(decay, few[pixel], coords="time", p0=P0, **options)
        stderr = [parameter.stderr for parameter in one.params.values()]
        np.testing.assert_allclose(found.curvefit_stderr[pixel], stderr, rtol=1e-6)


def test_a_parameter_at_its_bound_takes_no_point_of_a_robust_error(signal: xr.DataArray) -> None:
    few = signal[:2].where(SPARSE)
    options: dict[str, Any] = {"bounds": {"tau": (0, 1.0)}, "p0": {**P0, "tau": 0.5}, "cov": "hc1"}
    found = mapped(few, **options)
    for pixel in range(2):
        one = dfit.fit(decay, few[pixel], coords="time", **options)
        stderr = [parameter.stderr for parameter in one.params.values()]
        np.testing.assert_allclose(found.curvefit_stderr[pixel], stderr, rtol=1e-6)
        assert np.isfinite(stderr[0])


def test_arrays_that_change_after_the_call_do_not_change_the_map(signal: xr.DataArray) -> None:
    def scaled(time, amplitude, tau, offset, gain):
        return gain[0] * amplitude * jnp.exp(-time / tau) + offset

    expected = mapped(signal)
    gain, start, sigma = np.ones(1), xr.full_like(signal[:, 0], 2.0), xr.ones_like(signal)
    lazy = signal.chunk(pixel=2).fit(
        "time", scaled, p0={**P0, "tau": start}, sigma=sigma, constants={"gain": gain}
    )
    gain[:], start[:], sigma[:] = 2.0, np.nan, -1.0
    np.testing.assert_allclose(lazy.curvefit_coefficients, expected.curvefit_coefficients, rtol=1e-7)


def test_many_parameters_are_fitted_without_a_program_for_each_product() -> None:
    names = [f"c{k}" for k in range(12)]

    def series(time, *factors):
        angle = jnp.arccos(jnp.clip(time / 5 - 1, -1, 1))
        return sum(factor * jnp.cos(k * angle) for k, factor in enumerate(factors))

    basis = np.polynomial.chebyshev.chebvander(TIME / 5 - 1, 11)
    data = xr.DataArray(np.random.default_rng(12).normal(size=(3, 30)), {"time": TIME}, ("pixel", "time"))
    found = mapped(data, series, param_names=names, p0=dict.fromkeys(names, 0.0))
    truth, cost, *_ = np.linalg.lstsq(basis, data.values.T, rcond=None)
    np.testing.assert_allclose(found.curvefit_coefficients, truth.T, rtol=1e-9, atol=1e-12)
    variances = np.linalg.inv(basis.T @ basis).diagonal() * cost[:, None] / 18
    np.testing.assert_allclose(found.curvefit_stderr, np.sqrt(variances), rtol=1e-9)
