"""How often each defence layer of the warm-up acted: of one fit, and of all fits of this process.

Everything is counted from the `WarmupReport` of a fit.  A fit counts once for each layer that acted in it,
however often that was, so a rate never exceeds 100 %.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dfit.warm_report import WarmupReport

EVENTS_KEPT = 256


class Counts(NamedTuple):
    """What the defence layers did.

    Attributes
    ----------
    warmup_calls : warm-ups, those skipped by layer 1 included.
    layer1_triggers : warm-ups skipped, because the start was good.
    layer2_refinement, layer2_careful, layer2_exploration : warm-ups that began in this mode.
    layer3_triggers : warm-ups given up, because the cost of points held out rose.
    layer4_triggers : warm-ups in which at least one step was clipped.
    lbfgs_history_fill : L-BFGS runs that filled their memory of past steps.
    lbfgs_line_search_failures : line searches of L-BFGS that found no better point.
    """

    warmup_calls: int = 0
    layer1_triggers: int = 0
    layer2_refinement: int = 0
    layer2_careful: int = 0
    layer2_exploration: int = 0
    layer3_triggers: int = 0
    layer4_triggers: int = 0
    lbfgs_history_fill: int = 0
    lbfgs_line_search_failures: int = 0


class Event(NamedTuple):
    """One warm-up: what it counted, and why it ended."""

    counts: Counts
    reason: str


def counts_of(report: WarmupReport) -> Counts:
    """What one warm-up adds to the counts."""
    return Counts(
        warmup_calls=1,
        layer1_triggers=int(report.skipped is not None and report.usable),
        layer2_refinement=int(report.mode == "refinement"),
        layer2_careful=int(report.mode == "careful"),
        layer2_exploration=int(report.mode == "exploration"),
        layer3_triggers=int(report.guarded),
        layer4_triggers=int(report.clips > 0),
        lbfgs_history_fill=report.lbfgs_history_fill,
        lbfgs_line_search_failures=report.lbfgs_line_search_failures,
    )


class DefenseTelemetry:
    """Counts of a process, of a bounded size; may be read and counted from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Begin again at zero."""
        with self._lock:
            self._counts = Counts()
            self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)

    def count(self, report: WarmupReport) -> None:
        """Add one warm-up."""
        new = counts_of(report)
        with self._lock:
            self._counts = Counts(*(a + b for a, b in zip(self._counts, new, strict=True)))
            self._events.append(Event(new, report.reason))

    @property
    def counts(self) -> Counts:
        """Counts since the last reset."""
        with self._lock:
            return self._counts

    @property
    def events(self) -> tuple[Event, ...]:
        """The last warm-ups, at most 256, the oldest first."""
        with self._lock:
            return tuple(self._events)

    def get_summary(self) -> dict[str, int | dict[str, int]]:
        """Counts by layer, under the names of nlsq."""
        now = self.counts
        return {
            "total_warmup_calls": now.warmup_calls,
            "layer1_warm_start_triggers": now.layer1_triggers,
            "layer2_lr_mode_counts": {
                "refinement": now.layer2_refinement,
                "careful": now.layer2_careful,
                "exploration": now.layer2_exploration,
            },
            "layer3_cost_guard_triggers": now.layer3_triggers,
            "layer4_clip_triggers": now.layer4_triggers,
            "lbfgs_history_fill": now.lbfgs_history_fill,
            "lbfgs_line_search_failures": now.lbfgs_line_search_failures,
        }

    def get_trigger_rates(self) -> dict[str, float]:
        """Percentage of the warm-ups in which a layer acted, 0 before the first."""
        now = self.counts
        percent = 100.0 / max(now.warmup_calls, 1)
        return {
            "layer1_warm_start_rate": percent * now.layer1_triggers,
            "layer2_refinement_rate": percent * now.layer2_refinement,
            "layer2_careful_rate": percent * now.layer2_careful,
            "layer2_exploration_rate": percent * now.layer2_exploration,
            "layer3_cost_guard_rate": percent * now.layer3_triggers,
            "layer4_clip_rate": percent * now.layer4_triggers,
        }

    def export_metrics(self) -> dict[str, int]:
        """The nine counters by the names of a monitoring system: `dfit_defense_..._total`."""
        return {f"dfit_defense_{name}_total": value for name, value in self.counts._asdict().items()}


_PROCESS = DefenseTelemetry()


def get_defense_telemetry() -> DefenseTelemetry:
    """The telemetry of this process: one object, which goes on counting."""
    return _PROCESS


def reset_defense_telemetry() -> None:
    """Set the counts of this process to zero."""
    _PROCESS.reset()


def count(report: WarmupReport) -> None:
    """Count a warm-up in this process."""
    _PROCESS.count(report)
