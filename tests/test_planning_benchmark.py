"""Short form of the planning benchmark: that its arms are what they are called, and its ratios what they say."""

from __future__ import annotations

import numpy as np
import pytest

from dfit.store.ledger import Ledger
from dfit.store.row import Record
from tests.benchmarks import planning
from tests.benchmarks.histories import covered
from tests.benchmarks.rounds import fastest, over_all, ratio
from tests.benchmarks.workloads import build

RNG = np.random.default_rng(1)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:parts of the history of past fits")
def test_every_arm_of_the_planning_benchmark_plans_from_what_it_is_called(
    tmp_path, small_leaves, monkeypatch
):
    monkeypatch.setattr("dfit.costing.TRY_ABOVE", 1)
    # So few points take times by chance: the dry run must not overrule what is in a history.
    monkeypatch.setattr("dfit.learning.OFF", 1e9)
    workload = build("decay, zarr uncompressed, float32", tmp_path, 20_000)
    bench = planning.Bench(workload, "streaming", tmp_path)
    found, grown = planning.measure(bench, 1, RNG, runs=(1, 3), tasks=(1,))
    assert all(seconds.shape == (1,) and seconds.min() > 0 for seconds in found.values())
    origins = {name: str(bench.plans[name].terms.origin) for name in found}
    assert {name for name in origins if origins[name] == "history"} == {
        "warm 1",
        "warm 3",
        "ten times too long",
        "ten times too short",
    }
    assert {name for name in origins if origins[name] == "static"} == {"static"}
    long, short = (bench.plans[f"ten times too {how}"].terms.point_ns for how in ("long", "short"))
    assert long / short == pytest.approx(100, rel=1e-3)
    assert bench.plans["naive"].partitions == len(workload.data.chunks[0]) / 2
    assert len(Ledger(grown).load()) == 3 + 2  # the arm has run once before the rounds


def test_intervals_are_counted_where_there_were_any(tmp_path):
    for took, interval in ((2.0, (1.5, 2.5)), (3.0, (1.5, 2.5)), (2.0, (None, None))):
        predicted = dict(zip(("low_s", "high_s"), interval, strict=True))
        Ledger(tmp_path).add(Record({}, {}, {}, {}, {}, predicted, "history", {"pass_s": took}))
    assert covered([tmp_path, tmp_path]) == (2, 4)


@pytest.mark.long
def test_oracle_of_the_planning_benchmark_is_the_fastest_of_its_settings():
    noise = np.random.default_rng(2)
    arms = {str(k): lambda k=k: 1 + 0.1 * abs(k - 7) + 0.02 * noise.random() for k in range(12)}
    assert fastest(arms, 15, RNG) == "7"


def test_interval_of_a_ratio_holds_it_and_narrows_with_more_rounds():
    noise = np.random.default_rng(3)

    def of(rounds):
        common = noise.lognormal(0, 1, rounds)  # what a pair has in common leaves its ratio alone
        return ratio(1.2 * common * noise.lognormal(0, 0.1, rounds), common, RNG)

    few, many = of(15), of(400)
    assert few.low < 1.2 < few.high and many.low < 1.2 < many.high
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_mean_over_workloads_is_the_geometric_one_of_their_medians():
    ones = np.ones(15)
    found = over_all([2 * ones, 8 * ones, np.r_[ones[:14], 1000]], [ones, ones, ones], RNG)
    np.testing.assert_allclose(found, 16 ** (1 / 3))
