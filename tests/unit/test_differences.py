"""Derivatives by differences: what of them is rounding is taken out, what the data see stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dfit.core.differences import differences, without_noise

X = np.linspace(0, 5, 200)
THETA = np.array([3.0, 1.7, 0.4, 1.3])
SIZE = np.ones(4)
BOX = np.full(4, -np.inf), np.full(4, np.inf)


def jacobian_of(predict: Callable, theta: np.ndarray = THETA) -> tuple[np.ndarray, np.ndarray]:
    """J (n, p) by differences, and J without noise."""
    f, rows = differences(predict, theta, SIZE, *BOX)
    return rows.T, rows.T @ without_noise(rows.T, theta, SIZE, float(f @ f))


def rank(jacobian: np.ndarray) -> int:
    norms = np.linalg.norm(jacobian, axis=0)
    return int(np.linalg.matrix_rank(jacobian / np.where(norms > 0, norms, 1)))


HIDDEN: dict[str, tuple[Callable, int]] = {
    "a sum": (lambda t: t[0] * np.exp(-X / t[1]) + t[2] + t[3], 3),
    "a product": (lambda t: t[0] * t[3] * np.exp(-X / t[1]) + t[2], 3),
    "two pairs": (lambda t: t[0] * t[3] * X + t[1] + t[2], 2),
    "no effect but its rounding": (lambda t: t[0] * np.exp(-X / t[1]) + t[2] + ((X + t[3]) - t[3] - X), 3),
    "a sum beside a large constant": (lambda t: 1e4 + t[0] * np.exp(-X / t[1]) + t[2] + t[3], 3),
}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("units", [(1, 1, 1, 1), (1e-9, 1, 1e12, 1)])
def test_what_only_a_combination_of_parameters_tells_has_no_rank_of_its_own(name: str, units: tuple) -> None:
    predict, expected = HIDDEN[name]
    unit = np.array(units)
    theta = THETA * unit
    f, rows = differences(lambda t: predict(t / unit), theta, unit, *BOX)
    clean = rows.T @ without_noise(rows.T, theta, unit, float(f @ f))
    assert rank(clean) == expected


def test_what_the_data_see_is_left_as_it_is() -> None:
    plain, clean = jacobian_of(lambda t: t[0] * np.exp(-X / t[1]) + t[2] * np.exp(-X / t[3]))
    assert rank(clean) == 4
    np.testing.assert_allclose(clean, plain, rtol=1e-12, atol=1e-13)


def test_parameters_that_are_nearly_the_same_keep_what_tells_them_apart() -> None:
    _, clean = jacobian_of(lambda t: t[0] * X + t[1] * X * (1 + 1e-5 * np.sin(3 * X)) + t[2] + t[3] * X**2)
    assert rank(clean) == 4


def test_derivatives_that_are_not_finite_stay_so() -> None:
    broken = np.full((5, 2), np.nan)
    np.testing.assert_array_equal(without_noise(broken, np.ones(2), np.ones(2), 1.0), np.eye(2))
