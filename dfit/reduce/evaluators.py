"""One pass over the data: theta -> equations, wherever the tasks run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dfit.core.equations import Equations
from dfit.core.sums import DROPS, MISSING, Sums, condition, equations
from dfit.data.plan import Partition
from dfit.data.subset import SamplePlan
from dfit.errors import DataError
from dfit.events import TaskDone
from dfit.reduce.draw import Gathering, Sample, read_sample
from dfit.reduce.job import Job, Point
from dfit.reduce.runners import Runner
from dfit.reduce.task import Report, Trouble
from dfit.reduce.tree import Forest, insert, root

# The sums of squares keep 16 - 2 log10(condition) digits of a standard deviation, 9 here; beyond this
# condition the pass reduces triangles, which keep 16 - log10(condition).
TRIANGLE_ABOVE = 3e3


@dataclass
class Account:
    """What the passes of a fit have cost so far."""

    passes: int = 0
    points: int = 0
    bytes_read: int = 0
    first_bytes: int = 0
    read_s: float = 0.0
    compute_s: float = 0.0
    compilations: int = 0
    peak_bytes: dict[str, int] = field(default_factory=dict)

    def add(self, report: Report) -> None:
        self.points += report.points
        self.bytes_read += report.bytes_read
        self.read_s += report.read_s
        self.compute_s += report.compute_s
        self.compilations += report.compilations
        known = self.peak_bytes.get(report.process, 0)
        self.peak_bytes[report.process] = max(known, report.peak_bytes)


class PassEvaluator:
    """Callable theta (p,) -> `Equations` over all partitions.

    Reduces sums of squares until the equations report a condition above ``TRIANGLE_ABOVE``, then
    triangles.  The first pass also surveys the data; ``survey`` holds its sums.

    Parameters
    ----------
    runner, job, partitions : where and what; ``job`` has the layout of the first pass.
    p0 : where the user begins; the model must be finite there.
    held : values of the parameters that do not vary.
    describe : names a partition and the coordinate ranges of some of its chunks.
    on_task : told of every finished task.
    """

    def __init__(
        self,
        runner: Runner,
        job: Job,
        partitions: list[Partition],
        p0: np.ndarray,
        held: np.ndarray,
        describe: Callable[[Partition, range], str],
        on_task: Callable[[TaskDone], None],
    ) -> None:
        self.runner = runner
        self._job = job
        self._partitions = partitions
        self._p0 = p0
        self._held = held
        self._describe = describe
        self._on_task = on_task
        self.account = Account()
        self.survey: Sums | None = None
        self.last: Sums | None = None
        self._rough: np.ndarray | None = None

    @property
    def form(self) -> str:
        """Form that the next pass reduces: "normal" or "triangle"."""
        return self._job.recipe.layout.form

    def job_for(self, form: str) -> Job:
        """The job of a pass that reduces a form of sums."""
        layout = self._job.recipe.layout._replace(form=form)
        return replace(self._job, recipe=replace(self._job.recipe, layout=layout))

    def point(self, theta: np.ndarray, basis: np.ndarray | None = None) -> Point:
        """Where a pass at theta wants its sums; the first one surveys the data."""
        return Point(np.asarray(theta, np.float64), self._held, self.survey is None, basis)

    def sample(self, plan: SamplePlan) -> Sample:
        """Sample of a plan, read before the first pass."""
        sample = read_sample(self.runner, self._job, plan)
        self.account.bytes_read += sample.bytes_read
        self.account.read_s += sample.read_s
        return sample

    def __call__(
        self, theta: np.ndarray, done: Forest | None = None, collect: Gathering | None = None
    ) -> Equations:
        """Equations at theta; nodes of ``done`` are taken as they are.

        ``collect`` takes the points of its plan meanwhile, all of them where nothing is done.
        """
        form = self.form
        sums = self.reduce(theta, form, done, collect=collect)
        if self.survey is None:
            require_points(sums, theta.size)
            self.survey = sums
        self.last = sums
        found = equations(sums, form, float(self.survey.moments[4]))
        if form == "normal" and found.finite and condition(found.root) > TRIANGLE_ABOVE:
            self._job = self.job_for("triangle")
            self._rough = np.array(theta)
        return found

    def expect(self, root: np.ndarray) -> None:
        """Begin with triangles where a root (p + 1, p + 1) near the first point shows the need."""
        if condition(root) > TRIANGLE_ABOVE:
            self._job = self.job_for("triangle")

    def is_rough(self, theta: Any) -> bool:
        """Whether the equations at theta were sums of squares that lost digits: those that told of it."""
        return self._rough is not None and np.array_equal(theta, self._rough)

    def reduce(
        self,
        theta: np.ndarray,
        form: str,
        done: Forest | None = None,
        basis: np.ndarray | None = None,
        collect: Gathering | None = None,
    ) -> Sums:
        """Sums of one pass in any form; the first pass of a fit must be a call of the evaluator.

        ``basis`` is where the form "groups" is summed, see `Point`.
        """
        forest: Forest = dict(done or {})
        number = self.account.passes + 1
        finished = 0

        def take(report: Report) -> None:
            nonlocal finished
            finished += 1
            for node, sums in report.forest.items():
                insert(forest, node, sums, form)
            self.account.add(report)
            if collect is not None:
                collect.add(report.drawn)
            trouble = [t for t in report.trouble if (at_p0 if t[0] == "not finite" else first)]
            if trouble:
                self._refuse(report.partition, trouble[0])
            self._on_task(TaskDone(number, finished, len(self._partitions)))

        first = self.survey is None
        at_p0 = np.array_equal(theta, self._p0)  # a sample's answer need not be good for all of the data
        # What a sample has read is a part of the first pass where it stays in memory.
        before = self.account.bytes_read if self.runner.reads_again else 0
        plan = None if collect is None else collect.plan
        self.runner.run(self.job_for(form), self.point(theta, basis), dict(done or {}), take, plan)
        self.account.passes = number
        if first:
            self.account.first_bytes = self.account.bytes_read - before
        return root(forest, form)

    def _refuse(self, partition: int, trouble: Trouble) -> None:
        """Raise what the first pass found; later passes only meet theta that are not finite."""
        what, count, chunks = trouble
        place = self._describe(self._partitions[partition], chunks)
        if what == "not finite":
            raise DataError(
                f"the model or its derivative is not finite at the start in {place}. Type a p0 where it is, "
                "bounds that keep it there, or where= to leave such points out"
            )
        raise DataError(f"{what} at {count} or more points in {place}. {remedy(what)}")


def remedy(what: str) -> str:
    """What to type against values that no fit can use."""
    left_out = "where=sigma > 0" if "sigma" in what else "where=np.isfinite(y) (and of the coordinates)"
    return f"To leave them out type: {'skipna=True' if what in MISSING else left_out}"


def drops(survey: Sums) -> dict[str, int]:
    """Points left out by reason."""
    return {name: int(count) for name, count in zip(DROPS, survey.counts, strict=False) if count}


def require_points(survey: Sums, varying: int) -> None:
    count = int(survey.count)
    why = ", ".join(f"{reason}: {n}" for reason, n in drops(survey).items())
    if count == 0:
        raise DataError(f"no point is left to fit ({why}); check where= and sigma=")
    if count < varying:
        raise DataError(
            f"{count} points are left ({why}) for {varying} parameters; fix some with fixed={{name: value}}"
        )
