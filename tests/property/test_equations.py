"""Equations of any points, split and combined in any way."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dfit.core.sums import Sums, as_sums, combine, equations
from tests.unit.points import SIZE, Points, kernel_sums, points_of

forms = st.sampled_from(["normal", "triangle"])
losses = st.sampled_from(["linear", "huber"])


def pick(points: Points, index: np.ndarray) -> Points:
    return Points(*(None if a is None else a[index] for a in points))


def sums_of(points: Points, form: str, loss: str) -> Sums:
    return as_sums(kernel_sums(points, form, loss, 0.7))


def squared(sums: Sums, form: str) -> np.ndarray:
    return sums.matrix.T @ sums.matrix if form == "triangle" else sums.matrix


def same(a: Sums, b: Sums, form: str) -> None:
    x, y = squared(a, form), squared(b, form)
    size = np.sqrt(np.outer(np.diag(y), np.diag(y))) + 1e-300
    assert np.max(np.abs(x - y) / size) < 1e-12
    for one, other in zip((a.cost, a.psi2, a.count), (b.cost, b.psi2, b.count), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_array_equal(a.counts, b.counts)
    np.testing.assert_allclose(a.moments, b.moments, rtol=1e-11, atol=1e-12)


def points(seed: int, n: int) -> Points:
    rng = np.random.default_rng(seed)
    found = points_of(n, seed, sigma=True)
    found.y[rng.uniform(size=n) < 0.1] = np.nan
    return found._replace(where=rng.uniform(size=n) < 0.8)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, SIZE), forms, losses, st.lists(st.integers(0, SIZE), max_size=5))
def test_any_split_combined_again_is_the_whole(
    seed: int, n: int, form: str, loss: str, cuts: list[int]
) -> None:
    whole = points(seed, n)
    parts = np.split(np.arange(n), sorted(min(c, n) for c in cuts))
    found = None
    for part in parts:
        sums = sums_of(pick(whole, part), form, loss)
        found = sums if found is None else combine(found, sums, form)
    same(found, sums_of(whole, form, loss), form)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, SIZE), forms, losses)
def test_order_of_points_changes_nothing(seed: int, n: int, form: str, loss: str) -> None:
    whole = points(seed, n)
    shuffled = pick(whole, np.random.default_rng(seed + 1).permutation(n))
    same(sums_of(shuffled, form, loss), sums_of(whole, form, loss), form)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, SIZE), forms, losses)
def test_points_without_weight_may_as_well_not_be_there(seed: int, n: int, form: str, loss: str) -> None:
    whole = points(seed, n)
    there = np.flatnonzero(whole.where & np.isfinite(whole.y))
    kept = sums_of(pick(whole, there), form, loss)
    same(sums_of(whole, form, loss)._replace(counts=kept.counts), kept, form)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, SIZE), losses)
def test_both_forms_give_the_solver_the_same_equations(seed: int, n: int, loss: str) -> None:
    whole = points(seed, n)
    normal = equations(sums_of(whole, "normal", loss), "normal", 1.0)
    triangle = equations(sums_of(whole, "triangle", loss), "triangle", 1.0)
    a, b = normal.root.T @ normal.root, triangle.root.T @ triangle.root
    size = np.sqrt(np.outer(np.diag(b), np.diag(b))) + 1e-300
    assert np.max(np.abs(a - b) / size) < 1e-12
    assert normal.finite and triangle.finite
    np.testing.assert_allclose(normal[1:5], triangle[1:5], rtol=1e-12)
