"""What the passes of a fit take, and what the next one does about it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from dfit.data.subset import SamplePlan
from dfit.reduce.job import Job, Point
from dfit.reduce.runners import OnReport, Runner
from dfit.reduce.task import Report
from dfit.reduce.tree import Done


@dataclass
class PassCost:
    """What one pass took.

    Attributes
    ----------
    seconds : from its first task to its last report.
    tasks, points, bytes_read : what it did.
    read_s, wait_s, compute_s, compile_s, compilations : of all tasks together, see `Report`.
    task_s, task_points : of each task.
    """

    seconds: float = 0.0
    tasks: int = 0
    points: int = 0
    bytes_read: int = 0
    read_s: float = 0.0
    wait_s: float = 0.0
    compute_s: float = 0.0
    compile_s: float = 0.0
    compilations: int = 0
    task_s: list[float] = field(default_factory=list)
    task_points: list[int] = field(default_factory=list)

    def add(self, report: Report) -> None:
        """Count a task."""
        self.tasks += 1
        for name in (
            *("points", "bytes_read", "compilations"),
            *("read_s", "wait_s", "compute_s", "compile_s"),
        ):
            setattr(self, name, getattr(self, name) + getattr(report, name))
        self.task_s.append(report.wait_s + report.compute_s)
        self.task_points.append(report.points)

    @property
    def spread(self) -> float:
        """Standard deviation of the tasks' seconds a point, relative to their mean; 0 for less than two tasks."""
        each = [s / n for s, n in zip(self.task_s, self.task_points, strict=True) if n]
        return float(np.std(each, ddof=1) / np.mean(each)) if len(each) > 1 else 0.0


class Pace:
    """Times the passes that a runner makes; after each the runner fits its tasks to what they took.

    Attributes
    ----------
    costs : of the complete passes.
    """

    def __init__(self) -> None:
        self.costs: list[PassCost] = []

    def run(
        self, runner: Runner, job: Job, point: Point, done: Done, on_report: OnReport, plan: SamplePlan | None
    ) -> None:
        """`Runner.run`, timed."""
        cost, began = PassCost(), time.perf_counter()

        def take(report: Report) -> None:
            cost.add(report)
            on_report(report)

        runner.run(job, point, done, take, plan)
        cost.seconds = time.perf_counter() - began
        self.costs.append(cost)
        runner.adapt()
