"""The jackknife over groups, against fits that leave one group out."""

from __future__ import annotations

import numpy as np
import pytest

from dfit.core.jackknife import group_table, jackknife

RNG = np.random.default_rng(8)
SCALE = np.array([1e-8, 1.0, 1e6])
GROUPS = np.repeat([0, 1, 2, 3, 4, 5], [1, 2, 30, 5, 11, 8])
A = RNG.normal(size=(GROUPS.size, 3)) * SCALE
Y = RNG.normal(size=GROUPS.size) + RNG.normal(size=6)[GROUPS]


def basis_of(a: np.ndarray) -> np.ndarray:
    """B with orthonormal columns a B."""
    scale = np.linalg.norm(a, axis=0)
    return np.linalg.inv(np.linalg.qr(a / scale, mode="r")) / scale[:, None]


def of_linear_model(a: np.ndarray, y: np.ndarray, groups: np.ndarray, basis: np.ndarray):
    scaled = a / np.linalg.norm(a, axis=0)
    r = y - scaled @ np.linalg.lstsq(scaled, y, rcond=None)[0]
    table = group_table((a @ basis).T, r, np.ones(r.size), groups, groups.max() + 1)
    return jackknife(table, basis)


def left_out(a: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Changes (p, G) of the parameters of a linear model when each group is left out."""
    scale = np.linalg.norm(a, axis=0)
    whole = np.linalg.lstsq(a / scale, y, rcond=None)[0]
    fits = [
        np.linalg.lstsq(a[rest] / scale, y[rest], rcond=None)[0]
        for rest in (groups != g for g in range(groups.max() + 1))
    ]
    return ((whole - np.array(fits)) / scale).T


@pytest.mark.parametrize("basis", [basis_of(A), np.diag(1 / SCALE)], ids=["orthonormal", "scaled"])
def test_half_is_what_fits_without_each_group_give(basis: np.ndarray) -> None:
    found = of_linear_model(A, Y, GROUPS, basis)
    np.testing.assert_allclose(found.half, np.sqrt(5 / 6) * left_out(A, Y, GROUPS), rtol=1e-9)
    assert found.minimum and not found.alone.any()


def test_sandwich_of_corrected_residuals_is_the_same() -> None:
    found = of_linear_model(A, Y, GROUPS, basis_of(A))
    a = A / SCALE
    inverse = np.linalg.inv(a.T @ a)
    r = Y - a @ np.linalg.lstsq(a, Y, rcond=None)[0]
    meat = np.zeros((3, 3))
    for g in range(6):
        rows = a[g == GROUPS]
        score = rows.T @ np.linalg.solve(np.eye(len(rows)) - rows @ inverse @ rows.T, r[g == GROUPS])
        meat += np.outer(score, score)
    expected = 5 / 6 * inverse @ meat @ inverse / np.outer(SCALE, SCALE)
    np.testing.assert_allclose(found.half @ found.half.T, expected, rtol=1e-9)


def test_nearly_dependent_columns_keep_their_digits_in_an_orthonormal_basis() -> None:
    a = A.copy()
    a[:, 2] = 1e8 * a[:, 0] + 1e-7 * RNG.normal(size=GROUPS.size)  # condition 1e7, its square 1e14
    found = of_linear_model(a, Y, GROUPS, basis_of(a))
    np.testing.assert_allclose(found.half, np.sqrt(5 / 6) * left_out(a, Y, GROUPS), rtol=1e-6)


def test_a_parameter_of_one_group_alone_has_no_standard_error_and_the_others_theirs() -> None:
    a = A.copy()
    a[:, 1] = np.where(GROUPS == 4, a[:, 1], 0)
    found = of_linear_model(a, Y, GROUPS, basis_of(a))
    np.testing.assert_array_equal(found.alone, [False, True, False])
    assert np.isnan(found.half[1]).all()
    # Without group 4 the fit has two parameters left.
    others = [0, 2]
    scaled = a / np.linalg.norm(a, axis=0)
    whole = np.linalg.lstsq(scaled, Y, rcond=None)[0]
    rest = GROUPS != 4
    change = whole[others] - np.linalg.lstsq(scaled[rest][:, others], Y[rest], rcond=None)[0]
    expected = np.sqrt(5 / 6) * change / np.linalg.norm(a, axis=0)[others]
    np.testing.assert_allclose(found.half[others, 4], expected, rtol=1e-9)


def test_curvature_without_a_minimum_has_no_standard_error() -> None:
    table = group_table(A.T / SCALE[:, None], Y, -np.ones(Y.size), GROUPS, 6)
    found = jackknife(table, np.diag(1 / SCALE))
    assert not found.minimum and np.isnan(found.half).all()


def test_table_holds_scores_and_upper_triangles_by_group() -> None:
    psi, curvature = RNG.normal(size=(2, GROUPS.size))
    shuffled = RNG.permutation(GROUPS)
    found = group_table(A.T, psi, curvature, shuffled, 6)
    for g in range(6):
        rows, c = A[shuffled == g], curvature[shuffled == g]
        np.testing.assert_allclose(found[g, :3], rows.T @ psi[shuffled == g], rtol=1e-12, atol=1e-9)
        triangle = ((rows.T * c) @ rows)[np.triu_indices(3)]
        np.testing.assert_allclose(found[g, 3:], triangle, rtol=1e-12, atol=1e-9)
