"""Which points form a leaf and a partition, for any grid of chunks."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from dfit.data import plan
from dfit.data.domain import Domain
from dfit.data.plan import (
    LEAF_POINTS,
    bytes_per_point,
    chunk_grid,
    chunks_in_order,
    covered,
    largest_leaf,
    leaf_size,
    leaves_of,
    partitions_of,
    sources_of,
)

SMALL_LEAF = 10
grids = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6), min_size=1, max_size=3).filter(
    lambda grid: all(sum(lengths) for lengths in grid)
)


@pytest.fixture(autouse=True, scope="module")
def small_leaves() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "LEAF_POINTS", SMALL_LEAF)
        yield


@settings(max_examples=100, deadline=None)
@given(grids)
def test_chunks_hold_every_point_once(grid: list[list[int]]) -> None:
    shape = tuple(map(sum, grid))
    seen = np.zeros(shape, int)
    for chunk in chunks_in_order(grid):
        seen[tuple(slice(a, a + n) for a, n in zip(chunk.start, chunk.shape, strict=True))] += 1
    assert (seen == 1).all()


@settings(max_examples=100, deadline=None)
@given(grids, st.integers(1, 500))
def test_leaves_do_not_depend_on_the_size_of_a_partition(grid: list[list[int]], points: int) -> None:
    chunks = list(chunks_in_order(grid))
    limit = leaf_size(chunks)
    whole = [[(chunks[s.chunk].index, s.start, s.stop) for s in leaf] for leaf in leaves_of(chunks, limit)]
    found, first = [], 0
    for partition in partitions_of(chunks, points):
        own = leaves_of(partition.chunks, limit)
        assert (partition.first_leaf, partition.leaves) == (first, len(own))
        found += [[(partition.chunks[s.chunk].index, s.start, s.stop) for s in leaf] for leaf in own]
        first += len(own)
    assert found == whole


@settings(max_examples=100, deadline=None)
@given(grids, st.integers(1, 500))
def test_partitions_hold_every_chunk_once_and_stay_small(grid: list[list[int]], points: int) -> None:
    chunks = list(chunks_in_order(grid))
    partitions = partitions_of(chunks, points)
    assert [c for p in partitions for c in p.chunks] == chunks
    assert [p.index for p in partitions] == list(range(len(partitions)))
    for p in partitions:
        # one group of leaves is the least: a large chunk, or small ones up to a leaf
        assert p.points <= points + max(SMALL_LEAF, *(c.size for c in p.chunks))


@settings(max_examples=100, deadline=None)
@given(grids)
def test_no_leaf_is_larger_than_the_largest(grid: list[list[int]]) -> None:
    chunks = list(chunks_in_order(grid))
    sizes = [sum(s.stop - s.start for s in leaf) for leaf in leaves_of(chunks, SMALL_LEAF)]
    assert max(sizes) == largest_leaf(chunks) <= SMALL_LEAF


@settings(max_examples=100, deadline=None)
@given(grids, st.sampled_from([10, 64]), st.sampled_from([1, 4]))
def test_padded_size_cuts_leaves_as_the_limit_does(grid: list[list[int]], limit: int, least: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "LEAF_POINTS", limit)
        patch.setattr(plan, "SMALLEST_LEAF", least)
        chunks = list(chunks_in_order(grid))
        assert leaves_of(chunks, leaf_size(chunks)) == leaves_of(chunks, limit)


def domain(**changes: object) -> Domain:
    y = xr.DataArray(da.zeros((6, 8), chunks=(2, 8)), dims=("time", "x"))
    t = xr.DataArray(np.arange(6.0), dims="time")
    return Domain(**{"data": y, "coords": {"t": t}, "time": {}, **changes})


def test_sources_name_the_dimensions_that_they_lie_along() -> None:
    sigma = xr.DataArray(np.ones(8), dims="x")
    where = xr.DataArray(np.ones((6, 8), bool), dims=("time", "x"))
    found = sources_of(domain(sigma=sigma, where=where))
    assert [(s.role, s.axes) for s in found] == [
        ("y", (0, 1)),
        ("coordinate", (0,)),
        ("sigma", (1,)),
        ("where", (0, 1)),
    ]
    assert bytes_per_point(found, 2) == 9


def test_array_in_memory_takes_the_chunks_of_a_lazy_coordinate() -> None:
    y = xr.DataArray(np.zeros((6, 8)), dims=("time", "x"))
    full = xr.DataArray(da.zeros((6, 8), chunks=(4, 3)), dims=("time", "x"))
    assert chunk_grid(domain(data=y, coords={"t": full})) == ((4, 2), (3, 3, 2))


def test_array_in_memory_is_cut_into_rows_of_about_a_leaf() -> None:
    y = xr.DataArray(np.zeros((6, 4)), dims=("time", "x"))
    assert chunk_grid(domain(data=y)) == ((2, 2, 2), (4,))


def test_a_leaf_is_a_power_of_two() -> None:
    assert LEAF_POINTS & (LEAF_POINTS - 1) == 0


def test_leaves_of_a_partition_name_their_chunks_and_count_their_points(monkeypatch) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 100)
    chunks = list(chunks_in_order(((40, 50, 30, 250, 60),)))
    (whole,) = partitions_of(chunks, 10_000)
    part = replace(whole, first_leaf=7)  # leaves of 90, 30, 100, 100, 50 and 60 points
    assert covered(part, range(7, 13)) == (range(5), 430)
    assert covered(part, range(7, 8)) == (range(2), 90)
    assert covered(part, range(8, 9)) == (range(2, 3), 30)
    assert covered(part, range(9, 12)) == (range(3, 4), 250)
    assert covered(part, range(11, 13)) == (range(3, 5), 110)
