"""The passes of a fit: from p0, or from where a warm-up on a sample ended; and of a fit that needs none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dfit.core.drive import iterate
from dfit.core.hand_over import Decision, hand_over
from dfit.core.state import State, Status, Tolerances
from dfit.core.sums import faults
from dfit.core.trust_region import start
from dfit.data.groups import numbered
from dfit.data.plan import Source
from dfit.data.subset import SamplePlan, plan_sample
from dfit.errors import DataError, InputError
from dfit.prepare import Prepared
from dfit.progress import Printer
from dfit.reduce.draw import Gathering, Sample
from dfit.reduce.evaluators import PassEvaluator
from dfit.reduce.in_memory import SampleEvaluator, refuse_faults
from dfit.reduce.retraction import retracted
from dfit.reduce.sampled import SampleSolver, require_traced
from dfit.settings import Settings
from dfit.statistics import Clock
from dfit.warm_settings import Warmup
from dfit.warmup import Warmed, box_of, look_at, warm_up

logger = logging.getLogger("dfit")

RUNNING: Any = np.int32(Status.RUNNING)


class Passes:
    """The states of a fit, one after each pass; its warm-up comes before the first.

    Attributes
    ----------
    evaluator : what has evaluated the last state: the passes, or the sample alone.
    warms_up : whether a warm-up was asked for.
    warmed : what it left behind, None without one.
    """

    def __init__(
        self, prepared: Prepared, settings: Settings, warmup: Warmup | None, printer: Printer, clock: Clock
    ) -> None:
        self._prepared = prepared
        self._settings = settings
        self._warmup = warmup
        self._printer = printer
        self._clock = clock
        self._passes = prepared.evaluator
        self.evaluator: PassEvaluator | SampleEvaluator = prepared.evaluator
        self.warms_up = warmup is not None
        self.warmed: Warmed | None = None
        self._retract: Callable[[State], State] | None = None
        p = prepared.parameters
        varying = list(p.varying)
        self._p0 = p.init[varying]
        self._box = p.lower[varying], p.upper[varying]
        self._guards = box_of(p)
        s = settings
        self._tolerances = Tolerances(s.tol, s.ftol or 0.0, s.xtol or 0.0, s.gtol or 0.0)

    def states(self) -> Iterator[State]:
        """States until the solver ends; with ``max_passes=0`` the one that the sample gave."""
        if self._warmup is None:
            yield from self._solve(start(self._p0))
            return
        if self._warmup.method == "lbfgs":
            require_traced(self._passes.job_for("triangle").recipe)
        plan = self._plan(self._warmup)
        at_p0 = None
        if plan.collect:
            gathering = Gathering(plan)
            collecting = partial(self._passes, collect=gathering)
            at_p0 = next(iterate(collecting, start(self._p0), *self._box, self._tolerances))
            self._clock.ended("gauss_newton")
            yield at_p0
            sample = gathering.sample()
        else:
            sample = self._passes.sample(plan)
        self._clock.ended("sample")
        warmed = self._warm_up(sample, self._warmup)
        if self._settings.max_passes == 0:
            in_memory = self._in_memory()
            in_memory.adopt(in_memory.solver.at(np.asarray(warmed.state.theta), self._guards))
            yield warmed.warm.state
        elif sample.complete:
            in_memory = self._in_memory()
            yield from in_memory.states(np.asarray(warmed.state.theta), self._guards, self._tolerances)
        elif np.array_equal(warmed.state.theta, self._p0):
            yield from self._solve(at_p0 or warmed.state)
        else:
            yield from self._from_sample(warmed, at_p0)

    def _solve(self, begin_at: State) -> Iterator[State]:
        """The solver's states; where it ends on equations that have lost digits it goes on by triangles."""
        for state in iterate(self._passes, begin_at, *self._box, self._tolerances, self._retract):
            if state.status == Status.RUNNING or not self._passes.is_rough(state.theta):
                yield state
            else:
                yield state._replace(status=RUNNING)
                again = start(state.theta)._replace(second=state.second)
                yield from iterate(self._passes, again, *self._box, self._tolerances, self._retract)

    def _from_sample(self, warmed: Warmed, at_p0: State | None) -> Iterator[State]:
        """States from the sample's answer; from p0 where the data say that it was the better start."""
        self._passes.expect(warmed.warm.state.equations.root)
        states = self._solve(warmed.state)
        state = next(states)
        report = warmed.report
        verdict = hand_over(state, warmed.warm.state.equations, report.cost_at_start)
        logger.info("%s", verdict.sentence)
        self._printer.say(verdict.sentence)
        self.warmed = replace(warmed, report=replace(report, hand_over=verdict.sentence))
        if verdict.decision == Decision.TRUST:
            yield state
            yield from states
            return
        self._retract = None  # a sample that is not like the data has nothing to say of the steps
        at_sample = state._replace(second=None)
        if verdict.decision == Decision.BACK:
            if at_p0 is None:
                cost = state.equations.cost if state.equations.finite else np.inf
                yield at_sample._replace(status=RUNNING, equations=state.equations._replace(cost=cost))
                others = self._solve(start(self._p0))
                at_p0 = next(others)
            else:
                others = self._solve(at_p0)
            if not state.equations.finite or at_p0.equations.cost < state.equations.cost:
                yield at_p0
                yield from others
                return
        yield at_sample
        if at_sample.status == Status.RUNNING:
            yield from self._solve(at_sample)

    def _plan(self, warmup: Warmup) -> SamplePlan:
        # The only pass is better spent where the sample leads than on collecting it.
        reads_again = self._passes.runner.reads_again and self._settings.max_passes > 1
        groups = self._groups(warmup)
        prepared, skipna = self._prepared, self._prepared.domain.skipna
        return plan_sample(prepared.partitions, warmup.points, warmup.seed, groups, reads_again, skipna)

    def _groups(self, warmup: Warmup) -> Source | None:
        domain, of_cov = self._prepared.domain, self._prepared.groups
        if warmup.groups is None:
            return of_cov if of_cov is None else _few(of_cov, warmup.points)
        named = numbered(domain, warmup.groups, "warmup=dfit.Warmup(groups=...)")
        # Where a fit ends on its sample, its covariance takes the groups from there.
        ends_there = self._settings.max_passes == 0 or domain.data.size <= warmup.points
        return of_cov if of_cov is not None and ends_there else _few(named, warmup.points)

    def _warm_up(self, sample: Sample, warmup: Warmup) -> Warmed:
        prepared = self._prepared
        self._printer.say(f"sample: {sample.reason}")
        job = self._passes.job_for("triangle")
        held = prepared.parameters.init[list(prepared.parameters.fixed)]
        solver = SampleSolver(job.recipe, prepared.model.constants, sample, held, job.sigma, job.f_scale)
        self._solver = solver
        at_start = look_at(solver, prepared.parameters)
        wrong = faults(np.sum(at_start.fields["counts"], axis=0), prepared.domain.skipna)
        if sample.complete:
            if wrong or not at_start.state.equations.finite:
                self._passes(self._p0)  # a pass names the place
        else:
            if self._settings.max_passes == 0:
                refuse_faults(wrong, sample.y.size)
            self._retract = partial(retracted, solver, guards=self._guards)
            if not at_start.state.equations.finite:
                raise DataError(solver.not_finite(self._p0, list(prepared.domain.coords)))
        self.warmed = warm_up(solver, prepared.parameters, warmup, at_start, self._settings.tol, self._clock)
        self._passes.account.compilations += solver.new_compilations()
        logger.info("%s", self.warmed.report.sentence)
        self._printer.say(self.warmed.report.sentence)
        return self.warmed

    def _in_memory(self) -> SampleEvaluator:
        self.evaluator = in_memory = SampleEvaluator(self._passes, self._solver)
        return in_memory


def _few(groups: Source, points: int) -> Source:
    """The groups, if a sample of so many points can have some of each."""
    count = int(groups.array.values.max()) + 1
    if count > points:
        raise InputError(
            f"a sample of {points} points cannot have points of each of {count} groups; type coarser groups, "
            f"warmup=dfit.Warmup(sample_points={2 * count}), or warmup=False"
        )
    return groups
