"""Which points of a chunk go into a sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dfit.data.drawing import Groups, Share, draw, hold_out, proportional

SHARE = Share(7, 0, 0, 100, seed=1, complete=False)
ROLES = ("y", "coordinate")


def drawn_places(share: Share, y: np.ndarray) -> np.ndarray:
    """Places of the points drawn from a chunk of one dimension, told by its coordinate."""
    found = draw(share, y.shape, [y, np.arange(y.size)], ROLES, [(0,), (0,)])
    np.testing.assert_array_equal(found.columns[0], y[found.columns[1]])
    return found.columns[1]


@pytest.mark.parametrize("size", [100, 101, 199, 1000, 12_345])
def test_each_of_equal_runs_of_the_chunk_gives_one_point(size: int) -> None:
    places = drawn_places(SHARE, np.zeros(size))
    low, high = np.arange(100) * size // 100, np.arange(1, 101) * size // 100
    assert ((low <= places) & (places < high)).all()


def test_points_are_not_taken_in_step() -> None:
    steps = np.diff(drawn_places(SHARE, np.zeros(10_000)))
    assert np.unique(steps).size > 40


def test_draw_follows_from_the_seed_and_the_chunk_alone() -> None:
    y = np.arange(1000.0)
    first = drawn_places(SHARE, y)
    np.testing.assert_array_equal(first, drawn_places(replace(SHARE, partition=3, chunk=9), y))
    assert (first != drawn_places(replace(SHARE, seed=2), y)).any()
    assert (first != drawn_places(replace(SHARE, number=8), y)).any()


def test_points_that_do_not_count_are_not_drawn() -> None:
    rng = np.random.default_rng(0)
    y, x, sigma = rng.normal(size=(3, 40, 50))
    y[rng.random(y.shape) < 0.2] = np.nan
    x[rng.random(y.shape) < 0.2] = np.nan
    sigma[0, :20], sigma[2, :20] = np.nan, np.inf
    where = np.arange(40) % 2 == 0
    arrays, axes = [y, x, sigma, where], [(0, 1), (0, 1), (0, 1), (0,)]
    roles = ("y", "coordinate", "sigma", "where")
    found = draw(SHARE, y.shape, arrays, roles, axes)
    assert found.columns[0].size == 100 and found.columns[3].all()
    assert all(np.isfinite(column).all() for column in found.columns)
    usable = np.isfinite(y + x + sigma) & where[:, None]
    everything = draw(replace(SHARE, points=5000), y.shape, arrays, roles, axes)
    np.testing.assert_array_equal(everything.columns[0], y[usable])


def test_chunk_without_a_usable_point_gives_none() -> None:
    assert drawn_places(SHARE, np.full(1000, np.nan)).size == 0
    assert (
        drawn_places(replace(SHARE, groups=Groups(np.zeros(9, int), (0,), 2)), np.full(9, np.nan)).size == 0
    )


def test_complete_sample_keeps_missing_points_and_order() -> None:
    y, x = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, np.nan]]), np.array([7.0, 8.0])
    share = replace(SHARE, complete=True, groups=Groups(np.array([0, 1, 2]), (1,), 1))
    found = draw(share, y.shape, [y, x], ROLES, [(0, 1), (0,)])
    np.testing.assert_array_equal(found.columns[0], y.ravel())
    np.testing.assert_array_equal(found.columns[1], [7, 7, 7, 8, 8, 8])
    np.testing.assert_array_equal(found.codes, [0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("missing", [False, True])
def test_coordinates_along_fewer_dimensions_stay_with_their_points(missing: bool) -> None:
    shape = (6, 50, 7)
    place = np.arange(6 * 50 * 7.0).reshape(shape)
    y = np.where(place == 9, np.nan, place) if missing else place
    a, b, scalar = np.arange(6) * 10.0, np.arange(50 * 7).reshape(50, 7), np.array(3.0)
    arrays, axes = [y, a, b, scalar], [(0, 1, 2), (0,), (1, 2), ()]
    share = replace(SHARE, points=2000)
    found = draw(share, shape, arrays, ("y", *["coordinate"] * 3), axes)
    i, j, k = np.unravel_index(found.columns[0].astype(int), shape)
    np.testing.assert_array_equal(found.columns[1], a[i])
    np.testing.assert_array_equal(found.columns[2], b[j, k])
    np.testing.assert_array_equal(found.columns[3], np.full(2000, 3.0))


def test_every_group_of_a_chunk_gives_points_in_proportion_and_a_few_at_least() -> None:
    codes = np.repeat([0, 1, 2, 3], [6000, 3980, 3, 17])
    y = np.arange(10_000.0)
    y[:100] = np.nan
    places = drawn_places(replace(SHARE, groups=Groups(codes, (0,), 8)), y)
    counts = np.bincount(codes[places])
    assert (np.diff(places) > 0).all()
    assert counts.tolist()[2:] == [3, 8]
    assert abs(counts[0] - 59.6) <= 1 and abs(counts[1] - 40.2) <= 1


@pytest.mark.parametrize("wanted", [0, 5, 17, 40, 400])
def test_proportional_parts_add_up_and_stay_below_what_is_there(wanted: int) -> None:
    weight, most = np.array([5.0, 1, 1, 3]), np.array([3, 20, 20, 2])
    found = proportional(weight, wanted, most)
    assert found.sum() == min(wanted, 45) and (found <= most).all()
    if wanted == 17:
        assert found.tolist() == [3, 6, 6, 2]


def test_a_fifth_is_held_out_evenly() -> None:
    held = hold_out([40, 1000, 160], seed=0, by_chunk=True)
    assert held.reshape(-1, 5).sum(axis=1).tolist() == [1] * 240
    assert np.unique(np.flatnonzero(held) % 5).size == 5


def test_whole_chunks_are_held_out_where_there_are_many() -> None:
    lengths = np.arange(20) + 10
    chunk = np.repeat(np.arange(20), lengths)
    held = hold_out(lengths.tolist(), seed=0, by_chunk=True)
    often = np.bincount(chunk, held) / lengths
    assert often.reshape(4, 5).sum(axis=1).tolist() == [1] * 4 and set(often) == {0, 1}
    scattered = hold_out(lengths.tolist(), seed=0, by_chunk=False)
    assert np.bincount(chunk, scattered).min() > 0 and abs(scattered.mean() - 0.2) < 0.01


def test_points_are_held_out_where_chunks_are_too_few() -> None:
    held = hold_out([10] * 19, seed=0, by_chunk=True)
    assert held.reshape(19, 10).sum(axis=1).tolist() == [2] * 19


def test_nothing_of_a_small_sample_is_held_out() -> None:
    assert not hold_out([49], 0, by_chunk=True).any()
    assert hold_out([50], 0, by_chunk=True).sum() == 10


def test_seed_chooses_what_is_held_out() -> None:
    assert (hold_out([1000], 1, True) != hold_out([1000], 2, True)).any()
