"""The step: acceptance, convergence, rounding, units."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfit.core.drive import iterate
from dfit.core.equations import Equations
from dfit.core.subproblem import restricted_step
from dfit.core.trust_region import Status, Tolerances, start
from tests.unit.problems import equations_of, linear, on_host

X = np.linspace(0, 10, 400)
DEFAULT = Tolerances()
NOISE = 0.1 * np.random.default_rng(2).normal(size=X.size)
DECAY = 5 * np.exp(-X / 2) + 1
PEAK = 3 * np.exp(-0.5 * ((X - 4) / 1.2) ** 2)


def decay(x, theta):
    return theta[0] * jnp.exp(-x / theta[1]) + theta[2]


def peak(x, theta):
    return theta[0] * jnp.exp(-0.5 * ((x - theta[1]) / theta[2]) ** 2)


def states(model, x, y, p0, tolerances=DEFAULT, bounds=(-np.inf, np.inf)):
    return list(iterate(on_host(equations_of(model, x, y)), start(p0), *bounds, tolerances))


def digits(value, reference):
    return -np.log10(np.maximum(np.abs(value - reference) / np.abs(reference), 1e-17))


@pytest.fixture(scope="module")
def plain():
    return states(decay, X, DECAY + NOISE, [1, 1, 0], Tolerances(1e-10))[-1]


def test_cost_never_rises_and_theta_keeps_the_best_trial():
    path = states(decay, X, DECAY + NOISE, [40, 0.1, -30])
    costs = [float(state.equations.cost) for state in path]
    assert all(after <= before for before, after in pairwise(costs))
    for before, after in pairwise(path):
        better = after.equations.cost < before.equations.cost
        np.testing.assert_array_equal(after.theta, before.trial if better else before.theta)


def test_offset_is_the_full_step_in_standard_errors(plain):
    state = states(decay, X, DECAY + NOISE, [4, 1.5, 1.1])[0]
    root = np.asarray(state.equations.root)
    newton, rest, rank, _ = np.linalg.lstsq(root[:, :3], root[:, 3], rcond=None)
    deviation = np.sqrt(rest[0] / (X.size - 3))
    np.testing.assert_allclose(state.offset, np.linalg.norm(root[:, :3] @ newton) / np.sqrt(rank) / deviation)
    assert plain.offset <= 1e-10


def test_step_has_the_length_of_the_radius_and_is_the_best_of_that_length():
    rng = np.random.default_rng(8)
    root, weights = rng.normal(size=(4, 4)), np.array([1.0, 10.0, 0.1])
    none, zero = np.zeros(3, bool), np.zeros(3)
    with jax.enable_x64(True):
        full = [np.asarray(v) for v in restricted_step(root[:, :3], root[:, 3], weights, np.inf, none, zero)]
        radius = 0.1 * np.linalg.norm(weights * full[0])
        short = [np.asarray(v) for v in restricted_step(root[:, :3], root[:, 3], weights, radius, none, zero)]
    np.testing.assert_allclose(full[0], np.linalg.lstsq(root[:, :3], root[:, 3], rcond=None)[0], rtol=1e-9)
    assert full[1] and not short[1]
    np.testing.assert_allclose(np.linalg.norm(weights * short[0]), radius, rtol=1e-9)
    downhill = root[:, :3].T @ (root[:, 3] - root[:, :3] @ short[0]) / weights**2
    np.testing.assert_allclose(downhill / downhill[0], short[0] / short[0][0], rtol=1e-7)


def test_a_start_that_is_not_finite_ends_at_once():
    path = states(lambda x, t: t[0] * jnp.log(x + t[1]), X, DECAY, [1, -1])
    assert [int(state.status) for state in path] == [Status.NOT_FINITE]
    np.testing.assert_array_equal(path[0].theta, [1, -1])


def test_a_trial_that_is_not_finite_is_not_taken_and_shrinks_the_radius():
    y = 3 * np.sqrt(X + 0.5) + NOISE
    path = states(lambda x, t: t[0] * jnp.sqrt(x + t[1]), X, y, [1, 40])
    undefined = [k for k, state in enumerate(path[:-1]) if state.trial[1] < 0]
    assert undefined
    for k in undefined:
        np.testing.assert_array_equal(path[k + 1].theta, path[k].theta)
        assert path[k + 1].radius <= path[k].radius / 4
    assert path[-1].status == Status.OFFSET
    assert abs(path[-1].theta[1] - 0.5) < 0.1


def test_data_without_noise_succeed_at_the_rounding_of_the_data():
    state = states(decay, X, DECAY, [1, 1, 0])[-1]
    assert state.status == Status.ROUNDING
    assert np.min(digits(state.theta, [5, 2, 1])) > 14


def test_a_start_at_the_truth_is_one_evaluation():
    path = states(decay, X, DECAY, [5, 2, 1])
    assert [int(state.status) for state in path] == [Status.ROUNDING]


def test_as_many_points_as_parameters_succeed_at_rounding_only():
    x, y = np.array([0.0, 1.0, 3.0]), np.array([5.0, 3.0, 2.0])
    state = states(decay, x, y, [1, 1, 0])[-1]
    assert state.status == Status.ROUNDING and np.isinf(state.offset)
    np.testing.assert_allclose(state.theta[0] * np.exp(-x / state.theta[1]) + state.theta[2], y, rtol=1e-14)


@pytest.mark.parametrize(("shift", "wanted"), [(1e6, 7), (1e9, 5)])
@pytest.mark.parametrize("told", [True, False])
def test_a_large_constant_in_y_costs_only_its_rounding(plain, shift, wanted, told):
    p0 = [1, 1, shift if told else 0]
    state = states(decay, X, DECAY + NOISE + shift, p0)[-1]
    assert Status(int(state.status)) in (Status.OFFSET, Status.ROUNDING)
    assert np.min(digits(state.theta - [0, 0, shift], plain.theta)) >= wanted


def test_a_far_origin_of_x_costs_only_its_rounding():
    here = states(peak, X, PEAK + NOISE, [1, 3, 1])[-1]
    far = states(peak, X + 1.7e9, PEAK + NOISE, [1, 3 + 1.7e9, 1])[-1]
    assert Status(int(far.status)) in (Status.OFFSET, Status.ROUNDING)
    assert np.min(digits(far.theta - [0, 1.7e9, 0], here.theta)) >= 7


@pytest.mark.parametrize("unit", [1e-21, 1e21])
def test_data_in_another_unit_give_the_same_digits(plain, unit):
    state = states(decay, X, (DECAY + NOISE) * unit, [unit, 1, 0], Tolerances(1e-10))[-1]
    assert np.min(digits(state.theta / [unit, 1, unit], plain.theta)) >= 12


@pytest.mark.parametrize("units", [(1e-12, 1, 1), (1, 1e12, 1), (1e12, 1e-12, 1e6)])
def test_parameters_in_other_units_give_the_same_digits(plain, units):
    units = np.array(units)
    scaled = states(lambda x, t: decay(x, t / units), X, DECAY + NOISE, [1, 1, 0] * units, Tolerances(1e-10))
    assert np.min(digits(scaled[-1].theta / units, plain.theta)) >= 12


@pytest.mark.parametrize("power", [-60, 40])
def test_powers_of_two_give_the_same_bits_on_the_whole_path(power):
    unit = 2.0**power
    units = np.array([unit, 1 / unit, unit])

    def scaled(x, theta):
        return unit * decay(x, theta / units)

    mine = states(scaled, X, (DECAY + NOISE) * unit, [1, 1, 0.5] * units)
    plainly = states(decay, X, DECAY + NOISE, [1, 1, 0.5])
    assert len(mine) == len(plainly)
    for one, other in zip(mine, plainly, strict=True):
        np.testing.assert_array_equal(one.theta / units, other.theta)
        np.testing.assert_array_equal(one.trial / units, other.trial)
        assert one.offset == other.offset


@pytest.mark.parametrize("p0", [[0, 3, 1], [1, 0, 1], [0, 0, 1]])
def test_zeros_in_the_start_are_as_good_as_any(p0):
    expected = states(peak, X, PEAK + NOISE, [1, 3, 1])[-1].theta
    np.testing.assert_allclose(states(peak, X, PEAK + NOISE, p0)[-1].theta, expected, rtol=1e-6)


def test_two_parameters_that_only_appear_as_a_sum_converge_on_the_rest(plain):
    def model(x, t):
        return decay(x, jnp.stack([t[0] + t[3], t[1], t[2]]))

    state = states(model, X, DECAY + NOISE, [1, 1, 0, 2])[-1]
    assert state.status == Status.OFFSET
    np.testing.assert_allclose(state.theta[0] + state.theta[3], plain.theta[0], rtol=1e-7)
    np.testing.assert_allclose(state.theta[1:3], plain.theta[1:], rtol=1e-7)


def test_a_parameter_without_effect_stays_where_it_is(plain):
    state = states(lambda x, t: decay(x, t[:3]), X, DECAY + NOISE, [1, 1, 0, 17])[-1]
    assert state.status == Status.OFFSET and state.theta[3] == 17
    np.testing.assert_allclose(state.theta[:3], plain.theta, rtol=1e-7)


def test_a_model_that_depends_on_nothing_is_no_success():
    state = states(lambda x, t: 0 * t[0] + 0 * x, X, DECAY, [1])[-1]
    assert state.status == Status.STALLED


def test_a_wrong_derivative_is_no_success():
    evaluate = linear(np.column_stack([np.ones(9), np.arange(9.0)]), np.arange(9.0) ** 2)

    def flipped(theta):
        at = evaluate(theta)
        root = at.root.copy()
        root[:, :2] *= -1
        return at._replace(root=root)

    *_, state = iterate(flipped, start([1, 1]), -np.inf, np.inf, Tolerances())
    assert state.status == Status.STALLED
    np.testing.assert_array_equal(state.theta, [1, 1])


@pytest.mark.parametrize(
    ("asked", "status"), [("ftol", Status.FTOL), ("xtol", Status.XTOL), ("gtol", Status.GTOL)]
)
def test_a_tolerance_ends_the_solve_only_where_it_is_asked(plain, asked, status):
    never = Tolerances(offset=0)._replace(**{asked: 1e-3})
    path = states(decay, X, DECAY + NOISE, [1, 1, 0], never)
    assert path[-1].status == status
    np.testing.assert_allclose(path[-1].theta, plain.theta, rtol=0.05)
    without = states(decay, X, DECAY + NOISE, [1, 1, 0], Tolerances(offset=0))
    assert without[-1].status == Status.ROUNDING and len(without) > len(path)


def test_influence_of_a_robust_loss_measures_the_offset():
    root = np.array([[2.0, 0, 1], [0, 1, 1], [0, 0, 30.0]])
    at = Equations(root, 1.0, 6.0, 100.0, 12.0, True)
    state = next(iterate(lambda theta: at, start([1, 1]), -np.inf, np.inf, Tolerances()))
    np.testing.assert_allclose(state.offset, np.sqrt(2 / 2) / np.sqrt((6 - 2) / 10))


def test_a_large_residual_problem_reaches_a_tight_offset():
    lower = np.array([0, 0, 2.0])
    path = states(decay, X, DECAY + NOISE, [1, 1, 2.5], Tolerances(1e-11), (lower, np.full(3, 10.0)))
    assert path[-1].status == Status.OFFSET and path[-1].theta[2] == 2
