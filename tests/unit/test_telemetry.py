"""What the defence layers did is counted once for each fit, in one place, from any thread."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from dfit.telemetry import (
    EVENTS_KEPT,
    Counts,
    DefenseTelemetry,
    counts_of,
    get_defense_telemetry,
    reset_defense_telemetry,
)

COUNTERS = (
    "warmup_calls",
    "layer1_triggers",
    "layer2_refinement",
    "layer2_careful",
    "layer2_exploration",
    "layer3_triggers",
    "layer4_triggers",
    "lbfgs_history_fill",
    "lbfgs_line_search_failures",
)


def report(**given: Any) -> Any:
    """What the telemetry reads of a warm-up's report, with nothing triggered."""
    nothing = {
        "skipped": None,
        "mode": None,
        "guarded": False,
        "clips": 0,
        "reason": "tolerance",
        "usable": True,
    }
    counts = {"lbfgs_history_fill": 0, "lbfgs_line_search_failures": 0}
    return SimpleNamespace(**{**nothing, **counts, **given})


def test_a_sample_without_points_triggers_no_layer():
    assert counts_of(report(skipped="only 2 points", usable=False)) == Counts(warmup_calls=1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"skipped": "good"}, {"layer1_triggers": 1}),
        ({"mode": "refinement"}, {"layer2_refinement": 1}),
        ({"mode": "careful"}, {"layer2_careful": 1}),
        ({"mode": "exploration"}, {"layer2_exploration": 1}),
        ({"guarded": True}, {"layer3_triggers": 1}),
        ({"clips": 7}, {"layer4_triggers": 1}),
        ({"lbfgs_history_fill": 1}, {"lbfgs_history_fill": 1}),
        ({"lbfgs_line_search_failures": 3}, {"lbfgs_line_search_failures": 3}),
    ],
    ids=lambda value: next(iter(value)),
)
def test_each_layer_is_counted_by_itself(given: dict[str, Any], expected: dict[str, int]) -> None:
    assert counts_of(report(**given)) == Counts(warmup_calls=1, **expected)


def test_rates_are_percentages_of_the_warm_ups_whatever_the_number_of_clips() -> None:
    telemetry = DefenseTelemetry()
    for mode in ("careful", "careful", "refinement"):
        telemetry.count(report(mode=mode, clips=50))
    telemetry.count(report(skipped="good"))
    assert telemetry.get_trigger_rates() == {
        "layer1_warm_start_rate": 25.0,
        "layer2_refinement_rate": 25.0,
        "layer2_careful_rate": 50.0,
        "layer2_exploration_rate": 0.0,
        "layer3_cost_guard_rate": 0.0,
        "layer4_clip_rate": 75.0,
    }


def test_rates_before_the_first_warm_up_are_zero() -> None:
    assert set(DefenseTelemetry().get_trigger_rates().values()) == {0.0}


def test_the_summary_has_the_counts_by_layer() -> None:
    telemetry = DefenseTelemetry()
    telemetry.count(report(mode="careful", guarded=True, clips=2))
    assert telemetry.get_summary() == {
        "total_warmup_calls": 1,
        "layer1_warm_start_triggers": 0,
        "layer2_lr_mode_counts": {"refinement": 0, "careful": 1, "exploration": 0},
        "layer3_cost_guard_triggers": 1,
        "layer4_clip_triggers": 1,
        "lbfgs_history_fill": 0,
        "lbfgs_line_search_failures": 0,
    }


def test_the_metrics_are_nine_counters() -> None:
    telemetry = DefenseTelemetry()
    telemetry.count(report(skipped="good"))
    triggered = {"warmup_calls", "layer1_triggers"}
    assert telemetry.export_metrics() == {f"dfit_defense_{c}_total": int(c in triggered) for c in COUNTERS}


def test_no_warm_up_is_lost_between_threads() -> None:
    telemetry = DefenseTelemetry()

    def many() -> None:
        for _ in range(500):
            telemetry.count(report(mode="careful", clips=1))

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert telemetry.counts == Counts(warmup_calls=4000, layer2_careful=4000, layer4_triggers=4000)


def test_of_many_warm_ups_only_the_last_are_kept() -> None:
    telemetry = DefenseTelemetry()
    for number in range(EVENTS_KEPT + 10):
        telemetry.count(report(reason=str(number)))
    reasons = [event.reason for event in telemetry.events]
    assert reasons == [str(number) for number in range(10, EVENTS_KEPT + 10)]
    assert telemetry.counts.warmup_calls == EVENTS_KEPT + 10


def test_a_reset_sets_the_one_registry_of_the_process_to_zero() -> None:
    telemetry = get_defense_telemetry()
    telemetry.count(report(skipped="good"))
    reset_defense_telemetry()
    assert get_defense_telemetry() is telemetry
    assert (telemetry.counts, telemetry.events) == (Counts(), ())
