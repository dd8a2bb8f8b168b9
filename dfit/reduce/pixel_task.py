"""One task of a map: the chunks of some pixels in, the rows of their table out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import cloudpickle
import numpy as np

from dfit.errors import FitFailed
from dfit.parameters import Parameters
from dfit.pixel_status import IN_WORDS, WITHOUT_ERROR, PixelStatus
from dfit.reduce.pixel_answers import PixelJob, Starts
from dfit.reduce.pixel_fit import PixelFit
from dfit.reduce.pixel_stack import Column, Stack
from dfit.reduce.pixel_table import table_of


@dataclass(frozen=True)
class MapJob:
    """What every task of a map must know.

    Attributes
    ----------
    pixels : of the fits.
    columns, fitted : the arrays, and which of y's dimensions are fitted over.
    given : what is given pixel by pixel: ("p0", "lower", "upper" or "fixed", number of the parameter, y's
        dimensions that it has).
    unset : numbers of the parameters whose start follows from the bounds.
    kept : names of the kept dimensions.
    raises : whether a fit that fails raises.
    """

    pixels: PixelJob
    columns: tuple[Column, ...]
    fitted: tuple[int, ...]
    given: tuple[tuple[str, int, tuple[int, ...]], ...]
    unset: tuple[int, ...]
    kept: tuple[str, ...]
    raises: bool


def fit_chunk(job: MapJob, constants: Mapping[str, np.ndarray], *operands: Any) -> np.ndarray:
    """Table (kept dimensions, columns) of all pixels of a chunk.

    ``operands`` are, as dask's blockwise gives them: the arrays of ``job.columns``, as nested lists along
    the fitted dimensions that they have; what is given by pixel; labels of each kept dimension.
    """
    count = len(job.columns)
    stack = Stack(job.columns, parts_of(operands[:count], job), job.fitted)
    parameters: Parameters = cloudpickle.loads(job.pixels.recipe.parameters)
    given = operands[count : count + len(job.given)]
    starts = starts_of(job, parameters, stack.shape, given)
    answers = PixelFit(job.pixels, constants, stack).answers(starts)
    if job.raises:
        _require_success(job, answers.status.reshape(stack.shape), operands[count + len(job.given) :])
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
            part.append(np.asarray(operand))
        parts.append(part)
    return parts


def starts_of(job: MapJob, p: Parameters, shape: Sequence[int], given: Sequence[np.ndarray]) -> Starts:
    """Starts of the pixels of a chunk, whose kept dimensions have this shape."""
    n = int(np.prod(shape))
    kept = [axis for axis in range(len(shape) + len(job.fitted)) if axis not in job.fitted]
    tables = {"p0": p.init, "lower": p.lower, "upper": p.upper}
    rows = {name: np.tile(values, (n, 1)) for name, values in tables.items()}
    for (kind, number, axes), values in zip(job.given, given, strict=True):
        spread = np.asarray(values)[tuple(slice(None) if axis in axes else None for axis in kept)]
        rows["p0" if kind == "fixed" else kind][:, number] = np.broadcast_to(spread, shape).ravel()
    low, high = rows["lower"], rows["upper"]
    for number in job.unset:
        rows["p0"][:, number] = _inside(rows["p0"][:, number], low[:, number], high[:, number])
    varying, fixed = list(p.varying), list(p.fixed)
    theta, low, high = rows["p0"][:, varying], low[:, varying], high[:, varying]
    held = rows["p0"][:, fixed]
    usable = (np.isfinite(theta) & (low <= theta) & (theta <= high) & (low < high)).all(axis=1)
    usable &= np.isfinite(held).all(axis=1)
    return Starts(theta, low, high, held, usable)


def _inside(default: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The default where it is within the bounds, else scipy's start, as `dfit.parameters` has it."""
    with np.errstate(invalid="ignore"):
        middle = np.where(np.isinf(high), low + 1, np.where(np.isinf(low), high - 1, 0.5 * (low + high)))
    return np.where((low <= default) & (default <= high), default, middle)


def _require_success(job: MapJob, status: np.ndarray, labels: Sequence[np.ndarray]) -> None:
    """Raise for the first pixel whose fit failed, in the order of the data."""
    bad = ~np.isin(status, list(WITHOUT_ERROR))
    if not bad.any():
        return
    first = np.unravel_index(int(np.argmax(bad)), status.shape)
    place = ", ".join(f"{dim}={values[k]}" for dim, values, k in zip(job.kept, labels, first, strict=True))
    words = IN_WORDS[PixelStatus(int(status[first]))].format(limit=job.pixels.limit)
    raise FitFailed(
        f"Optimal parameters not found at {place}: {words}. In this chunk {int(bad.sum())} of {bad.size} fits "
        'failed; to have NaN there and the reason in the status type: errors="ignore"'
    )
