"""Covariances beside the plain one, against NumPy's own formulas."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.errors import DataError, InputError

RNG = np.random.default_rng(4)
T = np.linspace(0, 6, 300)
DAY = np.arange(300) // 20
Y = 4 * np.exp(-T / 1.7) + 1 + RNG.normal(0, 0.1, 300) + RNG.normal(0, 0.2, 15)[DAY]
P0 = {"a": 1.0, "tau": 1.0, "c": 0.0}


def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c


def data(y: np.ndarray = Y) -> xr.DataArray:
    return xr.DataArray(y, dims="t", coords={"t": T, "day": ("t", DAY)})


def jacobian(result: dfit.FitResult) -> tuple[np.ndarray, np.ndarray]:
    a, tau, c = result.theta
    e = np.exp(-T / tau)
    return Y - (a * e + c), np.stack([e, a * e * T / tau**2, np.ones_like(T)], axis=1)


def fit(cov: Any, y: xr.DataArray | None = None, **options: Any) -> dfit.FitResult:
    y = data() if y is None else y
    return dfit.fit(
        decay, y.drop_vars("day").chunk(t=70).assign_coords(day=y.day), "t", p0=P0, cov=cov, **options
    )


@pytest.mark.parametrize(("cov", "factor"), [("hc0", 1.0), ("hc1", 300 / 297)])
def test_unequal_variances_are_those_of_white(cov: str, factor: float) -> None:
    found = fit(cov)
    r, j = jacobian(found)
    bread = np.linalg.inv(j.T @ j)
    expected = bread @ ((j * r[:, None] ** 2).T @ j) @ bread * factor
    np.testing.assert_allclose(found.covar, expected, rtol=1e-6)


def left_out(result: dfit.FitResult, day: np.ndarray, curvature: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Jackknife over the days that are not negative, with NumPy's inverse."""
    _, j = jacobian(result)
    days = np.unique(day[day >= 0])
    weighted = j * curvature[:, None]
    bread = weighted[day >= 0].T @ j[day >= 0]
    changes = [
        np.linalg.solve(bread - weighted[day == g].T @ j[day == g], j[day == g].T @ psi[day == g])
        for g in days
    ]
    return (days.size - 1) / days.size * np.transpose(changes) @ changes


@pytest.mark.parametrize("left", [15, 6])
def test_groups_are_left_out_one_at_a_time_if_they_have_points(left: int) -> None:
    found = fit({"groups": "day"}, where=left > DAY)
    expected = left_out(found, np.where(left > DAY, DAY, -1), np.ones(300), jacobian(found)[0])
    np.testing.assert_allclose(found.covar, expected, rtol=1e-6)
    assert found.groups == left


def test_groups_of_a_robust_loss_weigh_their_points_as_the_loss_does() -> None:
    found = fit({"groups": "day"}, loss="cauchy", f_scale=0.2)
    r, _ = jacobian(found)
    z = (r / 0.2) ** 2
    expected = left_out(found, DAY, 1 / (1 + z) - 2 * z / (1 + z) ** 2, r / (1 + z))
    np.testing.assert_allclose(found.covar, expected, rtol=1e-6)


def test_both_parts_of_a_complex_point_are_in_its_group() -> None:
    y = data((Y + 1j * RNG.normal(0, 0.1, 300)).astype(complex))

    def model(t, a, tau, c):
        return a * jnp.exp(-t / tau) + c * (1 + 0.2j)

    found = dfit.fit(model, y, "t", p0=P0, cov={"groups": "day"})
    a, tau, c = found.theta
    e = np.exp(-T / tau)
    columns = np.stack([e + 0j, a * e * T / tau**2 + 0j, np.full(300, 1 + 0.2j)], axis=1)
    residual = y.values - (a * e + c * (1 + 0.2j))
    j, r = (np.concatenate([part.real, part.imag]) for part in (columns, residual))
    day = np.tile(DAY, 2)
    rest = [(j[day != g], j[day == g], r[day == g]) for g in range(15)]
    changes = np.array([np.linalg.solve(others.T @ others, own.T @ s) for others, own, s in rest])
    np.testing.assert_allclose(found.covar, 14 / 15 * changes.T @ changes, rtol=1e-6)


def test_groups_leave_a_parameter_at_its_bound_out() -> None:
    low = data(Y - 2)
    found = fit({"groups": "day"}, low, bounds={"c": (0, None)})
    held = fit({"groups": "day"}, low, fixed={"c": 0.0})
    assert found.covariance.at_lower[2]
    np.testing.assert_allclose(found.covar[:2, :2], held.covar, rtol=1e-6)


def test_groups_tell_what_the_data_do_not_determine() -> None:
    def twice(t, a, tau, c, d):
        return a * jnp.exp(-t / tau) + c + d

    found = dfit.fit(twice, data(), "t", p0={**P0, "d": 0.0}, cov={"groups": "day"})
    once = fit({"groups": "day"})
    assert np.isinf([found.params[name].stderr for name in "cd"]).all()
    np.testing.assert_allclose(found.covar[:2, :2], once.covar[:2, :2], rtol=1e-5)


def test_a_parameter_that_one_group_alone_determines_is_named() -> None:
    def step(t, day, a, b):
        return a * jnp.exp(-t) + b * (day == 3)

    y = data()
    found = dfit.fit(step, y, {"t": "t", "day": "day"}, p0={"a": 1.0, "b": 0.0}, cov={"groups": "day"})
    assert np.isnan(found.params["b"].stderr) and found.params["a"].stderr > 0
    assert "by groups of b: without one of the groups" in found.fit_report()


def test_groups_may_come_in_any_mapping_or_array() -> None:
    expected = fit({"groups": "day"}).covar
    np.testing.assert_array_equal(fit(MappingProxyType({"groups": "day"})).covar, expected)
    np.testing.assert_array_equal(fit({"groups": data().day}).covar, expected)


def test_points_left_in_one_group_are_refused() -> None:
    with pytest.raises(DataError, match="one group"):
        fit({"groups": "day"}, where=DAY == 2)


def test_more_groups_than_a_table_can_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.prepare.GROUP_TABLE_BYTES", 800)
    with pytest.raises(InputError, match=r"15 groups of 3 parameters .* coarser groups, at most 11"):
        fit({"groups": "day"})


@pytest.mark.parametrize("cov", ["hc0", "hc1", {"groups": "day"}])
def test_as_many_points_as_parameters_have_no_robust_error_either(cov: Any) -> None:
    at = np.isin(np.arange(300), [5, 100, 290])
    found = fit(cov, data(4 * np.exp(-T / 1.7) + 1), where=at)
    assert np.isnan(found.covariance.stderr).all()
    assert "degrees of freedom" in found.covariance.note
    np.testing.assert_allclose(found.theta, [4, 1.7, 1], rtol=1e-6)


def test_robust_loss_has_the_sandwich_of_huber() -> None:
    found = fit(None, loss="cauchy", f_scale=0.2)
    r, j = jacobian(found)
    z = (r / 0.2) ** 2
    bread = np.linalg.inv((j * (1 / (1 + z) - 2 * z / (1 + z) ** 2)[:, None]).T @ j)
    score = j * (r / (1 + z))[:, None]
    np.testing.assert_allclose(found.covar, bread @ score.T @ score @ bread, rtol=1e-6)
