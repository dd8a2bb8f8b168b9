"""Which maps tasks can make whole, how passes part the others, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import dask.array as da
from dask.utils import format_bytes

from dfit.reduce.map_job import MapJob
from dfit.reduce.pixel_answers import EXACT_LANES, LANES
from dfit.reduce.pixel_fit import slab_of
from dfit.reduce.pixel_points import work_of
from dfit.reduce.site import Site

# Of a worker's limit that tasks may take: dask starts to spill at 0.6, and not all is theirs.
TASK_FRACTION = 0.5
# JAX, its compiler and the programs of a map in a process that has not used them before.
FIRST_USE_BYTES = 250 << 20
# Passes that most maps need: evaluations of the slowest pixels, and a covariance.
USUAL_PASSES = 10
# A task of a pass takes several chunks up to so many bytes, or its sums would be more than its data.
PART_BYTES = 128 << 20
# Sums of so many parts wait for each other.
FAN_IN = 8

Grid = tuple[tuple[int, ...], ...]
Arrays = Sequence[tuple[da.Array, tuple[int, ...]]]


@dataclass(frozen=True)
class Cut:
    """How passes part a map.

    Attributes
    ----------
    parts : runs of chunks along the fitted dimensions, in C order; each is a task's.
    room : points of a pixel in the largest part.
    pixels : of a chunk, fitted at a time.
    chunks : along the kept dimensions, fitted at a time.
    """

    parts: tuple[range, ...]
    room: int
    pixels: int
    chunks: int


@dataclass(frozen=True)
class MapPlan:
    """How a map is made.

    Attributes
    ----------
    cut : of the passes; None where tasks make the chunks whole.
    sentence : what is done and why.
    need : what a task would hold, and what there is.
    advice : the chunks to type that tasks can make whole; empty where there are none.
    costly : whether they would take less than half of the reads.
    """

    cut: Cut | None
    sentence: str
    need: str
    advice: str
    costly: bool


def plan_of(
    job: MapJob, columns: Arrays, grid: Grid, dims: Sequence[Hashable], varying: int, site: Site
) -> MapPlan:
    """How a map of chunked data is made.

    Parameters
    ----------
    columns : arrays of the job, with those of y's dimensions that each has.
    grid, dims : chunk lengths along each of y's dimensions, and their names.
    varying : parameters.
    """
    sizes = _Sizes(job, columns, grid)
    used = 0 if site.workers else site.used
    room = int(TASK_FRACTION * max(site.limit.bytes - used - FIRST_USE_BYTES, 0))
    tasks = site.threads_each
    task = sizes.task(sizes.lengths)
    where = "a worker's limit" if site.workers else "what this process has free"
    fitted = ", ".join(str(dims[axis]) for axis in job.fitted)
    kept = ", ".join(str(dims[axis]) for axis in sizes.kept)
    need = (
        f"a task that holds a chunk along {kept} with all of {fitted} takes {format_bytes(task)}, {tasks} at a time, "
        f"of {where} of {format_bytes(site.limit.bytes)}"
    )
    if task * tasks <= room:
        # Without figures, which are others at the next call: equal maps have equal attributes.
        return MapPlan(None, "the map is lazy, and the data are read once", need, "", False)
    cut = _cut(sizes, varying, room, tasks, site)
    reads, advice = _smaller(sizes, dims, room // tasks)
    sentence = (
        f"the fits run at the call, in passes over chunks of {fitted}, which read the data about {USUAL_PASSES} "
        f"times, and the map stays in memory unless to='map.zarr' takes it: {need}"
    )
    if advice and reads < USUAL_PASSES:
        sentence += f". Cheaper: with {advice} where the data are opened the map is lazy, and reads them {reads} times"
    return MapPlan(cut, sentence, need, advice, bool(advice) and 2 * reads < USUAL_PASSES)


@dataclass(frozen=True)
class _Sizes:
    """Bytes of what is in memory for a chunk along the kept dimensions, the largest."""

    job: MapJob
    columns: Arrays
    grid: Grid

    @property
    def kept(self) -> list[int]:
        return [axis for axis in range(len(self.grid)) if axis not in self.job.fitted]

    @property
    def lengths(self) -> list[int]:
        """Along each of y's dimensions: of a chunk where it is kept, else of the data."""
        return [sum(n) if axis in self.job.fitted else max(n) for axis, n in enumerate(self.grid)]

    @property
    def pixels(self) -> int:
        return math.prod(self.lengths[axis] for axis in self.kept)

    def task(self, lengths: Sequence[int]) -> int:
        """Of a task that holds all points of the pixels of a chunk of these lengths."""
        pixels = math.prod(lengths[axis] for axis in self.kept)
        points = math.prod(lengths[axis] for axis in self.job.fitted)
        # Joined out of pieces, which are still there.
        ready = 2 * min(pixels, slab_of(points)) * points * self._point
        return self._read(lengths) + ready + work_of(points, pixels)

    def _read(self, lengths: Sequence[int]) -> int:
        return sum(a.dtype.itemsize * math.prod(lengths[axis] for axis in axes) for a, axes in self.columns)

    @property
    def _point(self) -> int:
        """Of a point that is ready for the compiled programs: y, its root weight, coordinates of a pixel's own."""
        own = sum(
            column.role == "coordinate" and not set(column.axes) <= set(self.job.fitted)
            for column in self.job.columns
        )
        return 8 * (own + (3 if self.columns[0][0].dtype.kind == "c" else 2))

    def parts(self, budget: int) -> tuple[tuple[range, ...], int]:
        """Runs of chunks along the fitted dimensions of so many bytes, or of one chunk, and points of the largest."""
        fitted, sizes = self.job.fitted, []
        for where in product(*(range(len(self.grid[axis])) for axis in fitted)):
            lengths = self.lengths
            for axis, k in zip(fitted, where, strict=True):
                lengths[axis] = self.grid[axis][k]
            points = math.prod(lengths[axis] for axis in fitted)
            sizes.append((self._read(lengths) + work_of(points, self.pixels), points))
        found = list(_runs([size for size, _ in sizes], budget))
        return tuple(found), max(sum(sizes[k][1] for k in part) for part in found)


def _cut(sizes: _Sizes, p: int, room: int, tasks: int, site: Site) -> Cut:
    """Parts that leave half of the room for the pixels' states, and as many pixels as that allows."""
    parts, points = sizes.parts(min(PART_BYTES, room // (2 * tasks)))
    state, sums = (p + 1) ** 2 + 8 * p + 30, (p + 1) * (p + 2) // 2 + 16
    each = 8 * (3 * state + (FAN_IN + tasks) * sums)
    most = room // 2 // each
    pixels = max(EXACT_LANES, most // LANES * LANES or most)
    wanted = -(-2 * site.threads // len(parts))
    chunks = min(wanted, site.processes * most // sizes.pixels)
    return Cut(parts, points, min(pixels, sizes.pixels), max(1, chunks))


def _runs(sizes: Sequence[int], budget: int) -> Iterator[range]:
    """Numbers of neighbours whose sizes are within a budget together; at least one each."""
    first, total = 0, 0
    for k, size in enumerate(sizes):
        if k > first and total + size > budget:
            yield range(first, k)
            first, total = k, 0
        total += size
    yield range(first, len(sizes))


def _smaller(sizes: _Sizes, dims: Sequence[Hashable], room: int) -> tuple[int, str]:
    """How often stored chunks are read where smaller ones along the kept dimensions fit, and the line to type."""
    lengths, kept = sizes.lengths, sizes.kept
    while sizes.task(lengths) > room:
        largest = max(kept, key=lambda axis: lengths[axis])
        if lengths[largest] == 1:
            return 0, ""
        lengths[largest] = -(-lengths[largest] // 2)
    reads = math.prod(-(-most // length) for most, length in zip(sizes.lengths, lengths, strict=True))
    chunks = {str(dim): -1 if axis in sizes.job.fitted else lengths[axis] for axis, dim in enumerate(dims)}
    return reads, f"chunks={chunks}"
