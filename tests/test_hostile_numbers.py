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


N = 400
X = np.linspace(0, 10, N)
Y = 5 * np.exp(-X / 2) + 1 + np.random.default_rng(0).normal(0, 0.1, N)
HELD = np.isin(np.arange(N), [5, 300])
P0 = {"a": 3.0, "tau": 1.0, "c": 0.0}


def decay(x, a, tau, c):
    return a * jnp.exp(-x / tau) + c


def hidden(values: np.ndarray, wrong: float) -> np.ma.MaskedArray:
    """Values that are wrong where they are masked."""
    return np.ma.masked_array(np.where(HELD, wrong, values), mask=HELD)


MASKED = {
    "ydata": lambda **options: dfit.curve_fit(decay, X, hidden(Y, 1e6), p0=[3, 1, 0], **options),
    "xdata": lambda **options: dfit.curve_fit(decay, hidden(X, -50), Y, p0=[3, 1, 0], **options),
    "sigma": lambda **options: dfit.curve_fit(
        decay, X, Y, p0=[3, 1, 0], sigma=hidden(np.ones(N), 1e-9), **options
    ),
}


@pytest.mark.parametrize("name", MASKED)
def test_scipys_door_refuses_masked_values_with_a_line_that_leaves_them_out(name: str) -> None:
    with pytest.raises(
        dfit.InputError, match=rf"{name} is a masked array, of which 2 values.*filled\(np\.nan\)"
    ):
        MASKED[name](nan_policy="omit")
    given = {"xdata": X, "ydata": Y, "sigma": np.ones(N)}
    wrong = {"xdata": -50.0, "ydata": 1e6, "sigma": 1e-9}[name]
    given[name] = hidden(given[name], wrong).astype(float).filled(np.nan)
    with pytest.warns(dfit.DfitWarning, match="2 points were left out"):
        popt, _ = dfit.curve_fit(decay, p0=[3, 1, 0], nan_policy="omit", **given)
    expected = dfit.fit(decay, Y[~HELD], {"x": X[~HELD]}, p0=P0)
    assert popt == pytest.approx(list(expected.best_values.values()), rel=1e-9)


def test_masked_values_of_y_coordinate_and_sigma_are_missing_in_memory_and_in_chunks() -> None:
    expected = dfit.fit(decay, Y[~HELD], {"x": X[~HELD]}, p0=P0)
    given = {"y": hidden(Y, 1e6), "x": hidden(X, -50), "sigma": hidden(np.ones(N), 1e-9)}
    for chunked in (False, True):
        for name in given:
            y, x, sigma = (
                given[part] if part == name else plain
                for part, plain in (("y", Y), ("x", X), ("sigma", np.ones(N)))
            )
            y, x, sigma = (da.from_array(v, chunks=70) if chunked else v for v in (y, x, sigma))
            with pytest.warns(dfit.DfitWarning, match="2 points were left out"):
                found = dfit.fit(decay, y, {"x": x}, p0=P0, sigma=sigma)
            assert found.best_values == pytest.approx(expected.best_values, rel=1e-9)
            assert found.ndata == N - 2


def test_a_mask_that_is_masked_is_refused_with_the_line_to_type() -> None:
    where = np.ma.masked_array(~HELD, mask=HELD)
    for y, mask in ((Y, where), (da.from_array(Y, chunks=70), da.from_array(where, chunks=70))):
        with pytest.raises(dfit.InputError, match=r"where is a masked array.*where=mask\.filled\(False\)"):
            dfit.fit(decay, y, {"x": X}, p0=P0, where=mask)
    assert dfit.fit(decay, Y, {"x": X}, p0=P0, where=where.filled(False)).ndata == N - 2


def test_rows_of_different_lengths_are_no_array() -> None:
    with pytest.raises(dfit.InputError, match=r"data is no array.*one shape"):
        dfit.fit(decay, [[1.0, 2.0], [3.0]], {"x": X}, p0=P0)


REFUSED = {"O": r"astype\(float\)", "U8": r"astype\(float\)", "M8[s]": "timedelta64", "m8[s]": "timedelta64"}
ENTRANCES: dict[str, Callable] = {
    "fit": lambda y: dfit.fit(decay, y, {"x": X}, p0=P0),
    "fit of chunks": lambda y: dfit.fit(decay, da.from_array(y, chunks=70), {"x": X}, p0=P0),
    "curve_fit": lambda y: dfit.curve_fit(decay, X, y, p0=[3, 1, 0]),
    "accessor": lambda y: xr.DataArray(y, dims="x", coords={"x": X}).fit("x", decay, reduce_dims=..., p0=P0),
}


@pytest.mark.parametrize("door", ENTRANCES)
@pytest.mark.parametrize("kind", REFUSED)
def test_values_that_are_no_numbers_are_refused_at_every_door(kind: str, door: str) -> None:
    with pytest.raises(dfit.InputError, match=rf"dtype .*expected numbers\. Type: .*{REFUSED[kind]}"):
        ENTRANCES[door](np.arange(N).astype(kind))


@pytest.mark.parametrize("kind", ["u8", "i8"])
def test_integers_near_the_end_of_their_type_are_summed_in_float64(kind: str) -> None:
    large = (Y * 1.5e18).astype(kind)
    found = dfit.fit(decay, da.from_array(large, chunks=70), {"x": X}, p0={"a": 3e18, "tau": 1, "c": 1e18})
    expected = dfit.fit(decay, Y, {"x": X}, p0=P0)
    assert found.best_values["a"] == pytest.approx(1.5e18 * expected.best_values["a"], rel=1e-6)
    assert found.best_values["tau"] == pytest.approx(expected.best_values["tau"], rel=1e-6)
    assert found.params["c"].stderr == pytest.approx(1.5e18 * expected.params["c"].stderr, rel=1e-6)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(("kind", "unit"), [("f2", "1e5"), ("longdouble", "1e400")])
def test_values_that_overflow_their_type_or_float64_are_refused_as_infinite(kind: str, unit: str) -> None:
    wide = (Y * np.longdouble(unit)).astype(kind)
    with pytest.raises(dfit.DataError, match=r"y is infinite at \d+ or more points"):
        dfit.fit(decay, wide, {"x": X}, p0=P0)


@pytest.mark.parametrize("warmup", [False, True])
def test_data_whose_squares_underflow_are_refused_and_not_fitted_by_any_start(warmup: bool) -> None:
    for options in ({"sigma": np.full(N, 1e200)}, {"unit": 1e-160}, {"unit": 1e-200}):
        unit = options.pop("unit", 1.0)
        start = {"a": 3 * unit, "tau": 1.0, "c": 0.0}
        with pytest.raises(dfit.DataError, match=r"too small for float64.*in another unit"):
            dfit.fit(decay, Y * unit, {"x": X}, p0=start, warmup=warmup, **options)
    found = dfit.fit(decay, Y * 1e-140, {"x": X}, p0={"a": 3e-140, "tau": 1.0, "c": 0.0}, warmup=warmup)
    expected = dfit.fit(decay, Y, {"x": X}, p0=P0)
    assert found.best_values["a"] == pytest.approx(1e-140 * expected.best_values["a"], rel=1e-9)
    assert found.params["tau"].stderr == pytest.approx(expected.params["tau"].stderr, rel=1e-6)
    assert dfit.fit(decay, np.zeros(N), {"x": X}, p0=P0, warmup=warmup).best_values["a"] == pytest.approx(
        0, abs=1e-100
    )


@pytest.mark.parametrize(
    ("constant", "told"), [(2**60, True), (3 * 10**14, True), (10**10, False), (0, False)]
)
def test_a_variation_that_float64_loses_beside_a_constant_is_told(constant: int, told: bool) -> None:
    def line(x, a, b):
        return a * x + b

    steps = np.arange(N)
    noise = np.random.default_rng(0).normal(0, 10, N).round().astype("i8")
    found = dfit.fit(line, constant + steps + noise, {"x": steps}, p0=[1.5, 1])
    assert ("of which float64 keeps few digits" in found.fit_report()) is told
    apart = dfit.fit(line, steps + noise, {"x": steps}, p0=[1.5, 1])
    if not told:
        assert found.best_values["a"] == pytest.approx(apart.best_values["a"], rel=1e-6)


@pytest.mark.parametrize("pixels", [3, 300])
def test_data_of_zeros_give_no_standard_error(pixels):
    time = np.linspace(0, 5, 20)
    y = xr.DataArray(np.zeros((pixels, 20)), {"time": time}, ("x", "time"))

    def decay(time, a, tau):
        return a * jnp.exp(-time / tau)

    p0 = {"a": 1, "tau": 1}
    one = dfit.fit(decay, y[0], "time", p0=p0)
    assert "zero at every point" in one.covariance.note
    assert not any(np.isfinite(estimate.stderr) for estimate in one.params.values())
    assert not np.isfinite(y.fit("time", decay, p0=p0).curvefit_stderr).any()
