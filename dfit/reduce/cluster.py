"""The runner for a dask.distributed cluster, and what its tasks are on the wire."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING, Any, TypeVar

import cloudpickle
import numpy as np
from dask._task_spec import DataNode

from dfit.data.graph import Upstream, Work, is_future
from dfit.data.subset import SamplePlan
from dfit.errors import InputError
from dfit.fingerprint import of_values
from dfit.reduce.draw import DrawReport, draw_partition
from dfit.reduce.job import Job, Point
from dfit.reduce.kept import first_of_each, require_room, size_in_bytes
from dfit.reduce.reading import Held, bytes_read, read
from dfit.reduce.runners import OnDrawn, OnReport, unfinished
from dfit.reduce.task import Report, accumulate, combine_reports
from dfit.reduce.tree import Forest

if TYPE_CHECKING:
    from distributed import Client, Future

# Beyond this many partitions their reports are combined on the workers, FAN_IN at a time: the client
# then receives a sixteenth. (Measured per partition: fan-in 2 costs 2.15 ms, 16 1.26 ms, 64 1.15 ms.)
COMBINE_ABOVE = 256
FAN_IN = 16

AnyReport = TypeVar("AnyReport", Report, DrawReport)


class ClusterRunner:
    """Tasks on a dask.distributed cluster; kept data stay in its workers' memory.

    Everything a task needs is in the task or comes from another task, never from scattered data alone,
    so that a lost worker costs its running tasks and nothing else.
    """

    def __init__(
        self, upstream: Upstream, constants: Mapping[str, np.ndarray], client: Client, keep: bool, room: int
    ) -> None:
        from dfit.reduce.interrupts import shield_workers  # imports distributed

        shield_workers(client)
        self._client = client
        self._works = upstream.works
        self._blobs = [_pickled(work) for work in upstream.works]
        # Sent in every pass: where a partition's arrays are kept they must not travel again.
        self._light = [cloudpickle.dumps(work.without_data()) for work in upstream.works] if keep else []
        self._keep = keep
        self.reads_again = not keep and any(work.graph for work in self._works)
        self._arrays: dict[int, Future] = {}
        sample = self._submit(upstream.kept_graph, first_of_each(upstream))
        new = {k: f for k, f in sample.items() if not is_future(upstream.kept_graph[k])}
        if new:
            sizes = {k: client.submit(size_in_bytes, f, pure=False).result() for k, f in new.items()}
            require_room(upstream, lambda key: sizes.get(key, 0), room)
        self._kept = self._submit(upstream.kept_graph, upstream.kept)
        self._constants: Any = {}
        if constants:
            key = f"dfit-constants-{of_values(constants)}"
            self._constants = self._submit({key: DataNode(key, dict(constants))}, [key])[key]

    def _submit(self, graph: dict[Any, Any], keys: Sequence[Any]) -> dict[Any, Any]:
        """Futures of keys; those that the user has persisted are there already."""
        there = {k: graph[k] for k in keys if is_future(graph[k])}
        asked = [k for k in keys if k not in there]
        found = self._client.get(graph, asked, sync=False) if asked else []
        return {**there, **dict(zip(asked, found, strict=True))}

    def run(
        self, job: Job, point: Point, done: Forest, on_report: OnReport, plan: SamplePlan | None = None
    ) -> None:
        shares = plan.by_partition if plan else {}
        works = list(unfinished(self._works, done))
        futures = self._client.map(
            accumulate_pickled,
            *self._operands(job, works),
            [pickle.dumps(shares.get(w.partition.index, ())) for w in works],
            job=job,
            point=point,
            constants=self._constants,
            done=done,
            pure=False,
            key="dfit-partition",
        )
        if len(futures) > COMBINE_ABOVE:
            runs = [futures[i : i + FAN_IN] for i in range(0, len(futures), FAN_IN)]
            form = job.recipe.layout.form
            futures = self._client.map(combine_pickled, runs, form=form, pure=False, key="dfit-combine")
        self._take(futures, on_report)

    def draw(self, job: Job, plan: SamplePlan, on_drawn: OnDrawn) -> None:
        futures = self._client.map(
            draw_pickled,
            *self._operands(job, [self._works[index] for index in plan.by_partition]),
            [pickle.dumps(shares) for shares in plan.by_partition.values()],
            job=job,
            pure=False,
            key="dfit-sample",
        )
        self._take(futures, on_drawn)

    def _operands(self, job: Job, works: Sequence[Work]) -> tuple[list[Any], ...]:
        """Works, their kept values, their arrays where they are kept, and whether these are read now."""
        blobs = [self._blobs[w.partition.index] for w in works]
        kept = [[self._kept[key] for key in w.needs] for w in works]
        if not self._keep:
            return blobs, kept, [None] * len(works), [False] * len(works)
        new = [w.partition.index not in self._arrays for w in works]
        made = self._client.map(
            read_pickled,
            [*compress(blobs, new)],
            [*compress(kept, new)],
            job=job,
            pure=False,
            key="dfit-read",
        )
        self._arrays.update({w.partition.index: f for w, f in zip(compress(works, new), made, strict=True)})
        arrays = [self._arrays[w.partition.index] for w in works]
        return [self._light[w.partition.index] for w in works], [[] for _ in works], arrays, new

    def _take(self, futures: list[Any], take: Callable[[Any], None]) -> None:
        """Hand on the reports of tasks as they complete."""
        from distributed import as_completed

        try:
            for _, blob in as_completed(futures, with_results=True):
                for report in pickle.loads(blob):
                    take(report)
        finally:
            # After an error or an interrupt nothing of the pass may go on running.
            self._client.cancel([f for f in futures if not f.done()])

    def close(self) -> None:
        for future in self._arrays.values():
            future.release()  # not by forgetting it: the traceback of an error may hold it for long
        self._arrays.clear()
        self._kept.clear()
        self._constants = {}


def _pickled(work: Work) -> bytes:
    try:
        return cloudpickle.dumps(work)
    except TypeError as error:
        raise InputError(
            f"the data cannot be sent to the workers: {error}. Let every worker open the file, type: "
            'xr.open_dataset(path, engine="h5netcdf", phony_dims="sort", chunks={}) for HDF5 and NetCDF, '
            "or xr.open_zarr(path)"
        ) from error


def read_pickled(blob: bytes, kept: Sequence[Any], *, job: Job) -> Held:
    """`read` for a pickled work."""
    return read(job, cloudpickle.loads(blob), kept)


def accumulate_pickled(
    blob: bytes,
    kept: Sequence[Any],
    held: Held | None,
    read_now: bool,
    shares: bytes,
    *,
    job: Job,
    point: Point,
    constants: Mapping[str, np.ndarray],
    done: Forest,
) -> bytes:
    """`accumulate` for a pickled work, whose arrays may be there already; the report as one run of bytes.

    Left to itself distributed sends each of the many small arrays of a report apart.
    """
    work = cloudpickle.loads(blob)
    store = None if held is None else {work.partition.index: held}
    report = accumulate(job, work, point, constants, kept, done, store, pickle.loads(shares))
    return pickle.dumps([_with_read(report, work, held if read_now else None)])


def draw_pickled(
    blob: bytes, kept: Sequence[Any], held: Held | None, read_now: bool, shares: bytes, *, job: Job
) -> bytes:
    """`draw_partition` for a pickled work, whose arrays may be there already."""
    work = cloudpickle.loads(blob)
    store = None if held is None else {work.partition.index: held}
    report = draw_partition(job, work, pickle.loads(shares), kept, store)
    return pickle.dumps([_with_read(report, work, held if read_now else None)])


def _with_read(report: AnyReport, work: Work, held: Held | None) -> AnyReport:
    """The report, with what another task has read for this one."""
    if held is None:
        return report
    if isinstance(report, Report):
        report = replace(report, retries=held.retries)
    return replace(report, bytes_read=bytes_read(work, held))


def combine_pickled(blobs: Sequence[bytes], form: str) -> bytes:
    """`combine_reports` for pickled reports."""
    return pickle.dumps(combine_reports([report for blob in blobs for report in pickle.loads(blob)], form))
