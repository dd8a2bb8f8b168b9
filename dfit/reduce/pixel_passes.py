"""Fits of all pixels of a chunk along the kept dimensions in passes over its parts, run at the call.

For a chunk whose pixels have more points than a task can hold.  Sums and states stay where tasks run, in this
process or on the workers; only the number of unfinished pixels comes back after every pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed, delayed

from dfit.reduce.map_job import MapJob
from dfit.reduce.pixel_memory import FAN_IN, Arrays, Cut, Grid
from dfit.reduce.pixel_parts import (
    added,
    advanced,
    begun,
    ended,
    last_question,
    question,
    sums_of,
    unfinished,
)
from dfit.reduce.pixel_task import whole_table

Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Operands:
    """What the tasks of a map read.

    Attributes
    ----------
    columns, given, labels : arrays cut like y, each with y's dimensions that it has, ascending: those of the job,
        those given by pixel, and the labels of each kept dimension.
    grid : chunk lengths along each of y's dimensions.
    constants : of the model.
    """

    columns: Arrays
    given: Arrays
    labels: Arrays
    grid: Grid
    constants: Mapping[str, np.ndarray]

    @property
    def all(self) -> Arrays:
        """In the order of the arguments of `fit_chunk`."""
        return [*self.columns, *self.given, *self.labels]


@dataclass(frozen=True, eq=False)
class _Chunk:
    """One chunk along the kept dimensions: its shape there, and its arrays."""

    shape: tuple[int, ...]
    parts: list[list[list[Delayed]]]
    given: list[Delayed]
    labels: list[Delayed]


class Passes:
    """Tables of chunks along the kept dimensions, made in passes."""

    def __init__(self, job: MapJob, operands: Operands, cut: Cut, columns: int) -> None:
        self._job, self._operands, self._cut, self._columns = job, operands, cut, columns
        self._kept = [axis for axis in range(len(operands.grid)) if axis not in job.fitted]
        self._constants = delayed(dict(operands.constants), pure=False, traverse=False)

    def indexes(self) -> list[Index]:
        """Of all chunks along the kept dimensions, in C order."""
        return list(product(*(range(len(self._operands.grid[axis])) for axis in self._kept)))

    def tables(self, indexes: Sequence[Index]) -> Iterator[tuple[Index, da.Array]]:
        """Run the passes of some chunks; gives each with its table (kept dimensions, columns), computed.

        Raises
        ------
        FitFailed
            If a fit failed and the job asks to raise.
        """
        for first in range(0, len(indexes), self._cut.chunks):
            group = indexes[first : first + self._cut.chunks]
            chunks = [self._chunk(index) for index in group]
            rows: list[list[Delayed]] = [[] for _ in chunks]
            for pixel in range(0, max(math.prod(chunk.shape) for chunk in chunks), self._cut.pixels):
                there = [k for k, chunk in enumerate(chunks) if pixel < math.prod(chunk.shape)]
                for k, one in zip(there, self._rows([chunks[k] for k in there], pixel), strict=True):
                    rows[k].append(one)
            made = [
                _task(whole_table, self._job, chunk.shape)(own, chunk.labels)
                for chunk, own in zip(chunks, rows, strict=True)
            ]
            for index, chunk, table in zip(group, chunks, _held(made, len)[0], strict=True):
                yield index, da.from_delayed(table, (*chunk.shape, self._columns), np.float64)

    def _chunk(self, index: Index) -> _Chunk:
        place = dict(zip(self._kept, index, strict=True))

        def blocks(array: da.Array, axes: Sequence[int]) -> Any:
            return array.blocks[tuple(place.get(axis, slice(None)) for axis in axes)].to_delayed()

        grid, fitted = self._operands.grid, self._job.fitted
        columns = [(blocks(array, axes), axes) for array, axes in self._operands.columns]
        chunks = [
            [
                found[tuple(dict(zip(fitted, where, strict=True)).get(axis, 0) for axis in axes)]
                for found, axes in columns
            ]
            for where in product(*(range(len(grid[axis])) for axis in fitted))
        ]
        return _Chunk(
            tuple(grid[axis][k] for axis, k in place.items()),
            [[chunks[k] for k in part] for part in self._cut.parts],
            [blocks(array, axes).item() for array, axes in self._operands.given],
            [blocks(array, axes).item() for array, axes in self._operands.labels],
        )

    def _rows(self, chunks: Sequence[_Chunk], first: int) -> list[Delayed]:
        """Rows of the tables of some chunks, of the pixels from ``first`` on that are fitted at a time."""
        job, courses = self._job, []
        for chunk in chunks:
            stop = min(first + self._cut.pixels, math.prod(chunk.shape))
            courses.append(_task(begun, job, chunk.shape, first, stop)(chunk.given))
        left = list(range(len(chunks)))
        while left:
            for k in left:
                sums = self._sums(chunks[k], _task(question)(courses[k]))
                courses[k] = _task(advanced, job)(courses[k], sums)
            held, counts = _held([courses[k] for k in left], unfinished)
            for k, course in zip(left, held, strict=True):
                courses[k] = course
            left = [k for k, count in zip(left, counts, strict=True) if count]
        made = []
        for chunk, course in zip(chunks, courses, strict=True):
            found: Any = self._sums(chunk, _task(last_question)(course)) if job.pixels.robust else {}
            made.append(_task(ended, job)(course, found))
        return _held(made, len)[0]

    def _sums(self, chunk: _Chunk, asked: Delayed) -> Delayed:
        """Sums of all parts, added in a fixed order."""
        task = _task(sums_of, self._job, self._cut.room)
        sums = [task(self._constants, asked, part) for part in chunk.parts]
        while len(sums) > 1:
            sums = [_task(added)(sums[k : k + FAN_IN]) for k in range(0, len(sums), FAN_IN)]
        return sums[0]


def _task(function: Callable[..., Any], *first: Any) -> Any:
    """A function as tasks, with arguments that are the same for all of them."""
    return delayed(partial(function, *first), pure=False)


def _held(tasks: Sequence[Delayed], about: Callable[[Any], int]) -> tuple[list[Delayed], list[int]]:
    """Run tasks: their values, which stay where they were made, and a number that tells of each."""
    kept = dask.persist(*tasks, *(_task(about)(one) for one in tasks))
    return list(kept[: len(tasks)]), list(dask.compute(*kept[len(tasks) :]))
