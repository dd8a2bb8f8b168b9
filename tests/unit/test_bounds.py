"""The active set: that it is found, and that theta never leaves the box."""

import numpy as np
import pytest
import scipy.optimize

from dfit.core.bounds import pressed
from dfit.core.drive import iterate
from dfit.core.trust_region import Status, Tolerances, start
from tests.unit.problems import equations_of, linear, on_host

STARTS = ("lower corner", "upper corner", "inside")


def linear_box(seed: int):
    """A linear problem whose optimum touches some of its bounds, and a start of each kind."""
    rng = np.random.default_rng(seed)
    p = int(rng.choice([2, 4, 8]))
    a = rng.normal(size=(4 * p, p))
    if seed % 3 == 1:
        a = a @ (np.eye(p) + 2 * rng.normal(size=(p, p)))
    if seed % 3 == 2:
        a[:, 1] = a[:, 0] + 1e-2 * a[:, 1]
    a *= 10.0 ** rng.uniform(-3, 3, p)
    y = rng.normal(size=4 * p) + a @ (rng.normal(size=p) / np.linalg.norm(a, axis=0))
    centre = np.linalg.lstsq(a, y, rcond=None)[0]
    width = np.abs(centre) * rng.uniform(0.1, 2, p)
    lower = centre + width * (rng.normal(size=p) - rng.uniform(0, 1, p))
    upper = lower + width * rng.uniform(0.1, 2, p)
    lower[rng.random(p) < 0.2], upper[rng.random(p) < 0.2] = -np.inf, np.inf
    corner = {
        "lower corner": np.where(np.isfinite(lower), lower, np.where(np.isfinite(upper), upper, 0)),
        "upper corner": np.where(np.isfinite(upper), upper, np.where(np.isfinite(lower), lower, 0)),
        "inside": np.clip(rng.normal(size=p) * np.abs(centre), lower, upper),
    }
    return a, y, lower, upper, corner


@pytest.mark.parametrize("begin", STARTS)
def test_linear_problem_in_a_box_ends_at_the_optimum_of_lsq_linear(begin):
    for seed in range(60):
        a, y, lower, upper, starts = linear_box(seed)
        states = list(iterate(linear(a, y), start(starts[begin]), lower, upper, Tolerances(1e-10)))
        reference = scipy.optimize.lsq_linear(a, y, (lower, upper), method="bvls", tol=1e-14)
        theta = states[-1].theta
        assert states[-1].status == Status.OFFSET
        np.testing.assert_allclose(
            theta * np.linalg.norm(a, axis=0), reference.x * np.linalg.norm(a, axis=0), atol=1e-8
        )
        assert states[-1].equations.cost <= reference.cost * (1 + 1e-10)
        np.testing.assert_array_equal(theta == lower, reference.active_mask == -1)
        np.testing.assert_array_equal(theta == upper, reference.active_mask == 1)


@pytest.mark.parametrize("begin", STARTS)
def test_neither_theta_nor_trial_leaves_the_box(begin):
    for seed in range(60, 90):
        a, y, lower, upper, starts = linear_box(seed)
        for state in iterate(linear(a, y), start(starts[begin]), lower, upper, Tolerances(1e-10)):
            for point in (state.theta, state.trial):
                assert np.all((lower <= point) & (point <= upper))


def decay(x, theta):
    return theta[0] * np.e ** (-x / theta[1]) + theta[2]


BOXES = {
    "constant term at its lower bound": ([0, 0, 2.0], [10, 10, 10], [1, 1, 2.5]),
    "start on the bound": ([0, 0, 2.0], [10, 10, 10], [1, 1, 2.0]),
    "decay time at its upper bound": ([0, 0.1, -np.inf], [np.inf, 1.2, np.inf], [1, 1, 0]),
    "start in a corner that must be left": ([0.5, 0.5, -1.0], [10, 10, 10], [0.5, 0.5, -1.0]),
    "two at bounds": ([0, 0, 0], [4, 1.5, 10], [1, 1, 1]),
    "all at bounds": ([0, 0, 2], [3, 1, 9], [1, 0.5, 3]),
}


@pytest.mark.parametrize("case", BOXES)
def test_nonlinear_problem_in_a_box_ends_at_the_optimum_of_scipy(case):
    lower, upper, p0 = map(np.array, BOXES[case])
    x = np.linspace(0, 10, 200)
    y = decay(x, [5, 2, 1]) + np.random.default_rng(4).normal(size=x.size) * 0.1
    *_, state = iterate(on_host(equations_of(decay, x, y)), start(p0), lower, upper, Tolerances(1e-10))

    def jacobian(t):
        return np.column_stack([np.exp(-x / t[1]), t[0] * np.exp(-x / t[1]) * x / t[1] ** 2, np.ones_like(x)])

    inside = np.clip(p0, lower + 1e-3, upper - 1e-3)
    tight = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15)
    reference = scipy.optimize.least_squares(
        lambda t: decay(x, t) - y, inside, jacobian, (lower, upper), x_scale="jac", max_nfev=2000, **tight
    )
    assert state.status == Status.OFFSET
    np.testing.assert_allclose(state.theta, reference.x, rtol=1e-5)
    assert state.equations.cost <= reference.cost * (1 + 1e-12)
    assert np.any((state.theta == lower) | (state.theta == upper)) == (
        case != "start in a corner that must be left"
    )


def test_infinite_bounds_are_pressed_by_nothing():
    at_lower, at_upper = pressed(np.zeros(2), np.array([-1.0, 1.0]), np.full(2, -np.inf), np.full(2, np.inf))
    assert not at_lower.any() and not at_upper.any()


def test_only_a_gradient_out_of_the_box_presses():
    zero = np.zeros(2)
    at_lower, at_upper = pressed(zero, np.array([-1.0, 1.0]), zero, zero + 1)
    np.testing.assert_array_equal(at_lower, [True, False])
    np.testing.assert_array_equal(at_upper, [False, False])


def test_everything_pressed_is_converged():
    evaluate = linear(np.eye(3, 2), np.array([1.0, 2.0, 3.0]))
    *_, state = iterate(evaluate, start([-1.0, -2.0]), [-5, -5], [-1, -2], Tolerances())
    assert (state.status, state.offset, state.evaluations) == (Status.OFFSET, 0.0, 1)
    np.testing.assert_array_equal(state.theta, [-1, -2])
