"""Points that do not count: masked, missing, padding, or where the model is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.points import (
    REASONS,
    Points,
    kernel_sums,
    points_of,
    root_law,
)


def spoil(points: Points, place: str, value: float, at: np.ndarray) -> Points:
    if place == "where":
        where = np.ones(points.x.size, bool)
        where[at] = False
        return points._replace(where=where)
    values = getattr(points, place).copy()
    values[at] = value
    return points._replace(**{place: values})


LEFT_OUT = [
    ("where", 0.0, "outside where"),
    ("y", np.nan, "y is NaN"),
    ("x", np.nan, "a coordinate is NaN"),
    ("sigma", np.nan, "sigma is NaN"),
    ("sigma", np.inf, "sigma is infinite"),
    ("y", np.inf, "y is infinite"),
    ("x", -np.inf, "a coordinate is infinite"),
    ("sigma", 0.0, "sigma is zero or negative"),
    ("sigma", -1.0, "sigma is zero or negative"),
]


@pytest.mark.parametrize("form", ["normal", "triangle", "sandwich"])
@pytest.mark.parametrize(("place", "value", "reason"), LEFT_OUT)
@pytest.mark.parametrize("at", [[0], [499], range(64), range(1, 500)], ids=["first", "last", "block", "rest"])
def test_points_that_do_not_count_leave_the_sums_of_the_others(
    form: str, place: str, value: float, reason: str, at: Any
) -> None:
    at = np.array(list(at))
    points = points_of(500, sigma=True)
    keep = np.setdiff1d(np.arange(500), at)
    others = Points(points.x[keep], points.y[keep], points.sigma[keep])
    found = kernel_sums(spoil(points, place, value, at), form)
    expected = kernel_sums(others, form)
    a, b = found["matrix"], expected["matrix"]
    if form == "triangle":
        a, b = a.T @ a, b.T @ b
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found["moments"], expected["moments"], rtol=1e-11, atol=1e-12)
    assert found["count"] == keep.size
    counted = dict(zip(REASONS, found["counts"], strict=True))
    assert {k: v for k, v in counted.items() if v} == {reason: at.size}


@pytest.mark.parametrize("form", ["normal", "triangle", "sandwich", "groups"])
def test_a_leaf_without_a_single_point_that_counts_is_zero(form: str) -> None:
    points = points_of(100)._replace(x=np.full(100, np.nan), y=np.full(100, np.nan))
    found = kernel_sums(points, form)
    assert all((value == 0).all() for name, value in found.items() if name != "counts")


@pytest.mark.parametrize("form", ["normal", "triangle", "sandwich"])
def test_a_point_where_model_and_derivative_are_nan_can_be_left_out(form: str) -> None:
    points = points_of(300)
    x = points.x.copy()
    x[::5] = -1.0
    outside = points._replace(x=x, where=x > 0)
    keep = x > 0
    found = kernel_sums(outside, form, predict=root_law)
    expected = kernel_sums(Points(x[keep], points.y[keep]), form, predict=root_law)
    a, b = found["matrix"], expected["matrix"]
    if form == "triangle":
        a, b = a.T @ a, b.T @ b
    np.testing.assert_allclose(a, b, rtol=1e-11)
    assert np.isnan(kernel_sums(outside._replace(where=None), form, predict=root_law)["matrix"]).any()


def test_the_first_reason_is_the_one_that_counts() -> None:
    points = points_of(100, sigma=True)
    points.y[3] = points.x[3] = points.sigma[3] = np.nan
    where = np.ones(100, bool)
    where[3] = False
    counts = kernel_sums(points)["counts"]
    assert counts[REASONS.index("y is NaN")] == counts.sum() == 1
    counts = kernel_sums(points._replace(where=where))["counts"]
    assert counts[REASONS.index("outside where")] == counts.sum() == 1
