"""`da.fit(...)` and `ds.fit(...)`: curvefit's arguments and variables, of one fit across the chunks."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.face.accessor import FitAccessor

TIME = np.linspace(0, 10, 40)
START = {"amplitude": 4.0, "tau": 1.5}


def decay(time, amplitude, tau):
    return amplitude * jnp.exp(-time / tau)


def plain_decay(time, amplitude, tau):
    return amplitude * np.exp(-time / tau)


def plane(tx, slope, tilt, offset):
    time, x = tx
    return slope * time + tilt * x + offset


@pytest.fixture
def signal() -> xr.DataArray:
    clean = 5 * np.exp(-TIME / 2)[:, None] * np.ones(6)
    return xr.DataArray(
        clean + 0.1 * np.random.default_rng(1).normal(size=clean.shape),
        {"time": TIME, "x": np.arange(6.0), "run": 7},
        ("time", "x"),
        "counts",
        {"units": "1/s", "detector": "north"},
    )


def test_its_arguments_are_those_of_curvefit_in_the_same_order() -> None:
    for cls in (xr.DataArray, xr.Dataset):
        assert cls.fit is FitAccessor and cls.dfit is FitAccessor
        theirs = list(inspect.signature(cls.curvefit).parameters)
        assert list(inspect.signature(FitAccessor.__call__).parameters)[: len(theirs)] == theirs


@pytest.mark.parametrize("chunks", [None, {"time": 7, "x": 4}, {"time": -1, "x": 1}])
@pytest.mark.parametrize("reduce_dims", [..., "x", ("time", "x"), ["x"]])
def test_it_gives_what_curvefit_gives(signal: xr.DataArray, chunks, reduce_dims) -> None:
    data = signal if chunks is None else signal.chunk(chunks)
    found = data.fit("time", decay, reduce_dims=reduce_dims, p0=START)
    tight = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
    expected = signal.curvefit("time", plain_decay, "x", p0=START, kwargs=tight)
    stderr = np.sqrt(np.diag(expected.curvefit_covariance))
    gap = (found.curvefit_coefficients - expected.curvefit_coefficients) / stderr
    assert float(abs(gap).max()) < 1e-6
    np.testing.assert_allclose(found.curvefit_covariance, expected.curvefit_covariance, rtol=1e-6)
    np.testing.assert_allclose(found.curvefit_stderr, stderr, rtol=1e-6)
    for name, variable in expected.variables.items():
        assert found[name].dims == variable.dims
        assert found[name].dtype == variable.dtype
    assert found.curvefit_coefficients.attrs.items() >= expected.curvefit_coefficients.attrs.items()


def test_statistics_are_those_of_the_result(signal: xr.DataArray) -> None:
    found = signal.fit("time", decay, ..., p0=START)
    result = dfit.fit(decay, signal, "time", p0=START)
    for name in ("npasses", "nfev", "ndata", "nfree", "nvarys", "chisqr", "redchi", "aic", "bic", "rsquared"):
        assert float(found[f"curvefit_{name}"]) == getattr(result, name), name
    assert bool(found.curvefit_success) is True
    assert int(found.curvefit_status) == result.status
    attrs = found.curvefit_coefficients.attrs
    assert attrs["message"] == result.message
    assert attrs["fit_report"].splitlines()[0] == "1 fit over time, x"


def test_attributes_and_scalar_coordinates_stay(signal: xr.DataArray) -> None:
    found = signal.fit("time", decay, ..., p0=START)
    assert found.attrs == signal.attrs
    assert found.run == 7
    assert list(found.param.values) == ["amplitude", "tau"] == list(found.cov_i.values)


def test_a_dataset_is_fitted_variable_by_variable(signal: xr.DataArray) -> None:
    both = xr.Dataset({"near": signal.chunk(time=9), "far": 0.5 * signal}, attrs={"title": "two"})
    found = both.fit("time", decay, reduce_dims=..., p0=START)
    assert found.attrs == {"title": "two"}
    names = {name.removeprefix("near_") for name in found.data_vars if name.startswith("near_")}
    assert {f"{p}_{name}" for name in names for p in ("near", "far")} == set(found.data_vars)
    near, far = found.near_curvefit_coefficients, found.far_curvefit_coefficients
    np.testing.assert_allclose(far.sel(param="amplitude") / near.sel(param="amplitude"), 0.5, rtol=1e-7)
    np.testing.assert_allclose(far.sel(param="tau"), near.sel(param="tau"), rtol=1e-7)


def test_a_first_argument_with_all_coordinates_is_known_by_the_names_in_p0(signal: xr.DataArray) -> None:
    start = {"slope": 1.0, "tilt": 1.0, "offset": 0.0}
    found = signal.fit(("time", "x"), plane, p0=start)
    expected = signal.curvefit(("time", "x"), plane, p0=start)
    np.testing.assert_allclose(found.curvefit_coefficients, expected.curvefit_coefficients, rtol=1e-6)


def test_a_numpy_model_works_and_is_warned_about(signal: xr.DataArray) -> None:
    with pytest.warns(dfit.DfitWarning, match="finite differences"):
        found = signal.fit("time", plain_decay, ..., p0=START)
    exact = signal.fit("time", decay, ..., p0=START)
    gap = (found.curvefit_coefficients - exact.curvefit_coefficients) / exact.curvefit_stderr
    assert float(abs(gap).max()) < 1e-6


def test_missing_points_are_left_out_or_refused(signal: xr.DataArray) -> None:
    holes = signal.where(signal.x > 0)
    with pytest.warns(dfit.DfitWarning, match="40 points were left out"):
        found = holes.fit("time", decay, ..., p0=START)
    expected = signal.isel(x=slice(1, None)).fit("time", decay, ..., p0=START)
    np.testing.assert_allclose(found.curvefit_coefficients, expected.curvefit_coefficients, rtol=1e-9)
    assert int(found.curvefit_ndata) == 200
    with pytest.raises(dfit.DataError, match="NaN"):
        holes.fit("time", decay, ..., skipna=False, p0=START)


def test_scalar_data_arrays_are_numbers_in_p0_and_bounds(signal: xr.DataArray) -> None:
    start = {"amplitude": xr.DataArray(4.0), "tau": 1.5}
    found = signal.fit("time", decay, ..., p0=start, bounds={"tau": (xr.DataArray(0.0), np.inf)})
    plain = signal.fit("time", decay, ..., p0=START)
    np.testing.assert_allclose(found.curvefit_coefficients, plain.curvefit_coefficients, rtol=1e-7)


def test_options_of_fit_pass_through(signal: xr.DataArray) -> None:
    found = signal.fit(
        "time", decay, ..., p0={"amplitude": 4}, fixed={"tau": 2.0}, sigma=0.1, absolute_sigma=True
    )
    assert found.curvefit_coefficients.sel(param="tau") == 2
    assert found.curvefit_stderr.sel(param="tau") == 0
    weights = 6 * np.sum(np.exp(-TIME / 2) ** 2) / 0.1**2
    np.testing.assert_allclose(found.curvefit_stderr.sel(param="amplitude"), weights**-0.5, rtol=1e-10)
    covariance = found.curvefit_covariance.sel(cov_i="tau")
    assert (covariance == 0).all()


def test_the_covariance_follows_ties(signal: xr.DataArray) -> None:
    found = signal.fit("time", decay, ..., p0={"amplitude": 4}, tie={"tau": lambda p: 0.4 * p["amplitude"]})
    amplitude = found.curvefit_covariance.sel(cov_i="amplitude", cov_j="amplitude")
    np.testing.assert_allclose(found.curvefit_covariance.sel(cov_i="tau", cov_j="tau"), 0.16 * amplitude)
    np.testing.assert_allclose(found.curvefit_covariance.sel(cov_i="tau", cov_j="amplitude"), 0.4 * amplitude)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"reduce_dims": "y"}, "'counts': unknown dimension 'y' in reduce_dims; known: time, x"),
        ({"coords": "tiem", "reduce_dims": "x"}, "unknown coordinate 'tiem'.*Did you mean 'time'"),
        ({"reduce_dims": ..., "errors": "warn"}, 'errors is \'warn\'; expected "raise" or "ignore"'),
        ({"reduce_dims": ..., "kwargs": {"maxfev": 9}}, "kwargs=.*keywords of this call.*constants="),
        ({"reduce_dims": ..., "p0": {"tau": xr.DataArray([1.0, 2.0], dims="x")}}, "p0\\['tau'\\].*over x"),
        ({"reduce_dims": ..., "bounds": {"tau": (0, xr.DataArray([1.0], dims="x"))}}, "bounds\\['tau'\\]"),
        ({"reduce_dims": ..., "p0": {"tua": 1.0}}, "'tua'.*did you mean 'tau'"),
    ],
)
def test_bad_input_is_refused_with_the_line_to_type(signal: xr.DataArray, arguments, words: str) -> None:
    with pytest.raises(dfit.InputError, match=words):
        signal.fit(**{"coords": "time", "func": decay, **arguments})


def test_an_unknown_option_is_no_option(signal: xr.DataArray) -> None:
    with pytest.raises(TypeError, match="sigam"):
        signal.fit("time", decay, ..., sigam=1.0)


def test_a_coordinate_over_several_dimensions_needs_them_named(signal: xr.DataArray) -> None:
    delayed = signal.assign_coords(delay=signal.time + 0 * signal.x)
    with pytest.raises(dfit.InputError, match=r"at each of its points alone.*reduce_dims='x'"):
        delayed.fit("delay", decay, p0=START)
    found = delayed.fit("delay", decay, ..., p0=START)
    expected = signal.fit("time", decay, ..., p0=START)
    np.testing.assert_allclose(found.curvefit_coefficients, expected.curvefit_coefficients, rtol=1e-9)


def test_a_failed_fit_raises_with_its_best_values_or_gives_nan(signal: xr.DataArray) -> None:
    with pytest.raises(
        dfit.FitFailed, match=r"max_passes=2 reached.*p0=\{'amplitude': [\d.]+, 'tau': [\d.]+\}"
    ):
        signal.fit("time", decay, ..., p0=START, max_passes=2)
    found = signal.fit("time", decay, ..., p0=START, max_passes=2, errors="ignore")
    for name in ("coefficients", "covariance", "stderr"):
        assert np.isnan(found[f"curvefit_{name}"]).all()
    assert bool(found.curvefit_success) is False
    assert "max_passes=2" in found.curvefit_coefficients.attrs["message"]


def test_a_stopped_fit_gives_its_best_point_and_a_warning(signal: xr.DataArray) -> None:
    seen = []

    def stop(done):
        seen.append(done.params)
        return len(seen) < 3

    with pytest.warns(dfit.DfitWarning, match="stopped by the callback") as caught:
        found = signal.fit("time", decay, ..., p0=START, callback=stop)
    assert dict(zip(found.param.values, found.curvefit_coefficients.values, strict=True)) == seen[-1]
    assert bool(found.curvefit_success) is False
    assert [Path(w.filename).name for w in caught if "stopped" in str(w.message)] == ["test_accessor.py"]


def test_times_are_fitted_in_the_unit_asked_for(signal: xr.DataArray) -> None:
    dated = signal.assign_coords(time=np.datetime64("2020-01-01", "ns") + (TIME * 3.6e12).astype("m8[ns]"))
    found = dated.fit("time", decay, ..., p0=START, time_unit="h")
    expected = signal.fit("time", decay, ..., p0=START)
    np.testing.assert_allclose(found.curvefit_coefficients, expected.curvefit_coefficients, rtol=1e-7)


def test_its_dataset_goes_into_a_file_and_back(signal: xr.DataArray, tmp_path: Path) -> None:
    found = signal.fit("time", decay, ..., p0=START)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "fit.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), found)
