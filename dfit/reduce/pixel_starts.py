"""Where the pixels of a chunk begin: what all have in common, what is given by pixel, and guesses from its points."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from dfit.core.pixels import Points
from dfit.data.loading import missing_as_nan
from dfit.errors import ModelError
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.reduce.kernels import KERNELS_KEPT
from dfit.reduce.map_job import Guess, MapJob
from dfit.reduce.pixel_answers import Starts, in_lanes
from dfit.signature import name_of

# What a guess may raise because of a pixel's values; a wrong name or a wrong type would be wrong in each of them.
OF_THE_VALUES = (ArithmeticError, LookupError, RuntimeError, ValueError)


def starts_of(job: MapJob, p: Parameters, shape: Sequence[int], given: Sequence[np.ndarray]) -> Starts:
    """Starts of the pixels of a chunk, whose kept dimensions have this shape, by ``given``, values of `MapJob.given`."""
    n = int(np.prod(shape))
    kept = [axis for axis in range(len(shape) + len(job.fitted)) if axis not in job.fitted]
    tables = {"p0": p.init, "lower": p.lower, "upper": p.upper}
    rows = {name: np.tile(values, (n, 1)) for name, values in tables.items()}
    for (kind, number, axes), values in zip(job.given, given, strict=True):
        spread = missing_as_nan(values)[tuple(slice(None) if axis in axes else None for axis in kept)]
        rows["p0" if kind == "fixed" else kind][:, number] = np.broadcast_to(spread, shape).ravel()
    low, high = rows["lower"], rows["upper"]
    for number in job.unset:
        rows["p0"][:, number] = _inside(rows["p0"][:, number], low[:, number], high[:, number])
    varying, fixed = list(p.varying), list(p.fixed)
    theta, low, high = rows["p0"][:, varying], low[:, varying], high[:, varying]
    return begin_at(Starts(theta, low, high, rows["p0"][:, fixed], np.ones(n, bool)), theta)


def begin_at(starts: Starts, theta: np.ndarray) -> Starts:
    """The same pixels at theta (N, p), and whether they can be fitted from there."""
    usable = np.isfinite(starts.held).all(axis=1)
    usable &= ((starts.lower <= theta) & (theta <= starts.upper) & (starts.lower < starts.upper)).all(axis=1)
    return replace(starts, theta=theta, usable=usable & np.isfinite(theta).all(axis=1))


def _inside(default: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The default where it is within the bounds, else scipy's start, as `dfit.parameters` has it."""
    with np.errstate(invalid="ignore"):
        middle = np.where(np.isinf(high), low + 1, np.where(np.isinf(low), high - 1, 0.5 * (low + high)))
    return np.where((low <= default) & (default <= high), default, middle)


def guessed(starts: Starts, found: np.ndarray, guess: Guess, p: Parameters) -> Starts:
    """Starts with a guess, (N, P) of all parameters, moved into the bounds; NaN cannot be used."""
    varying = list(p.varying)
    columns = [varying.index(number) for number in guess.numbers]
    theta = starts.theta.copy()
    low, high = starts.lower[:, columns], starts.upper[:, columns]
    theta[:, columns] = np.minimum(np.maximum(found[:, list(guess.numbers)], low), high)
    return begin_at(starts, theta)


def by_model(model: bytes, points: Points, lanes: int) -> np.ndarray:
    """Starts (N, P) of a pickled model's own, so many pixels at a time; points along the first axis of their arrays."""
    valid = ~np.isnan(points.y)
    points = points._replace(y=np.where(valid, points.y, 0.0))
    together = valid.any(axis=1)
    alike = (valid == together[:, None]).all(axis=0) | ~valid.any(axis=0)
    if 2 * alike.sum() < alike.size:  # few of them are not worth a program
        alike[:] = False
    # What does not depend on y is computed once for all lanes where they have the same points.
    groups = [(np.flatnonzero(alike), together), (np.flatnonzero(~alike), valid)]
    parts = [
        (pixels, _of_group(model, points, mask, pixels, lanes)) for pixels, mask in groups if pixels.size
    ]
    found = np.empty((alike.size, parts[0][1].shape[1]))
    for pixels, part in parts:
        found[pixels] = part
    return found


def _of_group(model: bytes, points: Points, valid: np.ndarray, pixels: np.ndarray, lanes: int) -> np.ndarray:
    """Starts (k, P) of some pixels; ``valid`` is (n,) where they share it."""
    beside = (valid, *points.coords)
    with _building:
        program = _start_program(model, tuple(values.ndim - 1 or None for values in beside))

    def some(these: np.ndarray) -> Any:
        own = (values if values.ndim == 1 else values[:, pixels[these]] for values in beside)
        return program(points.y[:, pixels[these]], *own)

    found: np.ndarray = in_lanes(some, lanes, pixels.size)
    return found


_building = threading.Lock()


@lru_cache(maxsize=KERNELS_KEPT)
def _start_program(model: bytes, along: tuple[int | None, ...]) -> Any:
    """Compiled `start` of a model over lanes, the second axis of its arguments after y, or None of what they share."""
    # Not found by the fingerprint, which knows the prediction alone.
    func: Any = Model.from_blob(model, {}).func
    return jax.jit(jax.vmap(func.start, in_axes=(1, *along)))


def by_function(
    function: Callable[..., Any],
    points: Points,
    p: Parameters,
    place: Callable[[int], str] | None,
) -> np.ndarray:
    """Starts (N, P) by a function that is called with the valid points of one pixel after the other.

    Parameters
    ----------
    place : gives a pixel's place for the error; None where the pixel is to be left at NaN instead.

    Raises
    ------
    ModelError
        If what it returns does not name the parameters; if it raises.
    """
    valid = ~np.isnan(points.y)
    found = np.full((valid.shape[1], len(p.names)), np.nan)
    for k in np.flatnonzero(valid.any(axis=0)).tolist():
        at = valid[:, k]
        coords = [c[at] if c.ndim == 1 else c[at, k] for c in points.coords]
        try:
            values = function(points.y[at, k], *coords)
        except OF_THE_VALUES as error:
            if place is not None:
                raise ModelError(
                    f"p0, the function {name_of(function)}, raised {type(error).__name__}: {error} at {place(k)}. "
                    'To leave such pixels unfitted type: errors="ignore", or return NaN there'
                ) from error
            continue
        found[k] = _all_values(function, values, p)
    return found


def _all_values(function: Callable[..., Any], values: Any, p: Parameters) -> list[float]:
    """Values of all parameters; NaN for one that is fixed or tied and not there."""
    free = [p.names[number] for number in p.varying]
    if isinstance(values, Mapping):
        named = values
    elif np.shape(values) == (len(p.names),):
        named = dict(zip(p.names, values, strict=True))
    else:
        named = {}
    if not set(free) <= set(named) <= set(p.names):
        example = ", ".join(f"{name!r}: ..." for name in free)
        raise ModelError(
            f"p0, the function {name_of(function)}, returned {_in_words(values)}, expected a value for each of "
            f"{', '.join(p.names)}: return {{{example}}}"
        )
    found = [np.asarray(named.get(name, np.nan)) for name in p.names]
    for name, value in zip(p.names, found, strict=True):
        if value.ndim or value.dtype.kind not in "fiu":
            raise ModelError(
                f"p0, the function {name_of(function)}, returned {value.tolist()!r} for {name!r}, expected one real number"
            )
    return [float(value) for value in found]


def _in_words(values: Any) -> str:
    return ", ".join(map(repr, values)) if isinstance(values, Mapping) else f"{values!r:.200}"
