"""Value and derivatives of a model against closed forms, whichever way they are pushed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dfit.core import derivatives
from dfit.core.derivatives import value_and_derivatives

X = np.linspace(0.1, 3, 7)
THETA = np.array([2.0, 0.5, -1.0])


def straight(theta):
    return theta[0] * jnp.exp(-X * theta[1]) + theta[2]


def by_loop(theta):
    return lax.fori_loop(0, 3, lambda _, total: total * theta[1] + X, theta[0] * X) + theta[2]


def by_jitted_branch(theta):
    return jax.jit(lambda a: lax.cond(a > 0, lambda: a * X, lambda: X))(theta[0]) * theta[1] + theta[2]


@pytest.mark.parametrize("function", [straight, by_loop, by_jitted_branch])
def test_derivatives_equal_those_of_jacfwd(function):
    with jax.enable_x64(True):
        value, found = jax.jit(lambda theta: value_and_derivatives(function, theta))(THETA)
        np.testing.assert_allclose(value, function(THETA), rtol=1e-14)
        np.testing.assert_allclose(found, jax.jacfwd(function)(THETA).T, rtol=1e-14)


def test_complex_values_keep_their_imaginary_derivatives():
    with jax.enable_x64(True):
        _, found = value_and_derivatives(lambda t: t[0] * jnp.exp(1j * t[1] * X), THETA[:2])
    np.testing.assert_allclose(found[1], 2.0 * 1j * X * np.exp(0.5j * X), rtol=1e-14)


def test_a_parameter_without_effect_has_zero_derivative():
    with jax.enable_x64(True):
        _, found = value_and_derivatives(lambda t: t[0] * X, THETA)
    np.testing.assert_array_equal(found, [X, 0 * X, 0 * X])


@pytest.mark.parametrize(("function", "expected"), [(straight, 0), (by_loop, 1), (by_jitted_branch, 1)])
def test_only_a_program_with_a_loop_or_a_branch_is_pushed_all_at_once(function, expected, monkeypatch):
    calls = []
    whole = derivatives._all_at_once
    monkeypatch.setattr(derivatives, "_all_at_once", lambda *a: calls.append(1) or whole(*a))
    with jax.enable_x64(True):
        value_and_derivatives(function, jnp.asarray(THETA))
    assert len(calls) == expected


def test_a_program_too_large_for_its_parameters_is_pushed_all_at_once(monkeypatch):
    monkeypatch.setattr(derivatives, "LARGEST_PROGRAM", 3)
    with jax.enable_x64(True):
        _, found = value_and_derivatives(straight, jnp.asarray(THETA))
        np.testing.assert_allclose(found[2], np.ones_like(X))
