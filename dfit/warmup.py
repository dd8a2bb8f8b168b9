"""The warm-up: a solve on a sample before the first full pass, and how it hands over to the passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dfit.core.curvature import Curvature, gradient, second_order
from dfit.core.guards import NEAR, already_good, errors_away, fit_quality, relative_loss
from dfit.core.lbfgs import Descent
from dfit.core.state import State, Status
from dfit.core.trust_region import Tolerances, start
from dfit.core.warm import Guards, Warm, begin
from dfit.parameters import Parameters
from dfit.reduce.sampled import EVERYTHING, NOT_HELD, SampleSolver, sums_of
from dfit.starts import Start, asked_for, more_starts, nearby, needs_more
from dfit.statistics import Clock
from dfit.warm_report import WarmupReport
from dfit.warm_settings import Warmup


@dataclass(frozen=True)
class Warmed:
    """Where the passes begin.

    ``state`` has not been evaluated by a pass; ``warm`` is the sample's own solve, at the same theta;
    ``nearby`` is the start near p0 (p,) from which a search that had stalled went on.
    """

    state: State
    warm: Warm
    report: WarmupReport
    nearby: np.ndarray | None = None


def unit_of(parameters: Parameters, normalization: str, at_start: np.ndarray) -> np.ndarray:
    """Unit (p,) of the varying parameters.

    Parameters
    ----------
    at_start : root (p + 1, p + 1) at p0, which tells the size of a parameter that starts at 0.
    """
    varying = list(parameters.varying)
    width = parameters.upper[varying] - parameters.lower[varying]
    size = np.abs(parameters.init[varying])
    norms = np.linalg.norm(at_start[:, :-1], axis=0)
    moves = np.linalg.norm(at_start[:, -1]) / np.where(norms > 0, norms, 1.0)
    moves = np.where((norms > 0) & (moves > 0), moves, 1.0)
    size = np.where(size > 0, size, moves)
    if normalization == "none":
        return np.ones_like(size)
    if normalization == "p0":
        return size
    return np.where(np.isfinite(width), width, size)


def warm_up(
    solver: SampleSolver, parameters: Parameters, settings: Warmup, at_start: Warm, tol: float, clock: Clock
) -> Warmed:
    """The warm-up from p0: look at p0, search, fit all of the sample; each one compiled call.

    Layers 1 and 2 judge the look.  The search fits the sample without the points held out, under layers 3
    and 4.  The last goes on from there with every point, so that none is lost to the answer.

    Parameters
    ----------
    at_start : `look_at` p0.
    tol : where a fit ends whose data are the sample.
    clock : told of the stages.
    """
    if float(at_start.state.equations.count) <= at_start.state.theta.size:
        clock.ended("normalization")
        clock.ended("warmup")
        return _unusable(solver, settings, at_start)
    unit = unit_of(parameters, settings.normalization, at_start.state.equations.root)
    look = _look(at_start, settings)
    clock.ended("normalization")
    guards = box_of(parameters)._replace(unit=unit, max_step=settings.max_step or np.inf)
    enough = min(settings.tolerance, tol) if solver.sample.complete else settings.tolerance
    if look.skipped is None:
        found = _guarded(solver, parameters, settings, guards, at_start, look.share, enough)
    elif look.away >= NEAR or solver.sample.complete:  # a good start for plain Gauss-Newton, not its end
        whole = _fit_all(solver, at_start, box_of(parameters), settings, enough)
        found = _Found(None, None, _lower(whole, at_start), None)
    else:
        found = _Found(None, None, at_start, None)
    state = start(found.whole.state.theta)
    if not solver.sample.complete:
        state = state._replace(second=_second_order(solver, found.whole, guards))
    clock.ended("warmup")
    report = _report(solver, settings, look, at_start, found, unit, enough)
    return Warmed(state, found.whole, report, found.nearby)


class _Found(NamedTuple):
    """Where the stages ended: the search and L-BFGS before it, all of the sample, more starts."""

    fitted: Warm | None
    descent: Descent | None
    whole: Warm
    more: _More | None
    nearby: np.ndarray | None = None


def _guarded(
    solver: SampleSolver,
    parameters: Parameters,
    settings: Warmup,
    guards: Guards,
    at_start: Warm,
    share: float,
    enough: float,
) -> _Found:
    """The search under its guards, the rest of the sample, and more starts where they are needed."""
    fitted, descent = _search(solver, begin(at_start.state.theta, share), guards, settings)
    whole = _lower(_fit_all(solver, fitted, guards, settings, enough), at_start)
    start = None
    if whole.state.status == Status.STALLED and settings.multistart != 1:
        theta0 = parameters.init[list(parameters.varying)]
        whole, start = nearby(solver, theta0, settings, guards, whole, enough) or (whole, None)
    more = _more(solver, parameters, settings, guards, at_start, whole, bool(fitted.aborted))
    return _Found(fitted, descent, whole if more is None else more.best, more, start)


def look_at(solver: SampleSolver, parameters: Parameters) -> Warm:
    """The sample evaluated at p0, all of its points."""
    theta0 = parameters.init[list(parameters.varying)]
    return solver.at(theta0, box_of(parameters))


def box_of(parameters: Parameters) -> Guards:
    """The bounds of the varying parameters, and no guard."""
    varying = list(parameters.varying)
    lower, upper = parameters.lower[varying], parameters.upper[varying]
    return Guards(lower, upper, np.ones_like(lower))


def _lower(new: Warm, old: Warm) -> Warm:
    """The one of lower cost; the old one where the new has none."""
    return new if new.state.equations.cost <= old.state.equations.cost else old


def _unusable(solver: SampleSolver, settings: Warmup, at_start: Warm) -> Warmed:
    """No warm-up: too few points of the sample are left by masks and missing values."""
    nan = float("nan")
    count = int(at_start.state.equations.count)
    look = _Look(nan, nan, f"only {count} points of the sample can be used", None, 1.0)
    unit = np.ones_like(np.asarray(at_start.state.theta))
    found = _Found(None, None, at_start, None)
    report = _report(solver, settings, look, at_start, found, unit, settings.tolerance)
    return Warmed(start(at_start.state.theta), at_start, replace(report, usable=False))


class _Look(NamedTuple):
    loss: float
    away: float
    skipped: str | None
    mode: str | None
    share: float


def _look(at_start: Warm, settings: Warmup) -> _Look:
    """Layers 1 and 2: is a warm-up needed, and how far does it step first?"""
    at = at_start.state.equations
    loss = relative_loss(float(at.cost), float(sums_of(at_start.fields).moments[3]))
    away = errors_away(at.root, float(at.psi2), float(at.count))
    # A good start may stand in the wrong minimum: whoever asks for more starts gets them.
    skip = 0.0 if asked_for(settings) else settings.warm_start_threshold or 0.0
    skipped = already_good(loss, away, skip)
    radii = {"refinement": settings.radius_refinement, "careful": settings.radius_careful}
    mode = fit_quality(loss) if any(radii.values()) and skipped is None else None
    return _Look(loss, away, skipped, mode, radii.get(mode or "") or 1.0)


def _search(
    solver: SampleSolver, warm: Warm, guards: Guards, settings: Warmup
) -> tuple[Warm, Descent | None]:
    """The sample without the points held out, under layers 3 and 4; L-BFGS goes first where it is asked for."""
    guards = guards._replace(rise=settings.cost_increase_tolerance or np.inf)
    enough, left, descent = Tolerances(settings.tolerance), settings.iterations, None
    if settings.method == "lbfgs":
        descent = solver.descend(warm, NOT_HELD, guards, enough, left)
        warm, left = descent.warm, max(left - int(descent.evaluations), 1)
    return solver.solve(warm, NOT_HELD, guards, enough, left), descent


def _fit_all(solver: SampleSolver, fitted: Warm, guards: Guards, settings: Warmup, enough: float) -> Warm:
    """All of the sample, from where the fit ended; from its best point, and only there, if it was given up."""
    if fitted.aborted:
        return solver.at(np.asarray(fitted.best), guards)
    left = max(settings.iterations - solver.evaluations, 1)
    return solver.solve(begin(fitted.state.theta), EVERYTHING, guards, Tolerances(enough), left)


class _More(NamedTuple):
    best: Warm
    starts: tuple[Start, ...]
    sentence: str


def _more(
    solver: SampleSolver,
    parameters: Parameters,
    settings: Warmup,
    guards: Guards,
    at_start: Warm,
    first: Warm,
    aborted: bool,
) -> _More | None:
    """More starts where they are asked for, or where the first ended badly and nobody said one is enough."""
    why = "as asked for" if asked_for(settings) else needs_more(guards, at_start, first, aborted)
    if why is None or settings.multistart == 1:
        return None
    best, starts = more_starts(solver, parameters, settings, guards, first)
    (chosen,) = (start for start in starts if start.chosen)
    return _More(
        best, starts, f"{len(starts) - 1} starts tried ({why}): best from {chosen.origin}, {chosen.reason}"
    )


def _second_order(solver: SampleSolver, whole: Warm, guards: Guards) -> Curvature | None:
    """What Gauss-Newton omits, from differences of gradients around the sample's minimum."""
    theta = np.asarray(whole.state.theta)
    if whole.state.status not in (Status.OFFSET, Status.ROUNDING):
        return None

    def gradients(at: np.ndarray) -> tuple[np.ndarray, bool]:
        if (at < guards.lower).any() or (at > guards.upper).any():
            return np.zeros((2, at.size)), False  # the model need not exist beyond its bounds
        fields = solver.at(at, guards).fields
        return gradient(fields["matrix"]), bool(np.isfinite(fields["matrix"]).all())

    fields = solver.at(theta, guards).fields
    free = (theta > guards.lower) & (theta < guards.upper)
    psi2 = float(whole.state.equations.psi2)
    return second_order(gradients, theta, fields["matrix"], psi2, fields["count"], free)


def _reason(fitted: Warm | None, whole: Warm, settings: Warmup, enough: float) -> str:
    """Why the warm-up ended, in words."""
    if fitted is not None and fitted.aborted:
        return (
            f"given up: the cost of the points held out rose by more than {settings.cost_increase_tolerance:.0%}; "
            "the best point is kept"
        )
    status = whole.state.status
    if status == Status.OFFSET:
        return (
            f"a further step would move no parameter by more than {enough:g} of the sample's standard error"
        )
    if status == Status.ROUNDING:
        return "the sample's residual is at the rounding of the data"
    if status == Status.RUNNING:
        return f"iterations={settings.iterations} reached"
    return "no step decreases the sample's cost any more"


def _report(
    solver: SampleSolver,
    settings: Warmup,
    look: _Look,
    at_start: Warm,
    found: _Found,
    unit: np.ndarray,
    enough: float,
) -> WarmupReport:
    sample, (fitted, descent, whole, more, _) = solver.sample, found
    reason = look.skipped or _reason(fitted, whole, settings, enough)
    if fitted is not None and whole is at_start:
        reason = "the search has found no lower cost than that of p0"
    return WarmupReport(
        sample=sample.reason,
        complete=sample.complete,
        points=int(sample.y.size),
        held_out=int(sample.held.sum()),
        chunks_read=sample.chunks_read,
        chunks=sample.chunks,
        bytes_read=sample.bytes_read,
        normalization=settings.normalization,
        unit=unit,
        relative_loss=look.loss,
        errors_away=look.away,
        skipped=look.skipped,
        mode=look.mode,
        guarded=fitted is not None and bool(fitted.aborted),
        clips=int(fitted.clips + whole.clips) if fitted is not None else 0,
        cost_at_start=float(at_start.state.equations.cost),
        cost=float(whole.state.equations.cost),
        evaluations=solver.evaluations,
        reason=reason if more is None else f"{reason}; {more.sentence}",
        lbfgs_history_fill=0 if descent is None else int(descent.filled),
        lbfgs_line_search_failures=0 if descent is None else int(descent.failures),
        starts=() if more is None else more.starts,
    )
