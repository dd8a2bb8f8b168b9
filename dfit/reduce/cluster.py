"""The runner for a dask.distributed cluster."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from dask._task_spec import DataNode
from dask.utils import key_split

from dfit.cost import LONGEST_S
from dfit.data.graph import Upstream, Work, is_future
from dfit.data.subset import SamplePlan
from dfit.errors import WorkerError
from dfit.fingerprint import of_values
from dfit.reduce.calibrate import DryRun
from dfit.reduce.draw import DrawReport
from dfit.reduce.job import Job, Point
from dfit.reduce.kept import first_of_each, require_room, size_in_bytes
from dfit.reduce.pieces import Piece, Pieces, refuse_draw, words_for
from dfit.reduce.pulse import REMEDY, Pulse
from dfit.reduce.runners import OnDrawn, OnReport
from dfit.reduce.task import Report, failed
from dfit.reduce.tree import Done
from dfit.reduce.trying import try_on_workers
from dfit.reduce.wire import accumulate_pickled, combine_pickled, draw_pickled, pickled, read_pickled

if TYPE_CHECKING:
    from distributed import Client, Future

# Beyond this many partitions their reports are combined on the workers, FAN_IN at a time: the client
# then receives a sixteenth. (Measured per partition: fan-in 2 costs 2.15 ms, 16 1.26 ms, 64 1.15 ms.)
COMBINE_ABOVE = 256
FAN_IN = 16

# Tasks that do the work of a piece, by the first words of their keys.
OWN_TASKS = {"dfit-partition", "dfit-read", "dfit-sample", "dfit-combine"}


@dataclass(eq=False)
class Sent(Piece):
    """A piece as it travels.

    Attributes
    ----------
    blob, light : the pickled work, and the same without its data.
    held : future of its arrays, where they are kept.
    """

    blob: bytes
    light: bytes
    held: Future | None = None

    @property
    def holds(self) -> bool:
        return self.held is not None

    def drop(self) -> None:
        """Let go of its arrays."""
        if self.held is not None:
            self.held.release()
        self.held = None


Start = Callable[[list[Sent]], "list[Future]"]
GiveUp = Callable[[Sent, str, BaseException], None]


class ClusterRunner:
    """Tasks on a dask.distributed cluster; kept data stay in its workers' memory.

    Everything a task needs is in the task or comes from another task, never from scattered data alone,
    so that a lost worker costs its running tasks and nothing else.  ``tasks`` as in `Pieces`.
    """

    def __init__(
        self,
        upstream: Upstream,
        constants: Mapping[str, np.ndarray],
        client: Client,
        keep: bool,
        room: int,
        tasks: int = 0,
    ) -> None:
        from dfit.reduce.interrupts import shield_workers  # imports distributed

        shield_workers(client)
        self._client = client
        self._keep = keep
        self._pieces = Pieces(upstream.works, self._sent, tasks)
        self.splits = self._pieces.splits
        self.reads_again = not keep and any(work.graph for work in upstream.works)
        sample = self._submit(upstream.kept_graph, first_of_each(upstream))
        new = {k: f for k, f in sample.items() if not is_future(upstream.kept_graph[k])}
        if new:
            sizes = self._sizes(new)
            require_room(upstream, lambda key: sizes.get(key, 0), room)
        self._kept = self._submit(upstream.kept_graph, upstream.kept)
        self._constants: Any = {}
        if constants:
            key = f"dfit-constants-{of_values(constants)}"
            self._constants = self._submit({key: DataNode(key, dict(constants))}, [key])[key]

    def _sent(self, work: Work, first_chunk: int) -> Sent:
        # The light form is sent in every pass: where arrays are kept they must not travel again.
        light = pickled(work.without_data()) if self._keep else b""
        return Sent(work, first_chunk, pickled(work), light)

    def _submit(self, graph: dict[Any, Any], keys: Sequence[Any]) -> dict[Any, Any]:
        """Futures of keys; those that the user has persisted are there already."""
        there = {k: graph[k] for k in keys if is_future(graph[k])}
        asked = [k for k in keys if k not in there]
        found = self._client.get(graph, asked, sync=False) if asked else []
        return {**there, **dict(zip(asked, found, strict=True))}

    def _sizes(self, values: Mapping[Any, Future]) -> dict[Any, int]:
        """Bytes of the values of some keys."""
        from distributed import as_completed

        of = {self._client.submit(size_in_bytes, f, pure=False): key for key, f in values.items()}
        found = Pulse(self._client).results(as_completed(of, loop=self._client.loop))
        return {of[future]: future.result() if size is None else size for future, size in found}

    def run(
        self, job: Job, point: Point, done: Done, on_report: OnReport, plan: SamplePlan | None = None
    ) -> None:
        def start(pieces: list[Sent]) -> list[Future]:
            return self._client.map(
                accumulate_pickled,
                *self._operands(job, pieces),
                [pickle.dumps((piece.shares(plan), done.within(piece.leaves))) for piece in pieces],
                job=job,
                point=point,
                constants=self._constants,
                pure=False,
                key="dfit-partition",
            )

        def give_up(piece: Sent, kind: str, error: BaseException) -> None:
            on_report(failed(piece.work, kind, type(error).__name__, str(error)))

        pieces = self._pieces.to_sum(done)
        form = job.recipe.layout.form if len(pieces) > COMBINE_ABOVE else None
        self._collect(start, pieces, on_report, give_up, form)

    def draw(self, job: Job, plan: SamplePlan, on_drawn: OnDrawn) -> None:
        def start(pieces: list[Sent]) -> list[Future]:
            return self._client.map(
                draw_pickled,
                *self._operands(job, pieces),
                [pickle.dumps(piece.shares(plan)) for piece in pieces],
                job=job,
                pure=False,
                key="dfit-sample",
            )

        self._collect(start, self._pieces.to_draw_from(plan), on_drawn, refuse_draw)

    def adapt(self) -> None:
        self._pieces.shorten(LONGEST_S)

    def try_out(self, job: Job, point: Point) -> list[DryRun]:
        """Dry runs on all of the works, one in every worker."""
        pieces = self._pieces.all()
        kept = [[self._kept[key] for key in piece.work.needs] for piece in pieces]
        blobs = [piece.blob for piece in pieces]
        return try_on_workers(self._client, blobs, kept, job=job, point=point, constants=self._constants)

    def _operands(self, job: Job, pieces: Sequence[Sent]) -> tuple[list[Any], ...]:
        """Works, their kept values, their arrays where they are kept, and whether these are read now."""
        blobs = [piece.blob for piece in pieces]
        kept = [[self._kept[key] for key in piece.work.needs] for piece in pieces]
        if not self._keep:
            return blobs, kept, [None] * len(pieces), [False] * len(pieces)
        # Workers that were started again have lost what they held.
        new = [piece.held is None or piece.held.cancelled() for piece in pieces]
        made = self._client.map(
            read_pickled,
            [*compress(blobs, new)],
            [*compress(kept, new)],
            job=job,
            pure=False,
            key="dfit-read",
        )
        for piece, future in zip(compress(pieces, new), made, strict=True):
            piece.held = future
        return [piece.light for piece in pieces], [[] for _ in pieces], [piece.held for piece in pieces], new

    def _collect(
        self,
        start: Start,
        pieces: list[Sent],
        take: Callable[[Any], None],
        give_up: GiveUp,
        form: str | None = None,
    ) -> None:
        """Hand on the reports of tasks as they complete; reports of a ``form`` are combined before.

        A piece over which memory runs out is run as two.
        """
        from distributed import as_completed

        tasks = dict(zip(start(pieces), pieces, strict=True))
        runs = {} if form is None else self._combined(list(tasks), form)
        waiting = as_completed(runs or tasks, loop=self._client.loop)
        started = WeakSet([*tasks, *runs])
        try:
            for future, blob in Pulse(self._client).results(waiting):
                parts = runs.pop(future, None)
                again: list[Sent] = []
                if blob is not None:
                    for part, report in zip(parts or [future], pickle.loads(blob), strict=True):
                        again += self._take(tasks.pop(part), report, take)
                elif parts is not None:  # one of them has failed, and tells it itself
                    waiting.update(parts)
                else:
                    again = self._after_error(future, tasks.pop(future), give_up)
                if again:
                    more = dict(zip(start(again), again, strict=True))
                    tasks.update(more)
                    started.update(more)
                    waiting.update(more)
        finally:
            # After an error or an interrupt nothing of the pass may go on running.
            if self._client.status == "running":
                self._client.cancel([f for f in (*tasks, *runs) if not f.done()])
            for future in list(started):
                future.release()  # not by forgetting it: the traceback of an error may hold it for long

    def _combined(self, futures: Sequence[Future], form: str) -> dict[Future, Sequence[Future]]:
        """Futures of combined reports, and what each of them combines."""
        runs = [futures[i : i + FAN_IN] for i in range(0, len(futures), FAN_IN)]
        made = self._client.map(combine_pickled, runs, form=form, pure=False, key="dfit-combine")
        return dict(zip(made, runs, strict=True))

    def _take(self, piece: Sent, report: Report | DrawReport, take: Callable[[Any], None]) -> list[Sent]:
        """Hand on the report of a piece; pieces to be run instead, where memory ran out."""
        if report.failure is not None:
            piece.drop()  # what could not be read is read again by the next pass
            if report.failure.kind == "memory" and (
                halves := self._pieces.halves(piece, words_for("memory"))
            ):
                return halves
        take(piece.placed(report))
        return []

    def _after_error(self, future: Future, piece: Sent, give_up: GiveUp) -> list[Sent]:
        """Pieces to be run instead of one whose task erred; other errors than of memory are raised."""
        from distributed import CancelledError, KilledWorker

        kind = "memory"
        try:
            future.result()
        except MemoryError as error:
            reason: BaseException = error
        except KilledWorker as error:
            if key_split(error.task) not in OWN_TASKS:
                raise WorkerError(f"what several partitions share could not be computed: {error}") from error
            kind, reason = "killed", error
        except CancelledError as error:
            Pulse(self._client).require()
            raise WorkerError(f"the cluster has dropped a task of the fit: {error}. {REMEDY}") from error
        piece.drop()
        halves = self._pieces.halves(piece, words_for(kind))
        if not halves:
            give_up(piece, kind, reason)
        return halves

    def close(self) -> None:
        for piece in self._pieces.all():
            piece.drop()
        self._kept.clear()
        self._constants = {}
