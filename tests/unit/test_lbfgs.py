"""L-BFGS on a sample: where it ends, what it counts, and that the layers hold in it."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from dfit.core.lbfgs import HISTORY
from dfit.core.trust_region import Status, Tolerances
from dfit.core.warm import begin
from dfit.errors import InputError
from dfit.reduce.sampled import EVERYTHING, NOT_HELD
from dfit.statistics import Clock
from dfit.warm_settings import Warmup
from dfit.warmup import look_at, warm_up
from tests.unit.solvers import guards_of, solver_of

X = np.linspace(0.01, 10, 400)
NOISE = np.random.default_rng(1).normal(0, 0.1, X.size)
Y = 5 * np.exp(-X / 2) + 1 + NOISE
P0 = [1.0, 1.0, 0.0]


def decay(x, a, tau, c):
    return a * jnp.exp(-x / tau) + c


def descend(func, y, p0, fit=EVERYTHING, tol=1e-4, limit=500, bounds=None, **guards):
    solver, parameters = solver_of(func, [X], y, p0, bounds)
    return solver.descend(
        begin(parameters.init), fit, guards_of(parameters, **guards), Tolerances(tol), limit
    )


def minimum(y, bounds=None):
    """(theta, cost) by the solver of the passes."""
    p0 = np.clip(P0, *bounds) if bounds else P0
    solver, parameters = solver_of(decay, [X], y, p0, bounds)
    end = solver.solve(begin(parameters.init), EVERYTHING, guards_of(parameters), Tolerances(1e-10), 100)
    return end.state.theta, end.state.equations.cost


def test_it_ends_in_the_minimum_and_says_why():
    theta, cost = minimum(Y)
    end = descend(decay, Y, P0)
    np.testing.assert_allclose(end.warm.state.theta, theta, rtol=1e-4)
    np.testing.assert_allclose(end.warm.state.equations.cost, cost, rtol=1e-9)
    assert end.status == Status.OFFSET
    assert end.warm.state.offset <= 1e-4
    assert (end.warm.state.status, end.warm.state.evaluations) == (Status.RUNNING, 0)


@pytest.mark.parametrize("size", [1e-21, 1e21])
def test_data_of_another_size_take_the_same_path(size):
    size = 2.0 ** np.round(np.log2(size))  # powers of two change no digit
    end, other = descend(decay, Y, P0), descend(decay, Y * size, [size, 1, 0], unit=[size, 1, size])
    assert other.evaluations == end.evaluations
    np.testing.assert_allclose(other.warm.state.theta / [size, 1, size], end.warm.state.theta, rtol=1e-9)


@pytest.mark.parametrize(("low", "high"), [([0, 0, 1.2], [9, 9, 9]), ([0, 0, -1], [4, 9, 9])])
def test_a_minimum_at_a_bound_is_found_on_it(low, high):
    theta, cost = minimum(Y, (low, high))
    end = descend(decay, Y, np.clip(P0, low, high), bounds=(low, high))
    on_it = (theta == low) | (theta == high)
    assert on_it.sum() == 1
    np.testing.assert_array_equal(end.warm.state.theta[on_it], theta[on_it])
    np.testing.assert_allclose(end.warm.state.equations.cost, cost, rtol=1e-9)
    assert end.status == Status.OFFSET


def test_a_step_is_no_longer_than_layer_4_allows_and_still_goes_down():
    at, cost = [], []
    for limit in range(1, 12):
        end = descend(decay, Y, P0, limit=limit, max_step=0.1)
        at.append(end.warm.state.theta)
        cost.append(float(end.warm.state.equations.cost))
    lengths = np.linalg.norm(np.diff(at, axis=0), axis=1)
    room = 0.1 * np.maximum(1, np.linalg.norm(at[:-1], axis=1))
    assert (lengths <= room * (1 + 1e-12)).all()
    assert lengths[lengths > 0] == pytest.approx(room[lengths > 0])
    assert (np.diff(cost) <= 0).all() and cost[-1] < cost[0]
    assert end.warm.clips == (lengths > 0).sum() > 5
    assert descend(decay, Y, P0).warm.clips == 0


def test_a_rise_of_the_held_out_cost_gives_up_and_keeps_the_best_point():
    solver, _ = solver_of(decay, [X], Y, P0)
    misleading = Y.copy()
    misleading[~solver.sample.held] += 3  # what is fitted leads away from what is held out
    end = descend(decay, misleading, [5.0, 2.0, 1.0], fit=NOT_HELD, rise=0.05)
    assert end.warm.aborted
    np.testing.assert_array_equal(end.warm.best, [5.0, 2.0, 1.0])
    free = descend(decay, misleading, [5.0, 2.0, 1.0], fit=NOT_HELD)
    assert not free.warm.aborted
    assert free.warm.state.theta[2] == pytest.approx(4, abs=0.1)


def test_the_history_is_filled_once_it_holds_all_its_pairs():
    assert descend(decay, Y, P0).filled == 1
    assert descend(decay, Y, P0, limit=HISTORY).filled == 0


def test_a_line_search_that_finds_nothing_is_counted_and_ends_it():
    """At a tolerance that rounding does not allow, no step decreases the cost in the end."""
    end = descend(decay, Y, P0, tol=1e-30)
    assert (end.status, end.failures >= 2) == (Status.STALLED, True)
    np.testing.assert_allclose(end.warm.state.theta, minimum(Y)[0], rtol=1e-6)


def test_it_stops_at_the_limit_and_counts_its_evaluations():
    solver, parameters = solver_of(decay, [X], Y, P0)
    end = solver.descend(begin(parameters.init), EVERYTHING, guards_of(parameters), Tolerances(1e-4), 5)
    assert 5 <= end.evaluations == solver.evaluations < 25
    assert end.status == Status.RUNNING


def test_a_start_that_is_not_finite_is_said_to_be():
    end = descend(lambda x, a, b: a * jnp.log(b - x), Y, [1.0, 5.0])
    assert end.status == Status.NOT_FINITE
    np.testing.assert_array_equal(end.warm.state.theta, [1, 5])


def test_a_region_that_is_not_finite_is_stepped_around():
    def root(x, a, b):
        return a * jnp.sqrt(x - b)

    end = descend(root, 2 * np.sqrt(X + 0.1) + NOISE, [1.0, -5.0])
    assert end.status == Status.OFFSET
    np.testing.assert_allclose(end.warm.state.theta, [2, -0.1], atol=0.05)


def test_a_warm_up_by_lbfgs_ends_where_the_other_does_and_reports_its_counts():
    reports, thetas = {}, {}
    for method in ("lm", "lbfgs"):
        solver, parameters = solver_of(decay, [X], Y, P0)
        warmed = warm_up(
            solver, parameters, Warmup(method=method), look_at(solver, parameters), 1e-8, Clock()
        )
        reports[method], thetas[method] = warmed.report, warmed.state.theta
    np.testing.assert_allclose(thetas["lbfgs"], thetas["lm"], rtol=1e-3)
    assert (reports["lbfgs"].lbfgs_history_fill, reports["lm"].lbfgs_history_fill) == (1, 0)
    assert reports["lm"].lbfgs_line_search_failures == 0


def test_a_model_that_cannot_be_traced_is_refused_with_the_line_to_type():
    solver, parameters = solver_of(lambda x, a: a * np.exp(-x), [X], Y, [1.0], traceable=False)
    with pytest.raises(InputError, match='type: method="lm"'):
        solver.descend(begin(parameters.init), EVERYTHING, guards_of(parameters), Tolerances(), 5)


def test_without_optax_the_line_to_install_it_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(InputError, match=r'pip install "dfit\[search\]"'):
        descend(lambda x, a, tau, c: decay(x, a, tau, c) + 0 * x, Y, P0)  # not compiled yet
