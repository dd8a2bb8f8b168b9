"""The reduction tree: the same additions in whatever order the leaves come."""

from __future__ import annotations

import numpy as np
import pytest

from dfit.core.sums import Sums
from dfit.reduce.tree import Done, Forest, insert, leaves, merge, root


def leaf_sums(form: str, count: int) -> list[Sums]:
    rng = np.random.default_rng(5)
    out = []
    for _ in range(count):
        scale = 10.0 ** rng.integers(-6, 6)
        a = rng.normal(size=(6, 3)) * scale
        matrix = np.linalg.qr(a, mode="r") if form == "triangle" else a.T @ a
        moments = np.array([rng.uniform(), *rng.normal(size=4)])
        out.append(Sums(matrix, scale * rng.uniform(), 1 / 3, 6.0, rng.normal(size=2), np.ones(8), moments))
    return out


def bits(sums: Sums) -> bytes:
    return b"".join(np.asarray(part, np.float64).tobytes() for part in sums)


def total(leaf: list[Sums], order: np.ndarray, form: str) -> bytes:
    forest: Forest = {}
    for i in order:
        insert(forest, (0, int(i)), leaf[i], form)
    return bits(root(forest, form))


@pytest.mark.parametrize("form", ["normal", "triangle"])
@pytest.mark.parametrize("count", [1, 2, 7, 16, 37])
def test_order_of_arrival_changes_no_bit(form: str, count: int) -> None:
    leaf = leaf_sums(form, count)
    expected = total(leaf, np.arange(count), form)
    rng = np.random.default_rng(count)
    for _ in range(10):
        assert total(leaf, rng.permutation(count), form) == expected


@pytest.mark.parametrize("form", ["normal", "triangle"])
def test_splitting_among_tasks_changes_no_bit(form: str) -> None:
    count = 29
    leaf = leaf_sums(form, count)
    expected = total(leaf, np.arange(count), form)
    rng = np.random.default_rng(1)
    for _ in range(10):
        cuts = np.sort(rng.choice(np.arange(1, count), rng.integers(0, 9), replace=False))
        forests = []
        for run in np.split(np.arange(count), cuts):
            forest: Forest = {}
            for i in run:
                insert(forest, (0, int(i)), leaf[i], form)
            forests.append(forest)
        rng.shuffle(forests)
        half = len(forests) // 2
        assert bits(root(merge(forests, form), form)) == expected
        two_steps = [merge(forests[:half], form), merge(forests[half:], form)]
        assert bits(root(merge(two_steps, form), form)) == expected


def test_a_plain_sum_would_change_bits() -> None:
    leaf = leaf_sums("normal", 37)
    rng = np.random.default_rng(1)
    plain = {sum(leaf[i].cost for i in rng.permutation(37)) for _ in range(10)}
    assert len(plain) > 1


def test_forest_knows_its_leaves() -> None:
    leaf = leaf_sums("normal", 8)
    forest: Forest = {}
    for i in (0, 1, 2, 3, 6):
        insert(forest, (0, i), leaf[i], "normal")
    assert Done(leaves(forest)).runs == [range(4), range(6, 7)]


@pytest.mark.parametrize("seed", range(20))
def test_leaves_that_are_done_answer_like_a_set(seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs = [range(a, a + n) for a, n in rng.integers(0, [40, 6], (rng.integers(0, 8), 2)).tolist()]
    done, plain = Done(runs), {leaf for run in runs for leaf in run}
    assert [leaf for run in done.runs for leaf in run] == sorted(plain)
    for start, stop in rng.integers(0, 50, (50, 2)).tolist():
        run = range(start, max(start + 1, stop))
        assert done.covers(run) == (set(run) <= plain)
        assert {leaf for part in done.within(run).runs for leaf in part} == set(run) & plain
