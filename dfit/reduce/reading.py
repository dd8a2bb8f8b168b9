"""Chunks of a partition where its task runs: read, tried again, kept."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from dfit.data.drawing import Drawn, Share, draw
from dfit.data.graph import Key, Work
from dfit.data.loading import Loader
from dfit.errors import WorkerError
from dfit.reduce.allocator import tune_allocator
from dfit.reduce.job import Job

Arrays = list[list[np.ndarray]]
FIRST_PAUSE_S = 0.1  # before a failed read is tried again; doubled each time


def read(job: Job, work: Work, kept: Sequence[Any]) -> Arrays:
    """Arrays of all chunks of a partition, to be kept in memory."""
    loader = loader_of(job, work, kept)
    return [read_chunk(job, loader, work.partition.index, k) for k in range(len(work.items))]


class Reading:
    """Chunks of one partition in a task's hands: all, where they are kept in memory, or a few at a time.

    Attributes
    ----------
    bytes_read : what came out of the graph so far.
    seconds : what that took.
    """

    def __init__(
        self, job: Job, work: Work, kept: Sequence[Any], store: MutableMapping[int, Arrays] | None
    ) -> None:
        started = time.perf_counter()
        self._job, self._work = job, work
        self._loader = loader_of(job, work, kept)
        self._held: dict[int, list[np.ndarray]] = {}
        self._all_here = store is not None
        self._stored_bytes = 0
        if store is not None:
            index = work.partition.index
            if index not in store:
                store[index] = read(job, work, kept)
                self._stored_bytes = bytes_read(work, store[index])
            self._held = dict(enumerate(store[index]))
        self.seconds = time.perf_counter() - started

    @property
    def bytes_read(self) -> int:
        return self._stored_bytes + self._loader.bytes_read

    def hold(self, wanted: Sequence[int]) -> Mapping[int, list[np.ndarray]]:
        """Arrays of the wanted chunks at least: those held already, and the rest read."""
        if not self._all_here:
            started = time.perf_counter()
            self._held = {k: self._held[k] for k in wanted if k in self._held}  # before more is read
            for k in wanted:
                if k not in self._held:
                    self._held[k] = read_chunk(self._job, self._loader, self._work.partition.index, k)
            self.seconds += time.perf_counter() - started
        return self._held

    def draw(self, share: Share) -> Drawn:
        """Points for a sample from a chunk that is held."""
        chunk = self._work.partition.chunks[share.chunk]
        return draw(share, chunk.shape, self._held[share.chunk], self._job.roles, self._job.axes)


def loader_of(job: Job, work: Work, kept: Sequence[Any]) -> Loader:
    """Loader of a partition, from the values of the kept keys that it needs."""
    if job.tune:
        tune_allocator()
    values = dict(zip(work.needs, kept, strict=True))
    return Loader(work, [(role, time_axis) for role, _, time_axis in job.sources], values)


def read_chunk(job: Job, loader: Loader, partition: int, number: int) -> list[np.ndarray]:
    """Arrays of one chunk; a read that fails is tried again, ``retries`` times.

    Raises
    ------
    WorkerError
        With the partition and the process, when the last try failed.
    """
    for attempt in range(job.retries + 1):
        try:
            return loader.chunk(number)
        except OSError as error:  # time-outs are a kind of it
            if attempt == job.retries:
                raise WorkerError(
                    f"partition {partition} could not be read in process {process_name()} "
                    f"after {attempt + 1} tries: {type(error).__name__}: {error}"
                ) from error
            time.sleep(FIRST_PAUSE_S * 2**attempt)
    raise AssertionError("unreachable: the last try returns or raises")


def process_name() -> str:
    """Node and number of this process."""
    return f"{os.uname().nodename}:{os.getpid()}"


def bytes_read(work: Work, arrays: Arrays) -> int:
    """Size of what came out of the graph, each block once."""
    pairs = zip((i for row in work.items for i in row), (a for row in arrays for a in row), strict=True)
    return sum({item: array.nbytes for item, array in pairs if isinstance(item, Key)}.values())
