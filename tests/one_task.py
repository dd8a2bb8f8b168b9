"""One task over data in chunks, as a runner calls it, and what is read meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cloudpickle
import dask.array as da
import numpy as np
import xarray as xr

from dfit.core.kernel import Layout, block_points
from dfit.data.domain import build_domain
from dfit.data.drawing import Share
from dfit.data.graph import upstream
from dfit.data.plan import chunk_grid, chunks_in_order, leaf_size, partitions_of, sources_of
from dfit.fingerprint import fingerprint
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.reduce.job import Job, Point
from dfit.reduce.kernels import Recipe
from dfit.reduce.reading import Held
from dfit.reduce.task import Report, accumulate
from dfit.reduce.tree import Done


class Reads:
    """y in chunks, x the number of the chunk; ``before`` is called with it when one is read.

    ``events`` has what began and ended, ``threads`` those that have read.
    """

    def __init__(self, chunks: int, size: int, before: Callable[[int], None] = lambda k: None) -> None:
        self.events: list[tuple[str, int]] = []
        self.threads: set[int] = set()

        def read(block_info: Any = None) -> np.ndarray:
            k = block_info[None]["chunk-location"][0]
            self.events.append(("begins", k))
            self.threads.add(threading.get_ident())
            before(k)
            self.events.append(("ends", k))
            return 1 + 2 * k + np.random.default_rng(k).normal(0, 0.1, size)

        y = da.map_blocks(read, chunks=((size,) * chunks,), dtype=float, meta=np.empty(0))
        x = np.repeat(np.arange(float(chunks)), size)
        self.y = xr.DataArray(y, dims="i", coords={"x": ("i", x)})

    def numbers(self) -> list[int]:
        """Chunks that have been read, in their order, since the last call of this."""
        found = [k for what, k in self.events if what == "begins"]
        assert found == [k for what, k in self.events if what == "ends"]  # nothing is being read
        self.events.clear()
        return found


class Task:
    """One task over all of the data, as a runner calls it."""

    def __init__(
        self, y: xr.DataArray, func: Callable[..., Any], traceable: bool = True, retries: int = 0
    ) -> None:
        model = Model.from_callable(func, ("x",))
        parameters = Parameters.resolve(model, p0=[1.0, 1.0])
        domain = build_domain(model, y, "x")
        sources, grid = sources_of(domain), chunk_grid(domain)
        chunks = list(chunks_in_order(grid))
        size = leaf_size(chunks)
        recipe = Recipe(
            fingerprint(model, parameters, traceable),
            model.to_blob(),
            cloudpickle.dumps(parameters),
            model.name,
            traceable,
            Layout("normal", "linear", min(block_points(2), size), False),
            None if traceable else (1.0, 1.0),
        )
        self.job = Job(
            "a fit",
            True,
            retries,
            recipe,
            tuple((s.role, s.axes, s.time) for s in sources),
            size,
            1.0,
            1.0,
            False,
            tuple(s.label for s in sources),
        )
        self.shared = upstream(sources, grid, partitions_of(chunks, y.size))
        self.point = Point(np.array([1.0, 1.0]), np.empty(0), True)

    def run(
        self,
        read_ahead: bool = True,
        done: Done | None = None,
        store: dict[int, Held] | None = None,
        shares: Sequence[Share] = (),
    ) -> Report:
        (work,) = self.shared.works
        job = replace(self.job, read_ahead=read_ahead)
        return accumulate(job, work, self.point, {}, (), done, store, shares)


def told(report: Report) -> tuple[Any, ...]:
    """What a report tells besides times."""
    forest = {node: [np.asarray(field).tobytes() for field in sums] for node, sums in report.forest.items()}
    counts = (report.leaves, report.points, report.cost, report.missing, report.content, report.retries)
    drawn = [[column.tobytes() for column in part.columns] for part in report.drawn]
    return forest, counts, report.bytes_read, report.trouble, drawn, report.failure
