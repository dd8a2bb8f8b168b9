"""`dfit.curve_fit` against `scipy.optimize.curve_fit`."""

from __future__ import annotations

import inspect
import pickle

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import xarray as xr

import dfit

T = np.linspace(0, 10, 300)
RNG = np.random.default_rng(2)
SIGMA = 0.05 + 0.1 * RNG.random(T.size)
Y = 5 * np.exp(-T / 2) + 1 + SIGMA * RNG.normal(size=T.size)
X = np.array([T, np.sin(T)])
START = (4.0, 1.0, 0.0)
COVARIANCE = 0.01 * np.exp(-np.abs(T[:, None] - T) / 0.3) + np.diag(SIGMA**2)


def decay(t, a, b, c):
    return a * jnp.exp(-t / b) + c


def plain_decay(t, a, b, c):
    return a * np.exp(-t / b) + c


def slopes(t, a, b, c):
    e = jnp.exp(-t / b)
    return jnp.stack([e, a * t / b**2 * e, jnp.ones_like(t)], -1)


def plane(x, a, b, c):
    return a * x[0] + b * x[1] + c


def columns(x, *theta):
    return x @ jnp.asarray(theta[:2]) + theta[2]


def scipys(f, *args, **options):
    """SciPy's answer, as far as it goes."""
    tight = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "jac": "3-point", "method": "trf"}
    return scipy.optimize.curve_fit(f, *args, **{**tight, **options})


def assert_same(ours, theirs) -> None:
    """Compare; SciPy stops where the cost no longer changes, some 1e-7 standard errors from the optimum."""
    stderr = np.sqrt(np.diag(theirs[1]))
    np.testing.assert_array_less(np.abs(ours[0] - theirs[0]) / stderr, 1e-6)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6)


def test_the_signature_is_scipys() -> None:
    ours = inspect.signature(dfit.curve_fit).parameters
    theirs = inspect.signature(scipy.optimize.curve_fit).parameters
    assert [name for name in ours if name in theirs] == list(theirs)
    for name, parameter in theirs.items():
        assert (ours[name].kind, ours[name].default) == (parameter.kind, parameter.default), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sigma": 0.3},
        {"sigma": [0.3], "absolute_sigma": True},
        {"sigma": SIGMA},
        {"sigma": list(SIGMA), "absolute_sigma": True},
        {"absolute_sigma": True},
        {"sigma": COVARIANCE},
        {"sigma": COVARIANCE, "absolute_sigma": True},
        {"bounds": ([0, 0, -1], [9, 9, 9])},
        {"bounds": (0, np.inf), "method": "dogbox"},
        {"bounds": scipy.optimize.Bounds([0, 0, -np.inf], [9, 9, 9])},
    ],
    ids=repr,
)
def test_it_agrees_with_scipy(options) -> None:
    assert_same(dfit.curve_fit(decay, T, Y, START, **options), scipys(plain_decay, T, Y, START, **options))


@pytest.mark.parametrize("sigma", [SIGMA, COVARIANCE], ids=["1-D", "2-D"])
def test_a_derivative_of_the_users_is_used(sigma) -> None:
    calls = []

    def jac(t, a, b, c):
        calls.append(t.shape)
        return slopes(t, a, b, c)

    found = dfit.curve_fit(decay, T, Y, START, sigma, jac=jac)
    assert calls
    assert_same(found, scipys(plain_decay, T, Y, START, sigma))


@pytest.mark.parametrize("name", ["2-point", "3-point", "cs"])
def test_the_names_of_scipys_differences_are_accepted(name: str) -> None:
    assert_same(dfit.curve_fit(decay, T, Y, START, jac=name), scipys(plain_decay, T, Y, START))


@pytest.mark.parametrize(
    "xdata",
    [
        X,
        list(X),
        tuple(X),
        da.from_array(X, chunks=(1, 90)),
        tuple(da.from_array(row, chunks=70) for row in X),
        xr.DataArray(X, dims=("k", "t")),
    ],
    ids=["array", "list", "tuple", "dask", "tuple of dask", "DataArray"],
)
def test_rows_reach_the_function_as_one_array(xdata) -> None:
    assert_same(dfit.curve_fit(plane, xdata, Y), scipys(plane, X, Y))


def test_columns_reach_the_function_as_one_array() -> None:
    theirs = scipys(lambda x, a, b, c: x @ [a, b] + c, X.T, Y, START)
    assert_same(dfit.curve_fit(columns, X.T, Y, START), theirs)
    chunked = da.from_array(X.T, chunks=(80, 1))
    assert_same(dfit.curve_fit(columns, chunked, Y, START), theirs)


@pytest.mark.parametrize("chunks", [(300,), (77, 77, 77, 69), (1, 299)])
def test_chunked_data_give_scipys_answer(chunks) -> None:
    t, y, s = (da.from_array(v, chunks=(chunks,)) for v in (T, Y, SIGMA))
    assert_same(dfit.curve_fit(decay, t, y, START, s), scipys(plain_decay, T, Y, START, SIGMA))


def test_data_arrays_of_several_dimensions_are_one_fit() -> None:
    scale = xr.DataArray([1.0, 2.0, 3.0], dims="k")
    t = xr.DataArray(T, dims="t")
    y = (scale * (5 * np.exp(-t / 2)) + 0.1 * RNG.normal(size=(3, T.size))).chunk(k=2, t=70)

    def scaled(kt, a, b):
        return kt[0] * a * jnp.exp(-kt[1] / b)

    found = dfit.curve_fit(scaled, (scale, t), y, (4, 1))
    k, u = (np.broadcast_to(v, (3, T.size)).ravel() for v in (scale.values[:, None], T))
    theirs = scipys(lambda x, a, b: x[0] * a * np.exp(-x[1] / b), (k, u), y.values.ravel(), (4, 1))
    assert_same(found, theirs)


def test_a_numpy_function_works_and_is_warned_about() -> None:
    with pytest.warns(dfit.DfitWarning, match="finite differences"):
        found = dfit.curve_fit(plain_decay, T, Y, START, SIGMA)
    assert_same(found, scipys(plain_decay, T, Y, START, SIGMA))
    with pytest.warns(dfit.DfitWarning, match="finite differences"):
        found = dfit.curve_fit(plain_decay, T, Y, START, COVARIANCE)
    assert_same(found, scipys(plain_decay, T, Y, START, COVARIANCE))


def test_the_number_of_parameters_follows_p0_as_in_scipy() -> None:
    def free(t, *theta):
        return theta[0] * t + theta[1]

    def half_free(t, a, *rest):
        return a * t + rest[0]

    def with_default(t, a, b=2.0, *, c=1.0):
        return a * jnp.exp(-t / b) + c

    line = scipys(lambda t, a, b: a * t + b, T, Y)
    assert_same(dfit.curve_fit(free, T, Y, [1, 1]), line)
    assert_same(dfit.curve_fit(half_free, T, Y, [1, 1]), line)
    one = scipys(lambda t, a: plain_decay(t, a, 2, 1), T, Y, 3.0)
    assert_same(dfit.curve_fit(with_default, T, Y, 3.0), one)
    two = scipys(lambda t, a, b: plain_decay(t, a, b, 1), T, Y, [3, 3])
    assert_same(dfit.curve_fit(with_default, T, Y, [3, 3]), two)


def test_a_function_may_return_one_number() -> None:
    popt, pcov = dfit.curve_fit(lambda t, a: a, T, Y)
    np.testing.assert_allclose(popt, Y.mean(), rtol=1e-12)
    np.testing.assert_allclose(pcov, Y.var(ddof=1) / Y.size, rtol=1e-9)


def test_the_answer_unpacks_and_holds_the_result() -> None:
    found = dfit.curve_fit(decay, T, Y, START)
    popt, pcov = found
    assert isinstance(found, tuple) and len(found) == 2
    assert found.popt is popt and found.pcov is pcov
    assert dict(zip("abc", popt, strict=True)) == found.result.best_values
    assert found.result.fit_report().startswith("1 fit over dim_0")
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.popt, popt)
    assert again.result.best_values == found.result.best_values


@pytest.mark.parametrize("sigma", [None, SIGMA, COVARIANCE], ids=["none", "1-D", "2-D"])
def test_full_output_is_scipys(sigma) -> None:
    ours = dfit.curve_fit(decay, T, Y, START, sigma, full_output=True)
    theirs = scipys(plain_decay, T, Y, START, sigma, full_output=True)
    assert_same(ours, theirs)
    _, _, infodict, message, ier = ours
    np.testing.assert_allclose(infodict["fvec"], theirs[2]["fvec"], atol=1e-6)
    assert infodict["nfev"] == ours.result.nfev
    assert message == ours.result.message
    assert ier in (1, 2, 3, 4)


def test_fvec_is_lazy_for_chunked_data() -> None:
    t, y = da.from_array(T, chunks=70), da.from_array(Y, chunks=70)
    fvec = dfit.curve_fit(decay, t, y, START, full_output=True)[2]["fvec"]
    assert isinstance(fvec, da.Array) and fvec.chunks == y.chunks
    theirs = scipys(plain_decay, T, Y, START, full_output=True)[2]["fvec"]
    np.testing.assert_allclose(fvec.compute(), theirs, atol=1e-6)


@pytest.mark.parametrize("sigma", [None, SIGMA, COVARIANCE], ids=["none", "1-D", "2-D"])
def test_nan_is_refused_or_left_out_as_in_scipy(sigma) -> None:
    t, y = np.where(T[7] == T, np.nan, T), np.where((T > 3) & (T < 4), np.nan, Y)
    for options in ({}, {"nan_policy": "raise"}, {"nan_policy": "omit", "check_finite": True}):
        with pytest.raises(ValueError, match=r"nan_policy='omit'|not contain"):
            dfit.curve_fit(decay, t, y, START, sigma, **options)
        with pytest.raises(ValueError):
            scipys(plain_decay, t, y, START, sigma, **options)
    found = dfit.curve_fit(decay, t, y, START, sigma, nan_policy="omit", full_output=True)
    theirs = scipys(plain_decay, t, y, START, sigma, nan_policy="omit", full_output=True)
    assert_same(found, theirs)
    np.testing.assert_allclose(found[2]["fvec"], theirs[2]["fvec"], atol=1e-6)


def test_nan_in_chunks_is_refused_by_the_first_pass() -> None:
    y = da.from_array(np.where(T > 5, np.nan, Y), chunks=100)
    with pytest.raises(ValueError, match=r"NaN.*partition"):
        dfit.curve_fit(decay, T, y, START)
    found = dfit.curve_fit(decay, T, y, START, nan_policy="omit")
    assert_same(found, scipys(plain_decay, T[T <= 5], Y[T <= 5], START))


def test_what_the_data_do_not_determine_is_infinite_with_scipys_warning() -> None:
    with pytest.warns(scipy.optimize.OptimizeWarning, match="could not be estimated") as caught:
        _, pcov = dfit.curve_fit(lambda t, a, b, c: (a + b) * t + c, T, Y, START)
    assert np.isposinf(pcov).all()
    assert caught[-1].filename == __file__
    with pytest.warns(scipy.optimize.OptimizeWarning, match="degrees of freedom"):
        popt, pcov = dfit.curve_fit(decay, T[:200:75], Y[:200:75], START)
    assert np.isposinf(pcov).all()
    np.testing.assert_allclose(plain_decay(T[:200:75], *popt), Y[:200:75], rtol=1e-6)


def test_a_parameter_at_its_bound_has_no_variance_and_the_others_hold_for_it() -> None:
    with pytest.warns(scipy.optimize.OptimizeWarning, match="active bound"):
        popt, pcov = dfit.curve_fit(decay, T, Y, START, bounds=([0, 0, 0], [9, 9, 0.9]))
    others = scipys(lambda t, a, b: plain_decay(t, a, b, 0.9), T, Y, START[:2])
    assert popt[2] == 0.9
    assert np.isnan(pcov[2]).all() and np.isnan(pcov[:, 2]).all()
    assert_same((popt[:2], pcov[:2, :2]), others)


def test_a_failure_is_a_runtime_error_with_the_best_values() -> None:
    with pytest.raises(
        RuntimeError, match=r"Optimal parameters not found.*max_passes=2.*p0=\{'a': "
    ) as caught:
        dfit.curve_fit(decay, T, Y, START, maxfev=2)
    assert isinstance(caught.value, dfit.FitFailed)
    with pytest.raises(dfit.FitFailed, match="max_passes=3"):
        dfit.curve_fit(decay, T, Y, START, max_nfev=3)


def test_a_stopped_fit_gives_its_best_point_and_a_warning() -> None:
    seen = []

    def stop(done):
        seen.append(list(done.params.values()))
        return len(seen) < 3

    with pytest.warns(dfit.DfitWarning, match="stopped by the callback") as caught:
        found = dfit.curve_fit(decay, T, Y, START, callback=stop, full_output=True)
    assert found.popt.tolist() == seen[-1]
    assert found[4] == -2
    assert [w.filename for w in caught if "stopped" in str(w.message)] == [__file__]


def test_tolerances_and_losses_of_scipy_are_used() -> None:
    loose = dfit.curve_fit(decay, T, Y, START, ftol=1e-2, gtol=0.0, maxfev=0, method="lm")
    assert "ftol=0.01" in loose.result.message
    y = Y + 20 * (np.arange(T.size) % 25 == 0)
    robust = dfit.curve_fit(decay, T, y, START, loss="soft_l1", f_scale=0.1)
    theirs = scipys(plain_decay, T, y, START, loss="soft_l1", f_scale=0.1)
    np.testing.assert_allclose(robust.popt, theirs[0], rtol=1e-6)


def test_options_of_fit_pass_through() -> None:
    found = dfit.curve_fit(decay, T, Y, {"a": 4, "b": 1}, SIGMA, fixed={"c": 1.0}, where=T > 1)
    theirs = scipys(lambda t, a, b: plain_decay(t, a, b, 1), T[T > 1], Y[T > 1], (4, 1), SIGMA[T > 1])
    assert_same((found.popt[:2], found.pcov[:2, :2]), theirs)
    assert found.popt[2] == 1 and not found.pcov[2].any()
    table = np.array([3.0, 1.0])
    found = dfit.curve_fit(lambda t, a, table: a * table[0] * t, T, Y, [1], constants={"table": table})
    assert_same(found, scipys(lambda t, a: a * 3 * t, T, Y, [1]))
