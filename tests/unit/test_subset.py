"""Which chunks a sample reads, and how many points each gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import xarray as xr

from dfit.data.plan import Partition, Source, chunks_in_order, partitions_of
from dfit.data.subset import STRATA, SamplePlan, plan_sample


def partitions(*grid: Sequence[int], points: int = 1 << 20) -> list[Partition]:
    return partitions_of(list(chunks_in_order(grid)), points)


def positions(plan: SamplePlan, parts: list[Partition]) -> np.ndarray:
    """Grid index of every chunk that is read (chunks, dimensions)."""
    return np.array([parts[s.partition].chunks[s.chunk].index for s in plan.shares])


def codes(values: np.ndarray, *axes: int) -> Source:
    dims = [f"d{axis}" for axis in axes]
    return Source("group", xr.DataArray(values, dims=dims), axes)


def test_small_data_are_the_sample() -> None:
    plan = plan_sample(partitions([300, 700, 500]), 1500, seed=0, reads_again=True)
    assert plan.complete and not plan.collect
    assert [(s.number, s.points) for s in plan.shares] == [(0, 300), (1, 700), (2, 500)]
    assert plan.reason == "all 1,500 points"


@pytest.mark.parametrize(("chunks", "size"), [(1, 10**6), (100, 10**4), (2000, 10**4), (10**4, 50)])
def test_as_many_points_are_drawn_as_are_wanted(chunks: int, size: int) -> None:
    plan = plan_sample(partitions([size] * chunks), 10_000, seed=3)
    assert not plan.complete
    assert sum(s.points for s in plan.shares) == 10_000
    assert max(s.points for s in plan.shares) <= size


def test_few_of_many_chunks_are_read() -> None:
    plan = plan_sample(partitions([10**4] * 2000), 10**5, seed=0, reads_again=True)
    assert len(plan.shares) == STRATA and not plan.collect
    assert plan.reason == "100,000 of 20,000,000 points, from 64 of 2,000 chunks"


def test_small_chunks_are_read_until_they_hold_twice_the_points() -> None:
    plan = plan_sample(partitions([100] * 4000), 10_000, seed=0)
    assert len(plan.shares) == 200


@pytest.mark.parametrize("reads_again", [True, False])
def test_first_pass_collects_what_needs_every_chunk_unless_it_stays_in_memory(reads_again: bool) -> None:
    plan = plan_sample(partitions([10**4] * 100), 10**4, seed=0, reads_again=reads_again)
    assert len(plan.shares) == 100 and plan.collect is reads_again
    assert ("collected during the first pass" in plan.reason) is reads_again


def test_large_chunks_are_read_rather_than_small_ones() -> None:
    plan = plan_sample(partitions([10, 10_000] * 1000), 10_000, seed=0)
    assert sum(share.number % 2 for share in plan.shares) >= 62


def test_every_stratum_gives_points_in_proportion_to_its_own() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(2000, 30_000, 1500).tolist()
    plan = plan_sample(partitions(sizes), 64_000, seed=1)
    middle = np.cumsum(sizes) - np.array(sizes) / 2
    stratum = (middle / sum(sizes) * STRATA).astype(int)
    own = np.bincount(stratum, sizes)
    given = np.bincount(stratum[[s.number for s in plan.shares]], [s.points for s in plan.shares])
    assert np.abs(given - 64_000 * own / own.sum()).max() <= 1


def test_feature_in_one_of_a_hundred_chunks_is_met() -> None:
    plan = plan_sample(partitions([10**5] * 100), 131_072, seed=0)
    assert {s.number for s in plan.shares} == set(range(100))
    assert min(s.points for s in plan.shares) >= 1310


@pytest.mark.parametrize("start", [0, 333, 1777])
def test_feature_in_a_32nd_of_ordered_data_is_met_although_few_chunks_are_read(start: int) -> None:
    feature = range(start, start + 64)  # of 2,048 chunks
    plans = [plan_sample(partitions([10**4] * 2048), 10**4, seed) for seed in range(20)]
    assert min(sum(s.number in feature for s in plan.shares) for plan in plans) >= 1


@pytest.mark.parametrize(
    "lengths", [(64, 50), (640, 16), (16, 640), (2, 3200), (128, 128), (10, 10, 10), (7, 11, 5, 9)]
)
@pytest.mark.parametrize("seed", range(3))
def test_places_along_every_dimension_are_met(lengths: tuple[int, ...], seed: int) -> None:
    parts = partitions(*([10] * length for length in lengths))
    plan = plan_sample(parts, 1000, seed)
    assert len(plan.shares) == STRATA
    for axis, (length, met) in enumerate(zip(lengths, positions(plan, parts).T, strict=True)):
        parts_of_axis = min(length, STRATA)  # of as many equal parts of the dimension none is left out
        assert np.unique(met * parts_of_axis // length).size == parts_of_axis, axis


def test_places_along_the_last_dimension_follow_no_pattern() -> None:
    parts = partitions([10] * 64, [10] * 60)
    columns = positions(plan_sample(parts, 1000, 0), parts)[:, 1]
    assert np.unique(np.diff(columns)).size > 20


def test_partitions_change_nothing() -> None:
    grid = [5000] * 700
    few, many = (plan_sample(partitions(grid, points=points), 10**4, 5) for points in (10**7, 10**4))
    assert len(few.by_partition) < len(many.by_partition)
    assert [(s.number, s.points) for s in few.shares] == [(s.number, s.points) for s in many.shares]


def test_seed_chooses_the_chunks() -> None:
    first, again, other = (
        {s.number for s in plan_sample(partitions([5000] * 700), 10**4, k).shares} for k in (5, 5, 6)
    )
    assert first == again != other


def test_chunks_are_added_until_no_group_is_without() -> None:
    parts = partitions([5000] * 700)
    group = np.repeat(np.arange(700) // 100, 5000)
    group[[6 * 5000 + 3, 333 * 5000]] = 7, 8  # groups of one point each
    plain = plan_sample(parts, 10**4, 0)
    plan = plan_sample(parts, 10**4, 0, codes(group, 0))
    added = {s.number for s in plan.shares} - {s.number for s in plain.shares}
    assert added == {6, 333}
    assert abs(sum(s.points for s in plan.shares) - 10**4) <= 2


def test_every_chunk_is_read_where_groups_ask_for_more_than_half() -> None:
    group = np.repeat(np.minimum(np.arange(700), 420), 50)
    plan = plan_sample(partitions([50] * 700), 1000, 0, codes(group, 0), reads_again=True)
    assert len(plan.shares) == 700 and plan.collect


def test_groups_along_one_of_two_dimensions_are_all_met() -> None:
    parts = partitions([100] * 50, [100] * 40)
    group = np.repeat(np.arange(400), 10)  # ten in every column of chunks
    plan = plan_sample(parts, 10**4, 0, codes(group, 1))
    assert set(positions(plan, parts)[:, 1]) == set(range(40))
    assert all(s.groups is not None and s.groups.codes.shape == (100,) for s in plan.shares)
    first = plan.shares[0].groups
    assert first is not None and first.least == 8


def test_many_groups_get_fewer_points_each() -> None:
    parts = partitions([5000] * 10)
    plan = plan_sample(parts, 1000, 0, codes(np.arange(50_000) // 100, 0))
    assert {s.groups.least for s in plan.shares if s.groups} == {2}
    scarce = plan_sample(parts, 10, 0, codes(np.arange(50_000) // 100, 0))
    assert len(scarce.shares) == 10 and {s.groups.least for s in scarce.shares if s.groups} == {1}
