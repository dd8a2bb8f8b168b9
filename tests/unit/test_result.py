"""The result of a fit: lmfit's numbers, and the model at any coordinates."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import jax.numpy as jnp
import lmfit
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr

from dfit.errors import InputError

T = np.linspace(0.0, 10.0, 101)
RNG = np.random.default_rng(5)
Y = 5 * np.exp(-T / 2) + 1 + 0.1 * RNG.standard_normal(T.size)
SIGMA = 0.05 + 0.01 * T
P0 = {"amplitude": 4.0, "tau": 3.0, "offset": 0.5}


def decay(time, amplitude, tau, offset):
    return amplitude * jnp.exp(-time / tau) + offset


def plain(time, amplitude, tau, offset):
    return amplitude * np.exp(-np.asarray(time) / float(tau)) + offset


def line(time, slope, offset):
    return slope * time + offset


def in_lmfit(**options):
    # Central differences: lmfit's usual forward ones leave six digits of a standard error.
    exact = {"jac": "3-point", "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "x_scale": "jac"}
    return lmfit.Model(plain).fit(Y, time=T, **P0, method="least_squares", fit_kws=exact, **options)


@pytest.fixture(scope="module")
def result(finish):
    return finish(decay, xr.DataArray(Y, dims="time", coords={"time": T}), "time", p0=P0)


@pytest.mark.parametrize("name", ["chisqr", "redchi", "aic", "bic", "rsquared", "ndata", "nvarys", "nfree"])
def test_statistic_equals_lmfits(result, name):
    assert getattr(result, name) == pytest.approx(getattr(in_lmfit(), name), rel=1e-6)


def test_parameters_equal_lmfits(result):
    reference = in_lmfit()
    for name, estimate in result.params.items():
        theirs = reference.params[name]
        assert estimate.value == pytest.approx(theirs.value, rel=1e-6)
        assert estimate.stderr == pytest.approx(theirs.stderr, rel=1e-6)
        assert estimate.correl == pytest.approx(theirs.correl, rel=1e-6)
        assert estimate.init_value == theirs.init_value
    assert result.best_values == pytest.approx(reference.best_values, rel=1e-6)
    assert result.init_values == reference.init_values
    assert list(result.var_names) == reference.var_names
    assert result.covar == pytest.approx(reference.covar, rel=1e-6)


def test_weighted_fit_with_absolute_sigma_equals_lmfits(finish):
    ours = finish(decay, Y, {"time": T}, p0=P0, sigma=SIGMA, absolute_sigma=True)
    theirs = in_lmfit(weights=1 / SIGMA, scale_covar=False)
    for name in ("chisqr", "redchi", "aic", "bic"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-6)
    assert ours.params["tau"].stderr == pytest.approx(theirs.params["tau"].stderr, rel=1e-6)


def test_band_equals_lmfits(result):
    grid = np.linspace(-1, 14, 31)
    for sigma in (1, 2, 0.95):
        theirs = in_lmfit().eval_uncertainty(sigma=sigma, time=grid, dscale=0.001)
        assert result.eval_uncertainty(sigma=sigma, time=grid).values == pytest.approx(theirs, rel=1e-6)


def test_band_of_an_untraceable_model_equals_that_of_its_traceable_form(finish, result):
    other = finish(plain, Y, {"time": T}, p0=P0)
    assert other.eval_uncertainty().values == pytest.approx(result.eval_uncertainty().values, rel=1e-5)


def test_band_uses_the_derivatives_that_the_user_gave(finish, result):
    def jac(time, amplitude, tau, offset):
        e = np.exp(-time / tau)
        return np.stack([e, amplitude * time / tau**2 * e, np.ones_like(time)], axis=-1)

    other = finish(plain, Y, {"time": T}, p0=P0, jac=jac)
    assert other.eval_uncertainty().values == pytest.approx(result.eval_uncertainty().values, rel=1e-6)


def test_interval_is_students_t(result):
    table = result.conf_interval(0.9)
    width = scipy.stats.t.ppf(0.95, result.nfree) * result.params["tau"].stderr
    assert table.loc["tau", "upper"] - table.loc["tau", "lower"] == pytest.approx(2 * width)
    with pytest.raises(InputError, match=r"level=0\.95"):
        result.conf_interval(95)


def test_interval_of_a_clustered_covariance_counts_its_groups(result):
    clustered = replace(result, cov_kind="groups: day", groups=12)
    table = clustered.conf_interval()
    width = scipy.stats.t.ppf(0.975, 11) * result.params["tau"].stderr
    assert table.loc["tau", "upper"] - result.params["tau"].value == pytest.approx(width)


def test_interval_is_normal_only_where_sigma_alone_gives_the_errors(finish):
    known = finish(decay, Y[:5], {"time": T[:5] * 20}, p0=P0, sigma=0.1, absolute_sigma=True)
    for change, factor in (({}, 1.95996398), ({"cov_kind": "hc0"}, scipy.stats.t.ppf(0.975, 2))):
        table = replace(known, **change).conf_interval()
        half = table.loc["tau", "upper"] - known.params["tau"].value
        assert half == pytest.approx(factor * known.params["tau"].stderr)


def test_numpy_model_that_jax_refuses_in_its_own_words_is_evaluated(finish):
    def clipped(time, slope, offset):
        out = slope * time + offset
        out[out < 0] = 0.0
        return out

    result = finish(clipped, 2 * T + 1, {"time": T}, p0={"slope": 1, "offset": 1})
    assert result.eval(time=[-5.0, 1.0]).values == pytest.approx([0.0, 3.0])


def test_error_of_the_users_model_is_shown_as_it_is(finish):
    def picky(time, slope, offset):
        if np.asarray(time).size < 4:
            raise ValueError("too few")
        return slope * time + offset

    result = finish(picky, 2 * T + 1, {"time": T}, p0={"slope": 1, "offset": 1})
    with pytest.raises(ValueError, match="too few"):
        result.eval(time=[1.0, 2.0])


def test_correlation_is_a_labelled_table(result):
    assert result.correlation.loc["tau", "tau"] == pytest.approx(1.0)
    assert result.correlation.loc["tau", "offset"] == result.params["tau"].correl["offset"]


def test_tied_parameter_has_the_error_of_what_it_is_computed_from(finish):
    tie = {"offset": lambda p: 2 - 0.5 * p["slope"]}
    result = finish(line, Y, {"time": T}, p0={"slope": -1.0}, tie=tie)
    slope, offset = result.params["slope"], result.params["offset"]
    assert offset.value == pytest.approx(2 - 0.5 * slope.value)
    assert offset.stderr == pytest.approx(0.5 * slope.stderr)
    assert (offset.vary, offset.expr, offset.correl) == (False, "2 - 0.5 * p['slope']", None)
    assert result.nvarys == 1


def test_tie_that_jax_cannot_trace_gets_its_error_from_differences(finish):
    tie = {"offset": lambda p: float(np.exp(float(p["slope"])))}
    result = finish(line, Y, {"time": T}, p0={"slope": -1.0}, tie=tie)
    slope, offset = result.params["slope"], result.params["offset"]
    assert offset.stderr == pytest.approx(offset.value * slope.stderr, rel=1e-4)


def test_fixed_parameter_has_no_error(finish):
    result = finish(decay, Y, {"time": T}, p0=P0, fixed={"offset": 1.0})
    assert (result.params["offset"].stderr, result.params["offset"].value) == (0.0, 1.0)
    assert result.covar.shape == (2, 2)


def test_derived_quantity_has_value_and_error(result):
    value, stderr = result.derive(lambda p: 2.3548 * p["tau"])
    assert value == pytest.approx(2.3548 * result.params["tau"].value)
    assert stderr == pytest.approx(2.3548 * result.params["tau"].stderr)
    ratio = result.derive(lambda p: jnp.log(p["amplitude"] / p["offset"]))
    a, c = result.params["amplitude"], result.params["offset"]
    ra, rc = a.stderr / a.value, c.stderr / c.value
    assert ratio.stderr == pytest.approx(np.sqrt(ra**2 + rc**2 - 2 * ra * rc * a.correl["offset"]))


def test_derived_quantity_of_an_untraceable_function_agrees(result):
    exact = result.derive(lambda p: jnp.exp(p["tau"]))
    assert result.derive(lambda p: np.exp(float(p["tau"]))) == pytest.approx(exact, rel=1e-4)


def test_parameter_at_a_bound_has_no_error_and_the_others_are_conditional(finish):
    bounds = {"tau": (None, 1.5)}
    result = finish(decay, Y, {"time": T}, p0={**P0, "tau": 1.0}, bounds=bounds)
    fixed = finish(decay, Y, {"time": T}, p0=P0, fixed={"tau": 1.5})
    assert np.isnan(result.params["tau"].stderr)
    assert np.isnan(result.derive(lambda p: p["tau"] + p["offset"]).stderr)
    assert result.params["offset"].stderr == pytest.approx(fixed.params["offset"].stderr, rel=1e-6)
    assert result.eval_uncertainty().values == pytest.approx(fixed.eval_uncertainty().values, rel=1e-5)


def test_undetermined_parameter_has_an_infinite_error_and_the_rest_a_right_one(finish):
    def twice(time, slope, first, second):
        return slope * time + first + second

    result = finish(twice, Y, {"time": T}, p0={"slope": 1, "first": 1, "second": 1})
    single = finish(line, Y, {"time": T}, p0={"slope": 1, "offset": 1})
    assert np.isinf(result.params["first"].stderr)
    assert np.isinf(result.derive(lambda p: p["first"]).stderr)
    assert result.params["slope"].stderr == pytest.approx(single.params["slope"].stderr, rel=1e-6)


def test_prediction_of_chunked_data_is_lazy_chunked_and_labelled_like_y(finish):
    y = xr.DataArray(
        Y[:100].reshape(20, 5),
        dims=("time", "x"),
        coords={"time": ("time", T[:20], {"units": "s"}), "x": np.arange(5), "run": 7},
        name="signal",
        attrs={"units": "V"},
    )
    chunked = y.chunk(time=(3, 7, 10), x=2)
    result = finish(decay, chunked, "time", p0=P0)
    found = result.eval()
    assert found.chunks == chunked.chunks
    assert (found.dims, found.name, found.attrs) == (y.dims, "signal", {"units": "V"})
    assert found.coords.identical(y.coords)
    expected = np.broadcast_to(plain(T[:20], **result.best_values)[:, None], (20, 5))
    assert found.values == pytest.approx(expected, rel=1e-14)
    assert result.residual().chunks == chunked.chunks
    assert result.residual().values == pytest.approx(y.values - expected)
    assert result.eval_uncertainty().chunks == chunked.chunks


def test_prediction_in_memory_is_in_memory(result):
    assert result.eval().chunks is None
    assert result.eval().values == pytest.approx(plain(T, **result.best_values), rel=1e-14)
    assert float((result.residual() ** 2).sum()) == pytest.approx(result.chisqr)


def test_coordinate_over_several_dimensions_in_another_order(finish):
    depth = xr.DataArray(da.from_array(np.arange(12.0).reshape(4, 3), chunks=2), dims=("x", "time"))
    y = xr.DataArray(np.arange(12.0).reshape(3, 4) ** 1.1, dims=("time", "x")).chunk(time=2, x=4)
    result = finish(line, y.compute(), {"time": depth.T.compute()}, p0={"slope": 1, "offset": 0})
    lazy = finish(line, y, {"time": depth}, p0={"slope": 1, "offset": 0})
    assert lazy.eval().chunks == y.chunks
    assert lazy.eval().values == pytest.approx(result.eval().values)


def test_prediction_is_the_same_in_slabs_as_at_once(finish):
    t = np.linspace(0, 10, 70_001)
    result = finish(line, 2 * t, {"time": t}, p0={"slope": 1, "offset": 0})
    assert result.eval().values == pytest.approx(result.theta[0] * t + result.theta[1])


def test_new_coordinates_are_given_by_name(result):
    grid = np.array([0.0, 0.5, 20.0])
    found = result.eval(time=grid)
    assert found.dims == ("time",)
    assert found["time"].values.tolist() == grid.tolist()
    assert found.values == pytest.approx(plain(grid, **result.best_values))
    assert float(result.eval(time=3)) == pytest.approx(plain(3.0, **result.best_values))


def test_parameters_of_an_evaluation_can_be_given_by_name(result):
    values = {**result.best_values, "tau": 1.0}
    assert result.eval({"tau": 1.0}, time=T).values == pytest.approx(plain(T, **values))
    assert result.eval(result.params, time=T).values == pytest.approx(result.eval(time=T).values)
    theirs = lmfit.Parameters()
    theirs.add("tau", 1.0)
    assert result.eval(theirs, time=T).values == pytest.approx(plain(T, **values))
    with pytest.raises(InputError, match="Did you mean 'tau'"):
        result.eval({"tua": 1.0})


def test_tied_parameters_follow_those_given(finish):
    result = finish(line, Y, {"time": T}, p0={"slope": -1.0}, tie={"offset": lambda p: -p["slope"]})
    assert result.eval({"slope": 2.0}, time=np.array([0.0, 1.0])).values.tolist() == [-2.0, 0.0]
    assert result.eval({"slope": 2.0, "offset": 5.0}, time=np.array([0.0])).values.tolist() == [5.0]


def test_several_new_coordinates_pair_up_or_span_a_grid(finish):
    def plane(x, time, a, b):
        return a * x + b * time

    y = xr.DataArray(np.add.outer(np.arange(3.0), 2 * np.arange(4.0)), dims=("x", "time"))
    result = finish(plane, y, ("x", "time"), p0=[1, 1])
    pairs = result.eval(x=[0.0, 1.0], time=[1.0, 2.0])
    assert (pairs.dims, pairs.values.round(9).tolist()) == (("point",), [2.0, 5.0])
    named = result.eval(x=xr.DataArray([0.0, 1.0, 2.0], dims="x"), time=xr.DataArray([1.0, 2.0], dims="time"))
    assert (named.dims, named.shape) == (("x", "time"), (3, 2))
    lazy = result.eval(x=xr.DataArray(np.arange(6.0), dims="row").chunk(row=2), time=1.0)
    assert lazy.chunks == ((2, 2, 2),)
    assert lazy.values == pytest.approx(np.arange(6.0) + 2)
    with pytest.raises(InputError, match=r"x=xr\.DataArray\(x, dims='x'\)"):
        result.eval(x=[0.0, 1.0, 2.0], time=[1.0, 2.0])
    with pytest.raises(InputError, match=r"coordinate 'time' too"):
        result.eval(x=[0.0, 1.0])
    with pytest.raises(InputError, match=r"params=\{'a': value\}"):
        result.eval(x=1.0, time=2.0, a=3.0)
    with pytest.raises(InputError, match="expected real numbers"):
        result.eval(x=["one"], time=2.0)


def test_times_are_converted_as_in_the_fit(finish):
    dates = pd.date_range("2020-01-01", periods=48, freq="h")
    hours = np.arange(48.0)
    y = xr.DataArray(3 * hours + 1, dims="time", coords={"time": dates})
    for data in (y, y.chunk(time=10)):
        result = finish(line, data, "time", p0=[1, 0], time_unit="h", time_origin="2019-12-31T23:00")
        assert result.params["slope"].value == pytest.approx(3)
        assert result.params["offset"].value == pytest.approx(-2)
        assert result.eval().values == pytest.approx(y.values)
        later = result.eval(time=pd.date_range("2020-01-03", periods=2, freq="D"))
        assert later.values == pytest.approx([3 * 48 + 1, 3 * 72 + 1])
        assert later["time"].dtype.kind == "M"
        assert float(result.eval(time="2020-01-01")) == pytest.approx(1)
        assert float(result.eval(time=np.timedelta64(1, "h"))) == pytest.approx(1)


def test_complex_data_give_a_complex_prediction_and_band(finish):
    def wave(time, a, b):
        return a * jnp.exp(1j * time) + b

    noise = 0.1 * (RNG.standard_normal(T.size) + 1j * RNG.standard_normal(T.size))
    result = finish(wave, 2 * np.exp(1j * T) + 1 + noise, {"time": T}, p0=[1, 1])
    assert result.eval().dtype == complex
    assert result.nfree == 2 * T.size - 2
    band = result.eval_uncertainty(sigma=1, time=0.0).item()
    a, b = result.params["a"], result.params["b"]
    variance = a.stderr**2 + b.stderr**2 + 2 * a.correl["b"] * a.stderr * b.stderr
    assert band.real == pytest.approx(np.sqrt(variance), rel=0.02)
    assert band.imag == 0.0


def test_constants_reach_the_model_also_in_chunks(finish):
    def scaled(time, slope, offset, table):
        return slope * time * table[0] + offset

    y = xr.DataArray(2 * T + 1, dims="time", coords={"time": T}).chunk(time=25)
    result = finish(scaled, y, "time", p0=[1, 0], constants={"table": [2.0, 3.0]})
    assert result.params["slope"].value == pytest.approx(1)
    assert result.eval().values == pytest.approx(2 * T + 1)
