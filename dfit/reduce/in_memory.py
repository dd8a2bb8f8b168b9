"""The evaluator of a fit that ends on its sample: all of the data, or all that the user wants to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dfit.core.state import State, Status, Tolerances
from dfit.core.sums import Sums, as_sums, combine
from dfit.core.validation import is_finite
from dfit.core.warm import Guards, Warm, begin
from dfit.errors import DataError
from dfit.reduce.books import Table
from dfit.reduce.checks import remedy, require_points
from dfit.reduce.evaluators import PassEvaluator
from dfit.reduce.kernels import kernel_for
from dfit.reduce.knowledge import Memory, RunningPass
from dfit.reduce.sampled import EVERYTHING, SampleSolver, leaf_at, sums_of
from dfit.reduce.task import group_sums


class SampleEvaluator:
    """What `PassEvaluator` is to the data, for a sample in memory: no task, no dask.

    Attributes
    ----------
    solver : SampleSolver, its points in the order of the data
    account : shared with the passes of the fit.
    survey, last : Sums where the solve stands.
    form : the sample is reduced to triangles.
    not_finite : where the last evaluation is not finite, in words; None where it is.
    """

    form = "triangle"

    def __init__(self, passes: PassEvaluator, solver: SampleSolver) -> None:
        self.solver = solver.in_order()  # neighbouring residuals are compared, too
        self.account = passes.account
        self.survey: Sums | None = None
        self.not_finite: str | None = None
        self._passes = passes
        self._spread: RunningPass | None = None

    def memory(self) -> Memory:
        """What a `PassEvaluator` must know to stand for this one at the end of the fit."""
        memory = self._passes.memory()
        return memory._replace(survey=self.survey, last=self.last, form=self.form, running=self._spread)

    @property
    def last(self) -> Sums | None:
        return self.survey

    def states(self, theta: np.ndarray, guards: Guards, tolerances: Tolerances) -> Iterator[State]:
        """The solver's states from theta on, one complete read of the sample each."""
        warm = begin(theta)
        while warm.state.status == Status.RUNNING:
            tried = warm.state.trial
            warm = self.solver.solve(warm, EVERYTHING, guards, tolerances, int(warm.state.evaluations) + 1)
            self.account.passes += 1
            self.account.points += self.solver.sample.y.size
            finite = is_finite(sums_of(warm.fields))
            self.not_finite = None if finite else self.solver.not_finite(np.asarray(tried))
            if np.array_equal(warm.state.theta, tried):
                self.adopt(warm)
            yield warm.state

    def adopt(self, warm: Warm) -> None:
        """Take what the last evaluation left behind as the sums of the fit."""
        sums = sums_of(warm.fields)
        # Points of a part of the data have no neighbours among them.
        self.survey = sums if self.solver.sample.complete else sums._replace(lag=np.zeros(2))
        require_points(self.survey, warm.state.theta.size)

    def reduce(self, theta: np.ndarray, form: str, basis: np.ndarray | None = None) -> Sums:
        """Sums of the sample in any form, see `PassEvaluator.reduce`."""
        solver = self.solver
        recipe = replace(solver.recipe, layout=solver.recipe.layout._replace(form=form))
        kernel = kernel_for(recipe, solver.constants)
        sums = []
        for k, codes in enumerate(solver.codes):
            leaf = leaf_at(solver.leaves, k)
            out = kernel(theta, leaf, solver.scalars)
            sums.append(group_sums(out, codes, int(leaf.n), basis) if form == "groups" else as_sums(out))
        total = combine(sums[0], sums[1], form)
        self._spread = RunningPass(np.array(theta), form, {(0, 0): total}, Table(0), complete=True)
        return total


def refuse_faults(found: dict[str, int], points: int) -> None:
    """Refuse them where no pass will name their place; ``points`` of the sample."""
    for what, count in found.items():
        raise DataError(f"{what} at {count} of {points} points of the sample. {remedy(what)}")
