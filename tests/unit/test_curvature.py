"""What Gauss-Newton leaves out: right where a model misfits, absent where residuals are noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfit.core.curvature import FLOOR, Curvature, corrected, gradient, second_order
from dfit.core.trust_region import Tolerances
from dfit.core.warm import begin
from dfit.reduce.sampled import EVERYTHING
from tests.unit.solvers import guards_of, solver_of

RNG = np.random.default_rng(3)
N = 4000
X = RNG.uniform(0, 10, N)
NOISE = RNG.normal(0, 0.1, N)
MISFIT = 5 * np.exp(-X / 2) + 1 + 1.5 * np.sin(X) + NOISE
FREE = np.ones(3, bool)


def decay(x, a, tau, c):
    return a * jnp.exp(-x / tau) + c


def far_off(x, a, tau, c):
    """Columns of J that are nearly dependent: of scaled condition 1e4."""
    return a * jnp.exp(-x / tau) + c * (1 + 1e-4 * jnp.exp(-x / 3))


def minimum_of(y, func=decay, p0=(4.0, 2.0, 1.0)):
    """(gradients, theta, roots, psi2, counts) at the minimum."""
    solver, parameters = solver_of(func, [X], y, list(p0))
    guards = guards_of(parameters)

    def look(theta):
        return solver.solve(begin(theta), EVERYTHING, guards, Tolerances(), 1).fields

    def gradients(theta):
        matrices = look(theta)["matrix"]
        return gradient(matrices), bool(np.isfinite(matrices).all())

    end = solver.solve(begin(parameters.init), EVERYTHING, guards, Tolerances(1e-10), 200).state
    fields = look(end.theta)
    return gradients, end.theta, fields["matrix"], float(end.equations.psi2), fields["count"]


def omitted(y, theta, func=decay):
    """(J^T J, S) by automatic differentiation of all points."""
    with jax.enable_x64(True):

        def residual(at):
            return y - func(X, *at)

        hessian = jax.hessian(lambda at: jnp.sum(residual(at) ** 2) / 2)(jnp.asarray(theta))
        jacobian = np.asarray(jax.jacfwd(residual)(jnp.asarray(theta)))
    square = jacobian.T @ jacobian
    return square, square - np.asarray(hessian)


@pytest.mark.parametrize("func", [decay, far_off])
def test_what_a_misfit_leaves_out_is_that_of_the_hessian(func):
    gradients, theta, roots, psi2, count = minimum_of(MISFIT, func)
    found = second_order(gradients, theta, roots, psi2, count, FREE)
    square, s = omitted(MISFIT, theta, func)
    np.testing.assert_allclose(found.factor.T @ found.factor, square, rtol=1e-9)
    to_theta = np.linalg.inv(found.factor)
    expected = to_theta.T @ s @ to_theta
    assert np.linalg.norm(expected, 2) > 0.05
    error = np.linalg.norm(found.m * N - expected, 2)
    assert error < 0.01 * np.linalg.norm(expected, 2)


def test_residuals_that_are_noise_leave_nothing_out():
    where = minimum_of(5 * np.exp(-X / 2) + 1 + NOISE)
    assert second_order(*where, FREE) is None


def test_a_parameter_at_a_bound_has_no_part_in_it():
    gradients, theta, roots, psi2, count = minimum_of(MISFIT)
    found = second_order(gradients, theta, roots, psi2, count, np.array([True, True, False]))
    _, s = omitted(MISFIT, theta)
    assert found.m.shape == (2, 2) and (found.factor[:, 2] == 0).all()
    to_theta = np.linalg.inv(found.factor[:, :2])
    np.testing.assert_allclose(found.m * N, to_theta.T @ s[:2, :2] @ to_theta, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize(
    "what",
    [
        "no free parameter",
        "no residual",
        "as many points as parameters",
        "not finite",
        "not seen",
        "one leaf",
    ],
)
def test_there_is_none_where_it_cannot_be_known(what):
    gradients, theta, roots, psi2, count = minimum_of(MISFIT)
    free = FREE
    if what == "no free parameter":
        free = ~FREE
    elif what == "no residual":
        psi2 = 0.0
    elif what == "as many points as parameters":
        count = np.array([2.0, 1.0])
    elif what == "not finite":
        finite = gradients

        def gradients(at):
            return finite(at)[0], bool(at[0] <= theta[0])

    elif what == "not seen":
        roots = roots.copy()
        roots[:, :, 2] = roots[:, :, 1]
    else:
        count = np.array([count.sum(), 0.0])
    assert second_order(gradients, theta, roots, psi2, count, free) is None


def corrected_by(second, jacobian, residual, count):
    with jax.enable_x64(True):
        return [np.asarray(part) for part in corrected(jacobian, residual, second, count)]


def test_corrected_equations_have_the_hessian_and_the_same_gradient():
    gradients, theta, roots, psi2, count = minimum_of(MISFIT)
    second = second_order(gradients, theta, roots, psi2, count, FREE)
    square, s = omitted(MISFIT, theta)
    root = np.linalg.qr(roots.reshape(-1, 4), mode="r")
    theta_scale = np.diag([1, 1e-8, 1e8])  # other units: the same sums
    second = Curvature(second.factor @ theta_scale, second.m)
    jacobian, residual = corrected_by(second, root[:, :-1] @ theta_scale, root[:, -1], float(N))
    back = np.linalg.inv(theta_scale)
    np.testing.assert_allclose(back @ jacobian.T @ jacobian @ back, square - s, rtol=0.01, atol=2.0)
    expected = theta_scale @ (root[:, :-1].T @ root[:, -1])
    size = np.linalg.norm(root[:, :-1] @ theta_scale, axis=0) * np.linalg.norm(root[:, -1])
    np.testing.assert_allclose(jacobian.T @ residual / size, expected / size, atol=1e-12)


def test_curvature_below_a_floor_is_not_trusted_and_a_larger_one_is():
    root = np.vstack([np.diag([2.0, 3.0, 5.0]), np.zeros((1, 3))])
    second = Curvature(np.diag([2.0, 3.0, 5.0]), np.diag([2.0, -1.0, 0.5]))
    jacobian, _ = corrected_by(second, root, np.ones(4), 1.0)
    np.testing.assert_allclose(jacobian.T @ jacobian, np.diag([4 * FLOOR, 9 * 2, 25 * 0.5]), atol=1e-12)


def test_without_residuals_counted_nothing_is_changed():
    root = np.linalg.qr(RNG.normal(size=(20, 4)), mode="r")
    second = Curvature(np.eye(3), np.eye(3))
    jacobian, residual = corrected_by(second, root[:, :-1], root[:, -1], 0.0)
    np.testing.assert_allclose(jacobian.T @ jacobian, root[:, :-1].T @ root[:, :-1], atol=1e-12)
    np.testing.assert_allclose(jacobian.T @ residual, root[:, :-1].T @ root[:, -1], atol=1e-12)
