"""Covariances beside the plain one, against NumPy's own formulas."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.errors import DataError

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


@pytest.mark.parametrize("left", [15, 6])
def test_groups_are_those_of_liang_and_zeger_with_points_left(left: int) -> None:
    where = left > DAY
    found = fit({"groups": "day"}, where=where)
    r, j = jacobian(found)
    r, j = r[where], j[where]
    by_group = np.stack([(j * r[:, None])[DAY[where] == g].sum(0) for g in range(left)])
    bread = np.linalg.inv(j.T @ j)
    n = where.sum()
    expected = bread @ by_group.T @ by_group @ bread * left / (left - 1) * (n - 1) / (n - 3)
    np.testing.assert_allclose(found.covar, expected, rtol=1e-6)
    assert found.groups == left


def test_groups_may_come_in_any_mapping_or_array() -> None:
    expected = fit({"groups": "day"}).covar
    np.testing.assert_array_equal(fit(MappingProxyType({"groups": "day"})).covar, expected)
    np.testing.assert_array_equal(fit({"groups": data().day}).covar, expected)


def test_points_left_in_one_group_are_refused() -> None:
    with pytest.raises(DataError, match="one group"):
        fit({"groups": "day"}, where=DAY == 2)


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
