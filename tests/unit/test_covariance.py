"""Covariance: rank, bounds, degrees of freedom, sandwich."""

import numpy as np
import pytest

from dfit.core.covariance import covariance
from tests.unit.problems import linear

RNG = np.random.default_rng(5)
A = RNG.normal(size=(40, 3)) * [1e-8, 1, 1e6]
Y = A @ [1e8, 2, 3e-6] + RNG.normal(size=40)
FREE = (-np.inf, np.inf)


def at_optimum(a, y):
    theta = np.linalg.lstsq(a, y, rcond=None)[0]
    return linear(a, y)(theta), theta


def normal_inverse(a):
    scale = np.linalg.norm(a, axis=0)
    return np.linalg.inv((a / scale).T @ (a / scale)) / np.outer(scale, scale)


@pytest.mark.parametrize("absolute_sigma", [True, False])
def test_matrix_is_the_inverse_of_the_normal_matrix_times_redchi(absolute_sigma):
    equations, theta = at_optimum(A, Y)
    found = covariance(equations, theta, *FREE, absolute_sigma=absolute_sigma)
    redchi = np.sum((Y - A @ theta) ** 2) / 37
    expected = normal_inverse(A) * (1 if absolute_sigma else redchi)
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-10)
    np.testing.assert_allclose(found.stderr, np.sqrt(np.diagonal(expected)), rtol=1e-10)
    np.testing.assert_allclose(found.redchi, redchi)
    assert (found.rank, found.nfree, found.note) == (3, 37, "")
    np.testing.assert_allclose(found.condition, np.linalg.cond(A / np.linalg.norm(A, axis=0)))


def test_any_square_root_gives_the_same_matrix():
    equations, theta = at_optimum(A, Y)
    turned = equations._replace(root=np.linalg.qr(RNG.normal(size=(4, 4)))[0] @ equations.root)
    one, other = (covariance(e, theta, *FREE, absolute_sigma=True).matrix for e in (equations, turned))
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_a_parameter_pressed_against_its_bound_leaves_the_others_conditional():
    theta = np.linalg.lstsq(A, Y, rcond=None)[0]
    upper = np.array([np.inf, theta[1] - 1, np.inf])
    others = np.linalg.lstsq(A[:, [0, 2]], Y - A[:, 1] * upper[1], rcond=None)[0]
    point = np.array([others[0], upper[1], others[1]])
    found = covariance(linear(A, Y)(point), point, -np.inf, upper, absolute_sigma=True)
    np.testing.assert_allclose(found.matrix[np.ix_([0, 2], [0, 2])], normal_inverse(A[:, [0, 2]]), rtol=1e-10)
    assert np.isnan(found.stderr[1]) and np.isnan(found.matrix[1]).all()
    np.testing.assert_array_equal(found.at_upper, [False, True, False])
    assert (found.rank, found.nfree, found.at_lower.any()) == (2, 38, False)
    assert "bound" in found.note


def test_a_parameter_on_a_bound_that_pulls_inwards_counts():
    _, theta = at_optimum(A, Y)
    point = theta - [0, 1, 0]
    found = covariance(linear(A, Y)(point), point, point - [1e9, 0, 1], np.inf, absolute_sigma=True)
    assert np.isfinite(found.stderr).all() and not found.at_lower.any()


def test_a_sum_of_two_parameters_leaves_both_undetermined_and_the_third_right():
    a = np.column_stack([A[:, 1], A[:, 1], A[:, 2]])
    found = covariance(linear(a, Y)(np.zeros(3)), np.zeros(3), *FREE, absolute_sigma=True)
    np.testing.assert_array_equal(found.undetermined, [True, True, False])
    np.testing.assert_allclose(found.stderr[2], np.sqrt(normal_inverse(A[:, 1:])[1, 1]), rtol=1e-10)
    assert np.isinf(found.stderr[:2]).all() and found.rank == 2 and np.isinf(found.condition)
    assert np.isnan(found.matrix[0, 1]) and np.isnan(found.matrix[0, 2])
    assert "determine" in found.note


def test_a_parameter_without_effect_is_undetermined():
    a = np.column_stack([A[:, 1], np.zeros(40), A[:, 2]])
    found = covariance(linear(a, Y)(np.zeros(3)), np.zeros(3), *FREE, absolute_sigma=True)
    np.testing.assert_array_equal(found.undetermined, [False, True, False])
    np.testing.assert_allclose(found.matrix[0, 2], normal_inverse(A[:, 1:])[0, 1], rtol=1e-9)


def test_as_many_points_as_parameters_give_nan_and_the_reason():
    found = covariance(*at_optimum(A[:3], Y[:3]), *FREE, absolute_sigma=False)
    assert np.isnan(found.stderr).all() and np.isnan(found.redchi) and found.nfree == 0
    assert "degrees of freedom" in found.note
    assert not found.undetermined.any()


def test_as_many_points_as_parameters_with_known_sigma_are_enough():
    found = covariance(*at_optimum(A[:3], Y[:3]), *FREE, absolute_sigma=True)
    np.testing.assert_allclose(found.matrix, normal_inverse(A[:3]), rtol=1e-6)
    assert found.note == ""


@pytest.mark.parametrize("robust", [True, False])
def test_meat_gives_the_sandwich(robust):
    equations, theta = at_optimum(A, Y)
    weights = RNG.uniform(0.5, 2, 40)
    meat = (A * (weights * (Y - A @ theta) ** 2)[:, None]).T @ A
    bread = (A * weights[:, None]).T @ A if robust else None
    found = covariance(equations, theta, *FREE, absolute_sigma=False, bread=bread, meat=meat)
    inverse = normal_inverse(A * np.sqrt(weights)[:, None]) if robust else normal_inverse(A)
    np.testing.assert_allclose(found.matrix, inverse @ meat @ inverse, rtol=1e-8)


def test_a_bread_that_is_not_positive_is_no_minimum():
    equations, theta = at_optimum(A, Y)
    found = covariance(equations, theta, *FREE, absolute_sigma=True, bread=-A.T @ A, meat=A.T @ A)
    assert np.isnan(found.stderr).all() and "minimum" in found.note


def test_equations_that_are_not_finite_give_nan():
    equations, theta = at_optimum(A, Y)
    found = covariance(equations._replace(finite=False), theta, *FREE, absolute_sigma=True)
    assert np.isnan(found.matrix).all() and "finite" in found.note
