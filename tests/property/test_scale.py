"""A fit does not depend on units, nor on where zero lies."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dfit

T = np.linspace(0, 10, 400)
CLEAN = 5 * np.exp(-T / 2) + 1
Y = CLEAN + np.random.default_rng(0).normal(0, 0.1, T.size)
PEAK = 3 * np.exp(-((T - 4.2) ** 2) / (2 * 0.8**2)) + 0.5 + np.random.default_rng(1).normal(0, 0.05, T.size)
TIGHT = 1e-12  # the relative offset at which twelve digits can be asked for


def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c


def peak(x, height, center, width, base):
    return height * jnp.exp(-((x - center) ** 2) / (2 * width**2)) + base


def fit(y: np.ndarray, **options: Any) -> dfit.FitResult:
    options = {"p0": np.array([1.0, 1.0, 0.0]), "tol": TIGHT, **options}
    return dfit.fit(decay, y, {"t": T}, **options)


def stderr(result: dfit.FitResult) -> np.ndarray:
    return np.array([result.params[name].stderr for name in result.params])


def values(result: dfit.FitResult) -> np.ndarray:
    return np.array(list(result.best_values.values()))


@pytest.fixture(scope="module")
def plain() -> dfit.FitResult:
    return fit(Y)


@pytest.mark.parametrize(
    ("scale", "sized"),
    [(1e-21, True), (1e-21, False), (1e21, True), (1e-100, True), (-1e-21, False), (-1e-100, False)],
)
def test_data_in_another_unit_keep_twelve_digits(scale: float, sized: bool, plain: dfit.FitResult) -> None:
    p0 = np.array([1.0, 1.0, 0.0]) * [scale if sized else np.sign(scale), 1, 1]
    found = fit(Y * scale, p0=p0)
    assert found.success
    unit = np.array([scale, 1, scale])
    np.testing.assert_allclose(values(found) / unit, values(plain), rtol=1e-12)
    np.testing.assert_allclose(stderr(found) / abs(unit), stderr(plain), rtol=1e-10)


@pytest.mark.parametrize("loss", ["huber"])
@pytest.mark.parametrize("scale", [1e-21, 1e21])
def test_robust_fits_have_no_unit(loss: str, scale: float) -> None:
    plain = fit(Y, loss=loss, f_scale=0.1)
    found = fit(Y * scale, loss=loss, f_scale=0.1 * scale, p0=np.array([scale, 1, 0]))
    unit = np.array([scale, 1, scale])
    np.testing.assert_allclose(values(found) / unit, values(plain), rtol=1e-12)
    np.testing.assert_allclose(stderr(found) / unit, stderr(plain), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-21, 1e21])
def test_sigma_has_the_unit_of_the_data(scale: float) -> None:
    sigma = np.linspace(0.05, 0.2, T.size)
    plain = fit(Y, sigma=sigma, absolute_sigma=True)
    found = fit(Y * scale, sigma=sigma * scale, absolute_sigma=True, p0=np.array([scale, 1, 0]))
    unit = np.array([scale, 1, scale])
    np.testing.assert_allclose(values(found) / unit, values(plain), rtol=1e-12)
    np.testing.assert_allclose(stderr(found) / unit, stderr(plain), rtol=1e-10)
    assert found.chisqr == pytest.approx(plain.chisqr, rel=1e-12)


@settings(max_examples=8, deadline=None)
@given(st.integers(-70, 70), st.integers(-40, 40))
def test_powers_of_two_change_no_bit(of_data: int, of_time: int) -> None:
    def in_units(t, a, tau, c):
        return a * jnp.exp(-t / tau) + c

    plain = fit(Y)
    unit = np.array([2.0**of_data, 2.0**of_time, 2.0**of_data])
    found = dfit.fit(in_units, Y * unit[0], {"t": T * unit[1]}, p0=[1, 1, 0] * unit, tol=TIGHT)
    np.testing.assert_array_equal(values(found) / unit, values(plain))
    np.testing.assert_array_equal(stderr(found) / unit, stderr(plain))


@pytest.mark.parametrize("units", [(1e-12, 1e12, 1.0), (1e12, 1e-12, 1.0), (1.0, 1e-12, 1e12)])
def test_parameters_in_units_far_apart_keep_twelve_digits(
    units: tuple[float, ...], plain: dfit.FitResult
) -> None:
    def in_units(t, a, tau, c, of_a, of_tau, of_c):
        return a * of_a * jnp.exp(-t / (tau * of_tau)) + c * of_c

    found = dfit.fit(
        in_units,
        Y,
        {"t": T},
        p0={"a": 1 / units[0], "tau": 1 / units[1], "c": 0.0},
        fixed=dict(zip(("of_a", "of_tau", "of_c"), units, strict=True)),
        tol=TIGHT,
    )
    assert found.success
    np.testing.assert_allclose(values(found)[:3] * units, values(plain), rtol=1e-12)
    np.testing.assert_allclose(stderr(found)[:3] * units, stderr(plain), rtol=1e-9)


@pytest.mark.parametrize(("shift", "digits"), [(1e6, 7), (1e9, 5)])
def test_a_large_constant_in_the_data_costs_few_digits(
    shift: float, digits: int, plain: dfit.FitResult
) -> None:
    found = fit(Y + shift, p0=[1, 1, shift], tol=1e-8)
    assert found.success
    moved = values(found) - [0, 0, shift]
    np.testing.assert_allclose(moved, values(plain), rtol=10.0**-digits)


@pytest.mark.parametrize("how", ["p0 shifted", "p0 of the shift alone"])
def test_a_large_constant_in_the_coordinate_costs_few_digits(how: str) -> None:
    shift = 1.7e9
    p0 = np.array([1.0, 4.5, 1.0, 0.0])
    start = np.add(p0, [0, shift, 0, 0]) if how == "p0 shifted" else np.array([1.0, shift + 3, 1.0, 0.0])
    # the shifted coordinate itself has lost what lies under its rounding
    plain = dfit.fit(peak, PEAK, {"x": (T + shift) - shift}, p0=p0)
    found = dfit.fit(peak, PEAK, {"x": T + shift}, p0=start)
    assert found.success and plain.success
    moved = values(found) - [0, shift, 0, 0]
    np.testing.assert_allclose(moved, values(plain), rtol=1e-7)
