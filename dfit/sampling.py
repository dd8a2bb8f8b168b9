"""The sample of a fit: which points it has, where they come from, and the solver on them."""

from __future__ import annotations

from dfit.data.groups import numbered
from dfit.data.plan import Source
from dfit.data.subset import SamplePlan, plan_sample
from dfit.errors import InputError
from dfit.prepare import Prepared
from dfit.reduce.draw import Sample
from dfit.reduce.sampled import SampleSolver
from dfit.shelf import Shelf
from dfit.statistics import Clock
from dfit.warm_settings import Warmup


class Sampling:
    """What a warm-up asks of the data.

    Parameters
    ----------
    max_passes : of the fit; 0 where it ends on the sample.
    shelf : where the sample is kept, if it is.
    """

    def __init__(
        self, prepared: Prepared, warmup: Warmup, max_passes: int, clock: Clock, shelf: Shelf | None
    ) -> None:
        self._prepared = prepared
        self._warmup = warmup
        self._max_passes = max_passes
        self._clock = clock
        self._shelf = shelf

    def plan(self) -> SamplePlan:
        """Which points are the sample."""
        prepared, warmup = self._prepared, self._warmup
        # The only pass is better spent where the sample leads than on collecting it.
        reads_again = prepared.evaluator.runner.reads_again and self._max_passes > 1
        skipna = prepared.domain.skipna
        return plan_sample(
            prepared.partitions, warmup.points, warmup.seed, self._groups(), reads_again, skipna
        )

    def sample(self, plan: SamplePlan) -> Sample:
        """The sample of a plan: the one that is kept, or drawn now."""
        kept = None if self._shelf is None else self._shelf.load()
        sample = kept or self.keep(self._prepared.evaluator.sample(plan))
        self._clock.ended("sample")
        return sample

    def keep(self, sample: Sample) -> Sample:
        """The sample, kept for a later process unless it is all of the data."""
        if self._shelf is not None and not sample.complete:
            self._shelf.save(sample)
        return sample

    def solver(self, sample: Sample) -> SampleSolver:
        """The model on the sample."""
        prepared, job = self._prepared, self._prepared.evaluator.job_for("triangle")
        held = prepared.parameters.init[list(prepared.parameters.fixed)]
        return SampleSolver(job.recipe, prepared.model.constants, sample, held, job.sigma, job.f_scale)

    def _groups(self) -> Source | None:
        warmup, domain, of_cov = self._warmup, self._prepared.domain, self._prepared.groups
        if warmup.groups is None:
            return of_cov if of_cov is None else _few(of_cov, warmup.points)
        named = numbered(domain, warmup.groups, "warmup=dfit.Warmup(groups=...)")
        # Where a fit ends on its sample, its covariance takes the groups from there.
        ends_there = self._max_passes == 0 or domain.data.size <= warmup.points
        return of_cov if of_cov is not None and ends_there else _few(named, warmup.points)


def _few(groups: Source, points: int) -> Source:
    """The groups, if a sample of so many points can have some of each."""
    count = int(groups.array.values.max()) + 1
    if count > points:
        raise InputError(
            f"a sample of {points} points cannot have points of each of {count} groups; type coarser groups, "
            f"warmup=dfit.Warmup(sample_points={2 * count}), or warmup=False"
        )
    return groups
