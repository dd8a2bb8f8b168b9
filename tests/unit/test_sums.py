"""The sums of leaves, combined: a monoid to rounding."""

from __future__ import annotations

import numpy as np
import pytest

from dfit.core.sums import FORMS, Sums, combine, condition, equations, square_root

REAL = [form for form in FORMS if form != "groups"]


def sums_of(rows: np.ndarray, weight: np.ndarray, form: str, groups: np.ndarray) -> Sums:
    """Sums of points given by their rows [J r] (n, q), with NumPy's own formulas."""
    n = len(rows)
    matrix = {
        "normal": rows.T @ rows,
        "triangle": np.linalg.qr(np.vstack([rows, np.zeros((rows.shape[1],) * 2)]), mode="r"),
        "sandwich": np.stack([rows.T @ rows, rows.T @ (rows * rows[:, -1:] ** 2)]),
        "groups": np.zeros((0, rows.shape[1])),
    }[form]
    numbers = np.empty(0, np.int64)
    if form == "groups":
        numbers = np.unique(groups)
        matrix = np.stack([rows[groups == g].sum(0) for g in numbers]) if n else matrix
    r = rows[:, -1]
    total = weight.sum()
    mean = weight @ r / total if total else 0.0
    moments = np.array([total, mean, 0.0, weight @ (r - mean) ** 2, weight @ r**2])
    return Sums(
        matrix, 0.5 * r @ r, r @ r, float(n), np.array([1.0, 2.0]) * n, np.full(8, n), moments, numbers
    )


def facts(sums: Sums, form: str) -> list[np.ndarray]:
    matrix = sums.matrix.T @ sums.matrix if form == "triangle" else sums.matrix
    return [matrix, *map(np.asarray, sums[1:])]


@pytest.fixture
def pieces(request: pytest.FixtureRequest) -> tuple[list[Sums], Sums, str]:
    form = request.param
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(60, 4)) * [1, 1e3, 1e-3, 1] + [0, 0, 0, 1e3]
    weight, groups = rng.uniform(0.5, 2, 60), rng.integers(0, 5, 60)
    cuts = [slice(0, 7), slice(7, 7), slice(7, 30), slice(30, 60)]
    return (
        [sums_of(rows[c], weight[c], form, groups[c]) for c in cuts],
        sums_of(rows, weight, form, groups),
        form,
    )


@pytest.mark.parametrize("pieces", FORMS, indirect=True)
def test_combining_pieces_gives_the_sums_of_the_whole(pieces: tuple[list[Sums], Sums, str]) -> None:
    parts, whole, form = pieces
    found = parts[0]
    for part in parts[1:]:
        found = combine(found, part, form)
    for a, b in zip(facts(found, form), facts(whole, form), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pieces", FORMS, indirect=True)
def test_combine_is_associative_to_rounding(pieces: tuple[list[Sums], Sums, str]) -> None:
    (a, _, b, c), _, form = pieces
    left = combine(combine(a, b, form), c, form)
    right = combine(a, combine(b, c, form), form)
    for one, other in zip(facts(left, form), facts(right, form), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("pieces", FORMS, indirect=True)
def test_a_leaf_without_points_changes_nothing(pieces: tuple[list[Sums], Sums, str]) -> None:
    (a, zero, _, _), _, form = pieces
    for found in (combine(a, zero, form), combine(zero, a, form)):
        for one, other in zip(facts(found, form), facts(a, form), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-14, atol=1e-14)


def test_spread_about_the_mean_survives_a_large_mean() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, 1)) + 1e9
    one = np.ones(500)
    groups = np.zeros(500, int)
    found = combine(
        sums_of(rows[:500], one, "normal", groups), sums_of(rows[500:], one, "normal", groups), "normal"
    )
    np.testing.assert_allclose(found.moments[3], ((rows - rows.mean()) ** 2).sum(), rtol=1e-7)


def test_square_root_squares_to_the_matrix_in_any_units() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(30, 4)) * [1e-12, 1, 1e12, 1e-21]
    normal = rows.T @ rows
    root = square_root(normal)
    np.testing.assert_allclose(root.T @ root, normal, rtol=1e-12)


def test_square_root_of_a_singular_matrix_is_real() -> None:
    rows = np.outer(np.arange(5.0), [1, 2, 3])
    root = square_root(rows.T @ rows)
    assert np.isfinite(root).all()
    np.testing.assert_allclose(root.T @ root, rows.T @ rows, rtol=1e-12)


def test_condition_does_not_depend_on_units() -> None:
    rng = np.random.default_rng(2)
    root = rng.normal(size=(4, 4))
    np.testing.assert_allclose(condition(root * [1e-12, 1, 1e12, 1]), condition(root), rtol=1e-9)


def test_condition_of_dependent_columns_is_huge() -> None:
    rows = np.array([[1.0, 2.0, 0.3], [2.0, 4.0, 0.1], [3.0, 6.0, 0.2]])
    assert condition(rows) > 1e15


def test_sums_that_are_not_finite_say_so() -> None:
    rows = np.ones((3, 2))
    sums = sums_of(rows, np.ones(3), "normal", np.zeros(3, int))
    assert equations(sums, "normal", 3.0).finite
    broken = sums._replace(matrix=np.full((2, 2), np.nan))
    assert not equations(broken, "normal", 3.0).finite
