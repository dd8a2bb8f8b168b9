"""Each defence layer by itself, as a function of numbers."""

import jax
import numpy as np
import pytest

from dfit.core.guards import NEAR, already_good, clip, errors_away, fit_quality, relative_loss, risen
from dfit.core.state import start

RNG = np.random.default_rng(2)
J, R = RNG.normal(size=(50, 3)) * [1, 1e-9, 1e7], RNG.normal(size=50)
ROOT = np.linalg.qr(np.column_stack([J, R]), mode="r")


def test_loss_is_told_as_a_part_of_the_variance_of_the_data():
    y = RNG.normal(3, 2, 100)
    about_mean = np.sum((y - y.mean()) ** 2)
    assert relative_loss(about_mean / 2, about_mean) == 1
    assert relative_loss(0.5 * np.sum((0.1 * (y - y.mean())) ** 2), about_mean) == pytest.approx(0.01)


def test_loss_of_constant_data_is_infinite_unless_it_is_zero():
    assert relative_loss(1e-300, 0.0) == np.inf
    assert relative_loss(0.0, 0.0) == 0.0


def test_errors_away_are_the_steps_of_least_squares_over_its_standard_errors():
    scaled = J / np.linalg.norm(J, axis=0)
    step, (rest,), _, _ = np.linalg.lstsq(scaled, R)
    errors = np.sqrt(np.diag(np.linalg.inv(scaled.T @ scaled)) * rest / (50 - 3))
    assert errors_away(ROOT, R @ R, 50.0) == pytest.approx(np.max(np.abs(step) / errors), rel=1e-9)


@pytest.mark.parametrize("what", ["a zero column", "equal columns", "as many points as parameters"])
def test_where_the_points_do_not_determine_a_parameter_it_is_infinitely_far(what):
    root, count = ROOT.copy(), 50.0
    if what == "a zero column":
        root[:, 1] = 0
    elif what == "equal columns":
        root[:, 1] = 1e3 * root[:, 0]
    else:
        count = 3.0
    assert errors_away(root, R @ R, count) == np.inf


def test_a_start_at_the_minimum_is_no_error_away_with_residuals_or_without():
    orthogonal = ROOT.copy()
    orthogonal[:3, 3] = 0
    assert errors_away(orthogonal, orthogonal[3, 3] ** 2, 50.0) == 0
    orthogonal[:, 3] = 0
    assert errors_away(orthogonal, 0.0, 50.0) == 0


def test_a_residual_that_one_step_removes_is_many_errors_away():
    whole = ROOT.copy()
    whole[3, 3] = 0
    assert errors_away(whole, np.sum(whole[:, 3] ** 2), 50.0) > 1e7


@pytest.mark.parametrize(
    ("loss", "away", "threshold", "said"),
    [
        (0.005, 5.0, 0.01, "the loss at p0 is 0.005 of the data's variance, below 0.01"),
        (0.5, 0.9, 0.01, "no parameter by more than 0.9 of the sample's standard errors"),
        (0.5, 0.999 * NEAR, 1e-9, "3.2 of the sample's standard errors"),
        (0.5, NEAR, 0.01, None),
        (0.01, 10.0, 0.01, None),
        (np.inf, np.inf, 0.01, None),
        (0.0, 0.0, 0.0, None),
    ],
)
def test_layer_1_skips_by_the_loss_or_by_standard_errors_and_never_when_off(loss, away, threshold, said):
    found = already_good(loss, away, threshold)
    assert found is None if said is None else said in found


@pytest.mark.parametrize(
    ("loss", "mode"),
    [
        (0.0, "refinement"),
        (0.0999, "refinement"),
        (0.1, "careful"),
        (0.999, "careful"),
        (1.0, "exploration"),
        (np.inf, "exploration"),
    ],
)
def test_layer_2_tells_three_modes_by_the_loss(loss, mode):
    assert fit_quality(loss) == mode


@pytest.mark.parametrize(
    ("held", "lowest", "tolerance", "gone"),
    [(1.06, 1.0, 0.05, True), (1.04, 1.0, 0.05, False), (1e9, 1.0, np.inf, False), (0.0, 0.0, 0.05, False)],
)
def test_layer_3_fires_only_beyond_its_part_of_the_lowest_cost(held, lowest, tolerance, gone):
    assert bool(risen(held, lowest, tolerance)) is gone


def proposed(theta, step):
    """A state that asks for a step, with what the model of the cost |R - J s|^2 / 2 says of it."""
    theta = np.asarray(theta, float)
    change = J @ step
    return start(theta)._replace(
        trial=theta + step, slope=R @ change, predicted=change @ (R - change / 2), full=np.bool_(True)
    )


def clipped_to(state, unit, most):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, clip(state, np.asarray(unit, float), most))


UNIT = np.array([1.0, 1e9, 1e-7])
STEP = np.array([0.3, -0.4e9, 1.2e-7])  # 1.3 units


@pytest.mark.parametrize("most", [0.1, 1.0])
def test_layer_4_shortens_a_step_and_keeps_its_direction(most):
    short, clipped = clipped_to(proposed(0.1 * UNIT, STEP), UNIT, most)
    taken = short.trial - short.theta
    assert clipped and not short.full
    assert np.linalg.norm(taken / UNIT) == pytest.approx(most)
    np.testing.assert_allclose(taken / np.linalg.norm(taken / UNIT), STEP / 1.3, rtol=1e-12)


def test_a_clipped_step_is_predicted_to_gain_what_the_quadratic_model_says_there():
    short, _ = clipped_to(proposed(0.1 * UNIT, STEP), UNIT, 0.1)
    change = J @ (short.trial - short.theta)
    assert short.predicted == pytest.approx(change @ (R - change / 2), rel=1e-9)
    assert short.slope == pytest.approx(R @ change, rel=1e-9)


def test_parameters_beyond_their_unit_are_measured_by_themselves():
    short, clipped = clipped_to(proposed([0, 0, 50e-7], STEP), UNIT, 0.02)
    assert clipped
    assert np.linalg.norm((short.trial - short.theta) / UNIT) == pytest.approx(0.02 * 50)


@pytest.mark.parametrize(("step", "most"), [(STEP, np.inf), (STEP, 1.31), (0 * STEP, 0.1)])
def test_a_step_that_is_short_enough_or_a_layer_that_is_off_changes_nothing(step, most):
    state = proposed(0.1 * UNIT, step)
    same, clipped = clipped_to(state, UNIT, most)
    assert not clipped and same.full
    np.testing.assert_array_equal(same.trial, state.trial)
    assert (same.slope, same.predicted) == (state.slope, state.predicted)
