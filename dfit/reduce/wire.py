"""Tasks of a cluster as they travel: pickled works in, reports as one run of bytes out."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from threading import Semaphore
from typing import Any

import cloudpickle
import numpy as np

from dfit.data.graph import Work
from dfit.errors import InputError
from dfit.reduce.allocator import give_back
from dfit.reduce.calibrate import dry_run
from dfit.reduce.draw import draw_partition
from dfit.reduce.job import Job, Point
from dfit.reduce.reading import Held, bytes_read, read
from dfit.reduce.task import Report, accumulate, combine_reports

# Works travel in every pass, and distributed remembers a thousand messages below 1 MB on every connection: client
# and scheduler grew by two copies of the graph in each.  Most of it are keys, which become a seventh of their size.
COMPRESSED_BYTES = 1_000_000
ZLIB = b"\x78"  # the first byte of what it has made (RFC 1950); that of a pickle is 0x80


def pickled(work: Work) -> bytes:
    """The work as bytes; an `InputError` if its data cannot leave this process."""
    try:
        blob = cloudpickle.dumps(work)
    except TypeError as error:
        raise InputError(
            f"the data cannot be sent to the workers: {error}. Let every worker open the file, type: "
            'xr.open_dataset(path, engine="h5netcdf", phony_dims="sort", chunks={}) for HDF5 and NetCDF, '
            "or xr.open_zarr(path)"
        ) from error
    return zlib.compress(blob) if len(blob) <= COMPRESSED_BYTES else blob


def unpickled(blob: bytes) -> Work:
    """The work that `pickled` was given."""
    work: Work = cloudpickle.loads(zlib.decompress(blob) if blob.startswith(ZLIB) else blob)
    return work


_places: dict[int, Semaphore] = {}


def place(job: Job) -> AbstractContextManager[Any]:
    """Scope of a task in this worker: of threads that memory has no room for, each waits for its turn."""
    if not job.in_flight:
        return nullcontext()
    return _places.setdefault(job.in_flight, Semaphore(job.in_flight))


def read_pickled(blob: bytes, kept: Sequence[Any], *, job: Job) -> Held:
    """`read` for a pickled work."""
    with place(job):
        held = read(job, unpickled(blob), kept)
    give_back(_memory_limit())
    return held


def _memory_limit() -> int:
    """Bytes that dask allows the worker that runs this task; 0 for any number."""
    from distributed import get_worker

    return get_worker().memory_manager.memory_limit or 0


def accumulate_pickled(
    blob: bytes,
    kept: Sequence[Any],
    held: Held | None,
    read_now: bool,
    rest: bytes,
    *,
    job: Job,
    point: Point,
    constants: Mapping[str, np.ndarray],
) -> bytes:
    """`accumulate` for a pickled work, whose arrays may be there already; the report as one run of bytes.

    Left to itself distributed sends each of the many small arrays of a report apart.
    """
    work = unpickled(blob)
    store = None if held is None else {work.partition.index: held}
    shares, done = pickle.loads(rest)
    with place(job):
        report = accumulate(job, work, point, constants, kept, done, store, shares)
    give_back(_memory_limit())
    return pickle.dumps([_with_read(report, work, held if read_now else None)])


def draw_pickled(
    blob: bytes, kept: Sequence[Any], held: Held | None, read_now: bool, shares: bytes, *, job: Job
) -> bytes:
    """`draw_partition` for a pickled work, whose arrays may be there already."""
    work = unpickled(blob)
    store = None if held is None else {work.partition.index: held}
    with place(job):
        report = draw_partition(job, work, pickle.loads(shares), kept, store)
    give_back(_memory_limit())
    return pickle.dumps([_with_read(report, work, held if read_now else None)])


def dry_run_pickled(
    blobs: Sequence[bytes],
    kept: Sequence[Sequence[Any]],
    *,
    job: Job,
    point: Point,
    constants: Mapping[str, np.ndarray],
) -> bytes:
    """`dry_run` for pickled works."""
    return pickle.dumps(dry_run(job, [unpickled(blob) for blob in blobs], kept, point, constants))


def _with_read(report: Any, work: Work, held: Held | None) -> Any:
    """The report, with what another task has read for this one."""
    if held is None:
        return report
    report = replace(report, bytes_read=bytes_read(work, held), retries=held.retries, read_s=held.read_s)
    return replace(report, wait_s=held.read_s) if isinstance(report, Report) else report


def combine_pickled(blobs: Sequence[bytes], form: str) -> bytes:
    """`combine_reports` for pickled reports."""
    return pickle.dumps(combine_reports([report for blob in blobs for report in pickle.loads(blob)], form))
