"""A result survives a file, and the file holds numbers and words only."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dfit.errors import InputError
from dfit.result import FitResult

N = 60
DATES = pd.date_range("2020-01-01", periods=N, freq="h")
Y = 5 * np.exp(-np.arange(N) / 20) + 1 + 0.05 * np.random.default_rng(2).standard_normal(N)


def decay(time, amplitude, tau, offset, twin):
    return amplitude * np.exp(-time / float(tau)) + 0.5 * (offset + twin)


@pytest.fixture(scope="module")
def result(finish):
    y = xr.DataArray(
        Y, dims="time", coords={"time": DATES}, name="signal", attrs={"units": "V", "valid": [1, 2]}
    )
    start = {"amplitude": 4, "tau": 10, "offset": 0.5}
    tie = {"twin": lambda p: p["offset"]}
    bounds = {"amplitude": (0, 4.5)}
    return finish(decay, y, "time", p0=start, tie=tie, bounds=bounds, time_unit="h")


@pytest.fixture(params=["memory", "zarr2", "zarr3", "netcdf"])
def read(request, result, tmp_path):
    """The dataset after a round trip; any warning is an error."""
    dataset = result.to_dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if request.param == "netcdf":
            dataset.to_netcdf(tmp_path / "r.nc", engine="h5netcdf")
            return xr.load_dataset(tmp_path / "r.nc", engine="h5netcdf")
        if request.param.startswith("zarr"):
            version = int(request.param[-1])
            # zarr warns of every dataset that consolidated metadata are no part of its third format.
            consolidated = version == 2
            dataset.to_zarr(tmp_path / "r.zarr", zarr_format=version, consolidated=consolidated)
            return xr.open_zarr(tmp_path / "r.zarr", consolidated=consolidated).load()
    return dataset


def test_numbers_and_report_are_the_same_after_a_file(result, read):
    again = FitResult.from_dataset(read, model=decay)
    assert again.fit_report() == result.fit_report()
    assert again.params.to_dataframe().equals(result.params.to_dataframe())
    np.testing.assert_array_equal(again.covar, result.covar)
    assert (again.status, again.success, again.message) == (result.status, result.success, result.message)
    assert again.run == result.run
    assert again.tallies == result.tallies
    assert again.known.labels == result.known.labels
    assert again.conf_interval().equals(result.conf_interval())
    assert again.covariance.condition == result.covariance.condition


def test_model_given_again_predicts_the_same(result, read):
    again = FitResult.from_dataset(read, model=decay)
    later = {"time": DATES + pd.Timedelta("1D")}
    assert again.eval(**later).identical(result.eval(**later))
    np.testing.assert_allclose(again.eval_uncertainty(**later), result.eval_uncertainty(**later), rtol=1e-12)


def test_derived_quantities_need_no_model_also_of_tied_parameters(result, read):
    again = FitResult.from_dataset(read)
    assert again.derive(lambda p: p["twin"] + p["tau"]) == result.derive(lambda p: p["twin"] + p["tau"])


def test_without_model_only_eval_is_refused_with_the_line_to_type(result):
    again = FitResult.from_dataset(result.to_dataset())
    with pytest.raises(InputError, match="from_dataset\\(ds, model=your_function\\)"):
        again.eval(time=DATES)
    with pytest.raises(InputError, match=r"result\.eval\(time=\.\.\.\)"):
        FitResult.from_dataset(result.to_dataset(), model=decay).eval()


def test_tie_cannot_follow_without_its_code(result):
    again = FitResult.from_dataset(result.to_dataset(), model=decay)
    with pytest.raises(InputError, match=r"'twin' \(= p\['offset'\]\) cannot follow"):
        again.eval({"offset": 2.0}, time=DATES)
    given = {"offset": 2.0, "twin": 2.0}
    assert again.eval(given, time=DATES).identical(result.eval({"offset": 2.0}, time=DATES))


def test_file_of_a_file_is_the_same(result):
    once = result.to_dataset()
    assert FitResult.from_dataset(once).to_dataset().identical(once)


def test_file_holds_numbers_and_text_only(result):
    dataset = result.to_dataset()
    assert all(variable.dtype.kind in "fiu" for variable in dataset.data_vars.values())
    assert all(isinstance(value, (str, int, float)) for value in dataset.attrs.values())
    assert dataset["value"].sel(param="twin") == dataset["value"].sel(param="offset")
    assert np.isnan(dataset["stderr"].sel(param="amplitude"))


def test_other_model_or_dataset_is_refused(result):
    def other(time, a, b):
        return a * time + b

    with pytest.raises(InputError, match=r"the file holds|does not fit"):
        FitResult.from_dataset(result.to_dataset(), model=other)
    with pytest.raises(InputError, match=r"result\.to_dataset\(\)"):
        FitResult.from_dataset(xr.Dataset({"value": 1}))
    with pytest.raises(InputError, match="pip install --upgrade dfit"):
        FitResult.from_dataset(result.to_dataset().assign_attrs(dfit_format=99))
