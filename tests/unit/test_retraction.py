"""A step of a pass carried onto the model: nearer to what the step predicts, inside the bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfit.core.state import start
from dfit.reduce.retraction import retracted
from tests.unit.solvers import guards_of, solver_of

X = np.linspace(0.0, 1.0, 300)
HERE, STEP = np.array([0.5, 1.0]), np.array([0.4, -1.5])


def valley(x, a, b):
    """Curved in a: theta that give one line lie on a parabola."""
    return a + (b + 20 * a**2) * x


def bent(x, a, b):
    return jnp.exp(a * x) + b * a


def asking(step, **fields):
    return start(HERE)._replace(trial=HERE + step, **fields)


def moved(func, step=STEP, bounds=None, traceable=True, **fields):
    solver, parameters = solver_of(func, [X], X * 0, list(HERE), bounds, traceable)
    before = solver.leaves.y.copy()
    state = asking(np.asarray(step), **fields)
    found = retracted(solver, state, guards_of(parameters))
    np.testing.assert_array_equal(solver.leaves.y, before)
    return found, state, solver


def predicted(func, step):
    with jax.enable_x64(True):
        line = jax.jvp(lambda at: func(X, *at), (HERE,), (np.asarray(step),))
        return np.asarray(line[0] + line[1])


def away(func, theta, step=STEP):
    with jax.enable_x64(True):
        return np.linalg.norm(np.asarray(func(X, *theta)) - predicted(func, step))


def test_in_a_bent_valley_the_predictions_of_the_step_are_met_where_the_line_misses_them():
    found, state, _ = moved(valley)
    assert away(valley, state.trial) > 10
    assert away(valley, found.trial) < 1e-2 * away(valley, state.trial)
    a = 0.5 + 0.4
    np.testing.assert_allclose(found.trial, [a, 1 + 20 * 0.25 - 1.5 + 20 * 0.4 - 20 * a**2], rtol=1e-3)


@pytest.mark.parametrize("traceable", [True, False])
def test_it_is_nearer_where_no_theta_meets_them_too(traceable):
    def numpy_bent(x, a, b):
        return np.exp(a * x) + b * a

    step = np.array([1.0, 0.5])
    found, state, _ = moved(bent if traceable else numpy_bent, step, traceable=traceable)
    assert away(bent, found.trial, step) < 0.8 * away(bent, state.trial, step)


def test_everything_else_of_the_state_is_as_it_was():
    found, state, solver = moved(valley)
    assert solver.evaluations > 1
    for name in ("theta", "radius", "slope", "predicted", "full", "evaluations", "status"):
        assert getattr(found, name) is getattr(state, name)


def test_it_stays_within_the_bounds():
    free, _, _ = moved(valley)
    found, _, _ = moved(valley, bounds=([0, -2], [1, 5]))
    assert free.trial[1] < -2
    assert found.trial[1] == pytest.approx(-2)
    assert 0 <= found.trial[0] <= 1


def test_a_model_that_does_not_bend_is_left_where_the_step_leads():
    found, state, _ = moved(lambda x, a, b: a + b * x)
    np.testing.assert_allclose(found.trial, state.trial, rtol=1e-9)


def test_a_polishing_step_is_not_touched_and_costs_nothing():
    found, state, solver = moved(valley, polishing=np.bool_(True))
    assert found is state
    assert solver.evaluations == 0


def test_a_step_is_left_straight_where_the_data_see_what_the_sample_does_not():
    def blind(x, a, b):
        return a + 20 * a**2 * x + 0 * b

    found, state, _ = moved(blind, scaling=np.array([1.0, 100.0]))
    np.testing.assert_array_equal(found.trial, state.trial)
    bent, _, _ = moved(blind, scaling=np.array([100.0, 1.0]))
    assert away(blind, bent.trial) < 0.5 * away(blind, state.trial)


def test_of_two_parameters_seen_as_one_each_moves_by_its_own_step():
    found, state, _ = moved(lambda x, a, b: (a + 3 * b) * x)
    np.testing.assert_allclose(found.trial, state.trial, rtol=1e-9)
