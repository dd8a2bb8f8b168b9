"""The first leaves of the data: what a dry run reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import dask.array
from dask._task_spec import DataNode

from dfit.data.graph import Upstream, is_future, upstream
from dfit.data.plan import LEAF_POINTS, Source, chunks_in_order, partitions_of

Grid = Sequence[Sequence[int]]

# What one chunk is made of: a read and what is done with it. A mean over the data needs more, which is no
# longer a try; so does what two runs of chunks share, such as the reads below that mean.
NODES_PER_ARRAY, SHARED_NODES = 32, 3
# Of these parts of a leaf one is enough: where chunks are small reading all of it takes as long as a task.
PARTS = 2


def first_of(sources: Sequence[Source], grid: Grid, runs: int = 2) -> Upstream | None:
    """Work of the first one or two runs of chunks, half a leaf or more; None where they need more than themselves.

    Parameters
    ----------
    runs : how many, where the data have so many along the last dimension that is cut.
    """
    box = _box(grid, runs)
    cut = [_within(source, grid, box) for source in sources]
    if any(_nodes(source) > NODES_PER_ARRAY * math.prod(map(len, box)) for source in cut):
        return None
    shared = upstream(cut, box, partitions_of(list(chunks_in_order(box)), 1))
    computed = [
        node for node in shared.kept_graph.values() if not (is_future(node) or type(node) is DataNode)
    ]
    return None if len(computed) > SHARED_NODES else shared


def _box(grid: Grid, runs: int) -> tuple[tuple[int, ...], ...]:
    """Chunks along each dimension: one, and along the last of several chunks as many as the runs take."""
    if not grid:
        return ()
    filled = [[n for n in lengths if n] for lengths in grid]
    axis = max((k for k, lengths in enumerate(filled) if len(lengths) > 1), default=0)
    row = math.prod(lengths[0] for k, lengths in enumerate(filled) if k != axis)
    found, points, left = [], 0, runs
    for length in filled[axis]:
        if points and points + row * length > LEAF_POINTS // PARTS:
            points, left = 0, left - 1
        if not left:
            break
        found.append(length)
        points += row * length
    return tuple(tuple(found) if k == axis else (lengths[0],) for k, lengths in enumerate(filled))


def _within(source: Source, grid: Grid, box: Grid) -> Source:
    """The part of a source that lies in the box of chunks."""
    ranges = {}
    for axis, dim in zip(source.axes, source.array.dims, strict=True):
        skipped = next(k for k, n in enumerate(grid[axis]) if n)
        start = sum(grid[axis][:skipped])
        ranges[dim] = slice(start, start + sum(box[axis]))
    return replace(source, array=source.array.isel(ranges))


def _nodes(source: Source) -> int:
    """Tasks of dask that the values of a source take."""
    data = source.array.data
    if not isinstance(data, dask.array.Array):
        return 0
    (optimized,) = dask.optimize(data)
    return len(optimized.__dask_graph__())
