"""One fit, from what the doors have checked and named to its result: the one orchestrator."""

from __future__ import annotations

import time
from collections.abc import Callable

from dfit import telemetry
from dfit.data.domain import Domain
from dfit.events import PartitionDone, PassDone
from dfit.following import follow, watching
from dfit.identity import identity_of
from dfit.interrupted import nothing_kept
from dfit.keeping import Keeper
from dfit.model import Model
from dfit.outcome import finish
from dfit.parameters import Parameters
from dfit.passes import Passes
from dfit.plans import Plan
from dfit.precision import one_blas_thread
from dfit.prepare import Prepared, prepare
from dfit.progress import Printer
from dfit.reduce.evaluators import PartitionsLost
from dfit.remembering import remember
from dfit.result import FitResult
from dfit.resuming import begun
from dfit.settings import Settings
from dfit.shelf import Shelf
from dfit.snapshots import snapshot_of
from dfit.statistics import Clock
from dfit.store.snapshot import Snapshot
from dfit.warm_settings import Warmup

# Compiling the warm-up takes some 1.5 s, as much as several passes over this many points in memory.
WARM_UP_ABOVE = 1 << 25


def planned(model: Model, parameters: Parameters, domain: Domain, settings: Settings) -> Plan:
    """The plan of a fit that is not run."""
    prepared = _prepared(model, parameters, domain, settings, lambda event: None)[0]
    prepared.close()
    return prepared.plan


@nothing_kept()
def run(model: Model, parameters: Parameters, domain: Domain, settings: Settings) -> FitResult:
    """A fit from what the doors have checked and named."""
    clock = Clock()
    printer = Printer(settings.verbose, settings.loss)
    told = watching(settings, printer.task)
    prepared, warmup, keeper = _prepared(model, parameters, domain, settings, told)
    try:
        with one_blas_thread():
            clock.ended("preparation")
            if keeper is None:
                printer.begin(prepared.plan.decision)
                passes = Passes(prepared, settings, warmup, printer, clock)
                result = _result(passes, prepared, settings, [], clock, printer.passed)
            else:
                result = _kept(keeper, prepared, settings, warmup, printer, clock)
            remember(prepared)
    finally:
        prepared.close()
    if result.warmup is not None:
        telemetry.count(result.warmup)
    printer.end(result)
    return result


def _prepared(
    model: Model,
    parameters: Parameters,
    domain: Domain,
    settings: Settings,
    on_partition: Callable[[PartitionDone], None],
) -> tuple[Prepared, Warmup | None, Keeper | None]:
    """A fit that is ready to begin, how it warms up, and what keeps its state."""
    warmup = _warmup_for(parameters, domain, settings)
    keeper = None if settings.checkpoint is None else Keeper(settings.checkpoint, settings.resume)
    points = None if keeper is None else keeper.partition_points
    sample = 0 if warmup is None else min(warmup.points, domain.data.size)
    return prepare(model, parameters, domain, settings, on_partition, points, sample), warmup, keeper


def _result(
    passes: Passes,
    prepared: Prepared,
    settings: Settings,
    history: list[PassDone],
    clock: Clock,
    observe: Callable[[PassDone], None],
    save: Callable[[str], None] = lambda stopped: None,
) -> FitResult:
    """The result when all passes are done; ``save`` is told when the fit will not change any more, and why."""
    while True:
        state, stopped = follow(passes, prepared, settings, history, clock.began, observe)
        clock.ended("gauss_newton")
        within = stopped is not None and prepared.evaluator.running is not None
        if within:  # what a pass for the covariance finds would take its place
            save(stopped or "")
        try:
            result = finish(prepared, passes, settings, state, stopped, clock, history)
        except PartitionsLost:
            passes.again()
            continue
        if not within:
            save(stopped or "")
        return result


def _kept(
    keeper: Keeper,
    prepared: Prepared,
    settings: Settings,
    warmup: Warmup | None,
    printer: Printer,
    clock: Clock,
) -> FitResult:
    """The result of a fit that keeps its state, and goes on from what is kept."""
    if settings.warmup is None and keeper.warmed_up:  # the default depends on max_passes, which may change
        warmup = Warmup()
    identity = identity_of(prepared, settings, warmup)
    keeper.require_same(identity)
    before = None if keeper.found is None else begun(keeper.found, prepared, settings)
    if before is not None:
        prepared.evaluator.restore(before.memory)
    finished = before is not None and before.finished
    if not finished or not keeper.has_seen(identity):
        keeper.require_content(prepared, identity)
    if before is not None:
        printer.notice(before.sentence)
    printer.begin(prepared.plan.decision)
    course, history = (None, []) if before is None else (before.course, before.history)
    shelf = Shelf(keeper.folder, identity.digest, settings.resume)
    passes = Passes(prepared, settings, warmup, printer, clock, course, shelf)
    if before is not None and finished:
        return finish(prepared, passes, settings, passes.best, before.stopped, clock, history)

    def state(stopped: str) -> Snapshot | None:
        if not prepared.evaluator.settled:
            return None
        elapsed_s = prepared.evaluator.account.elapsed_s + time.monotonic() - clock.began
        return snapshot_of(prepared, passes, settings, identity, history, elapsed_s, stopped)

    def observe(event: PassDone) -> None:
        printer.passed(event)
        keeper.passed(event.npasses)

    prepared.evaluator.keep = keeper.due
    with keeper.keeping(state):
        if not settings.resume:
            keeper.save()  # or, killed soon, the same call would go on from what was given up
        return _result(passes, prepared, settings, history, clock, observe, keeper.save)


def _warmup_for(parameters: Parameters, domain: Domain, settings: Settings) -> Warmup | None:
    """How this fit warms up, None for not at all."""
    settings.check()
    size = domain.data.size
    if isinstance(settings.warmup, Warmup):
        varying = list(parameters.varying)
        settings.warmup.check(parameters.upper[varying] - parameters.lower[varying], size)
        return settings.warmup
    wanted = settings.warmup is None and (size > WARM_UP_ABOVE or settings.max_passes == 0)
    return Warmup() if wanted else None
