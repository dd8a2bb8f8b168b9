"""What past runs say of the next one, and how far that is to be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dfit.learning import LEAST, RUNS, WINDOW, contradicted, learned, reliability
from dfit.store.row import Record, key_of
from dfit.terms import Origin, Terms

COSTS = {"point_ns": 20.0, "byte_ns": 0.5, "wait": 0.25, "task_ms": 1.5, "spread": 0.1}
HERE, STREAMING = {"cpu": "this one"}, {"model": "a", "strategy": "streaming"}
TERMS = Terms(20.0, 0.5, 0.25, 1.5, 0.1, Origin.DRY_RUN)


def run(factor: float = 1.0, ratio: float = 1.0, origin: str = "history", **changed: Any) -> Record:
    """A run whose points cost a factor more, and that took `ratio` times the seconds predicted."""
    measured = COSTS | {"point_ns": factor * COSTS["point_ns"], "pass_s": 2.0 * ratio}
    own = {"workload": STREAMING, "hardware": HERE, "about": {}, "versions": {}, "settings": {}}
    return Record(
        **{**own, "predicted": {"pass_s": 2.0}, "predicted_by": origin, "measured": measured, **changed}
    )


def known(records: list[Record]) -> Any:
    return learned(records, key_of(STREAMING), key_of(HERE))


def test_costs_are_the_median_of_the_last_runs() -> None:
    found = known([run(100.0)] * 5 + [run(k) for k in (1, 2, 3, 4, 5, 6, 7)])
    assert found.terms == Terms(80.0, 0.5, 0.25, 1.5, 0.1, Origin.HISTORY)
    assert found.runs == RUNS


def test_one_run_is_enough_to_learn_from() -> None:
    found = known([run(2.0)])
    assert (found.terms.point_ns, found.runs, found.trusted) == (40.0, 1, True)
    assert (found.reliability.confidence, found.reliability.interval) == (None, None)


def test_other_machines_and_other_workloads_teach_nothing() -> None:
    others = [run(hardware={"cpu": "another"}), run(workload=STREAMING | {"strategy": "cached"})]
    assert known(others) is None
    assert known([*others, run(3.0)]).terms.point_ns == 60.0
    assert known([]) is None


def test_three_runs_of_seven_may_be_wrong_by_any_factor() -> None:
    wrong = [run(10.0), run(1e9), run(1e-9)]
    assert known([*wrong[:2], *[run()] * 4, wrong[2]]).terms.point_ns == 20.0


@pytest.mark.parametrize(
    "costs", [{"point_ns": None}, {"task_ms": None}, {"point_ns": 0.0}, {"wait": 1.5}], ids=str
)
def test_runs_without_all_costs_teach_nothing(costs: dict[str, float | None]) -> None:
    broken = replace(run(), measured=COSTS | costs)
    assert known([broken]) is None
    assert known([broken, run(2.0), broken]).runs == 1


def test_confidence_is_the_share_of_predictions_within_a_quarter() -> None:
    ratios = [1.0, 1.24, 1 / 1.24, 1.3, 0.5]
    assert known([run(ratio=q) for q in ratios]).reliability.confidence == 0.6
    assert known([run(ratio=q) for q in ratios[:4]]).reliability.confidence is None


def test_only_predictions_of_the_same_origin_are_judged() -> None:
    records = [run(ratio=1.0)] * 5 + [run(ratio=9.0, origin="dry run")] * 5
    assert reliability(records, Origin.HISTORY).confidence == 1.0
    assert reliability(records, Origin.DRY_RUN).confidence == 0.0
    assert reliability(records, Origin.STATIC).predictions == 0


def test_below_the_threshold_the_dry_run_decides_and_later_history_is_tried_again() -> None:
    failed = [run(ratio=3.0)] * WINDOW
    assert not known(failed).trusted
    relearned = [*failed, *[run(origin="dry run")] * (WINDOW - LEAST)]
    assert not known(relearned).trusted
    assert known([*relearned, run(origin="dry run")]).trusted


def test_the_interval_is_students_prediction_interval() -> None:
    # Of five values -2 ... 2 in units of 0.1: s = 0.1581, t(0.9, 4) = 1.5332 (Abramowitz & Stegun 1964, table 26.10).
    found = reliability([run(ratio=math.exp(0.1 * k)) for k in (-2, -1, 0, 1, 2)], Origin.HISTORY)
    half = 1.5332 * math.sqrt(0.025) * math.sqrt(1.2)
    assert found.interval == pytest.approx((math.exp(-half), math.exp(half)), rel=1e-4)


def steady(rng: np.random.Generator, runs: int, spread: float) -> np.ndarray:
    return rng.normal(0, spread, runs)


def slower(rng: np.random.Generator, runs: int, spread: float) -> np.ndarray:
    return steady(rng, runs, spread) + np.linspace(0, 1, runs)


def wandering(rng: np.random.Generator, runs: int, spread: float) -> np.ndarray:
    return steady(rng, runs, spread) + np.cumsum(rng.normal(0, spread / 2, runs))


def disturbed(rng: np.random.Generator, runs: int, spread: float) -> np.ndarray:
    return steady(rng, runs, spread) + rng.uniform(0.5, 1.5, runs) * (rng.random(runs) < 0.1)


@pytest.mark.parametrize("spread", [0.03, 1.0])
@pytest.mark.parametrize("course", [steady, slower, wandering, disturbed])
def test_the_interval_holds_70_to_90_percent_of_what_happens(
    course: Callable[..., np.ndarray], spread: float
) -> None:
    """Each pass predicted by the median of those before it, as a fit does; thirty histories of thirty runs."""
    rng, inside = np.random.default_rng(1), []
    for _ in range(30):
        logs, records = course(rng, 30, spread), []
        for k in range(1, logs.size):
            ratio = math.exp(logs[k] - np.median(logs[max(0, k - RUNS) : k]))
            found = reliability(records, Origin.HISTORY)
            if found.interval is not None:
                inside.append(found.interval[0] <= ratio <= found.interval[1])
            records = [*records, run(ratio=ratio)][-WINDOW:]
    assert 0.7 <= np.mean(inside) <= 0.9


@pytest.mark.parametrize("factor", [0.1, 10.0])
@pytest.mark.parametrize("name", ["point_ns", "byte_ns"])
def test_a_dry_run_contradicts_costs_that_are_wrong_tenfold(name: str, factor: float) -> None:
    wrong = replace(TERMS, **{name: factor * getattr(TERMS, name)})
    assert contradicted(wrong, TERMS, bytes_per_point=16)


def test_a_dry_run_contradicts_nothing_that_it_may_be_wrong_about_itself() -> None:
    assert not contradicted(TERMS, TERMS, bytes_per_point=16)
    assert not contradicted(replace(TERMS, point_ns=50.0, byte_ns=0.2), TERMS, bytes_per_point=16)
    # One byte a point: reading is a fortieth of the pass, whatever it costs.
    assert not contradicted(replace(TERMS, byte_ns=2.0), TERMS, bytes_per_point=1)
    in_memory = replace(TERMS, byte_ns=0.0)
    assert not contradicted(in_memory, in_memory, bytes_per_point=0)
