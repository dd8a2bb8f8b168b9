"""Chunks of a partition where its task runs: read, tried again, kept.

While a task computes, a thread of its own reads the chunks that come next. Stores wait and codecs decode
without Python's lock, and so do compiled kernels: what one waits for the other does not.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from dfit.data.drawing import Drawn, Share, draw
from dfit.data.graph import Key, Work
from dfit.data.loading import ALL_BITS, Loader
from dfit.data.origin import origin
from dfit.errors import DfitError, ReadFailed, WorkerError
from dfit.reduce.allocator import idle_bytes, tune_allocator
from dfit.reduce.job import Job

Arrays = list[list[np.ndarray]]
T = TypeVar("T")
FIRST_PAUSE_S = 0.1  # before a failed read is tried again; doubled each time
NEVER = threading.Event()

logger = logging.getLogger("dfit")

# The reader of each thread that sums. Kept: memory that a thread frees is reused by that thread, so a new
# reader for every task would leave what one has read behind each (16 times 20 MB seen on two cores).
_readers = threading.local()


class Held(NamedTuple):
    """A partition in memory: its chunks' arrays, the sums over their content, and what reading them took.

    ``retries``: reads that were tried again.  ``failure``: why there are no arrays.  ``read_s``: seconds.
    """

    arrays: Arrays
    content: list[int]
    retries: int
    failure: ReadFailed | MemoryError | None = None
    read_s: float = 0.0


def read(job: Job, work: Work, kept: Sequence[Any]) -> Held:
    """All chunks of a partition, to be kept in memory; a read that fails is told, not raised.

    Whoever waits for the arrays on a cluster then runs all the same, and can report it.
    """
    started = time.perf_counter()
    loader = loader_of(job, work, kept)
    arrays, content, retries = [], [], 0
    try:
        for number in range(len(work.items)):
            before = loader.content
            chunk, again = read_chunk(job, loader, work, number)
            arrays.append(chunk)
            content.append(loader.content - before)
            retries += again
    except (ReadFailed, MemoryError) as failure:
        retries += failure.tries - 1 if isinstance(failure, ReadFailed) else 0
        return Held([], [], retries, failure.with_traceback(None))  # a traceback would hold the arrays
    return Held(arrays, content, retries, read_s=time.perf_counter() - started)


class Reading:
    """Chunks of one partition in a task's hands: all, where they are kept in memory, or a few at a time.

    A context: nothing is read any more when it ends, which waits for the chunk that is being read.

    Attributes
    ----------
    bytes_read : what came out of the graph so far.
    content : sum over the bits of the chunks asked for so far, see `Loader`.
    retries : reads that were tried again.
    read_s : seconds that this took.
    wait_s : those that the task waited for it.

    Raises
    ------
    ReadFailed, MemoryError
        Where a kept partition could not be read; it is not kept then.
    """

    def __init__(
        self, job: Job, work: Work, kept: Sequence[Any], store: MutableMapping[int, Held] | None
    ) -> None:
        started = time.perf_counter()
        self._job, self._work = job, work
        self._loader = loader_of(job, work, kept)
        self._held: dict[int, list[np.ndarray]] = {}
        self._all_here = store is not None
        self._stored_bytes = 0
        self._stored_content: list[int] = []
        self._wanted: set[int] = set()
        self.retries = 0
        self._ahead = job.read_ahead and bool(work.graph) and store is None
        self._coming: Future[Mapping[int, list[np.ndarray]]] | None = None
        self._ended = threading.Event()
        if store is not None:
            stored = store.get(work.partition.index)
            if stored is None:
                stored = read(job, work, kept)
                self.retries = stored.retries
                self._stored_bytes = bytes_read(work, stored)
            if stored.failure is not None:
                raise stored.failure
            store[work.partition.index] = stored
            self._stored_content = stored.content
            self._held = dict(enumerate(stored.arrays))
        self.read_s = self.wait_s = time.perf_counter() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._coming is not None and not self._coming.cancel():
            wait([self._coming])
        self._coming = None

    @property
    def bytes_read(self) -> int:
        return self._stored_bytes + self._loader.bytes_read

    @property
    def content(self) -> int:
        if not self._all_here:
            return self._loader.content
        # Not of all that is held: what an earlier process has summed has its content in the books.
        return sum(self._stored_content[k] for k in self._wanted) & ALL_BITS

    def hold(self, wanted: Sequence[int], ahead: Sequence[int] = ()) -> Mapping[int, list[np.ndarray]]:
        """Arrays of the wanted chunks at least: those held already, and the rest read.

        ``ahead``: the chunks of the next call that wants others, which are read until then.
        """
        self._wanted.update(wanted)
        if not self._all_here:
            started = time.perf_counter()
            self._held = {k: self._held[k] for k in wanted if k in self._held}  # before more is read
            missing = [k for k in wanted if k not in self._held]
            if missing:
                self._held |= self._read(missing) if self._coming is None else self._arrived()
            self.wait_s += time.perf_counter() - started
            if ahead and self._ahead and self._coming is None:
                self._start(ahead)
        return self._held

    def _start(self, chunks: Sequence[int]) -> None:
        """Begin to read chunks in the reader's thread, with this thread's context: the worker is in it."""
        if not hasattr(_readers, "pool"):
            _readers.pool = ThreadPoolExecutor(1, "dfit-read-ahead")
        try:
            self._coming = _readers.pool.submit(copy_context().run, self._read, chunks)
        except RuntimeError as error:  # no room for a thread, or the process is about to end
            logger.debug("chunks are not read ahead: %s", error)
            del _readers.pool
            self._ahead = False

    def _arrived(self) -> Mapping[int, list[np.ndarray]]:
        """What was read ahead, when it is all there."""
        assert self._coming is not None
        try:
            return self._coming.result()
        finally:
            # An interrupt leaves it to be waited for. An error holds this frame: what is named in it, the
            # arrays of other chunks with it, would be held until a collection.
            if self._coming.done():
                self._coming = None

    def _read(self, chunks: Sequence[int]) -> Mapping[int, list[np.ndarray]]:
        """Read chunks, in one thread at a time; fewer where nobody waits for them any more."""
        started = time.perf_counter()
        found = {}
        for k in chunks:
            if self._ended.is_set():
                break
            found[k], again = read_chunk(self._job, self._loader, self._work, k, self._ended)
            self.retries += again
        self.read_s += time.perf_counter() - started
        return found

    def draw(self, share: Share) -> Drawn:
        """Points for a sample from a chunk that is held."""
        chunk = self._work.partition.chunks[share.chunk]
        return draw(share, chunk.shape, self._held[share.chunk], self._job.roles, self._job.axes)


def loader_of(job: Job, work: Work, kept: Sequence[Any]) -> Loader:
    """Loader of a partition, from the values of the kept keys that it needs."""
    if job.tune:
        tune_allocator()
    idle_bytes(job.fit)  # before anything is read
    values = dict(zip(work.needs, kept, strict=True))
    sources = [(role, time_axis) for role, _, time_axis in job.sources]
    return Loader(work, sources, values, job.validate != "none")


def ahead_of(leaves: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """For each leaf's chunks those of the next leaf that is made of others; none for the last."""
    out: list[Sequence[int]] = [()] * len(leaves)
    for i in reversed(range(len(leaves) - 1)):
        out[i] = out[i + 1] if leaves[i] == leaves[i + 1] else leaves[i + 1]
    return out


def read_chunk(
    job: Job, loader: Loader, work: Work, number: int, ended: threading.Event = NEVER
) -> tuple[list[np.ndarray], int]:
    """Arrays of one chunk, and how often it was tried again: ``job.retries`` times at most.

    Raises
    ------
    ReadFailed
        When the last try failed.
    """

    def failed(error: Exception) -> ReadFailed:
        return _failed(job, work, number, loader.at, error)

    return tried_again(lambda: loader.chunk(number), job.retries, failed, ended)


def tried_again(
    call: Callable[[], T],
    retries: int,
    failed: Callable[[Exception], WorkerError],
    ended: threading.Event = NEVER,
) -> tuple[T, int]:
    """What a call gives, and how often it was tried again, with pauses that double; ``failed`` names the last error.

    ``ended``: from when on nobody waits for it, and nothing is tried again.
    """
    for again in range(retries + 1):
        try:
            return call(), again
        except (DfitError, MemoryError):
            raise
        except Exception as error:  # stores and codecs raise errors of their own packages
            if again == retries or ended.wait(FIRST_PAUSE_S * 2**again):
                raise failed(error) from error
    raise AssertionError("unreachable: the last try returns or raises")


def _failed(job: Job, work: Work, number: int, at: tuple[int, Any], error: Exception) -> ReadFailed:
    (source, key), tries = at, job.retries + 1
    partition, chunk = work.partition.index, work.partition.chunks[number].index
    path = origin(work.graph, key)
    return ReadFailed(
        f"{job.labels[source]}, chunk {chunk} in partition {partition}, could not be read "
        f"{f'from {path} ' if path else ''}in process {process_name()} after {tries} tries: "
        f"{type(error).__name__}: {error}",
        partition=partition,
        array=job.labels[source],
        key=str(key),
        path=path,
        chunk=chunk,
        number=number,
        tries=tries,
        error=type(error).__name__,
        reason=str(error),
        worker=process_name(),
    )


def process_name() -> str:
    """Node and number of this process."""
    return f"{os.uname().nodename}:{os.getpid()}"


def bytes_read(work: Work, held: Held) -> int:
    """Size of what came out of the graph, each block once."""
    if held.failure is not None:
        return 0
    arrays = (array for row in held.arrays for array in row)
    pairs = zip((item for row in work.items for item in row), arrays, strict=True)
    return sum({item: array.nbytes for item, array in pairs if isinstance(item, Key)}.values())
