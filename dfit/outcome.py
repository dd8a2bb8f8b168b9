"""After the last pass: covariance, words, and the result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfit.core.covariance import NO_MINIMUM, NO_SUMS, Covariance, covariance, orthonormal
from dfit.core.jackknife import jackknife
from dfit.core.state import State, Status
from dfit.core.sums import MISSING, Sums
from dfit.core.validation import lost_squares
from dfit.errors import DataError, warn
from dfit.events import PassDone, StoppedByObserver
from dfit.interrupted import BY_INTERRUPT, BY_OBSERVER
from dfit.parameters import Parameters
from dfit.partitions import Faults, Shares, left_out_of
from dfit.passes import Passes
from dfit.prepare import Prepared
from dfit.reduce.checks import drops
from dfit.reduce.evaluators import PassEvaluator
from dfit.reduce.in_memory import SampleEvaluator
from dfit.result import FitResult
from dfit.settings import Settings
from dfit.statistics import Clock, Phase, Run, Tallies

Evaluator = PassEvaluator | SampleEvaluator
GOOD = (Status.OFFSET, Status.FTOL, Status.XTOL, Status.GTOL, Status.ROUNDING)

NO_PASS = (
    "no standard errors: the pass that gives them was interrupted. For them type the same call with "
    "p0=result.best_values"
)


def finish(
    prepared: Prepared,
    passes: Passes,
    settings: Settings,
    state: State,
    stopped: str | None,
    clock: Clock,
    history: Sequence[PassDone] = (),
) -> FitResult:
    """The result of a fit that ended at ``state``; may need one or two more passes for the covariance."""
    evaluator, p = passes.evaluator, prepared.parameters
    survey, last = evaluator.survey, evaluator.last
    assert survey is not None and last is not None
    status = Status(int(state.status))
    before = evaluator.account.passes
    try:
        no_pass = stopped in (BY_INTERRUPT, BY_OBSERVER)
        found, groups = _covariance(p, evaluator, settings, state, no_pass)
        found = _placed(found, evaluator)
        if settings.validate != "none":
            _warn_lost(p, found, state)
    except (KeyboardInterrupt, StoppedByObserver):
        found, groups = _covariance(p, evaluator, settings, state, no_pass=True)
    dropped = drops(survey)
    _warn_missing(dropped)
    faults = _faults(prepared)
    if faults.left_out:
        warn(faults.note)
    clock.ended("covariance")
    report = passes.course.report
    success = stopped is None and status in GOOD
    why = message(status, stopped, settings, float(state.offset))
    if faults.left_out:
        why = f"partial: {faults.sentence}: {why}"
    return FitResult(
        prepared.model,
        p,
        np.asarray(state.theta),
        found,
        float(state.equations.cost),
        tallies_of(survey, last),
        _run(prepared, passes, faults, evaluator.account.elapsed_s + sum(clock.seconds.values())),
        status,
        why,
        success,
        domain=prepared.domain,
        loss=settings.loss,
        f_scale=settings.f_scale,
        absolute_sigma=settings.absolute_sigma,
        cov_kind=_cov_kind(settings),
        groups=groups,
        relative_offset=float(state.offset),
        warmup=report,
        phases=_phases(passes, clock, before, why, found.note),
        history=tuple(history),
        faults=faults,
        shares=Shares.of(
            prepared.domain, prepared.evaluator.table, prepared.partitions, prepared.evaluator.lost
        ),
        plan=prepared.plan,
        recovery_actions=tuple(prepared.evaluator.recovery),
    )


def _placed(found: Covariance, evaluator: Evaluator) -> Covariance:
    """The covariance; where its sums are not finite it says where, and the user is warned."""
    if NO_SUMS not in found.note:
        return found
    note = f"{NO_SUMS} {evaluator.not_finite or 'in memory'}. Type: data and sigma in larger or smaller units"
    warn(note)
    return found._replace(note=found.note.replace(NO_SUMS, note))


def _warn_lost(p: Parameters, found: Covariance, state: State) -> None:
    problem = lost_squares(state, found.stderr, [p.names[k] for k in p.varying])
    if problem is not None:
        warn(f"{problem}: their values are not to be believed. Type: these parameters in a larger unit")


def _faults(prepared: Prepared) -> Faults:
    """What went wrong on the way, as the books have it."""
    account, evaluator = prepared.evaluator.account, prepared.evaluator
    left_out = left_out_of(prepared.domain, prepared.partitions, evaluator.lost, evaluator.recovery)
    size, errors = prepared.domain.data.size, dict(sorted(account.errors.items()))
    return Faults(len(prepared.partitions), size, account.tasks, account.retries, errors, left_out)


def _phases(
    passes: Passes, clock: Clock, solved_after: int, why: str, about_covariance: str
) -> tuple[Phase, ...]:
    """The stages in their order, also those that a fit did not reach; ``solved_after`` passes the solver had ended."""
    facts = {"preparation": (0, 0, "model, partitions and what the workers need")}
    if passes.warms_up:
        facts |= dict.fromkeys(("sample", "normalization", "warmup"), (0, 0, "not reached"))
    if (report := passes.course.report) is not None:
        facts["sample"] = (0, 0, report.sample)
        facts["normalization"] = (1, 0, f"unit: {report.normalization}")
        facts["warmup"] = (report.evaluations - 1, 0, report.reason)
    facts["gauss_newton"] = (solved_after, solved_after, why)
    facts["covariance"] = (0, passes.evaluator.account.passes - solved_after, about_covariance)
    return tuple(Phase(name, clock.seconds.get(name, 0.0), *fact) for name, fact in facts.items())


def _run(prepared: Prepared, passes: Passes, faults: Faults, elapsed_s: float) -> Run:
    account = prepared.evaluator.account
    report = passes.course.report
    return Run(
        npasses=account.passes,
        nfev=account.passes + (0 if report is None else report.evaluations),
        points_per_pass=prepared.domain.data.size - sum(one.points for one in faults.left_out),
        bytes_per_pass=account.first_bytes,
        bytes_read=account.bytes_read,
        elapsed_s=elapsed_s,
        points_per_s=account.points / max(elapsed_s, 1e-9),
        compilations=account.compilations,
        peak_bytes=max(account.peak_bytes.values(), default=0),
        form="QR" if passes.evaluator.form == "triangle" else "JtJ",
        workers=max(prepared.plan.workers, 1),
        dims=tuple(str(d) for d in prepared.domain.data.dims),
    )


def _cov_kind(settings: Settings) -> str | None:
    if settings.cov is not None and not isinstance(settings.cov, str):
        groups = settings.cov["groups"]
        return f"groups: {getattr(groups, 'name', groups)}"
    return settings.cov


def _warn_missing(dropped: dict[str, int]) -> None:
    missing = {reason: n for reason, n in dropped.items() if reason in MISSING}
    if missing:
        text = ", ".join(f"{reason}: {n}" for reason, n in missing.items())
        warn(f"{sum(missing.values())} points were left out ({text})")


def tallies_of(survey: Sums, last: Sums) -> Tallies:
    """What the passes counted."""
    weight, mean, _, about_mean, about_zero = survey.moments
    product, square = last.lag
    return Tallies(
        ndata=int(survey.count),
        dropped=drops(survey),
        wsum=float(weight),
        ymean=float(mean),
        tss=float(about_mean),
        yy=float(about_zero),
        lag1=float(product / square) if square > 0 else float("nan"),
    )


def _covariance(
    p: Parameters, evaluator: Evaluator, settings: Settings, state: State, no_pass: bool
) -> tuple[Covariance, int | None]:
    """Covariance at the accepted point, and the number of its groups if it is clustered.

    A robust one takes a pass of its own, and is not known after an interrupt (``no_pass``).
    """
    varying = list(p.varying)
    equations, theta = state.equations, np.asarray(state.theta)
    box = p.lower[varying], p.upper[varying]
    bread = meat = None
    n, k = float(equations.count), len(varying)
    # Of as many points as parameters every residual is zero, and says nothing of the noise.
    if settings.robust and equations.finite and n > k:
        if no_pass:
            plain = covariance(equations, theta, *box, absolute_sigma=False)
            unknown = np.full_like(plain.matrix, np.nan)
            return plain._replace(matrix=unknown, stderr=unknown.diagonal(), note=NO_PASS), None
        if settings.cov not in (None, "hc0", "hc1"):
            return _by_groups(p, evaluator, state)
        bread, meat = evaluator.reduce(theta, "sandwich").matrix
        if settings.cov == "hc1":
            meat = meat * (n / (n - k))
        if settings.loss == "linear":
            bread = None  # the root's own, which keeps more digits
    absolute = settings.absolute_sigma and not settings.robust
    return covariance(equations, theta, *box, absolute_sigma=absolute, bread=bread, meat=meat), None


def _by_groups(p: Parameters, evaluator: Evaluator, state: State) -> tuple[Covariance, int | None]:
    """Covariance clustered by groups, and how many of them say something of a free parameter."""
    varying = list(p.varying)
    at = state.equations, np.asarray(state.theta), p.lower[varying], p.upper[varying]
    basis = orthonormal(*at)
    if basis.shape[1] == 0:  # every parameter is at a bound
        return covariance(*at, absolute_sigma=False), None
    table = evaluator.reduce(at[1], "groups", basis=basis).matrix
    table = table[table.any(axis=1)]
    if len(table) < 2:
        raise DataError("the points that are left belong to one group; type cov=None, or where= for more")
    if not np.isfinite(table).all():
        unknown = covariance(*at, absolute_sigma=False, half=np.full_like(basis, np.nan))
        return unknown._replace(note="; ".join(filter(None, (unknown.note, NO_SUMS)))), len(table)
    found = jackknife(table, basis)
    matrix = covariance(*at, absolute_sigma=False, half=found.half)
    if not found.minimum:
        matrix = matrix._replace(note=NO_MINIMUM)
    if found.alone.any():
        names = ", ".join(p.names[k] for k in np.array(varying)[found.alone])
        note = (
            f"no standard error by groups of {names}: without one of the groups the others do not determine it. "
            "Join that group to another one"
        )
        matrix = matrix._replace(note="; ".join(filter(None, (matrix.note, note))))
    return matrix, len(table)


def message(status: Status, stopped: str | None, settings: Settings, offset: float) -> str:
    """Why the fit ended, in words."""
    if stopped is not None:
        size = f"{offset:.2g} of its standard error" if np.isfinite(offset) else "an unknown part"
        return (
            f"not converged: {stopped}; a further step would move a parameter by up to {size}. "
            "To go on type: p0=result.best_values"
        )
    further = "a further step would change no parameter by more than"
    return {
        Status.OFFSET: f"converged: {further} {settings.tol:.2g} of its standard error",
        Status.FTOL: f"converged by ftol={settings.ftol}: the last step changed the cost by less than this part",
        Status.XTOL: f"converged by xtol={settings.xtol}: the last step was shorter than this part of the parameters",
        Status.GTOL: f"converged by gtol={settings.gtol}: the residual is orthogonal to every derivative to this cosine",
        Status.ROUNDING: "converged: the residual, or what a step could still remove of it, "
        f"is at the rounding of the data ({further} {offset:.2g} of its standard error)",
        Status.STALLED: "not converged: no step decreases the cost any more; "
        f"{further} {offset:.2g} of its standard error. The model may not be smooth there; try another p0",
        Status.NOT_FINITE: "failed: the model or its derivative is not finite at the start; type another p0",
        Status.RUNNING: "not converged",
    }[status]
