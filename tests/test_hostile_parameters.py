"""Parameters that the data do not determine, starts at the edge, and trials beyond it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.optimize import OptimizeWarning
from scipy.optimize import curve_fit as scipy_curve_fit

import dfit
from dfit.errors import DataError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:JAX cannot compile:dfit.DfitWarning")

N = 400
RNG = np.random.default_rng(0)
X = np.linspace(0, 10, N)
Y = 5 * np.exp(-X / 2) + 1 + RNG.normal(0, 0.1, N)
P0 = {"a": 3.0, "tau": 1.0, "c": 0.0}
EXACT = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}  # SciPy's tests of convergence
PLAIN: dict[str, Any] = {}
WARM, ROBUST = {"warmup": True}, {"loss": "huber"}


def decay(x, a, tau, c):
    return a * jnp.exp(-x / tau) + c


def plain(x, a, tau, c):
    return a * np.exp(-np.asarray(x) / tau) + c


def fit(model: Callable, **options: Any) -> dfit.FitResult:
    return dfit.fit(model, Y, {"x": X}, p0=options.pop("p0", P0), **options)


def errors(result: dfit.FitResult) -> dict[str, float]:
    return {name: estimate.stderr for name, estimate in result.params.items()}


HIDDEN: dict[str, tuple[Callable, Callable, set[str]]] = {
    "no effect": (
        lambda x, a, tau, c, q: decay(x, a, tau, c),
        lambda x, a, tau, c, q: plain(x, a, tau, c),
        {"q"},
    ),
    "only a sum": (
        lambda x, a, tau, c, q: decay(x, a, tau, c) + q,
        lambda x, a, tau, c, q: plain(x, a, tau, c) + q,
        {"c", "q"},
    ),
    "only a product": (
        lambda x, a, tau, c, q: decay(x, a * q, tau, c),
        lambda x, a, tau, c, q: plain(x, a * q, tau, c),
        {"a", "q"},
    ),
}


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "traced", "way"),
    [
        *((name, traced, PLAIN) for name in HIDDEN for traced in (True, False)),
        ("only a sum", True, ROBUST),
        ("only a product", False, WARM | ROBUST),
    ],
)
def test_only_what_the_data_do_not_determine_is_infinite_and_named(
    name: str, traced: bool, way: dict[str, Any]
) -> None:
    model, by_differences, lost = HIDDEN[name]
    found = fit(model if traced else by_differences, p0={**P0, "q": 1.0}, **way)
    known = fit(decay, **way)
    assert found.success
    assert {parameter for parameter, error in errors(found).items() if np.isinf(error)} == lost
    for parameter in set(P0) - lost:
        assert found.best_values[parameter] == pytest.approx(known.best_values[parameter], rel=1e-6)
        assert errors(found)[parameter] == pytest.approx(errors(known)[parameter], rel=1e-6)
    assert found.nfree == N - 3
    assert (
        f"the data do not determine {' and '.join(sorted(lost))}: infinite standard error"
        in found.fit_report()
    )


def test_the_warning_of_scipys_door_names_what_is_not_determined() -> None:
    with pytest.warns(OptimizeWarning, match=r"could not be estimated.*\(concerns c, q\)"):
        dfit.curve_fit(HIDDEN["only a sum"][0], X, Y, p0=[3, 1, 0, 1])


@pytest.mark.parametrize(("model", "warmup"), [(decay, False), (decay, True), (plain, False)])
def test_as_many_points_as_parameters_go_through_them_without_errors_and_say_why(
    model: Callable, warmup: bool
) -> None:
    few = [0, 50, 399]
    found = dfit.fit(model, Y[few], {"x": X[few]}, p0=P0, warmup=warmup)
    assert found.success and found.nfree == 0
    assert plain(X[few], *found.best_values.values()) == pytest.approx(Y[few], rel=1e-10)
    assert np.isnan(list(errors(found).values())).all()
    assert "no degrees of freedom are left" in found.fit_report()


def test_one_point_determines_one_parameter_and_no_more() -> None:
    one = dfit.fit(lambda x, a: a + 0 * x, Y[:1], {"x": X[:1]}, p0=[1])
    assert one.best_values["a"] == pytest.approx(Y[0], rel=1e-12)
    assert np.isnan(errors(one)["a"])
    with pytest.raises(InputError, match=r"1 points cannot determine 3 parameters; .*fixed="):
        dfit.fit(decay, Y[:1], {"x": X[:1]}, p0=P0)
    with pytest.raises(InputError, match=r"one number without a dimension.*np\.atleast_1d"):
        dfit.fit(decay, Y[0], {"x": 2.0}, p0=P0)


@pytest.mark.parametrize(("model", "way"), [(decay, PLAIN), (decay, WARM), (plain, PLAIN)])
def test_a_start_on_bounds_that_the_answer_is_inside_of_changes_nothing(model: Callable, way: dict) -> None:
    bounds = {"a": (0.1, 10), "tau": (0.5, 9), "c": (0, 2)}
    found = fit(model, p0={"a": 10.0, "tau": 0.5, "c": 0.0}, bounds=bounds, **way)
    popt, pcov = scipy_curve_fit(plain, X, Y, p0=[5, 2, 1], **EXACT)
    assert found.success
    assert list(found.best_values.values()) == pytest.approx(popt, rel=1e-6)
    assert list(errors(found).values()) == pytest.approx(np.sqrt(np.diag(pcov)), rel=1e-4)


@pytest.mark.parametrize(("model", "way"), [(decay, PLAIN), (decay, WARM), (plain, PLAIN)])
def test_a_start_on_the_bound_that_the_answer_lies_beyond_stays_there_and_says_so(
    model: Callable, way: dict
) -> None:
    found = fit(model, p0={**P0, "a": 4.0}, bounds={"a": (0, 4)}, **way)
    popt, pcov = scipy_curve_fit(lambda x, tau, c: plain(x, 4, tau, c), X, Y, p0=[2, 1], **EXACT)
    assert found.success and found.best_values["a"] == 4
    assert [found.best_values[name] for name in ("tau", "c")] == pytest.approx(popt, rel=1e-6)
    assert np.isnan(errors(found)["a"])
    assert [errors(found)[name] for name in ("tau", "c")] == pytest.approx(np.sqrt(np.diag(pcov)), rel=1e-4)
    assert "a is at its upper bound" in found.fit_report()


class Unread:
    """An array on "disk" that must not be read."""

    shape, dtype, ndim = (N,), np.dtype(float), 1

    def __getitem__(self, key: Any) -> np.ndarray:
        raise AssertionError("read before it was refused")


UNREAD = da.from_array(Unread(), chunks=100, asarray=False, meta=np.empty(0))
DOORS: dict[str, Callable] = {
    "fit": lambda **options: dfit.fit(decay, UNREAD, {"x": X}, **options),
    "curve_fit": lambda **options: dfit.curve_fit(decay, X, UNREAD, **options),
    "accessor": lambda **options: xr.DataArray(UNREAD, dims="x", coords={"x": X}).fit(
        "x", decay, reduce_dims=..., **options
    ),
}
START: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"p0": {**P0, "tau": np.nan}}, r"p0\['tau'\] is nan, expected a finite number"),
    "infinite": ({"p0": {**P0, "c": -np.inf}}, r"p0\['c'\] is -inf, expected a finite number"),
    "outside": ({"p0": P0, "bounds": {"a": (4, 9)}}, r"a = 3\.0 is outside its bounds \[4\.0, 9\.0\]"),
    "equal": ({"p0": P0, "bounds": {"a": (3, 3)}}, r"both bounds of 'a' are 3\.0: type fixed=\{'a': 3\.0\}"),
    "crossed": ({"p0": P0, "bounds": {"a": (4, 2)}}, r"crossed.*type bounds=\{'a': \(2\.0, 4\.0\)\}"),
    "both infinite": ({"p0": P0, "bounds": {"a": (np.inf, np.inf)}}, r"bounds=\{'a': \(None, None\)\}"),
    "NaN bound": ({"p0": P0, "bounds": {"a": (np.nan, 3)}}, "a bound of 'a' is nan"),
}


@pytest.mark.parametrize("what", START)
@pytest.mark.parametrize("door", DOORS)
def test_a_start_that_cannot_be_is_refused_at_every_door_before_a_read(door: str, what: str) -> None:
    options, words = START[what]
    with pytest.raises(InputError, match=words):
        DOORS[door](**options)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(
    ("sqrt", "way"),
    [(jnp.sqrt, PLAIN), (jnp.sqrt, WARM), (np.sqrt, PLAIN), (np.sqrt, ROBUST)],
)
def test_a_trial_where_the_model_is_not_finite_is_stepped_back_from(
    sqrt: Callable, way: dict[str, Any]
) -> None:
    refused = []

    def model(x, a, b):
        if sqrt is np.sqrt and float(b) < X[-1]:
            refused.append(b)
        return a * sqrt(b - x)

    y = 2 * np.sqrt(11 - X) + np.random.default_rng(1).normal(0, 0.01, N)
    found = dfit.fit(model, y, {"x": X}, p0=[1, 30], **way)
    popt, _ = scipy_curve_fit(
        lambda x, a, b: a * np.sqrt(b - x),
        X,
        y,
        p0=[2, 11],
        bounds=([0, 10], [9, 99]),
        **EXACT,
        method="trf",
        loss=way.get("loss", "linear"),
    )
    assert found.success
    assert list(found.best_values.values()) == pytest.approx(popt, rel=1e-5)
    assert sqrt is jnp.sqrt or way == WARM or refused


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(
    ("sqrt", "way", "chunked"),
    [(jnp.sqrt, PLAIN, True), (jnp.sqrt, WARM, False), (jnp.sqrt, ROBUST, True), (np.sqrt, PLAIN, False)],
)
def test_a_start_where_the_model_is_not_finite_is_named_with_partition_place_and_parameters(
    sqrt: Callable, way: dict[str, Any], chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 100)
    x, y = (da.from_array(v, chunks=100) if chunked else v for v in (X, Y))
    with (
        dask.config.set({"dfit.partition-bytes": 800, "scheduler": "synchronous"}),
        pytest.raises(
            DataError, match=r"not finite at the start in partition 3 \(dim_0\[300:400\]"
        ) as caught,
    ):
        dfit.fit(lambda x, a, b: a * sqrt(b - x), y, {"x": x}, p0=[1, 7.51], **way)
    assert "a = 1, b = 7.51" in str(caught.value)
    assert "Type a p0 where it is" in str(caught.value)
