"""Where tasks run: what a runner is, and the one for this process (dask's local schedulers).

A runner holds the works of all partitions and, where they are kept, their data.  ``run`` maps one task
over the partitions and gives each `Report` to the caller as it completes, in any order.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import dask
import dask.local
import dask.threaded
import numpy as np
from dask._task_spec import DataNode, Task, cull
from dask.callbacks import Callback

from dfit.data.graph import Upstream, Work
from dfit.data.subset import SamplePlan
from dfit.reduce.draw import DrawReport, draw_partition
from dfit.reduce.job import Job, Point
from dfit.reduce.kept import first_of_each, require_room, size_in_bytes
from dfit.reduce.reading import Held
from dfit.reduce.task import Report, accumulate
from dfit.reduce.tree import Forest, covers

if TYPE_CHECKING:
    from distributed import Client

Get = Callable[..., Any]
OnReport = Callable[[Report], None]
OnDrawn = Callable[[DrawReport], None]


class Runner(Protocol):
    """Maps `accumulate` or `draw_partition` over the partitions, wherever that is.

    ``reads_again``: whether what one pass has read the next must read again.
    """

    reads_again: bool

    def run(
        self, job: Job, point: Point, done: Forest, on_report: OnReport, plan: SamplePlan | None = None
    ) -> None: ...

    def draw(self, job: Job, plan: SamplePlan, on_drawn: OnDrawn) -> None: ...

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
        self._store: dict[int, Held] | None = {} if keep and here else None
        self.reads_again = self._store is None and any(work.graph for work in self._works)
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
        self, job: Job, point: Point, done: Forest, on_report: OnReport, plan: SamplePlan | None = None
    ) -> None:
        shares = plan.by_partition if plan else {}

        def operands(work: Work) -> tuple[Any, ...]:
            given = shares.get(work.partition.index, ())
            return job, work, point, self._constants, self._kept_of(work), done, self._store, given

        self._map(accumulate, [operands(work) for work in unfinished(self._works, done)], on_report)

    def draw(self, job: Job, plan: SamplePlan, on_drawn: OnDrawn) -> None:
        works = [(self._works[index], shares) for index, shares in plan.by_partition.items()]
        operands = [(job, work, shares, self._kept_of(work), self._store) for work, shares in works]
        self._map(draw_partition, operands, on_drawn)

    def _map(
        self, task: Callable[..., Any], operands: Sequence[tuple[Any, ...]], take: Callable[[Any], None]
    ) -> None:
        if len(operands) == 1:
            take(task(*operands[0]))
            return
        name = f"dfit-{uuid.uuid4().hex}"
        graph = {(name, i): Task((name, i), partial(task, *args)) for i, args in enumerate(operands)}

        def posttask(key: Any, value: Any, dsk: Any, state: Any, worker: Any) -> None:
            take(value)

        with Callback(posttask=posttask):
            self._get(graph, list(graph))

    def _kept_of(self, work: Work) -> list[Any]:
        return [self._kept[key] for key in work.needs]

    def close(self) -> None:
        self._store = None
        self._kept.clear()


def unfinished(works: Sequence[Work], done: Forest) -> Iterator[Work]:
    """Works with a leaf that is not done."""
    for work in works:
        p = work.partition
        if not done or not all(covers(done, leaf) for leaf in range(p.first_leaf, p.first_leaf + p.leaves)):
            yield work
