"""The sample: its points are drawn where they are read, and put together here."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfit.data.drawing import Drawn, Share, hold_out
from dfit.data.graph import Work
from dfit.data.subset import SamplePlan
from dfit.errors import ReadFailed, WorkerError
from dfit.reduce.job import Job
from dfit.reduce.reading import Held, Reading, process_name
from dfit.reduce.task import Failure, unread


@dataclass(frozen=True)
class DrawReport:
    """What one task drew, and what it cost; ``failure`` says why it drew nothing."""

    partition: int
    drawn: tuple[Drawn, ...]
    bytes_read: int
    read_s: float
    retries: int
    process: str
    failure: Failure | None = None


@dataclass(frozen=True)
class Sample:
    """Points of the data in memory, in the order of the data, as the kernel takes them.

    Attributes
    ----------
    y : (n,), in its own dtype.
    coords : a tuple of (n,), in the order of the model; times are offsets.
    sigma, where, codes : (n,) or None: standard deviations, points that count, group numbers.
    held : (n,), True for points held out, on which the warm-up is judged.
    total, chunks : points and chunks of the data.
    chunks_read : chunks that the points come from.
    bytes_read, read_s : what reading them cost, the seconds of all tasks; 0 where a pass did it.
    complete : whether the sample is all of the data.
    reason : what was read and why, in words.
    """

    y: np.ndarray
    coords: tuple[np.ndarray, ...]
    sigma: np.ndarray | None
    where: np.ndarray | None
    codes: np.ndarray | None
    held: np.ndarray
    total: int
    chunks: int
    chunks_read: int
    bytes_read: int
    read_s: float
    complete: bool
    reason: str


class Gathering:
    """Points of a plan as tasks bring them, in any order."""

    def __init__(self, plan: SamplePlan) -> None:
        self.plan = plan
        self._parts: list[Drawn] = []
        self._bytes_read = 0
        self._read_s = 0.0

    def add(self, drawn: Sequence[Drawn], bytes_read: int = 0, read_s: float = 0.0) -> None:
        """Points of some chunks, and what reading them cost."""
        self._parts += drawn
        self._bytes_read += bytes_read
        self._read_s += read_s

    def sample(self) -> Sample:
        """All of them, when every task is done.

        Raises
        ------
        WorkerError
            If no chunk has given any.
        """
        plan = self.plan
        if not self._parts:
            raise WorkerError(
                f"none of the {len(plan.shares)} chunks of the sample can be read. Type: warmup=False"
            )
        parts = sorted(self._parts, key=lambda part: part.number)
        found: dict[str, list[np.ndarray]] = {}
        for role, *pieces in zip(parts[0].roles, *(part.columns for part in parts), strict=True):
            found.setdefault(role, []).append(np.concatenate(pieces))
        coded = [part.codes for part in parts if part.codes is not None]
        lengths = [part.columns[0].size for part in parts]
        return Sample(
            found["y"][0],
            tuple(found.get("coordinate", ())),
            found["sigma"][0] if "sigma" in found else None,
            found["where"][0] if "where" in found else None,
            np.concatenate(coded) if coded else None,
            hold_out(lengths, plan.seed, by_chunk=not coded),
            plan.total,
            plan.chunks,
            len(parts),
            self._bytes_read,
            self._read_s,
            plan.complete,
            plan.sentence(sum(lengths)),
        )


def draw_partition(
    job: Job,
    work: Work,
    shares: Sequence[Share],
    kept: Sequence[Any],
    store: MutableMapping[int, Held] | None = None,
) -> DrawReport:
    """Points that the chunks of one partition give; one chunk at a time is held.

    Parameters
    ----------
    kept, store : as in `accumulate`.
    """
    index, drawn = work.partition.index, []
    try:
        reading = Reading(job, work, kept, store)
        for share in shares:
            reading.hold([share.chunk])
            drawn.append(reading.draw(share))
    except ReadFailed as error:
        return DrawReport(index, (), 0, 0.0, error.tries - 1, process_name(), unread(work, error))
    cost = reading.bytes_read, reading.read_s, reading.retries
    return DrawReport(index, tuple(drawn), *cost, process_name())
