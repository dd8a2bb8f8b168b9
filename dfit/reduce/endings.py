"""Partitions as they end: summed, or left out because they cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from dfit.data.plan import Partition
from dfit.errors import InputError
from dfit.events import PartitionDone
from dfit.reduce.books import Table
from dfit.reduce.task import Report

LostLeaves = tuple[int, int, int]  # partition, first leaf, and the one after the last


class Endings:
    """Counts the partitions of a pass that have ended, and tells an observer of each.

    Parameters
    ----------
    npass : number of the pass.
    table : what its partitions have given so far.
    lost : what is left out already.
    observe : called once for every partition.
    """

    def __init__(
        self,
        npass: int,
        partitions: Sequence[Partition],
        table: Table,
        lost: Iterable[LostLeaves],
        observe: Callable[[PartitionDone], None],
    ) -> None:
        self._npass, self._table, self._observe = npass, table, observe
        self._due = np.array([p.leaves for p in partitions])
        for index, first, stop in lost:
            self._due[index] -= stop - first
        self._done = int(np.count_nonzero(self._summed >= self._due))
        self._why: dict[int, str] = {}

    @property
    def _summed(self) -> np.ndarray:
        return self._table.columns["leaves"]

    def take(self, report: Report) -> None:
        """A piece has ended, and is in the table: tell of its partition, if nothing of it is left to do."""
        at = report.partition
        if report.failure is not None:
            self._due[at] -= len(report.failure.leaves)
            self._why[at] = report.failure.text
        if self._summed[at] < self._due[at]:
            return
        self._done += 1
        row = self._table.row(at)
        worker, why = report.process, self._why.pop(at, None)
        self._observe(PartitionDone(self._npass, self._done, len(self._due), at, worker, why, **row))


def require_readable(partitions: int, lost: Iterable[LostLeaves], least: float) -> None:
    """Refuse to go on from what leaves out more than may be."""
    share = readable(partitions, lost)
    if share < least:
        raise InputError(
            f"{share:.2%} of the partitions could be read so far, min_success_rate={least} asks for more. Type: "
            "resume=False to begin again and read them all, or the min_success_rate of before"
        )


def readable(partitions: int, lost: Iterable[LostLeaves]) -> float:
    """Share of the partitions of which nothing is left out."""
    return (partitions - len({index for index, *_ in lost})) / partitions


def with_piece(lost: frozenset[LostLeaves], piece: LostLeaves) -> frozenset[LostLeaves]:
    """What is left out with one piece more, no leaf twice: an earlier process may have cut its pieces elsewhere."""
    _, first, stop = piece
    if any(start <= first and stop <= end for _, start, end in lost):
        return lost
    return frozenset({*(one for one in lost if one[1] < first or one[2] > stop), piece})
