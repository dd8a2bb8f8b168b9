"""Every number of a pixel is that of the fit of this pixel alone, whatever the options and the engine."""

from __future__ import annotations

import warnings
from typing import Any

import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.face.ending import full_covariance
from dfit.pixel_status import PixelStatus
from tests.benchmarks import pixel_nist, pixel_quality

T = np.linspace(0, 8, 24)
MANY = 300  # more than are fitted by triangles alone
RNG = np.random.default_rng(11)
AMPLITUDE, TAU, OFFSET = RNG.uniform(3, 7, MANY), RNG.uniform(1.3, 2.7, MANY), RNG.uniform(0.5, 1.5, MANY)
CLEAN = AMPLITUDE * np.exp(-T[:, None] / TAU) + OFFSET
Y = CLEAN + 0.1 * RNG.standard_normal(CLEAN.shape)
SPREAD = RNG.uniform(0.05, 0.2, Y.shape)
P0 = {"a": 4.0, "tau": 2.0, "c": 0.5}
LOOKED_AT = [0, 1, 7, 250]
STATISTICS = ("ndata", "nfree", "chisqr", "redchi", "aic", "bic", "rsquared", "nvarys")


def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c


def gained(t, gain, a, tau, c):
    return a * jnp.exp(-t / tau) + c * gain


def sloped(t, a, tau, c, slope, unit):
    return a * jnp.exp(-t / tau) + c + slope * unit * t


def turning(t, a, tau, c):
    return a * jnp.exp(-t / tau) * jnp.exp(1j * c * t)


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("ignore", dfit.DfitWarning)
        yield


def stack(values: np.ndarray) -> xr.DataArray:
    """Values (n, pixels), or anything for pixels alone."""
    dims = ("t", "pixel") if values.ndim == 2 else ("pixel",)
    return xr.DataArray(values, {"t": T[: len(values)]} if values.ndim == 2 else {}, dims)


def picked(value: Any, pixel: int) -> Any:
    """The same option for a pixel alone."""
    if isinstance(value, xr.DataArray) and "pixel" in value.dims:
        one = value.isel(pixel=pixel)
        return one if one.ndim else float(one)
    if isinstance(value, dict):
        return {name: picked(entry, pixel) for name, entry in value.items()}
    return tuple(picked(entry, pixel) for entry in value) if isinstance(value, tuple) else value


def alone(model: Any, data: xr.DataArray, pixel: int, coords: Any = "t", **options: Any) -> dfit.FitResult:
    return dfit.fit(model, picked(data, pixel), coords, **{k: picked(v, pixel) for k, v in options.items()})


def mapped(model: Any, data: xr.DataArray, coords: Any = "t", **options: Any) -> xr.Dataset:
    return data.fit(coords, model, reduce_dims="t", errors="ignore", **options).compute()


def assert_same(found: xr.Dataset, result: dfit.FitResult, digits: float = 1e-7) -> None:
    """A pixel of a map against the fit of its data: parameters within a part of a standard error."""
    values, errors = (np.array([getattr(p, k) for p in result.params.values()]) for k in ("value", "stderr"))
    finite = np.isfinite(errors) & (errors > 0)
    assert bool(found.curvefit_success) == result.success
    off = np.abs(found.curvefit_coefficients.values - values)
    unit = np.where(finite, errors, np.abs(values) + 1e-300)
    np.testing.assert_array_less(off, digits * unit + 1e-14 * np.abs(values) + 1e-300)
    matrix, expected = found.curvefit_covariance.values, full_covariance(result)
    np.testing.assert_array_equal(np.isnan(matrix), np.isnan(expected))
    variances = np.diagonal(expected)
    variances = np.where(np.isfinite(variances) & (variances > 0), variances, 1.0)
    scale = np.sqrt(np.outer(variances, variances))
    np.testing.assert_allclose(matrix / scale, expected / scale, rtol=1e-6, atol=1e-6, equal_nan=True)
    np.testing.assert_allclose(found.curvefit_stderr, errors, rtol=1e-6, equal_nan=True)
    at_rounding = result.chisqr < 1e-20 * result.ndata
    for name in STATISTICS[: 2 if at_rounding else None]:
        mine, wanted = float(found[f"curvefit_{name}"]), float(getattr(result, name))
        np.testing.assert_allclose(mine, wanted, rtol=1e-9, atol=1e-12, err_msg=name, equal_nan=True)


def compare(
    model: Any, data: xr.DataArray, looked_at=LOOKED_AT, digits: float = 1e-7, **options: Any
) -> xr.Dataset:
    """The map by the quick engine and the one of some pixels by the exact one, against fits of their own."""
    options = {"p0": P0, "tol": 1e-9, **options}
    quick = mapped(model, data, **options)
    few = {name: _at(value, looked_at) for name, value in options.items()}
    exact = mapped(model, _at(data, looked_at), **few)
    for k, pixel in enumerate(looked_at):
        result = alone(model, data, pixel, **options)
        assert_same(quick.isel(pixel=pixel), result, digits)
        assert_same(exact.isel(pixel=k), result, digits)
        assert int(exact.curvefit_status[k]) in (int(result.status), PixelStatus.CONVERGED_BUT_UNDETERMINED)
    return quick


def _at(value: Any, pixels: list[int]) -> Any:
    if isinstance(value, xr.DataArray) and "pixel" in value.dims:
        return value.isel(pixel=pixels)
    if isinstance(value, dict):
        return {name: _at(entry, pixels) for name, entry in value.items()}
    return tuple(_at(entry, pixels) for entry in value) if isinstance(value, tuple) else value


def test_pixels_are_the_fits_of_their_data():
    found = compare(decay, stack(Y))
    assert found.curvefit_success.all()


LONG = pytest.mark.long  # one of a kind is enough to see most mistakes soon


@pytest.mark.parametrize(
    "loss", ["huber", *(pytest.param(name, marks=LONG) for name in ("soft_l1", "cauchy", "arctan"))]
)
def test_pixels_with_a_robust_loss_are_the_fits_of_their_data(loss):
    wild = Y.copy()
    wild[3::9, ::2] += 5
    found = compare(decay, stack(wild), loss=loss, f_scale=0.2)
    assert found.curvefit_success.mean() > 0.95


@pytest.mark.parametrize("cov", ["hc1", pytest.param("hc0", marks=LONG)])
def test_pixels_with_a_robust_covariance_are_the_fits_of_their_data(cov):
    compare(decay, stack(Y), cov=cov, sigma=stack(SPREAD))


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("kind", ["number", "along", "each"])
def test_sigma_of_any_form_weighs_pixels_as_it_does_their_fits(kind, absolute):
    each = SPREAD.copy()
    each[2, ::3] = np.inf
    sigma = {"number": 0.1, "along": xr.DataArray(SPREAD[:, 0], dims="t"), "each": stack(each)}[kind]
    compare(decay, stack(Y), sigma=sigma, absolute_sigma=absolute)


def test_pixels_with_missing_and_masked_points_are_the_fits_of_the_rest():
    holes = np.where(np.random.default_rng(2).random(Y.shape) < 0.3, np.nan, Y)
    where = stack(np.random.default_rng(3).random(Y.shape) < 0.8)
    found = compare(decay, stack(holes), where=where)
    np.testing.assert_array_equal(found.curvefit_ndata, (np.isfinite(holes) & where.values).sum(axis=0))


def test_pixels_at_a_bound_are_the_fits_at_that_bound():
    high = stack(np.where(np.arange(MANY) % 2, np.inf, TAU - 0.4))
    found = compare(
        decay, stack(Y), bounds={"tau": (0.1, high), "c": (0, 0.9)}, p0={"a": 4.0, "tau": 0.5, "c": 0.5}
    )
    at_bound = found.curvefit_coefficients.sel(param="tau").values == high.values
    assert 0.4 < at_bound.mean() < 0.6
    np.testing.assert_array_equal(np.isnan(found.curvefit_stderr.sel(param="tau")), at_bound)


@pytest.mark.long
def test_fixed_and_tied_parameters_of_each_pixel_are_those_of_its_fit():
    compare(
        sloped,
        stack(Y + (0.02 * AMPLITUDE + 0.05 * TAU) * TAU * T[:, None]),
        fixed={"unit": stack(TAU)},
        tie={"slope": lambda p: 0.02 * p["a"] + 0.05 * p["unit"]},
    )


@pytest.mark.long
def test_complex_pixels_are_the_fits_of_their_data():
    phase = RNG.uniform(0.3, 0.6, MANY)
    clean = turning(T[:, None], AMPLITUDE, TAU, phase)
    noise = RNG.standard_normal((2, *clean.shape))
    compare(turning, stack(np.asarray(clean) + 0.1 * (noise[0] + 1j * noise[1])))


def test_pixels_of_float32_are_fitted_in_float64():
    single = stack(Y.astype(np.float32))
    compare(decay, single)
    wide = mapped(decay, single.astype(float), p0=P0)
    np.testing.assert_array_equal(
        mapped(decay, single, p0=P0).curvefit_coefficients, wide.curvefit_coefficients
    )


@pytest.mark.parametrize("absolute", [True, False])
def test_as_many_points_as_parameters_pass_through_the_points(absolute):
    few = np.where(np.isin(np.arange(T.size), [0, 5, 20])[:, None], CLEAN, np.nan)
    found = compare(decay, stack(few), absolute_sigma=absolute, sigma=0.1, digits=1e-6)
    np.testing.assert_allclose(
        found.curvefit_coefficients.transpose("param", ...), [AMPLITUDE, TAU, OFFSET], rtol=1e-9
    )
    assert np.isfinite(found.curvefit_stderr).all() == absolute


@pytest.mark.long
def test_pixels_that_do_not_determine_a_parameter_say_so_as_their_fits_do():
    gain = np.where(np.arange(MANY) % 7, 1.0, 0.0) * np.ones_like(Y)
    data = stack(Y - OFFSET * (gain == 0)).assign_coords(gain=(("t", "pixel"), gain))
    found = compare(gained, data, coords=("t", "gain"))
    np.testing.assert_array_equal(
        found.curvefit_status == PixelStatus.CONVERGED_BUT_UNDETERMINED, gain[0] == 0
    )
    assert np.isinf(found.curvefit_stderr.sel(param="c")[::7]).all()
    assert np.isfinite(found.curvefit_stderr.sel(param=["a", "tau"])).all()


@pytest.mark.parametrize("unit", [1e-21, 1e21])
def test_data_in_another_unit_give_the_same_map(unit):
    plain = mapped(decay, stack(Y), p0=P0, tol=1e-10)
    p0 = {"a": 4.0 * unit, "tau": 2.0, "c": 0.5 * unit}
    found = mapped(decay, stack(Y * unit), p0=p0, tol=1e-10)
    scale = xr.DataArray([unit, 1, unit], dims="param")
    np.testing.assert_allclose(found.curvefit_coefficients / scale, plain.curvefit_coefficients, rtol=1e-10)
    np.testing.assert_allclose(found.curvefit_stderr / scale, plain.curvefit_stderr, rtol=1e-8)
    np.testing.assert_allclose(found.curvefit_chisqr / unit**2, plain.curvefit_chisqr, rtol=1e-12)


def _by_hand(name: str, many: bool, p: int) -> list[Any]:
    if many or p > 2:
        return [pytest.mark.slow]
    return [] if name == "Misra1a" else [LONG]


def certified_problems() -> list[Any]:
    """Small problems as few pixels; what compiles for longer, and the quick engine, by hand."""
    return [
        pytest.param(name, many, marks=_by_hand(name, many, problem["p"]))
        for name, problem in pixel_nist.PROBLEMS.items()
        for many in (False, True)
    ]


@pytest.mark.parametrize(("name", "many"), certified_problems())
def test_certified_values_are_reached_from_both_starts_as_pixels(name, many):
    starts = pixel_nist.starts_of(name, 0)
    found = pixel_nist.as_pixels(name, np.tile(starts, (150 if many else 1, 1)))
    assert found.success.all()
    assert found.digits.min() >= 8
    # Lanczos1's residual is the rounding of its data to 14 digits.
    assert found.stderr_digits.min() >= (2.5 if name == "Lanczos1" else 8)


@pytest.mark.parametrize("name", ["exponential", pytest.param("gaussian", marks=LONG)])
def test_pixels_of_bad_data_are_right_or_flagged(name):
    cube = pixel_quality.spoiled(name, 300)
    found = pixel_quality.as_map(name, cube, "soft_l1")
    verdict = pixel_quality.judge(name, cube, found, "soft_l1")
    assert not verdict.wrong.any()
    assert verdict.right[cube.signal].mean() > 0.99


def test_judge_of_bad_data_sees_a_pixel_that_says_success_off_its_minimum():
    cube = pixel_quality.spoiled("exponential", 6)
    found = pixel_quality.as_map("exponential", cube, "huber")
    found.curvefit_chisqr[3] *= 1 + 1e-5
    found.curvefit_coefficients[3, 1] *= 1.001
    verdict = pixel_quality.judge("exponential", cube, found, "huber")
    np.testing.assert_array_equal(np.flatnonzero(verdict.wrong), [3])
    found.curvefit_success[3] = False
    verdict = pixel_quality.judge("exponential", cube, found, "huber")
    assert verdict.flagged[3] and not verdict.wrong.any()
