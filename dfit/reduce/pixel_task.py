"""One task of a map: the chunks of some pixels in, the rows of their table out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import cloudpickle
import numpy as np

from dfit.core.pixels import Points
from dfit.errors import FitFailed
from dfit.parameters import Parameters
from dfit.pixel_status import IN_WORDS, WITHOUT_ERROR, PixelStatus
from dfit.reduce.map_job import MapJob
from dfit.reduce.neighbours import with_neighbours
from dfit.reduce.pixel_answers import Starts
from dfit.reduce.pixel_fit import Find, PixelFit
from dfit.reduce.pixel_stack import Stack
from dfit.reduce.pixel_starts import by_function, by_model, guessed, starts_of
from dfit.reduce.pixel_table import table_columns, table_of


def fit_chunk(job: MapJob, constants: Mapping[str, np.ndarray], *operands: Any) -> np.ndarray:
    """Table (kept dimensions, columns) of all pixels of a chunk.

    ``operands`` are, as dask's blockwise gives them: the arrays of ``job.columns``, as nested lists along
    the fitted dimensions that they have; what is given by pixel; labels of each kept dimension.
    """
    count = len(job.columns)
    stack = Stack(job.columns, parts_of(operands[:count], job), job.fitted)
    parameters: Parameters = cloudpickle.loads(job.pixels.recipe.parameters)
    given = operands[count : count + len(job.given)]
    place = partial(_place, job, operands[count + len(job.given) :], stack.shape)
    starts = starts_of(job, parameters, stack.shape, given)
    fit = PixelFit(job.pixels, constants, stack)
    answers = fit.answers(starts, find=_find(job, parameters, fit, place))
    if job.neighbours:
        answers = with_neighbours(fit, starts, answers, stack.shape)
    if job.raises:
        _require_success(job, answers.status, place)
    table = table_of(parameters, starts, answers)
    return table.reshape(*stack.shape, table.shape[-1])


def parts_of(operands: Sequence[Any], job: MapJob) -> list[list[np.ndarray]]:
    """The arrays of each chunk along the fitted dimensions, in C order."""
    lengths, nested = [], operands[0]
    for _ in job.fitted:
        lengths.append(len(nested))
        nested = nested[0]
    parts = []
    for index in product(*map(range, lengths)):
        part = []
        for column, operand in zip(job.columns, operands, strict=True):
            for axis, place in zip(job.fitted, index, strict=True):
                operand = operand[place] if axis in column.axes else operand
            part.append(operand)
        parts.append(part)
    return parts


def whole_table(
    job: MapJob, shape: Sequence[int], rows: Sequence[np.ndarray], labels: Sequence[np.ndarray]
) -> np.ndarray:
    """Table (kept dimensions, columns) of a chunk whose kept dimensions have this shape, from rows of pixels."""
    table = np.concatenate(rows)
    if job.raises:
        parameters: Parameters = cloudpickle.loads(job.pixels.recipe.parameters)
        status = table[:, table_columns(len(parameters.names))["status"]][:, 0]
        _require_success(job, status, partial(_place, job, labels, shape))
    return table.reshape(*shape, table.shape[-1])


def _find(job: MapJob, p: Parameters, fit: PixelFit, place: Callable[[int], str]) -> Find | None:
    """Starts that the points tell, where they are asked."""
    guess = job.guess
    if guess is None:
        return None

    def find(pixels: np.ndarray, points: Points, starts: Starts) -> Starts:
        if guess.function is None:
            found = by_model(job.pixels.recipe.model, points, fit.lanes(pixels.size))
        else:
            at = (lambda k: place(int(pixels[k]))) if job.raises else None
            found = by_function(guess.function, points, p, at)
        return guessed(starts, found, guess, p)

    return find


def _place(job: MapJob, labels: Sequence[np.ndarray], shape: Sequence[int], pixel: int) -> str:
    """Where a pixel of a chunk is, by the labels of the kept dimensions."""
    index = np.unravel_index(pixel, shape)
    return ", ".join(f"{dim}={values[k]}" for dim, values, k in zip(job.kept, labels, index, strict=True))


def _require_success(job: MapJob, status: np.ndarray, place: Callable[[int], str]) -> None:
    """Raise for the first pixel whose fit failed, in the order of the data."""
    bad = ~np.isin(status, list(WITHOUT_ERROR))
    if not bad.any():
        return
    first = int(np.argmax(bad))
    words = IN_WORDS[PixelStatus(int(status[first]))].format(limit=job.pixels.limit)
    raise FitFailed(
        f"Optimal parameters not found at {place(first)}: {words}. In this chunk {int(bad.sum())} of {bad.size} fits "
        'failed; to have NaN there and the reason in the status type: errors="ignore"'
    )
