"""Plan: which points form a leaf, which leaves form a partition, and what each partition reads.

A *leaf* is a fixed run of points in the array's own chunk order, the unit under the reduction tree: a
slice of a large chunk, or several whole small chunks.  Leaves follow from the chunks alone.  A
*partition* is a run of leaves made of whole chunks: it is what one task reads, and may be chosen
freely, because sums are combined by leaf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import xarray as xr

from dfit.data.domain import Domain, TimeAxis

# A leaf amortises one call of the compiled kernel (some 50 microseconds) to a few per cent, and its
# arrays still fit the third-level cache. Fixed: other leaves give other bits.
LEAF_POINTS = 1 << 18
SMALLEST_LEAF = 256  # small data share one compiled shape


@dataclass(frozen=True)
class Source:
    """One array that a pass needs: y, a coordinate, sigma or the mask.

    ``axes`` are y's dimensions that it lies along, ascending; ``time`` converts a chunked time.
    """

    role: str  # "y", "coordinate", "sigma", "where"
    array: xr.DataArray
    axes: tuple[int, ...]
    time: TimeAxis | None = None

    @property
    def label(self) -> str:
        """What errors call it: its role, and the name that its array came with."""
        return self.role if self.array.name is None else f"{self.role} {self.array.name!r}"


@dataclass(frozen=True)
class Chunk:
    """Place of one chunk in y: the start and the length along each dimension, and its grid index."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    index: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Partition:
    """A run of whole chunks that holds leaves ``first_leaf`` to ``first_leaf + leaves``."""

    index: int
    first_leaf: int
    leaves: int
    chunks: tuple[Chunk, ...]

    @property
    def points(self) -> int:
        return sum(chunk.size for chunk in self.chunks)


@dataclass(frozen=True)
class Segment:
    """Points ``start`` to ``stop`` of chunk number ``chunk`` of a partition, in C order."""

    chunk: int
    start: int
    stop: int


def sources_of(domain: Domain) -> tuple[Source, ...]:
    """Arrays that a pass over the domain needs, y first, then the coordinates in order."""
    dims = domain.data.dims

    def source(role: str, array: xr.DataArray, time: TimeAxis | None = None) -> Source:
        return Source(role, array, tuple(dims.index(d) for d in array.dims), time)

    found = [source("y", domain.data)]
    for name, array in domain.coords.items():
        found.append(source("coordinate", array, domain.time.get(name)))
    if isinstance(domain.sigma, xr.DataArray):
        found.append(source("sigma", domain.sigma))
    if domain.where is not None:
        found.append(source("where", domain.where))
    return tuple(found)


def chunk_grid(domain: Domain) -> tuple[tuple[int, ...], ...]:
    """Chunk lengths along each dimension of y; an array in memory is cut into leaf-sized rows."""
    y = domain.data
    if y.chunks is not None:
        return y.chunks
    if y.ndim == 0:
        return ()
    beside = [*domain.coords.values(), domain.sigma, domain.where]
    full = [a.chunks for a in beside if isinstance(a, xr.DataArray) and a.chunks and a.dims == y.dims]
    if full:
        return full[0]
    rows = max(1, LEAF_POINTS // max(1, y[0].size))
    return _cut(y.shape[0], rows), *((n,) for n in y.shape[1:])


def _cut(length: int, step: int) -> tuple[int, ...]:
    whole, rest = divmod(length, step)
    return (step,) * whole + ((rest,) if rest else ())


def chunks_in_order(grid: Sequence[Sequence[int]]) -> Iterator[Chunk]:
    """Chunks of the grid in C order, those without points left out."""
    starts = [np.concatenate([[0], np.cumsum(lengths)]).tolist() for lengths in grid]
    for index in product(*(range(len(lengths)) for lengths in grid)):
        shape = tuple(grid[d][i] for d, i in enumerate(index))
        if math.prod(shape):
            yield Chunk(tuple(starts[d][i] for d, i in enumerate(index)), shape, index)


def leaves_of(chunks: Sequence[Chunk], leaf_points: int) -> list[list[Segment]]:
    """Leaves of a run of chunks: small ones are gathered, large ones are cut.

    Starting at any gathered group gives the same leaves as starting at the first chunk, so a
    partition finds its own leaves from its own chunks.  The points of a leaf come from the client
    (`leaf_size`), so that no worker can cut otherwise.
    """
    out: list[list[Segment]] = []
    for first, last in _groups([c.size for c in chunks], leaf_points):
        if last - first == 1:
            size = chunks[first].size
            out += [[Segment(first, a, min(a + leaf_points, size))] for a in range(0, size, leaf_points)]
        else:
            out.append([Segment(k, 0, chunks[k].size) for k in range(first, last)])
    return out


def covered(partition: Partition, leaves: range) -> tuple[range, int]:
    """Chunks of a partition that some of its leaves are made of, and the points of these leaves."""
    first = partition.first_leaf
    cut = leaves_of(partition.chunks, LEAF_POINTS)[leaves.start - first : leaves.stop - first]
    segments = [segment for leaf in cut for segment in leaf]
    return range(segments[0].chunk, segments[-1].chunk + 1), sum(s.stop - s.start for s in segments)


def _groups(sizes: Sequence[int], leaf_points: int) -> Iterator[tuple[int, int]]:
    """Runs of chunks that share a leaf: as many as fit, and a large chunk alone."""
    first, held = 0, 0
    for k, size in enumerate(sizes):
        if k > first and held + size > leaf_points:
            yield first, k
            first, held = k, 0
        held += size
    if first < len(sizes):
        yield first, len(sizes)


def partitions_of(chunks: Sequence[Chunk], points: int) -> list[Partition]:
    """Partitions of about ``points`` points, one group of leaves at least.

    Each ends at the group nearest to a multiple of ``points``, so that as many come out as were meant.
    """
    out: list[Partition] = []
    begin, first_leaf, leaves, covered, goal = 0, 0, 0, 0, points

    def close(end: int) -> None:
        nonlocal begin, first_leaf, leaves, goal
        out.append(Partition(len(out), first_leaf, leaves, tuple(chunks[begin:end])))
        begin, first_leaf, leaves = end, first_leaf + leaves, 0
        goal = max(goal, covered) + points

    for first, last in _groups([c.size for c in chunks], LEAF_POINTS):
        size = sum(c.size for c in chunks[first:last])
        if leaves and covered + size // 2 >= goal:
            close(first)
        covered += size
        leaves += math.ceil(size / LEAF_POINTS) if last - first == 1 else 1
    if leaves:
        close(len(chunks))
    return out


def middle(chunks: Sequence[Chunk]) -> tuple[int, int]:
    """Chunks and leaves before the group of chunks that begins nearest to the middle; 0, 0 in a single group."""
    half = sum(c.size for c in chunks) / 2
    before = points = 0
    found, distance = (0, 0), half
    for first, last in _groups([c.size for c in chunks], LEAF_POINTS):
        if first and abs(points - half) < distance:
            found, distance = (first, before), abs(points - half)
        points += sum(c.size for c in chunks[first:last])
        before += len(leaves_of(chunks[first:last], LEAF_POINTS))
    return found


def largest_leaf(chunks: Sequence[Chunk]) -> int:
    """Points of the largest leaf."""
    sizes = [c.size for c in chunks]
    return max(min(LEAF_POINTS, sum(sizes[a:b])) for a, b in _groups(sizes, LEAF_POINTS))


def leaf_size(chunks: Sequence[Chunk]) -> int:
    """Padded points of a leaf: the power of two that holds the largest one.

    A limit of this many points cuts and gathers chunks as `LEAF_POINTS` does.
    """
    return min(LEAF_POINTS, max(SMALLEST_LEAF, 1 << (largest_leaf(chunks) - 1).bit_length()))


def bytes_per_point(sources: Sequence[Source], dims: int) -> int:
    """Bytes a partition holds per point: arrays along fewer dimensions weigh nothing."""
    return sum(s.array.dtype.itemsize for s in sources if len(s.axes) == dims)


def extent(partition: Partition, chunks: range) -> list[tuple[int, int]]:
    """Start and stop along each dimension of some chunks of a partition."""
    places = [partition.chunks[k] for k in chunks]
    starts = zip(*(place.start for place in places), strict=True)
    stops = zip(*(np.add(place.start, place.shape).tolist() for place in places), strict=True)
    return [(min(start), max(stop)) for start, stop in zip(starts, stops, strict=True)]


def describe(domain: Domain, partition: Partition, chunks: range) -> str:
    """A partition and the ranges of dimensions and coordinates that some of its chunks span, in words."""
    data = domain.data
    box = {}
    ranges = []
    for dim, (start, stop) in zip(data.dims, extent(partition, chunks), strict=True):
        box[dim] = slice(start, stop)
        text = f"{dim}[{start}:{stop}]"
        if dim in data.indexes:
            text += f" = {data.indexes[dim][start]} to {data.indexes[dim][stop - 1]}"
        ranges.append(text)
    for name, array in domain.coords.items():
        if name not in data.indexes and array.chunks is None:
            values = array.isel({dim: box[dim] for dim in array.dims}).values
            ranges.append(f"{name} = {np.min(values)} to {np.max(values)}")
    return f"partition {partition.index} ({', '.join(ranges)})"
