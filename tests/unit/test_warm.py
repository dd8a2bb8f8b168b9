"""The warm-up's loop: what it fits, what it is judged by, how far it steps; and the unit of the steps."""

import jax.numpy as jnp
import numpy as np
import pytest

from dfit.core.trust_region import Status, Tolerances
from dfit.core.warm import begin
from dfit.reduce.sampled import EVERYTHING, NOT_HELD
from dfit.warmup import unit_of
from tests.unit.solvers import guards_of, solver_of

X = np.linspace(0.0, 10.0, 400)
Y = 5 * np.exp(-X / 2) + 1 + np.random.default_rng(1).normal(0, 0.1, X.size)
P0 = [1.0, 1.0, 0.0]


def decay(x, a, tau, c):
    return a * jnp.exp(-x / tau) + c


def numpy_decay(x, a, tau, c):
    return a * np.exp(-x / tau) + c


HELD = solver_of(decay, [X], Y, P0)[0].sample.held


def solved(y=Y, p0=P0, fit=NOT_HELD, share=1.0, limit=300, func=decay, traceable=True, **guards):
    solver, parameters = solver_of(func, [X], y, p0, traceable=traceable)
    return solver.solve(
        begin(parameters.init, share), fit, guards_of(parameters, **guards), Tolerances(1e-8), limit
    )


def cost(theta, points, y=Y):
    return 0.5 * np.sum((y - numpy_decay(X, *theta))[points] ** 2)


def test_a_fifth_of_the_points_is_held_out_and_does_not_pull():
    wild = np.where(HELD, 99.0, Y)
    assert HELD.sum() == 80
    np.testing.assert_array_equal(solved(wild).state.theta, solved().state.theta)
    assert np.abs(solved(wild, fit=EVERYTHING).state.theta - solved().state.theta).max() > 1


@pytest.mark.parametrize(("fit", "points"), [(NOT_HELD, ~HELD), (EVERYTHING, np.ones(400, bool))])
def test_the_end_has_the_cost_the_count_and_the_equations_of_the_points_fitted(fit, points):
    end = solved(fit=fit).state
    assert end.status == Status.OFFSET
    assert end.equations.cost == pytest.approx(cost(end.theta, points), rel=1e-12)
    assert end.equations.count == points.sum()
    a, tau, _ = end.theta
    fall = np.exp(-X / tau)
    jacobian = np.column_stack([fall, a * X / tau**2 * fall, np.ones_like(X)])[points]
    root = end.equations.root
    np.testing.assert_allclose(root[:, :-1].T @ root[:, :-1], jacobian.T @ jacobian, rtol=1e-10)


BENT = np.where(HELD, numpy_decay(X, 3, 1.5, 0.5), Y)  # the points held out lie on the way from p0


def test_layer_3_stops_at_a_rise_and_keeps_where_the_held_out_cost_was_lowest():
    free = solved(BENT)
    end = solved(BENT, rise=0.05)
    assert end.aborted and not free.aborted
    assert end.state.evaluations < free.state.evaluations
    assert end.lowest == pytest.approx(cost(end.best, HELD, BENT), rel=1e-12)
    assert cost(end.state.theta, HELD, BENT) > 1.05 * end.lowest
    assert cost(free.state.theta, HELD, BENT) > 1.05 * free.lowest


def test_layer_3_lets_a_rise_within_its_tolerance_pass():
    free = solved(BENT)
    risen = cost(free.state.theta, HELD, BENT) / free.lowest - 1
    assert risen > 0.05
    patient = solved(BENT, rise=20 * risen)
    assert not patient.aborted
    np.testing.assert_array_equal(patient.state.theta, free.state.theta)


@pytest.mark.parametrize("unit", [1.0, [10.0, 1.0, 0.1]])
def test_layer_4_holds_every_step_and_counts_those_it_shortened(unit):
    thetas, clips = [np.array(P0)], []
    for limit in range(2, 12):
        now = solved(max_step=0.1, unit=unit, limit=limit)
        thetas.append(now.state.theta)
        clips.append(int(now.clips))
    steps = np.linalg.norm(np.diff(thetas, axis=0) / unit, axis=1)
    room = 0.1 * np.maximum(1, np.linalg.norm(np.array(thetas[:-1]) / unit, axis=1))
    assert (steps <= room * (1 + 1e-12)).all() and steps.max() > 0.05
    assert clips[-1] >= 5 and np.diff(clips).max() == 1
    assert solved(unit=unit).clips == 0


def test_a_solve_that_ends_is_no_clip():
    assert solved(p0=[5.0, 2.0, 1.0], max_step=0.1).clips == 0


def test_a_share_of_the_first_radius_shortens_the_first_step():
    whole, tenth = (solved(share=share, limit=1).state for share in (1.0, 0.1))
    assert tenth.radius == pytest.approx(0.1 * whole.radius)
    length = np.linalg.norm(tenth.scaling * (tenth.trial - tenth.theta))
    assert length == pytest.approx(tenth.radius)


@pytest.mark.parametrize("limit", [1, 4])
def test_it_stops_at_the_limit_and_says_that_it_runs(limit):
    end = solved(limit=limit).state
    assert (end.evaluations, end.status) == (limit, Status.RUNNING)


def test_a_trial_that_is_not_finite_on_the_points_held_out_is_not_taken():
    x = np.empty(400)
    x[HELD], x[~HELD] = np.linspace(7, 10, 80), np.linspace(0, 7, 320)
    y = 2 * np.sqrt(np.maximum(8 - x, 0))  # what is fitted wants an edge at 8, beyond which points are held

    def root(x, a, b):
        return a * jnp.sqrt(b - x)

    solver, parameters = solver_of(root, [x], y, [1.0, 12.0])
    end = solver.solve(begin(parameters.init), NOT_HELD, guards_of(parameters), Tolerances(1e-8), 200)
    assert end.state.status != Status.NOT_FINITE
    assert 10 < end.state.theta[1] < 10.5
    assert np.isfinite(end.lowest)


@pytest.mark.parametrize("guards", [{}, {"rise": 0.05, "max_step": 0.1}])
def test_a_model_that_cannot_be_traced_takes_the_same_way_from_the_host(guards):
    compiled = solved(BENT, **guards)
    hosted = solved(BENT, func=numpy_decay, traceable=False, **guards)
    assert hosted.aborted == compiled.aborted == bool(guards)
    np.testing.assert_allclose(hosted.state.theta, compiled.state.theta, rtol=1e-5)
    assert hosted.lowest == pytest.approx(compiled.lowest, rel=1e-4)


def test_a_solve_goes_on_from_where_it_was_left():
    solver, parameters = solver_of(decay, [X], Y, P0)
    guards, enough = guards_of(parameters, max_step=0.1), Tolerances(1e-8)
    left = solver.solve(begin(parameters.init), NOT_HELD, guards, enough, 5)
    resumed = solver.solve(left, NOT_HELD, guards, enough, 300)
    whole = solved(max_step=0.1)
    np.testing.assert_array_equal(resumed.state.theta, whole.state.theta)
    assert (resumed.clips, resumed.lowest) == (whole.clips, whole.lowest)
    assert solver.evaluations == whole.state.evaluations


SOME = [2.0, -3.0, 0.0]
BOX = ([0.0, -np.inf, -1.0], [10.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        ("none", [1, 1, 1]),
        ("p0", [2, 3, None]),
        ("auto", [10, 3, 2]),
    ],
)
def test_the_unit_is_the_width_of_bounds_or_the_size_of_p0(normalization, expected):
    _, parameters = solver_of(decay, [X], Y, SOME, BOX)
    root = np.diag([1.0, 1.0, 4.0, 12.0])
    expected = [12 / 4 if value is None else value for value in expected]  # of a column of length 4
    np.testing.assert_allclose(unit_of(parameters, normalization, root), expected)


def test_bounds_are_the_unit_where_they_are_asked_for():
    _, parameters = solver_of(decay, [X], Y, SOME, ([0, -4, -1], [10, 0, 1]))
    np.testing.assert_allclose(unit_of(parameters, "bounds", np.eye(4)), [10, 4, 2])


def test_a_parameter_at_zero_that_moves_nothing_has_unit_one():
    _, parameters = solver_of(decay, [X], Y, SOME)
    np.testing.assert_allclose(unit_of(parameters, "p0", np.diag([1.0, 1, 0, 5])), [2, 3, 1])
    np.testing.assert_allclose(unit_of(parameters, "p0", np.diag([1.0, 1, 7, 0])), [2, 3, 1])
