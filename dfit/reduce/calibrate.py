"""The dry run: what reading and computing cost where the tasks will run, tried on the first leaves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dfit.data.graph import Work
from dfit.data.plan import leaves_of
from dfit.errors import DfitError
from dfit.limits import process_limit
from dfit.reduce.allocator import resident_bytes
from dfit.reduce.hardware import Hardware, hardware
from dfit.reduce.job import Job, Point
from dfit.reduce.kernels import kernel_for
from dfit.reduce.reading import Held, bytes_read, process_name, read
from dfit.reduce.task import leaves_of_work, summed
from dfit.reduce.tree import Done

# A read is tried once more where it was so short that the first one's imports and caches are most of it.
SHORT_READ_S = 0.02
# Points of a leaf on which the kernel is tried; where they take less than this, what every call costs would count
# too much, and the whole leaf is summed.
BEGINNING, LONG_S = 1 << 16, 0.005


@dataclass(frozen=True)
class DryRun:
    """What one process has found.

    Attributes
    ----------
    process : its name.
    hardware, limit : what it has; the limit in bytes, whose it is, and whether the system enforces it.
    base_bytes : how much more memory the process needs since, without the data.
    point_ns, byte_ns, wait : see `dfit.terms.Terms`.
    temporary_bytes, flops_per_point : of the compiled kernel, see `Kernel`.
    failure : why there are no times, "" where there are.
    """

    process: str
    hardware: Hardware
    limit: tuple[int, str, bool]
    base_bytes: int = 0
    point_ns: float = 0.0
    byte_ns: float = 0.0
    wait: float = 0.0
    temporary_bytes: int = 0
    flops_per_point: float = 0.0
    failure: str = ""


def dry_run(
    job: Job,
    works: Sequence[Work],
    kept: Sequence[Sequence[Any]],
    point: Point,
    constants: Mapping[str, np.ndarray],
) -> DryRun:
    """Read and sum the first leaves, and tell what it took; what fails here is told, and met again by the pass."""
    idle = resident_bytes()[0]
    here = DryRun(process_name(), hardware(), process_limit())
    try:
        work = works[0]
        held, seconds, busy = _read(job, work, kept[0])
        if seconds < SHORT_READ_S and len(works) > 1 and work.graph:
            work = works[1]
            held, seconds, busy = _read(job, work, kept[1])
        if held.failure is not None:
            raise held.failure
        point_ns = _compute(job, work, held, point, constants)
    except (DfitError, MemoryError, jax.errors.JaxRuntimeError) as error:
        return replace(here, failure=f"{type(error).__name__}: {error}")
    nbytes = bytes_read(work, held)
    kernel = kernel_for(job.recipe, constants)
    data = sum(array.nbytes for arrays in held.arrays for array in arrays)
    return replace(
        here,
        base_bytes=max(0, resident_bytes()[0] - idle - data),
        point_ns=point_ns,
        byte_ns=1e9 * seconds / nbytes if nbytes else 0.0,
        temporary_bytes=kernel.temporary_bytes,
        flops_per_point=kernel.flops_per_point,
        wait=min(1.0, max(0.0, 1 - busy / seconds)) if nbytes else 0.0,
    )


def _read(job: Job, work: Work, kept: Sequence[Any]) -> tuple[Held, float, float]:
    """Chunks of a work, and the seconds that reading them took: all, and those not spent waiting for the store."""
    began, busy = time.perf_counter(), _busy_s()
    held = read(replace(job, retries=0), work, kept)
    return held, time.perf_counter() - began, _busy_s() - busy


def _busy_s() -> float:
    """Seconds that this process has used processors, and that its threads had to wait for one.

    Where others keep the processors busy, reading takes long as well, and the store is not to blame.
    """
    waited = 0
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        try:
            waited += int(thread.read_text().split()[1])  # in ns; source: the kernel's sched-stats.rst
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            continue
    return time.process_time() + 1e-9 * waited


def _compute(job: Job, work: Work, held: Held, point: Point, constants: Mapping[str, np.ndarray]) -> float:
    """Nanoseconds a point of the first leaf of a work that is in memory, or of its beginning if that is long."""

    def summing(work: Work, held: Held) -> float:
        leaves = leaves_of_work(work)
        rest, store = Done([range(leaves.start + 1, leaves.stop)]), {work.partition.index: held}
        report = summed(job, work.without_data(), point, constants, (), rest, store)
        return 1e9 * report.compute_s / report.points

    beginning = _beginning(job, work, held)
    summing(*beginning)  # compiles
    first = summing(*beginning)
    # Another program may have had the core: the better one of two counts.
    if 1e-9 * first * BEGINNING >= LONG_S:
        return min(first, summing(*beginning))
    return min(summing(work, held) for _ in range(2))


def _beginning(job: Job, work: Work, held: Held) -> tuple[Work, Held]:
    """Some `BEGINNING` points of a work that is in memory."""
    chunks, arrays = work.partition.chunks, held.arrays
    count = 1 + int(np.searchsorted(np.cumsum([chunk.size for chunk in chunks[:-1]]), BEGINNING))
    chunks, arrays = chunks[:count], arrays[:count]
    if count == 1 and chunks[0].size > BEGINNING:
        rows = max(1, BEGINNING * chunks[0].shape[0] // chunks[0].size)
        chunks = (replace(chunks[0], shape=(rows, *chunks[0].shape[1:])),)
        arrays = [[a[:rows] if 0 in axes else a for a, axes in zip(arrays[0], job.axes, strict=True)]]
    partition = replace(work.partition, leaves=len(leaves_of(chunks, job.leaf_size)), chunks=chunks)
    short = replace(work, partition=partition, items=work.items[:count])
    return short, held._replace(arrays=arrays, content=held.content[:count])
