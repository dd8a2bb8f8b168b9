"""Statistics that follow from a covariance."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dfit.core.covariance import Covariance
from dfit.derivative import derivative, difference_steps
from dfit.statistics import (
    Estimate,
    Estimates,
    correlation,
    information_criteria,
    propagate,
    quantile,
)

MATRIX = np.array([[4.0, 1.0], [1.0, 9.0]])


def made(matrix=MATRIX, lower=(False, False), undetermined=(False, False)):
    stderr = np.sqrt(np.diag(matrix))
    flags = np.array(undetermined), np.array(lower), np.zeros(2, bool)
    return Covariance(np.array(matrix), stderr, 2, *flags, 8, 1.0, 3.0, "")


def test_derivative_of_a_traceable_function_is_exact():
    found = derivative(lambda x: jnp.exp(-x[0]) * x[1], np.array([0.3, 2.0]))
    assert found == pytest.approx([-2 * np.exp(-0.3), np.exp(-0.3)], rel=1e-15)


def test_derivative_of_a_plain_function_comes_from_differences():
    found = derivative(
        lambda x: float(np.exp(-float(x[0]))) * x[1], np.array([0.3, 2.0]), np.array([0.1, np.inf])
    )
    assert found == pytest.approx([-2 * np.exp(-0.3), np.exp(-0.3)], rel=1e-6)


def test_derivative_of_several_quantities_has_a_row_each():
    found = derivative(lambda x: [x[0], 2 * x[1], 5.0], np.array([1.0, 1.0]))
    assert found.tolist() == [[1, 0], [0, 2], [0, 0]]


def test_difference_steps_follow_the_standard_error_but_not_below_rounding():
    steps = difference_steps(np.array([1e9, 2.0, 0.0]), np.array([1.0, 1e-30, np.nan]))
    eps = np.finfo(float).eps
    assert steps == pytest.approx([np.sqrt(eps) * 1e9, 2 * np.sqrt(eps), np.cbrt(eps)])


def test_standard_error_of_a_sum_counts_the_covariance():
    assert propagate(np.array([1.0, 1.0]), made()) == pytest.approx(np.sqrt(4 + 9 + 2))


def test_what_depends_on_an_undetermined_parameter_has_an_infinite_error():
    covariance = made([[4.0, np.nan], [np.nan, np.inf]], undetermined=(False, True))
    assert propagate(np.eye(2), covariance).tolist() == [2.0, np.inf]


def test_what_depends_on_a_parameter_at_a_bound_has_no_error_unless_it_is_held():
    covariance = made([[np.nan, np.nan], [np.nan, 9.0]], lower=(True, False))
    rows = np.array([[1.0, 1.0], [0.0, 1.0]])
    assert np.isnan(propagate(rows, covariance)).tolist() == [True, False]
    assert propagate(rows, covariance, held=True).tolist() == [3.0, 3.0]


def test_correlation_is_nan_only_where_a_standard_error_is_missing():
    assert correlation(made()) == pytest.approx(np.array([[1, 1 / 6], [1 / 6, 1]]))
    with_bound = correlation(made([[np.nan, np.nan], [np.nan, 9.0]], lower=(True, False)))
    assert with_bound[1, 1] == 1.0
    assert np.isnan(with_bound[0]).all()


def test_interval_is_students_t_and_normal_for_absolute_sigma():
    assert quantile(0.95, 5, False) == pytest.approx(scipy.stats.t.ppf(0.975, 5))
    assert quantile(0.95, 5, True) == pytest.approx(1.959963984540054)
    assert np.isnan(quantile(0.95, 0, False))


def test_information_criteria_stay_finite_for_a_perfect_fit():
    aic, bic = information_criteria(0.0, 10, 2)
    assert aic == pytest.approx(10 * np.log(1e-250) + 4)
    assert bic - aic == pytest.approx(2 * np.log(10) - 4)


def test_estimates_are_a_mapping_with_a_table():
    params = Estimates(
        [Estimate("a", 2.0, 0.1, 1.0, -np.inf, np.inf, True), Estimate("b", 3.0, 0.0, 3.0, 0, 9, False)]
    )
    assert params.valuesdict() == {"a": 2.0, "b": 3.0}
    assert params.to_dataframe().loc["b", "max"] == 9
    assert float(params["a"]) == 2.0
    assert "0.1" in repr(params)
