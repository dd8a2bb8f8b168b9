"""What the benchmarks of the warm-up claim, in short: counts of passes and ends, no seconds."""

from __future__ import annotations

import dask
import numpy as np
import pytest

from tests.benchmarks import warmup, warmup_layer1, warmup_seed, warmup_starts


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.parametrize("around", ["data", "model"])
@pytest.mark.parametrize("name", ["exponential", "BoxBOD"])
def test_warmed_fit_is_at_the_optimum_within_five_passes_and_costs_none_more(name, around):
    rows = [warmup.compare(task, max_passes=60) for task in warmup.tasks([name], 200_000, around)]
    assert len(rows) == 2
    for row in rows:
        assert row.warmed.success and row.same_minimum, row
        assert row.warmed.optimum <= warmup.WORST_AIM
        assert not row.costs_more
        np.testing.assert_allclose(row.warmed.theta, row.plain.theta, rtol=1e-6)


def test_replicated_problem_has_fresh_noise_of_the_certified_size_in_each_copy():
    y = warmup.replicated("Misra1a", 14 * 5000, around="model").values.reshape(-1, 14)
    assert y.std(axis=0) == pytest.approx(warmup.PROBLEMS["Misra1a"]["rsd"], rel=0.05)
    assert warmup.replicated("Misra1a", 999, seed=2).values[0] != warmup.replicated("Misra1a", 999).values[0]


@pytest.mark.long
def test_no_random_start_ends_higher_in_the_same_minimum_with_a_warm_up():
    found = list(warmup_starts.pairs(["DanWood", "Rat42"], starts=12, points=2000))
    same = [pair for pair in found if pair.same_minimum]
    assert len(found) == 12 and len(same) >= 8
    assert not [warmup_starts.show(pair) for pair in same if pair.worse]
    assert sum(pair.worse for pair in found) <= sum(pair.better for pair in found)


@pytest.mark.parametrize("noise", warmup_layer1.NOISE)
def test_good_starts_are_recognised_and_skipping_the_warm_up_costs_at_most_a_pass(noise):
    near, far = warmup_layer1.measure(20_000, 8, noise, part=10)
    assert near.fired("the loss") + near.fired("a step") >= 7
    assert far.fired("a step") == 0
    assert near.dearest <= 1
    assert all(fit.success for group in (near, far) for fit in (*group.on, *group.off))


def test_streaming_door_and_the_loop_it_is_compared_with_find_the_same_answer():
    np.testing.assert_allclose(warmup_seed.streaming("dfit")(), warmup_seed.gauss_newton()(), rtol=1e-8)


def test_second_call_of_the_streaming_door_is_within_ten_fits_in_memory():
    calls = warmup_seed.again()
    ours, in_memory = (np.median(calls[name]) for name in ("hybrid streaming", "dfit in memory"))
    assert 0 < ours < warmup_seed.SECOND_LIMIT * in_memory
