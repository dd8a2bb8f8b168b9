"""Pieces of partitions: what one task sums. A whole partition, until memory has run out over it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NoReturn, TypeVar

import numpy as np

from dfit.cost import SHORTEST_S
from dfit.data.drawing import Share
from dfit.data.graph import Work, split
from dfit.data.subset import SamplePlan
from dfit.errors import WorkerError
from dfit.reduce.task import Report, leaves_of_work
from dfit.reduce.tree import Done

logger = logging.getLogger("dfit")

# A pass ends sooner if the longest tasks come first; where they are alike or many, their place on disk matters
# more. Neighbours are combined on a cluster, too.
UNLIKE, MOST_ORDERED = 0.3, 256
SLACK = 1.5  # a task is not cut for being a little too long


@dataclass(eq=False)
class Piece:
    """Work of one task, whose first chunk has the number ``first_chunk`` in its partition.

    ``seconds`` that its task took in the last pass.
    """

    work: Work
    first_chunk: int
    seconds: float = field(default=0.0, init=False)

    @property
    def partition(self) -> int:
        return self.work.partition.index

    @property
    def leaves(self) -> range:
        return leaves_of_work(self.work)

    def shares(self, plan: SamplePlan | None) -> tuple[Share, ...]:
        """What its chunks give to a sample, by their numbers in the piece."""
        last = self.first_chunk + len(self.work.partition.chunks)
        return tuple(
            replace(share, chunk=share.chunk - self.first_chunk)
            for share in (plan.by_partition.get(self.partition, ()) if plan else ())
            if self.first_chunk <= share.chunk < last
        )

    @property
    def holds(self) -> bool:
        """Whether its data are in memory, and would have to be read again if it were cut otherwise."""
        return False

    def placed(self, report: Any) -> Any:
        """The report of its task, with the numbers that the chunks have in the partition."""
        if not isinstance(report, Report):
            return report
        self.seconds = report.wait_s + report.compute_s - report.compile_s
        if not report.trouble:
            return report
        k = self.first_chunk
        moved = [
            one._replace(chunks=range(one.chunks.start + k, one.chunks.stop + k)) for one in report.trouble
        ]
        return replace(report, trouble=tuple(moved))


AnyPiece = TypeVar("AnyPiece", bound=Piece)


class Pieces(Generic[AnyPiece]):
    """Pieces of all partitions: one each, more where memory has run out.

    Parameters
    ----------
    make : gives the runner's own kind of piece, from its work and the number of its first chunk.
    tasks : about how many pieces to begin with, where there are chunks enough; one a partition at least.

    Attributes
    ----------
    splits : (partition, why and how in words), in the order in which they happened.
    """

    def __init__(self, works: Sequence[Work], make: Callable[[Work, int], AnyPiece], tasks: int = 0) -> None:
        self._make = make
        each = tasks // max(len(works), 1)
        self._of = {work.partition.index: self._parts(make(work, 0), each) for work in works}
        self.splits: list[tuple[int, str]] = []

    def _parts(self, piece: AnyPiece, count: int) -> list[AnyPiece]:
        """Some ``count`` pieces that stand for this one."""
        halves = self._split(piece) if count > 1 else []
        return [part for half in halves for part in self._parts(half, -(-count // 2))] or [piece]

    def _split(self, piece: AnyPiece) -> list[AnyPiece]:
        """Two pieces that stand for this one; none where it cannot be parted."""
        works = split(piece.work)
        if len(works) == 1:
            return []
        second = piece.first_chunk + len(works[0].partition.chunks)
        return [self._make(works[0], piece.first_chunk), self._make(works[1], second)]

    def all(self) -> list[AnyPiece]:
        """Every piece, in the order of the data."""
        return [piece for pieces in self._of.values() for piece in pieces]

    def to_sum(self, done: Done) -> list[AnyPiece]:
        """Pieces that a pass must sum, those with a leaf that is not done; the longest first if they are unlike."""
        pieces = [piece for piece in self.all() if not done.covers(piece.leaves)]
        seconds = [piece.seconds for piece in pieces]
        unlike = np.std(seconds) > UNLIKE * np.mean(seconds) if pieces else False
        # Times of shorter tasks are noise, and so would be their order.
        if len(pieces) > MOST_ORDERED or not unlike or max(seconds) < SHORTEST_S:
            return pieces
        return sorted(pieces, key=lambda piece: -piece.seconds)

    def shorten(self, longest_s: float) -> None:
        """Cut pieces that took longer, and whose data are read in every pass anyway; the leaves are the same."""
        for index, pieces in self._of.items():
            parts = [
                self._parts(piece, math.ceil(piece.seconds / longest_s))
                if piece.seconds > SLACK * longest_s and not piece.holds
                else [piece]
                for piece in pieces
            ]
            self._of[index] = [part for several in parts for part in several]

    def to_draw_from(self, plan: SamplePlan) -> list[AnyPiece]:
        """Pieces that give points to a sample."""
        return [piece for index in plan.by_partition for piece in self._of[index] if piece.shares(plan)]

    def halves(self, piece: AnyPiece, why: str) -> list[AnyPiece]:
        """Two pieces that stand for this one from now on; none where it cannot be parted.

        Their leaves are those of the piece, so the sums keep their bits.
        """
        halves = self._split(piece)
        if not halves:
            return []
        pieces = self._of[piece.partition]
        at = pieces.index(piece)
        pieces[at : at + 1] = halves
        before, after = len(piece.leaves), len(halves[0].leaves)
        detail = f"{why}: {before} leaves in one task, from now on {after} and {before - after} in two"
        self.splits.append((piece.partition, detail))
        logger.warning("partition %d: %s", piece.partition, detail)
        return halves


def refuse_draw(piece: Piece, kind: str, error: BaseException) -> NoReturn:
    """Raise what a sample cannot do without."""
    raise WorkerError(
        f"partition {piece.partition} cannot be read for the sample, {words_for(kind)} "
        f"({type(error).__name__}: {error}). Type: y = y.chunk(...) with smaller chunks, or give the workers "
        "more memory",
        partition=piece.partition,
    ) from error


def words_for(kind: str) -> str:
    """What a kind of failure means."""
    return {"memory": "memory ran out", "killed": "its worker was killed again and again"}[kind]
