"""Where tasks run: in this process (dask's local schedulers) or on a dask.distributed cluster.

A runner holds the works of all partitions and, where they are kept, their data.  ``run`` maps one task
over the partitions and gives each `Report` to the caller as it completes, in any order.
"""

from __future__ import annotations

import pickle
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import cloudpickle
import dask
import dask.local
import dask.threaded
import numpy as np
from dask._task_spec import DataNode, Task, cull
from dask.callbacks import Callback

from dfit.data.graph import Upstream, Work, is_future
from dfit.errors import InputError
from dfit.fingerprint import of_values
from dfit.reduce.kept import first_of_each, require_room, size_in_bytes
from dfit.reduce.task import Arrays, Job, Point, Report, accumulate, bytes_read, combine_reports, read
from dfit.reduce.tree import Forest, covers

if TYPE_CHECKING:
    from distributed import Client, Future

# Beyond this many partitions their reports are combined on the workers, FAN_IN at a time: the client
# then receives a sixteenth. (Measured per partition: fan-in 2 costs 2.15 ms, 16 1.26 ms, 64 1.15 ms.)
COMBINE_ABOVE = 256
FAN_IN = 16

Get = Callable[..., Any]
OnReport = Callable[[Report], None]


class Runner(Protocol):
    """Maps `accumulate` over the partitions, wherever that is."""

    def run(self, job: Job, point: Point, done: Forest, on_report: OnReport) -> None: ...

    def close(self) -> None: ...


def scheduler_of(collections: Sequence[Any]) -> tuple[Get | None, Client | None]:
    """The local ``get`` or the client that dask would use now; (None, None) is dask's own threads."""
    if "distributed" not in sys.modules and not dask.config.get("scheduler", None):
        return None, None  # where nothing has started a client, do not spend 0.2 s on importing it
    get = dask.base.get_scheduler(collections=list(collections))
    owner = getattr(get, "__self__", None)
    if owner is not None and hasattr(owner, "scheduler_info"):
        return None, owner
    return get, None


class LocalRunner:
    """Tasks in this process, or wherever a local ``get`` sends them."""

    def __init__(
        self, upstream: Upstream, constants: Mapping[str, np.ndarray], get: Get | None, keep: bool, room: int
    ) -> None:
        self._works = upstream.works
        self._constants = dict(constants)
        self._get = get or dask.threaded.get
        here = self._get in (dask.threaded.get, dask.local.get_sync)
        self._store: dict[int, Arrays] | None = {} if keep and here else None
        self._kept = self._compute_kept(upstream, room)

    def _compute_kept(self, shared: Upstream, room: int) -> dict[Any, Any]:
        sample = first_of_each(shared)
        known = dict(zip(sample, self._get(shared.kept_graph, sample), strict=True)) if sample else {}
        require_room(shared, lambda key: size_in_bytes(known[key]), room)
        rest = [key for key in shared.kept if key not in known]
        # What the sample has cost is not paid again.
        graph = cull({**shared.kept_graph, **{k: DataNode(k, v) for k, v in known.items()}}, rest)
        return {**known, **(dict(zip(rest, self._get(graph, rest), strict=True)) if rest else {})}

    def run(self, job: Job, point: Point, done: Forest, on_report: OnReport) -> None:
        operands = [self._operands(job, work, point, done) for work in unfinished(self._works, done)]
        if len(operands) == 1:
            on_report(accumulate(*operands[0]))
            return
        name = f"dfit-{uuid.uuid4().hex}"
        graph = {(name, i): Task((name, i), partial(accumulate, *args)) for i, args in enumerate(operands)}

        def posttask(key: Any, value: Any, dsk: Any, state: Any, worker: Any) -> None:
            on_report(value)

        with Callback(posttask=posttask):
            self._get(graph, list(graph))

    def _operands(self, job: Job, work: Work, point: Point, done: Forest) -> tuple[Any, ...]:
        kept = [self._kept[key] for key in work.needs]
        return job, work, point, self._constants, kept, done, self._store

    def close(self) -> None:
        self._store = None
        self._kept.clear()


class ClusterRunner:
    """Tasks on a dask.distributed cluster; kept data stay in its workers' memory.

    Everything a task needs is in the task or comes from another task, never from scattered data alone,
    so that a lost worker costs its running tasks and nothing else.
    """

    def __init__(
        self, upstream: Upstream, constants: Mapping[str, np.ndarray], client: Client, keep: bool, room: int
    ) -> None:
        self._client = client
        self._works = upstream.works
        self._blobs = [_pickled(work) for work in upstream.works]
        # Sent in every pass: where a partition's arrays are kept they must not travel again.
        self._light = [cloudpickle.dumps(work.without_data()) for work in upstream.works] if keep else []
        self._keep = keep
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

    def run(self, job: Job, point: Point, done: Forest, on_report: OnReport) -> None:
        from distributed import as_completed

        works = list(unfinished(self._works, done))
        blobs = [self._blobs[w.partition.index] for w in works]
        kept = [[self._kept[key] for key in w.needs] for w in works]
        arrays: list[Any] = [None] * len(works)
        if self._keep:
            new = [i for i, w in enumerate(works) if w.partition.index not in self._arrays]
            made = self._client.map(
                read_pickled,
                [blobs[i] for i in new],
                [kept[i] for i in new],
                job=job,
                pure=False,
                key="dfit-read",
            )
            self._arrays.update({works[i].partition.index: f for i, f in zip(new, made, strict=True)})
            arrays = [self._arrays[w.partition.index] for w in works]
            blobs, kept = [self._light[w.partition.index] for w in works], [[] for _ in works]
        futures: list[Any] = self._client.map(
            accumulate_pickled,
            blobs,
            kept,
            arrays,
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
        try:
            for _, blob in as_completed(futures, with_results=True):
                for report in pickle.loads(blob):
                    on_report(report)
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


def read_pickled(blob: bytes, kept: Sequence[Any], *, job: Job) -> Arrays:
    """`read` for a pickled work."""
    return read(job, cloudpickle.loads(blob), kept)


def accumulate_pickled(
    blob: bytes,
    kept: Sequence[Any],
    arrays: Arrays | None,
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
    if arrays is None:
        return pickle.dumps([accumulate(job, work, point, constants, kept, done)])
    report = accumulate(job, work, point, constants, kept, done, {work.partition.index: arrays})
    if point.survey:  # the first pass, for which the partition was read
        report = replace(report, bytes_read=bytes_read(work, arrays))
    return pickle.dumps([report])


def combine_pickled(blobs: Sequence[bytes], form: str) -> bytes:
    """`combine_reports` for pickled reports."""
    return pickle.dumps(combine_reports([report for blob in blobs for report in pickle.loads(blob)], form))


def unfinished(works: Sequence[Work], done: Forest) -> Iterator[Work]:
    """Works with a leaf that is not done."""
    for work in works:
        p = work.partition
        if not done or not all(covers(done, leaf) for leaf in range(p.first_leaf, p.first_leaf + p.leaves)):
            yield work
