"""What an evaluator knows between two tasks: a checkpoint holds it, and another process goes on with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from dfit.core.sums import Sums
from dfit.reduce.books import Account, Table
from dfit.reduce.task import Report
from dfit.reduce.tree import Done, Forest, insert, leaves


class PartitionsLost(Exception):
    """Partitions that earlier passes have read were left out: what these found is of other data."""


@dataclass
class RunningPass:
    """What a pass has found so far.

    ``theta`` (p,) and ``form`` are what it evaluates, ``forest`` its finished nodes, ``table`` what the
    partitions gave; ``validate`` says how it checks them, which it keeps over a resume; ``not_finite`` names
    the first place without finite sums; ``complete``: whether nothing of it is left to do.
    """

    theta: np.ndarray
    form: str
    forest: Forest
    table: Table
    validate: str = "sums"
    not_finite: str | None = None
    complete: bool = False

    def add(self, report: Report) -> None:
        """What a finished piece gave."""
        self.table.add(report)
        for node, sums in report.forest.items():
            insert(self.forest, node, sums, self.form)

    def done(self, lost: Iterable[tuple[int, int, int]]) -> Done:
        """Leaves that need no task: those that are summed, and those that are left out."""
        return Done([*leaves(self.forest), *(range(start, stop) for _, start, stop in lost)])


def begun(theta: np.ndarray, form: str, partitions: int, validate: str) -> RunningPass:
    """A pass that has found nothing yet."""
    return RunningPass(np.array(theta), form, {}, Table(partitions), validate)


def is_of(running: RunningPass | None, theta: np.ndarray, form: str) -> TypeGuard[RunningPass]:
    """Whether a pass evaluates a form of sums at theta."""
    return running is not None and running.form == form and np.array_equal(running.theta, theta)


class Memory(NamedTuple):
    """What an evaluator knows between two tasks, beside its arguments; a checkpoint holds it.

    Attributes
    ----------
    survey, last : Sums of the first pass, and of the last complete one.
    form : that the next pass reduces.
    rough : (p,), where sums of squares told that they had lost digits.
    account, table : the books; the table is that of the last complete pass.
    lost : what is left out: partition, first leaf, and the one after the last.
    running : the pass that is not complete.
    recovery : what was done about faults: where ("partition" or "iteration"), "strategy", "detail".
    """

    survey: Sums | None
    last: Sums | None
    form: str
    rough: np.ndarray | None
    account: Account
    table: Table
    lost: frozenset[tuple[int, int, int]]
    running: RunningPass | None
    recovery: list[dict[str, Any]]
