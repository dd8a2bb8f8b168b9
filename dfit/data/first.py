"""The first leaves of the data: what a dry run reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import dask.array

from dfit.data.graph import Upstream, upstream
from dfit.data.plan import LEAF_POINTS, Source, chunks_in_order, partitions_of

Grid = Sequence[Sequence[int]]

# What one chunk is made of: a read and what is done with it. A mean over the data needs more, which is no
# longer a try.
NODES_PER_ARRAY = 32


def first_of(sources: Sequence[Source], grid: Grid, runs: int = 2) -> Upstream | None:
    """Work of the first one or two runs of chunks that make a leaf; None where they need more than themselves.

    Parameters
    ----------
    runs : how many, where the data have so many along their last dimension.
    """
    box = _box(grid, runs)
    cut = [_within(source, grid, box) for source in sources]
    if any(_nodes(source) > NODES_PER_ARRAY * math.prod(map(len, box)) for source in cut):
        return None
    partitions = partitions_of(list(chunks_in_order(box)), 1)
    return upstream(cut, box, partitions)


def _box(grid: Grid, runs: int) -> tuple[tuple[int, ...], ...]:
    """Chunks along each dimension: one, and along the last as many as the runs take."""
    if not grid:
        return ()
    outer = tuple((next(n for n in lengths if n),) for lengths in grid[:-1])
    row = math.prod(length for (length,) in outer)
    last = [n for n in grid[-1] if n]
    found, points, left = [], 0, runs
    for length in last:
        if points and points + row * length > LEAF_POINTS:
            points, left = 0, left - 1
        if not left:
            break
        found.append(length)
        points += row * length
    return *outer, tuple(found)


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
