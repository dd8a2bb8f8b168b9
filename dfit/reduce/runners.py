"""Where tasks run: what a runner is, and the one for this process (dask's local schedulers).

A runner holds the works of all partitions and, where they are kept, their data.  ``run`` maps one task
over the partitions and gives each `Report` to the caller as it completes, in any order.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import dask
import dask.local
import dask.threaded
import numpy as np
from dask._task_spec import DataNode, cull
from dask._task_spec import Task as GraphTask
from dask.callbacks import Callback

from dfit.cost import LONGEST_S
from dfit.data.graph import Upstream, Work
from dfit.data.subset import SamplePlan
from dfit.reduce.calibrate import DryRun, dry_run
from dfit.reduce.draw import DrawReport, draw_partition
from dfit.reduce.job import Job, Point
from dfit.reduce.kept import first_of_each, require_room, size_in_bytes
from dfit.reduce.pieces import Piece, Pieces, refuse_draw, words_for
from dfit.reduce.reading import Held
from dfit.reduce.task import Report, accumulate
from dfit.reduce.tree import Done

if TYPE_CHECKING:
    from distributed import Client

Get = Callable[..., Any]
OnReport = Callable[[Report], None]
OnDrawn = Callable[[DrawReport], None]
Task = Callable[[], Any]


class Runner(Protocol):
    """Maps `accumulate` or `draw_partition` over the partitions, wherever that is.

    A partition over which memory runs out is run in pieces from then on, with the same leaves.

    Attributes
    ----------
    reads_again : whether what one pass has read the next must read again.
    splits : (partition, why and how in words) of every piece that became two.
    """

    reads_again: bool
    splits: list[tuple[int, str]]

    def run(
        self, job: Job, point: Point, done: Done, on_report: OnReport, plan: SamplePlan | None = None
    ) -> None: ...

    def draw(self, job: Job, plan: SamplePlan, on_drawn: OnDrawn) -> None: ...

    def adapt(self) -> None: ...

    def try_out(self, job: Job, point: Point) -> list[DryRun]: ...

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


@dataclass(eq=False)
class Local(Piece):
    """A piece, and what this process keeps of its data, if it does."""

    store: dict[int, Held] | None

    @property
    def holds(self) -> bool:
        return self.store is not None

    def drop(self) -> None:
        """Let go of its data."""
        if self.store is not None:
            self.store.clear()


class LocalRunner:
    """Tasks in this process, or wherever a local ``get`` of dask sends them.

    Parameters
    ----------
    get : None for threads of this process, without dask.
    threads : tasks at a time.
    tasks : as in `Pieces`.
    """

    def __init__(
        self,
        upstream: Upstream,
        constants: Mapping[str, np.ndarray],
        get: Get | None,
        keep: bool,
        room: int,
        threads: int,
        tasks: int = 0,
    ) -> None:
        self._constants = dict(constants)
        self._plain, self._threads = get is None, threads
        self._get = get or dask.threaded.get
        keeps = keep and self._get in (dask.threaded.get, dask.local.get_sync)
        self._pieces = Pieces(upstream.works, lambda work, k: Local(work, k, {} if keeps else None), tasks)
        self.splits = self._pieces.splits
        self.reads_again = not keeps and any(work.graph for work in upstream.works)
        self._kept = self._compute_kept(upstream, room)

    def _compute_kept(self, shared: Upstream, room: int) -> dict[Any, Any]:
        sample = first_of_each(shared)
        known = dict(zip(sample, self._get(shared.kept_graph, sample), strict=True)) if sample else {}
        require_room(shared, lambda key: size_in_bytes(known[key]), room)
        rest = [key for key in shared.kept if key not in known]
        # What the sample has cost is not paid again.
        graph = cull({**shared.kept_graph, **{k: DataNode(k, v) for k, v in known.items()}}, rest)
        return {**known, **(dict(zip(rest, self._get(graph, rest), strict=True)) if rest else {})}

    def run(
        self, job: Job, point: Point, done: Done, on_report: OnReport, plan: SamplePlan | None = None
    ) -> None:
        def task(piece: Local) -> Task:
            given = self._constants, self._kept_of(piece.work), done.within(piece.leaves)
            return partial(accumulate, job, piece.work, point, *given, piece.store, piece.shares(plan))

        self._map(task, self._pieces.to_sum(done), on_report)

    def draw(self, job: Job, plan: SamplePlan, on_drawn: OnDrawn) -> None:
        def task(piece: Local) -> Task:
            return partial(
                draw_partition, job, piece.work, piece.shares(plan), self._kept_of(piece.work), piece.store
            )

        self._map(task, self._pieces.to_draw_from(plan), on_drawn)

    def adapt(self) -> None:
        self._pieces.shorten(LONGEST_S)

    def try_out(self, job: Job, point: Point) -> list[DryRun]:
        """A dry run on all of the works, in this process."""
        works = [piece.work for piece in self._pieces.all()]
        return [dry_run(job, works, [self._kept_of(work) for work in works], point, self._constants)]

    def _map(
        self, task: Callable[[Local], Task], pieces: Sequence[Local], take: Callable[[Any], None]
    ) -> None:
        """Hand on the reports of pieces as they complete; those over which memory ran out come last."""
        short: list[Local] = []

        def look(piece: Local, outcome: Any) -> None:
            if _out_of_memory(outcome):
                piece.drop()
                short.append(piece)
            else:
                take(piece.placed(outcome))

        self._run_tasks([partial(_tried, task(piece)) for piece in pieces], lambda k, o: look(pieces[k], o))
        for piece in short:
            self._alone(task, piece, take)

    def _alone(self, task: Callable[[Local], Task], piece: Local, take: Callable[[Any], None]) -> None:
        """Run a piece as two, or again where it cannot be parted, with no task beside it."""
        for part in self._pieces.halves(piece, words_for("memory")) or [piece]:
            outcome = _tried(task(part))
            if not _out_of_memory(outcome):
                take(part.placed(outcome))
                continue
            part.drop()
            if part is not piece:
                self._alone(task, part, take)
            elif isinstance(outcome, MemoryError):
                refuse_draw(piece, "memory", outcome)
            else:
                take(outcome)

    def _run_tasks(self, tasks: Sequence[Task], take: Callable[[int, Any], None]) -> None:
        """Run tasks where ``get`` sends them; what each gives is handed on with its number."""
        if len(tasks) == 1:
            take(0, tasks[0]())
            return
        if self._plain:
            _in_threads(tasks, take, self._threads)
            return
        # Of tasks that are alike dask begins with the last by the letters of its key.
        name, last = f"dfit-{uuid.uuid4().hex}", len(tasks) - 1
        keys = [(name, f"{last - k:09}") for k in range(len(tasks))]
        graph = {key: GraphTask(key, task) for key, task in zip(keys, tasks, strict=True)}

        def posttask(key: Any, value: Any, dsk: Any, state: Any, worker: Any) -> None:
            take(last - int(key[1]), value)

        with Callback(posttask=posttask):
            self._get(graph, list(graph), num_workers=self._threads)

    def _kept_of(self, work: Work) -> list[Any]:
        return [self._kept[key] for key in work.needs]

    def close(self) -> None:
        for piece in self._pieces.all():
            piece.drop()
        self._kept.clear()


def _in_threads(tasks: Sequence[Task], take: Callable[[int, Any], None], threads: int) -> None:
    """Run tasks so many at a time; after an error or an interrupt no other begins."""
    with ThreadPoolExecutor(threads, "dfit") as pool:
        futures = {pool.submit(task): k for k, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                take(futures[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _tried(task: Task) -> Any:
    """What a task gives, or the `MemoryError` that it raised."""
    try:
        return task()
    except MemoryError as error:
        return error.with_traceback(None)  # whose frames hold what memory was asked for


def _out_of_memory(outcome: Any) -> bool:
    if isinstance(outcome, MemoryError):
        return True
    return outcome.failure is not None and outcome.failure.kind == "memory"
