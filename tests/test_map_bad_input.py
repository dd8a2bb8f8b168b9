"""What a map refuses at the call, flags by pixel, or raises where it is computed."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import dfit
from dfit.pixel_status import PixelStatus

TIME = np.linspace(0, 4, 20)
START = {"amplitude": 1.0, "tau": 1.0}
TRUTH = np.array([[2, 1], [3, 2], [4, 1.5]])


def decay(time, amplitude, tau):
    return amplitude * jnp.exp(-time / tau)


@pytest.fixture
def signal() -> xr.DataArray:
    noise = 0.01 * np.random.default_rng(0).normal(size=(3, TIME.size))
    values = TRUTH[:, :1] * np.exp(-TIME / TRUTH[:, 1:]) + noise
    return xr.DataArray(values, {"x": [10, 20, 30], "time": TIME}, ("x", "time"), "counts")


def by_pixel(*values: Any, **coords: Any) -> xr.DataArray:
    return xr.DataArray(list(values), coords, ("x",))


def status_of(found: xr.Dataset) -> list[str]:
    return [PixelStatus(int(code)).name.lower() for code in found.compute().curvefit_status]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"p0": {"amplitude": xr.DataArray(TIME, dims="time")}},
            "'time', which is fitted over.*kept: x.*isel",
        ),
        ({"p0": {"amplitude": xr.DataArray([1.0], dims="foo")}}, "p0 of 'amplitude' has the dimension 'foo'"),
        ({"bounds": {"tau": (0, xr.DataArray([1.0], dims="foo"))}}, "the upper bound of 'tau'.*'foo'"),
        ({"p0": {"tau": by_pixel(1.0, 1.0, 1.0, x=[1, 2, 3])}}, "different values of 'x'.*xr.align"),
        ({"p0": {"tau": by_pixel(1.0, 1.0, 1.0, x=[30, 20, 10])}}, "different values of 'x'.*xr.align"),
        ({"p0": {"tau": by_pixel(1.0, 1.0)}}, "2 values along 'x', y has 3"),
        ({"p0": {"tau": np.ones(3)}}, r"shape \(3,\).*xr.DataArray\(values, dims=\('x',\)\)"),
        ({"bounds": {"tau": (np.zeros(3), 5)}}, r"shape \(3,\).*xr.DataArray\(values, dims=\('x',\)\)"),
        ({"p0": {"tau": by_pixel("1", "1", "1")}}, "dtype <U1; expected real numbers"),
        ({"p0": {"tau": by_pixel(1j, 1j, 1j)}}, "dtype complex128; expected real numbers"),
        ({"p0": {"tua": by_pixel(1.0, 1.0, 1.0)}}, "'tua'.*did you mean 'tau'"),
        ({"bounds": {"tua": (0, by_pixel(1.0, 1.0, 1.0))}}, "'tua'.*did you mean 'tau'"),
        (
            {"p0": {"tau": by_pixel(1.0, 1.0, -5.0)}, "bounds": {"tau": (0, 9)}},
            "'tau': p0 is outside its bounds at x=30, the lower bound 0 and p0 -5",
        ),
        (
            {"p0": {"tau": 2.0}, "bounds": {"tau": (0, by_pixel(9.0, 1.0, 1.5))}},
            r"'tau': p0 is outside its bounds at x=20, p0 2 and the upper bound 1 \(2 in all\)",
        ),
        (
            {"bounds": {"tau": (by_pixel(0.0, 3.0, 0.0), by_pixel(9.0, 2.0, 9.0))}},
            "'tau': the bounds are crossed or equal at x=20, the lower bound 3 and the upper bound 2",
        ),
        ({"cov": "x"}, "cov is 'x'.*hc0.*one fit over all dimensions"),
        ({"cov": "time"}, "cov is 'time'.*hc0.*one fit over all dimensions"),
        ({"absolute_sigma": True}, "absolute_sigma=True without sigma"),
        ({"sigma": by_pixel(1.0, 0.0, 1.0)}, "sigma is 0.0 at x=1"),
        ({"warmup": True}, r"warmup= is for one fit over all dimensions, and x would be kept.*\.\.\."),
        ({"checkpoint": "here"}, "checkpoint= is for one fit"),
        ({"callback": print}, "callback= is for one fit"),
        ({"on_partition": print}, "on_partition= is for one fit"),
        ({"validate": "deep"}, "validate= is for one fit"),
        ({"recovery": [print]}, "recovery= is for one fit"),
        ({"min_success_rate": 0.5}, "min_success_rate= is for one fit"),
        ({"time_limit": 5}, "time_limit= is for one fit"),
        ({"loss": "hubber"}, "unknown loss 'hubber'"),
        ({"max_passes": 0}, "max_passes is 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:no initial value:dfit.DfitWarning")
def test_what_no_pixel_can_use_is_refused_at_the_call(signal: xr.DataArray, arguments, words: str) -> None:
    with pytest.raises(dfit.InputError, match=words):
        signal.chunk(x=1).fit("time", decay, **{"p0": START, **arguments})


def test_an_unknown_option_is_no_option(signal: xr.DataArray) -> None:
    with pytest.raises(TypeError, match="sigam"):
        signal.fit("time", decay, p0=START, sigam=1.0)


def test_a_coordinate_over_several_dimensions_needs_them_named(signal: xr.DataArray) -> None:
    delayed = signal.assign_coords(delay=signal.time + 0 * signal.x)
    with pytest.raises(dfit.InputError, match=r"at each of its points alone.*reduce_dims='time'"):
        delayed.fit("delay", decay, p0=START)


def test_a_coordinate_without_named_dimensions_is_refused(signal: xr.DataArray) -> None:
    with pytest.raises(dfit.InputError, match=r"numpy.ndarray.*xr.DataArray\(values, dims='time'\)"):
        signal.fit(TIME, decay, reduce_dims="time", p0=START)


def test_a_number_is_refused_as_a_coordinate(signal: xr.DataArray) -> None:
    with pytest.raises(dfit.InputError, match=r'coords is 1; expected the name.*coords="time"'):
        signal.fit(1, decay, p0=START)


@pytest.mark.parametrize("name", ["param", "cov_i", "cov_j"])
def test_a_kept_dimension_with_the_name_of_a_results_is_refused(signal: xr.DataArray, name: str) -> None:
    with pytest.raises(dfit.InputError, match=f"{name!r} is kept.*rename"):
        signal.isel(x=[0, 1]).rename(x=name).fit("time", decay, p0=START)


def test_dates_that_vary_by_pixel_need_an_origin(signal: xr.DataArray) -> None:
    dates = np.datetime64("2020-01-01", "ns") + ((TIME + np.arange(3)[:, None]) * 3.6e12).astype("m8[ns]")
    dated = signal.assign_coords(delay=(("x", "time"), dates))
    with pytest.raises(dfit.InputError, match=r"other dates for each x.*time_origin='2020-01-01"):
        dated.fit("delay", decay, reduce_dims="time", p0=START)


@pytest.mark.parametrize("dim", ["x", "time"])
def test_no_pixels_and_no_points_are_refused(signal: xr.DataArray, dim: str) -> None:
    with pytest.raises(dfit.InputError, match="'counts' has no points"):
        signal.isel({dim: slice(0)}).fit("time", decay, p0=START)


def test_chunks_of_unknown_size_are_refused(signal: xr.DataArray) -> None:
    chunked = signal.chunk(x=1).data
    unknown = xr.DataArray(chunked[dask.array.ones(3, dtype=bool, chunks=1)], dims=("x", "time"))
    with pytest.raises(dfit.InputError, match="compute_chunk_sizes"):
        unknown.assign_coords(time=TIME).fit("time", decay, p0=START)


@pytest.mark.parametrize("chunks", [None, {"x": 1, "time": 7}], ids=["memory", "dask"])
def test_pixels_that_cannot_be_fitted_are_flagged_and_the_others_right(signal: xr.DataArray, chunks) -> None:
    expected = signal.fit("time", decay, p0=START)
    later = signal.time > 0
    cases = {
        "no_data": {"data": signal.where(signal.x != 20)},
        "too_few_points": {"data": signal.where((signal.x != 20) | ~later)},
        "unusable_data": {"data": signal.where((signal.x != 20) | later, np.inf)},
        "bad_start": {"p0": {"amplitude": by_pixel(1, np.nan, 1), "tau": 1}},
    }
    for name, case in cases.items():
        data = case.get("data", signal)
        data = data if chunks is None else data.chunk(chunks)
        found = data.fit("time", decay, p0=case.get("p0", START), errors="ignore").compute()
        assert status_of(found) == ["converged", name, "converged"]
        others = found.curvefit_coefficients.isel(x=[0, 2])
        np.testing.assert_allclose(others, expected.curvefit_coefficients.isel(x=[0, 2]), rtol=1e-12)
        for variable in (
            "coefficients",
            "covariance",
            "stderr",
            "chisqr",
            "redchi",
            "aic",
            "bic",
            "rsquared",
        ):
            assert np.isnan(found[f"curvefit_{variable}"].sel(x=20)).all(), (name, variable)
        assert found.curvefit_success.values.tolist() == [True, False, True]


def test_lazy_values_that_no_pixel_can_use_are_flagged(signal: xr.DataArray) -> None:
    p0 = {"amplitude": 1.0, "tau": by_pixel(1.0, 5.0, np.nan).chunk(x=1)}
    bounds = {"tau": (0, by_pixel(3.0, 3.0, 3.0).chunk(x=2))}
    found = signal.chunk(x=2).fit("time", decay, p0=p0, bounds=bounds, errors="ignore")
    assert status_of(found) == ["converged", "bad_start", "bad_start"]
    sigma = by_pixel(1.0, 0.0, 1.0).chunk(x=1)
    found = signal.chunk(x=2).fit("time", decay, p0=START, sigma=sigma, errors="ignore")
    assert status_of(found) == ["converged", "unusable_data", "converged"]


def test_pixels_without_data_warn_of_nothing(signal: xr.DataArray) -> None:
    holes = signal.where(signal.x != 20).chunk(x=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = holes.fit("time", decay, p0=START)
        assert status_of(found) == ["converged", "no_data", "converged"]


def test_a_model_that_overflows_by_pixel_warns_of_nothing(signal: xr.DataArray) -> None:
    starts = by_pixel(1.0, -1e-4, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = signal.chunk(x=1).fit("time", decay, p0={"amplitude": 1, "tau": starts}, errors="ignore")
        assert status_of(found) == ["converged", "model_not_finite_at_start", "converged"]


def test_a_failure_names_its_place_where_it_is_computed(signal: xr.DataArray) -> None:
    holes = signal.where((signal.x != 20) | (signal.time == 0)).chunk(x=2)
    found = holes.fit("time", decay, p0=START)
    with pytest.raises(dfit.FitFailed, match=r'at x=20: fewer points than parameters.*errors="ignore"'):
        found.compute()
    np.testing.assert_allclose(found.curvefit_coefficients.sel(x=30), TRUTH[2], rtol=0.05)


def test_a_failure_crosses_processes_with_its_place(signal: xr.DataArray) -> None:
    holes = signal.where((signal.x != 20) | (signal.time == 0)).chunk(x=1)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        persisted = holes.persist()
        with pytest.raises(dfit.FitFailed, match=r'at x=20: fewer points than parameters.*errors="ignore"'):
            persisted.fit("time", decay, p0=START).compute()
        found = persisted.fit("time", decay, p0=START, errors="ignore").compute()
    assert status_of(found) == ["converged", "too_few_points", "converged"]


def test_tasks_of_a_map_do_not_wait_for_each_other_for_ever() -> None:
    """JAX spreads LAPACK of many pixels over XLA's threads: as many calls as there are threads would deadlock."""
    time = np.linspace(0, 4, 128)
    noise = 0.01 * np.random.default_rng(1).normal(size=(64, time.size))
    many = xr.DataArray(2 * np.exp(-time) + noise, {"time": time}, ("x", "time")).chunk()
    ended: list[int] = []

    def compute() -> None:
        for _ in range(10):
            many.fit("time", decay, p0=START).compute(scheduler="synchronous")
        ended.append(1)

    threads = [threading.Thread(target=compute, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(ended) == 4
