"""One pass over the data: theta -> equations, wherever the tasks run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dfit.core.equations import Equations
from dfit.core.sums import Sums, condition, equations
from dfit.core.validation import bad_total, is_finite
from dfit.data.drawing import Drawn
from dfit.data.plan import Partition, covered
from dfit.data.subset import SamplePlan
from dfit.errors import DataError, WorkerError
from dfit.events import PartitionDone
from dfit.reduce.allocator import let_go_of_slabs
from dfit.reduce.books import Account, Table
from dfit.reduce.checks import AGAIN, NotFiniteAtStart, differs, require_points, unreadable, unusable
from dfit.reduce.draw import DrawReport, Gathering, Sample
from dfit.reduce.endings import Endings, readable, require_readable, with_piece
from dfit.reduce.job import Job, Point
from dfit.reduce.kernels import without_noise_of
from dfit.reduce.knowledge import Memory, PartitionsLost, RunningPass, begun, is_of
from dfit.reduce.pace import Pace
from dfit.reduce.runners import Runner
from dfit.reduce.task import Report
from dfit.reduce.tree import root

# The sums of squares keep 16 - 2 log10(condition) digits of a standard deviation, 9 here; beyond this
# condition the pass reduces triangles, which keep 16 - log10(condition).
TRIANGLE_ABOVE = 3e3


class PassEvaluator:
    """Callable theta (p,) -> `Equations` over all partitions.

    Reduces sums of squares until the equations report a condition above ``TRIANGLE_ABOVE``, then
    triangles.  The first pass also surveys the data; ``survey`` holds its sums.

    Parameters
    ----------
    start_runner, job, partitions : where and what; ``job`` has the layout of the first pass.
    p0 : where the user begins; the model must be finite there.
    held : values of the parameters that do not vary.
    describe : names a partition and the coordinate ranges of some of its chunks.
    in_words : the values of all parameters at a theta.
    on_partition : told of every partition as it ends.
    min_success : part of the partitions that must be readable.

    Attributes
    ----------
    keep : called after every task, when what it found is part of ``memory()``.
    settled : whether ``memory()`` is of one moment: not within a pass's end, nor while findings are added.
    recovery : see `Memory`; whoever does something about a fault adds to it.
    pace : what the passes of this process have taken.
    not_finite : the first place without finite sums of the last pass, None where all are finite.
    """

    def __init__(
        self,
        start_runner: Callable[[], Runner],
        job: Job,
        partitions: list[Partition],
        p0: np.ndarray,
        held: np.ndarray,
        describe: Callable[[Partition, range], str],
        in_words: Callable[[np.ndarray], str],
        on_partition: Callable[[PartitionDone], None],
        min_success: float = 1.0,
    ) -> None:
        self._start_runner = start_runner
        self._runner: Runner | None = None
        self._job = job
        self._partitions = partitions
        self._p0, self._held = p0, held
        self._describe, self._in_words = describe, in_words
        self._on_partition = on_partition
        self._min_success = min_success
        self.keep: Callable[[], None] = lambda: None
        self.not_finite: str | None = None
        self.settled, self._splits_told, self.pace = True, 0, Pace()
        self.restore(
            Memory(None, None, self.form, None, Account(), Table(len(partitions)), frozenset(), None, [])
        )

    def memory(self) -> Memory:
        """What it knows now."""
        return Memory(
            self.survey,
            self.last,
            self.form,
            self._rough,
            self.account,
            self.table,
            self.lost,
            self.running,
            self.recovery,
        )

    def restore(self, memory: Memory) -> None:
        """Know what another one knew; its running pass goes on where the same one is asked for."""
        self.survey, self.last, self._rough = memory.survey, memory.last, memory.rough
        self.account, self.table, self.lost = memory.account, memory.table, memory.lost
        self.running, self.recovery = memory.running, memory.recovery
        self._job = self.job_for(memory.form)
        require_readable(len(self._partitions), self.lost, self._min_success)

    @property
    def runner(self) -> Runner:
        """Where the tasks run; started when there is one, because that may read data."""
        if self._runner is None:
            self._runner = self._start_runner()
        return self._runner

    def close(self) -> None:
        """Let go of what is kept in memory."""
        let_go_of_slabs(self._job.fit)
        if self._runner is not None:
            self._runner.close()

    @property
    def form(self) -> str:
        """Form that the next pass reduces: "normal" or "triangle"."""
        return self._job.recipe.layout.form

    def job_for(self, form: str) -> Job:
        """The job of a pass that reduces a form of sums."""
        layout = self._job.recipe.layout._replace(form=form)
        return replace(self._job, recipe=replace(self._job.recipe, layout=layout))

    def point(self, theta: np.ndarray, basis: np.ndarray | None = None, validate: str = "sums") -> Point:
        """Where a pass at theta wants its sums; the first one surveys the data."""
        survey = self.survey is None or validate == "full"
        return Point(np.asarray(theta, np.float64), self._held, survey, basis)

    def sample(self, plan: SamplePlan) -> Sample:
        """Sample of a plan, read before the first pass."""
        gathering = Gathering(plan)
        self._draw(plan, lambda report: gathering.add(report.drawn, report.bytes_read, report.read_s))
        return gathering.sample()

    def points_of(self, plan: SamplePlan) -> list[Drawn]:
        """Points of the chunks of a plan, in the order of the chunks."""
        found: list[Drawn] = []
        self._draw(plan, lambda report: found.extend(report.drawn))
        return sorted(found, key=lambda part: part.number)

    def _draw(self, plan: SamplePlan, take: Callable[[DrawReport], None]) -> None:
        def look(report: DrawReport) -> None:
            self.account.add_read(report)
            self.table.add_read(report)
            if report.failure is not None:
                self._lose(report)
            take(report)

        self.runner.draw(self._job, plan, look)

    def __call__(self, theta: np.ndarray, collect: Gathering | None = None) -> Equations:
        """Equations at theta.

        ``collect`` takes the points of its plan meanwhile.

        Raises
        ------
        PartitionsLost
            If partitions that earlier passes have read cannot be read any more, and may be left out.
        """
        form = self.form
        sums = self.reduce(theta, form, collect=collect)
        if self.survey is None:
            require_points(sums, theta.size)
            self.survey = sums
        self.last = sums
        found = equations(sums, form, float(self.survey.moments[4]))
        if form == "triangle":
            found = found._replace(root=without_noise_of(self._job.recipe, found.root, theta, found.scale2))
            self._rough = None
        elif found.finite and condition(found.root) > TRIANGLE_ABOVE:
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
        basis: np.ndarray | None = None,
        collect: Gathering | None = None,
    ) -> Sums:
        """Sums of one pass in any form, "groups" in a ``basis`` (see `Point`); a fit begins with `__call__`."""
        if not is_of(self.running, theta, form):
            self.running, self.settled = begun(theta, form, len(self._partitions), self._job.validate), True
        running = self.running
        if running.complete:
            self.not_finite = running.not_finite
            return root(running.forest, form)
        first, point = self.survey is None, self.point(theta, basis, running.validate)
        npass = self.account.passes + 1
        endings = Endings(npass, self._partitions, running.table, self.lost, self._on_partition)

        def take(report: Report) -> None:
            if report.failure is not None:
                self._lose(report)  # where it raises, what the other tasks have found is saved
            self.settled = False
            self.account.add(report)
            running.add(report)
            self.settled = True
            if collect is not None:
                collect.add(report.drawn)
            self._look_at(report, running, first)
            self._tell_splits()
            self.keep()
            endings.take(report)

        plan = None if collect is None else collect.plan
        job = replace(self.job_for(form), validate=running.validate)
        self.pace.run(self.runner, job, point, running.done(self.lost), take, plan)
        self.settled = False
        self.account.passes += 1
        if first:  # what a sample has read is a part of it where it stays in memory
            before = 0 if self.runner.reads_again else self.table.bytes_read
            self.account.first_bytes = before + running.table.bytes_read
        last, self.running, self.table = self.table, None, running.table
        self.table.carry(last, surveyed=point.survey, has_cost=form != "groups")
        if not first and self.table.leaves != last.leaves:
            self.survey = None
            raise PartitionsLost
        running.complete = True
        if form in ("sandwich", "groups"):  # for the covariance, the last thing that a fit needs
            self.running, self.settled = running, True
        sums = root(running.forest, form)
        self._look_at_total(sums, running, point.survey, None if first else self.survey)
        return sums

    def _lose(self, report: Report | DrawReport) -> None:
        """Leave a failed piece out, if so many may be; raise otherwise."""
        partition, failure = self._partitions[report.partition], report.failure
        assert failure is not None
        piece = (partition.index, failure.leaves.start, failure.leaves.stop)
        if piece not in self.lost:  # another process may have looked at it
            why = unreadable(failure, self._describe(partition, covered(partition, failure.leaves)[0]))
            if readable(len(self._partitions), {*self.lost, piece}) < self._min_success:
                raise WorkerError(why, partition=partition.index, worker=report.process)
            self.recovered("partition left out", why, partition=partition.index)
            self.lost = with_piece(self.lost, piece)  # last: the log has all reasons

    def recovered(self, strategy: str, detail: str, **where: int) -> None:
        """Add to the recovery log; ``where`` is the partition, or the iteration: the number of the pass."""
        self.recovery.append({**where, "strategy": strategy, "detail": detail})

    def _tell_splits(self) -> None:
        """Add what the runner has done about memory since the last call."""
        for partition, how in self.runner.splits[self._splits_told :]:
            self.recovered("fewer leaves per task", how, partition=partition)
        self._splits_told = len(self.runner.splits)

    def _look_at(self, report: Report, running: RunningPass, first: bool) -> None:
        """Raise what makes the pass useless: values no fit can use, a model not finite at p0, other data."""
        partition = self._partitions[report.partition]
        for what, count, chunks, point in report.trouble:
            place = self._describe(partition, chunks) + point
            if what == "not finite":
                self._not_finite(running, f"in {place}")
            elif first:
                raise DataError(unusable(what, count, place))
        if differs(self.table, running.table, partition):
            place = self._describe(partition, range(len(partition.chunks)))
            raise DataError(
                f"the data have changed during the fit: {place} holds other values than the pass before has "
                f"read. {AGAIN}",
                partition=partition.index,
            )

    def _look_at_total(self, sums: Sums, running: RunningPass, surveyed: bool, survey: Sums | None) -> None:
        """The same for the sums of a whole pass; ``survey`` are those of the first."""
        if running.validate == "none":
            return
        if running.not_finite is None and not is_finite(sums):
            self._not_finite(running, "in the sum over all partitions")
        self.not_finite = running.not_finite
        survey = None if running.form == "groups" else survey
        if self.not_finite is None and (problem := bad_total(sums, survey, surveyed)) is not None:
            raise DataError(f"a pass has not read what the first one has: {problem}. {AGAIN}")

    def _not_finite(self, running: RunningPass, place: str) -> None:
        """Keep the first place without finite sums; where the fit begins they are an error."""
        # A sample's answer need not be good for all of the data; of a covariance the end is told.
        if running.form in ("normal", "triangle") and np.array_equal(running.theta, self._p0):
            raise NotFiniteAtStart(self._in_words(running.theta), place)
        running.not_finite = running.not_finite or place
