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
from dfit.core.state import State, Status
from dfit.core.sums import faults
from dfit.core.trust_region import start
from dfit.course import Course, Stage
from dfit.data.subset import SamplePlan
from dfit.prepare import Prepared
from dfit.progress import Printer
from dfit.recovery import NOT_FINITE, STALLED, Recovery, better, require_step
from dfit.reduce.checks import NotFiniteAtStart
from dfit.reduce.draw import Gathering, Sample
from dfit.reduce.evaluators import PassEvaluator
from dfit.reduce.in_memory import SampleEvaluator, refuse_faults
from dfit.reduce.knowledge import PartitionsLost
from dfit.reduce.retraction import retracted
from dfit.reduce.sampled import SampleSolver, require_traced
from dfit.sampling import Sampling
from dfit.settings import Settings
from dfit.shelf import Shelf
from dfit.statistics import Clock
from dfit.warm_settings import Warmup
from dfit.warmup import Warmed, box_of, look_at, warm_up

logger = logging.getLogger("dfit")

RUNNING: Any = np.int32(Status.RUNNING)


class Passes:
    """The states of a fit, one after each pass; its warm-up comes before the first.

    Parameters
    ----------
    course : where an earlier process stood; None begins at p0.
    shelf : where the sample is kept, if it is.

    Attributes
    ----------
    course : where it stands; what the running pass finds is not part of it.
    evaluator : what has evaluated the last state: the passes, or the sample alone.
    warms_up : whether a warm-up was asked for.
    """

    def __init__(
        self,
        prepared: Prepared,
        settings: Settings,
        warmup: Warmup | None,
        printer: Printer,
        clock: Clock,
        course: Course | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self._prepared = prepared
        self._settings = settings
        self._warmup = warmup
        self._printer = printer
        self._clock = clock
        self._passes = prepared.evaluator
        self.evaluator: PassEvaluator | SampleEvaluator = prepared.evaluator
        self.warms_up = warmup is not None
        p = prepared.parameters
        varying = list(p.varying)
        self._p0 = p.init[varying]
        self._box = p.lower[varying], p.upper[varying]
        self._guards = box_of(p)
        self._tolerances = settings.tolerances
        self.course = course or Course(Stage.BEGIN, start(self._p0))
        self._sampling = Sampling(prepared, warmup or Warmup(), settings.max_passes, clock, shelf)
        seed = 0 if warmup is None else warmup.seed
        self._recovery = Recovery(settings.recovery, p, self._passes, seed)
        self._solver: SampleSolver | None = None

    def states(self) -> Iterator[State]:
        """States until the solver ends; with ``max_passes=0`` the one that the sample gave."""
        while True:
            try:
                for state in self._rest():
                    yield self._seen(state)
                return
            except PartitionsLost:
                self.again()
            except NotFiniteAtStart as error:
                if not self._restarted(NOT_FINITE, start(self._p0), error.place):
                    raise

    def again(self) -> None:
        """Begin again at the best point: what was summed with partitions that are lost is no longer comparable."""
        # The sample's answer, which no pass has seen yet, is a better place than p0.
        here = self.best if self.course.stage == Stage.SOLVE else self.course.state
        self.course = self.course._replace(stage=Stage.SOLVE, state=start(here.theta), at_p0=None)

    @property
    def best(self) -> State:
        """The best state so far; one that nothing has evaluated only where there is no other."""
        return better(self.course.state, self.course.at_p0)

    def _seen(self, state: State) -> State:
        """The best state so far, after one that `_rest` gave; running on, if a strategy knows another start."""
        status = Status(int(state.status))
        if status in (Status.STALLED, Status.NOT_FINITE):
            stalled = status == Status.STALLED
            place = None if stalled else self._passes.not_finite
            if self._restarted(STALLED if stalled else NOT_FINITE, state, place):
                return better(state, self.course.at_p0)._replace(status=RUNNING)
            if place is not None and self.course.at_p0 is None:
                raise NotFiniteAtStart(self._prepared.parameters.in_words(state.theta), place)
        if self.course.stage != Stage.SOLVE or self.course.at_p0 is None:
            return state
        if status == Status.RUNNING:
            return self.best._replace(status=RUNNING)
        self.course = self.course._replace(state=self.best, at_p0=None)
        return self.course.state

    def _restarted(self, kind: str, state: State, place: str | None) -> bool:
        """Whether a strategy of the user's has named another start, from which the passes go on."""
        theta, cost = np.asarray(state.theta), float(state.equations.cost) if kind == STALLED else np.inf
        found = self._recovery.start(kind, theta, cost, place) if self._settings.max_passes > 0 else None
        if found is None:
            return False
        best = better(state, self.course.at_p0) if kind == STALLED else self.course.at_p0
        self.evaluator = self._passes
        self.course = Course(Stage.SOLVE, start(found), at_p0=best, report=self.course.report)
        return True

    def _rest(self) -> Iterator[State]:
        if self.course.stage == Stage.BEGIN:
            if self._warmup is None:
                self.course = self.course._replace(stage=Stage.SOLVE)
            else:
                yield from self._begin(self._warmup)
        if self.course.stage == Stage.ANSWER:
            yield from self._at_answer()
        if self.course.stage == Stage.BACK:
            yield from self._at_p0_as_well()
        if self.course.stage == Stage.SOLVE:
            yield from self._solve()

    def _begin(self, warmup: Warmup) -> Iterator[State]:
        """The sample and the warm-up; all of the fit where the sample is all of the data, or all that may be read."""
        if warmup.method == "lbfgs":
            require_traced(self._passes.job_for("triangle").recipe)
        plan = self._sampling.plan()
        sample = None
        # An earlier process that had no room to keep the data may have begun to collect.
        begun = self._passes.running is not None and self._settings.max_passes > 1
        if (plan.collect or begun) and self.course.at_p0 is None:
            collected, sample = self._collect(plan)
            yield collected
            if collected.status != Status.RUNNING:
                return
        warmed = self._warm_up(sample or self._sampling.sample(plan), warmup)
        theta = np.asarray(warmed.state.theta)
        if self._settings.max_passes == 0:
            in_memory = self._in_memory()
            in_memory.adopt(in_memory.solver.at(theta, self._guards))
            self.course = self.course._replace(state=warmed.warm.state)
            yield self.course.state
        elif warmed.report.complete:
            in_memory = self._in_memory()
            for state in in_memory.states(theta, self._guards, self._tolerances):
                self._recovery.reduced(self.course.state, state, in_memory.not_finite)
                self.course = self.course._replace(state=state)
                yield state
        elif np.array_equal(theta, self._p0):
            self.course = Course(Stage.SOLVE, self.course.at_p0 or warmed.state, True, report=warmed.report)
        else:
            sampled = warmed.warm.state.equations
            at_p0 = self.course.at_p0
            self.course = Course(Stage.ANSWER, warmed.state, True, at_p0, sampled, warmed.report)

    def _collect(self, plan: SamplePlan) -> tuple[State, Sample | None]:
        """The state after a pass at p0, and the sample, if that has collected it."""
        # Of leaves that an earlier process has summed no point is collected.
        gathering = None if self._passes.running else Gathering(plan)
        state = self._next(self.course.state, evaluate=partial(self._passes, collect=gathering))
        sample = None if gathering is None else self._sampling.keep(gathering.sample())
        self._clock.ended("gauss_newton")
        ended = state.status != Status.RUNNING
        self.course = Course(Stage.SOLVE, state) if ended else self.course._replace(at_p0=state)
        return state, sample

    def _next(self, state: State, retract: Any = None, evaluate: Any = None) -> State:
        """The state after one more pass; where it ends on equations that have lost digits triangles are next."""
        passes = evaluate or self._passes
        before, state = state, next(iterate(passes, state, *self._box, self._tolerances, retract))
        self._recovery.reduced(before, state, self._passes.not_finite)
        if self._settings.validate != "none":
            require_step(state, *self._box, self._prepared.parameters)
        if state.status == Status.RUNNING or not self._passes.is_rough(state.theta):
            return state
        again = start(state.theta)
        return again._replace(equations=state.equations, offset=state.offset, second=state.second)

    def _solve(self) -> Iterator[State]:
        while self.course.state.status == Status.RUNNING:
            retract = self._retraction() if self.course.retract else None
            self.course = self.course._replace(state=self._next(self.course.state, retract))
            yield self.course.state

    def _at_answer(self) -> Iterator[State]:
        """The first pass at the sample's answer, and what it says of the sample."""
        sample, report, at_p0 = self.course.sample, self.course.report, self.course.at_p0
        assert sample is not None and report is not None
        self._passes.expect(sample.root)
        state = self._next(self.course.state, self._retraction())
        verdict = hand_over(state, sample, report.cost_at_start)
        logger.info("%s", verdict.sentence)
        self._printer.say(verdict.sentence)
        report = replace(report, hand_over=verdict.sentence)
        if verdict.decision == Decision.TRUST:
            self.course = Course(Stage.SOLVE, state, True, report=report)
            yield state
            return
        # A sample that is not like the data has nothing to say of the steps.
        state = state._replace(second=None)
        if verdict.decision == Decision.BACK and at_p0 is None:
            self.course = Course(Stage.BACK, state, report=report)
            cost = state.equations.cost if state.equations.finite else np.inf
            yield state._replace(status=RUNNING, equations=state.equations._replace(cost=cost))
            return
        if verdict.decision == Decision.BACK and at_p0 is not None:
            state = better(state, at_p0)
        self.course = Course(Stage.SOLVE, state, report=report)
        yield state

    def _at_p0_as_well(self) -> Iterator[State]:
        """A pass at p0, where the data contradict the sample: the lower one is gone on from."""
        state, report = self.course.state, self.course.report
        at_p0 = self._next(start(self._p0))
        self.course = Course(Stage.SOLVE, better(state, at_p0), report=report)
        yield self.course.state

    def _retraction(self) -> Callable[[State], State]:
        """What moves a trial onto the model, by the sample; after a resume the sample is there again first."""
        if self._solver is None:
            self._solver = self._sampling.solver(self._sampling.sample(self._sampling.plan()))
        return partial(retracted, self._solver, guards=self._guards)

    def _warm_up(self, sample: Sample, warmup: Warmup) -> Warmed:
        prepared = self._prepared
        self._printer.say(f"sample: {sample.reason}")
        self._solver = solver = self._sampling.solver(sample)
        at_start = look_at(solver, prepared.parameters)
        wrong = faults(np.sum(at_start.fields["counts"], axis=0), prepared.domain.skipna)
        if sample.complete:
            if wrong or not at_start.state.equations.finite:
                self._passes(self._p0)  # a pass names the place
        else:
            if self._settings.max_passes == 0:
                refuse_faults(wrong, sample.y.size)
            if not at_start.state.equations.finite:
                place = solver.not_finite(self._p0)
                raise NotFiniteAtStart(prepared.parameters.in_words(self._p0), place)
        warmed = warm_up(solver, prepared.parameters, warmup, at_start, self._settings.tol, self._clock)
        self._recovery.perturbed(self._p0, warmed.nearby)
        self.course = self.course._replace(report=warmed.report)
        self._passes.account.compilations += solver.new_compilations()
        logger.info("%s", warmed.report.sentence)
        self._printer.say(warmed.report.sentence)
        return warmed

    def _in_memory(self) -> SampleEvaluator:
        assert self._solver is not None
        self.evaluator = in_memory = SampleEvaluator(self._passes, self._solver)
        return in_memory
