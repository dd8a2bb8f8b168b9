"""The loop over lanes: every problem ends as it would alone."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dfit.core.lanes import LEFT_AT, Engine, solve
from dfit.core.state import State, Status, start

N = 60
RNG = np.random.default_rng(3)
NEED = RNG.integers(1, 40, N)  # evaluations until a problem has ended
PULL = RNG.normal(size=(N, 2))
ROUGHEST = (1e6, 3e3)


def states(n: int = N) -> State:
    one = start(np.zeros(2))
    return jax.tree.map(lambda a: np.repeat(np.asarray(a)[None], n, axis=0), one)


class Toy:
    """theta moves by the data of its pixel until its number of evaluations is reached; keeps what it was asked."""

    def __init__(self, lanes, leaves=False, condition=lambda pixel, evaluations: np.ones(len(pixel))):
        self.condition, self.advanced, self.loaded = condition, [], []
        self.engine = Engine(lanes, self.load, self.advance, ROUGHEST, leaves)

    def load(self, data, lanes, pixels):
        self.loaded.append(pixels.copy())
        if data is None:
            return PULL[pixels]
        data[lanes] = PULL[pixels]
        return data

    def advance(self, state, data, pixels):
        self.advanced.append(pixels.copy())
        np.testing.assert_array_equal(data, PULL[pixels])
        running = state.status == Status.RUNNING
        evaluations = state.evaluations + running
        theta = np.where(
            running[:, None], 0.7 * state.theta + data / (1 + state.evaluations[:, None]), state.theta
        )
        status = np.where(running & (evaluations >= NEED[pixels]), Status.OFFSET, state.status)
        after = state._replace(theta=theta, evaluations=evaluations, status=status)
        return after, self.condition(pixels, evaluations)


def ran(lanes, pixels=None, limit=1000, **options):
    found, toy = states(), Toy(lanes, **options)
    left = solve(toy.engine, found, np.arange(N) if pixels is None else pixels, limit)
    return found, left, toy


@pytest.fixture(scope="module")
def alone() -> State:
    found = states()
    for k in range(N):
        solve(Toy(1).engine, found, [k], 1000)
    np.testing.assert_array_equal(found.evaluations, NEED)
    return found


def assert_same(found: State, expected: State, which=slice(None)) -> None:
    for name in ("theta", "status", "evaluations"):
        np.testing.assert_array_equal(
            getattr(found, name)[which], getattr(expected, name)[which], err_msg=name
        )


@pytest.mark.parametrize("lanes", [1, 2, 7, 32, 59, 60, 61, 200])
def test_every_pixel_ends_as_it_would_alone_in_any_number_of_lanes(lanes, alone):
    found, left, _ = ran(lanes)
    assert_same(found, alone)
    assert left.size == 0


@pytest.mark.parametrize("order", ["reversed", "shuffled", "longest first"])
def test_every_pixel_ends_as_it_would_alone_in_any_order(order, alone):
    orders = {
        "reversed": np.arange(N)[::-1],
        "shuffled": np.random.default_rng(1).permutation(N),
        "longest first": np.argsort(-NEED),
    }
    assert_same(ran(8, orders[order])[0], alone)


def test_pixels_that_were_not_asked_for_stay_as_they_are(alone):
    asked = np.array([3, 50, 7])
    found, _, toy = ran(16, asked)
    assert_same(found, alone, asked)
    others = np.setdiff1d(np.arange(N), asked)
    assert_same(found, states(), others)
    assert set(np.concatenate(toy.advanced)) == set(asked)


def test_nothing_is_loaded_where_no_pixel_is_asked_for():
    found, left, toy = ran(8, np.array([], int))
    assert left.size == 0 and not toy.loaded
    assert_same(found, states())


@pytest.mark.parametrize("limit", [3, 10, 25, 38])
@pytest.mark.parametrize("lanes", [1, 8, 33, 48, 60, 100])
def test_limit_of_evaluations_ends_a_pixel_that_runs(lanes, limit, alone):
    found, left, _ = ran(lanes, limit=limit)
    done = limit >= NEED
    np.testing.assert_array_equal(found.status == Status.OFFSET, done)
    np.testing.assert_array_equal(found.evaluations, np.minimum(NEED, limit))
    assert left.size == 0
    assert_same(found, alone, done)


def test_a_rough_pixel_at_its_limit_is_not_left_for_another_evaluation():
    found, left, _ = ran(
        8, limit=3, condition=lambda pixels, evaluations: np.where(evaluations == 3, 1e7, 1.0)
    )
    assert (
        sorted(left) == np.flatnonzero(NEED == 3).tolist()
    )  # which have ended, to be judged by another engine
    np.testing.assert_array_equal(found.evaluations, np.minimum(NEED, 3))


def test_a_rough_pixel_is_left_and_the_others_end_as_they_would_alone(alone):
    rough = np.flatnonzero(NEED > 5)[[0, 9, 20]]

    def condition(pixels, evaluations):
        return np.where(np.isin(pixels, rough) & (evaluations >= 2), 1e7, 1.0)

    for lanes in (1, 8, 48):
        found, left, _ = ran(lanes, condition=condition)
        assert sorted(left) == sorted(rough)
        np.testing.assert_array_equal(found.evaluations[rough], 2)
        assert_same(found, alone, np.setdiff1d(np.arange(N), rough))


def test_a_pixel_that_was_rough_once_is_left_wherever_its_lane_goes_afterwards(alone):
    once = np.flatnonzero(NEED > 20)[3]

    def condition(pixels, evaluations):
        return np.where((pixels == once) & (evaluations == 2), 1e7, 1.0)

    found, left, _ = ran(48, condition=condition)
    assert left.tolist() == [once] and found.evaluations[once] == 2
    assert_same(found, alone, np.setdiff1d(np.arange(N), [once]))


def test_a_pixel_too_rough_for_its_answer_is_left_only_where_it_has_ended(alone):
    found, left, _ = ran(8, condition=lambda pixels, evaluations: np.where(pixels == 5, 1e4, 1.0))
    assert left.tolist() == [5]
    assert_same(found, alone)  # it has come to its end, to be judged by another engine


def test_condition_that_is_nan_leaves_nothing_behind(alone):
    found, left, _ = ran(8, condition=lambda pixels, evaluations: np.full(len(pixels), np.nan))
    assert left.size == 0
    assert_same(found, alone)


@pytest.mark.parametrize("lanes", [128, 256])
def test_stragglers_are_left_where_the_engine_leaves_them_and_go_on_where_they_are(lanes, alone):
    found, left, _ = ran(lanes, leaves=True)
    assert 0 < left.size <= LEFT_AT * lanes
    assert (found.status[left] == Status.RUNNING).all()
    assert found.evaluations[left].min() > 0
    assert not solve(Toy(4).engine, found, left, 1000).size
    assert_same(found, alone)


def test_waiting_pixels_take_the_lanes_of_those_that_have_ended():
    _, _, toy = ran(8)
    busy_steps = NEED.sum()
    assert len(toy.advanced) * 8 < 1.5 * busy_steps + 8 * NEED.max()
