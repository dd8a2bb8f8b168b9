"""Robust losses against scipy's own."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.optimize._lsq.least_squares import IMPLEMENTED_LOSSES

from dfit.core.loss import LOSSES, gauss_newton_weight
from dfit.precision import float64_on_cpu

Z = np.concatenate([[0.0, 1e-300, 1e-18, 1e-9], np.geomspace(1e-4, 1e8, 61), [1.0]])


def scipy_rho(loss: str, z: np.ndarray) -> np.ndarray:
    rho = np.empty((3, z.size))
    if loss == "linear":
        rho[:] = z, np.ones_like(z), np.zeros_like(z)
    else:
        IMPLEMENTED_LOSSES[loss](z, rho, cost_only=False)
    return rho


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_has_scipys_values_and_derivatives(loss: str) -> None:
    with float64_on_cpu():
        ours = np.stack([np.asarray(part) for part in LOSSES[loss](Z)])
    # scipy's soft_l1 cancels below z = 1e-8, which the absolute part allows for
    np.testing.assert_allclose(ours, scipy_rho(loss, Z), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
def test_small_residuals_cost_what_they_cost_without_a_loss(loss: str) -> None:
    z = np.geomspace(1e-30, 1e-12, 7)
    with float64_on_cpu():
        np.testing.assert_allclose(LOSSES[loss](z)[0], z, rtol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_are_those_of_rho(loss: str) -> None:
    z = np.array([0.2, 0.9, 1.1, 5.0, 300.0])
    with float64_on_cpu():
        first = jax.vmap(jax.grad(lambda v: LOSSES[loss](v)[0]))(z)
        second = jax.vmap(jax.grad(lambda v: LOSSES[loss](v)[1]))(z)
        np.testing.assert_allclose(LOSSES[loss](z)[1], first, rtol=1e-12)
        np.testing.assert_allclose(LOSSES[loss](z)[2], second, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
def test_curvature_weight_is_positive_even_for_outliers(loss: str) -> None:
    with float64_on_cpu():
        _, rho1, rho2 = LOSSES[loss](Z)
        weight = np.asarray(gauss_newton_weight(Z, rho1, rho2))
    assert (weight > 0).all()
    assert (weight <= np.asarray(rho1) * (1 + 1e-12)).all()
