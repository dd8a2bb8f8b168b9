"""What is given pixel by pixel, told from what all pixels have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from dfit.data.inputs import unknown_name
from dfit.errors import InputError
from dfit.guessable import own_bounds
from dfit.guessing import GUESS, asked_of, require_guessable, require_real
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.pixels import Given
from dfit.precision import float64_on_cpu
from dfit.reduce.map_job import Guess
from dfit.typed import read_bounds, with_own_bounds


class Common(NamedTuple):
    """Arguments of `Parameters.resolve` that all pixels have in common, and the others.

    Attributes
    ----------
    p0, bounds, fixed : numbers.
    given : what is given pixel by pixel.
    guess : "guess" or a function, where starts are found in the points of each pixel.
    asked : the parameters that begin there; None for all that are not given otherwise.
    """

    p0: Any
    bounds: Any
    fixed: Any
    given: tuple[Given, ...]
    guess: Any = None
    asked: frozenset[str] | None = None


class Resolved(NamedTuple):
    """Parameters with any value in the place of what each pixel has for itself.

    Attributes
    ----------
    parameters : of all pixels.
    unset : names of the parameters whose start follows from bounds that are given by pixel.
    guess : a start out of each pixel's points.
    """

    parameters: Parameters
    unset: tuple[str, ...]
    guess: Guess | None


def common(p0: Any, bounds: Any, fixed: Any) -> Common:
    """Take what is no number out of p0, bounds and fixed: DataArrays over dimensions, and guesses."""
    given: list[Given] = []

    def numbers(kind: str, values: Any) -> Any:
        if not isinstance(values, Mapping) or hasattr(values, "valuesdict"):
            return values
        rest = {}
        for name, value in values.items():
            if isinstance(value, xr.DataArray) and value.ndim:
                given.append(Given(kind, str(name), value))
            else:
                rest[name] = value
        return rest

    asked = None if callable(p0) else asked_of(p0)
    guess = p0 if callable(p0) else GUESS if asked is None or asked else None
    if asked is None:
        p0 = None
    elif asked:
        p0 = {name: value for name, value in p0.items() if name not in asked}
    p0, fixed = numbers("p0", p0), numbers("fixed", fixed)
    return Common(p0, _common_bounds(bounds, given), fixed, tuple(given), guess, asked)


def _common_bounds(bounds: Any, given: list[Given]) -> Any:
    """Bounds without DataArrays over dimensions, which go to ``given``."""
    if not isinstance(bounds, Mapping):
        return bounds
    limits: dict[str, Any] = {}
    for name, pair in bounds.items():
        limits[str(name)] = pair = list(pair) if isinstance(pair, tuple | list) else pair
        if not isinstance(pair, list) or len(pair) != 2:
            continue
        for k, kind in enumerate(("lower", "upper")):
            if isinstance(pair[k], xr.DataArray) and pair[k].ndim:
                given.append(Given(kind, str(name), pair[k]))
                pair[k] = None
    return limits


def resolved(model: Model, these: Common, tie: Any, is_complex: bool) -> Resolved:
    """Parameters of a model, by what all pixels have in common."""
    by_pixel: dict[str, set[str]] = {}
    for one in these.given:
        by_pixel.setdefault(one.kind, set()).add(one.name)
    own, held = by_pixel.get("p0", set()), by_pixel.get("fixed", set())
    bounded = by_pixel.get("lower", set()) | by_pixel.get("upper", set())
    p0, fixed = these.p0, these.fixed
    if held:
        fixed = {**dict(fixed or {}), **dict.fromkeys(held, 1.0)}
    if these.guess is not None:
        if these.guess == GUESS:
            require_start(model, is_complex)
        asked = set(model.param_names) - set(tie or ()) if these.asked is None else set(these.asked)
        own |= asked - ({fixed} if isinstance(fixed, str) else set(fixed or ()))
    if own:
        at = {one.name: one.values for one in these.given if one.kind == "p0" and one.values.chunks is None}
        p0 = {**dict(p0 or {}), **_any_within(model, these.bounds, own, tie, at)}
    parameters = Parameters.resolve(model, p0, these.bounds, fixed, tie)
    if p0 is None or isinstance(p0, Mapping):
        typed = {str(name) for name in p0 or ()}
    else:
        typed = set(parameters.names)
    guess = None
    if these.guess is not None:
        among = [i for i in parameters.varying if these.asked is None or parameters.names[i] in these.asked]
        guess = Guess(None if these.guess == GUESS else these.guess, tuple(among))
    return Resolved(parameters, tuple(sorted(bounded - typed)), guess)


def asks_neighbours(value: Any) -> bool:
    """Whether neighbours= was typed."""
    if not isinstance(value, bool | np.bool_ | None):
        raise InputError(f"neighbours is {value!r}; expected True or False. Type: neighbours=True")
    return bool(value)


def require_start(model: Model, is_complex: bool) -> None:
    """Refuse a model that finds no start in the points of a pixel."""
    func = require_guessable(model)
    require_real(model, is_complex)
    few = [jax.ShapeDtypeStruct((8,), np.float64)] * len(func.coords)
    with float64_on_cpu():  # a product says here that it has none
        jax.eval_shape(func.start, few[0], jax.ShapeDtypeStruct((8,), np.bool_), *few)


def _any_within(
    model: Model, bounds: Any, names: Iterable[str], tie: Any, at: Mapping[str, xr.DataArray]
) -> dict[str, float]:
    """Numbers by name within the bounds that are the same for all pixels, where there are some one of the values."""
    known = model.param_names
    lower, upper = read_bounds(known, with_own_bounds(known, bounds, own_bounds(model.func), tie or ()))
    limits = dict(zip(known, zip(lower.tolist(), upper.tolist(), strict=True), strict=True))
    found = {}
    for name in names:
        low, high = limits.get(name, (-math.inf, math.inf))
        values = np.ravel(at.get(name, ()))
        usable = values[(low <= values) & (values <= high)] if values.dtype.kind in "fiu" else values[:0]
        if np.isfinite(usable).any():  # the model is tried there
            found[name] = float(usable[np.isfinite(usable)][0])
        elif math.isfinite(low) and math.isfinite(high):
            found[name] = 0.5 * (low + high)
        else:
            found[name] = low + 1 if math.isfinite(low) else high - 1 if math.isfinite(high) else 1.0
    return found


def kept_dims(variable: xr.DataArray, coords: Sequence[Any], reduce_dims: Any) -> list[Any]:
    """Dimensions that are neither in reduce_dims nor those of a coordinate along one of them alone."""
    if reduce_dims is ...:
        return []
    several = isinstance(reduce_dims, Sequence | set | frozenset) and not isinstance(reduce_dims, str)
    named: list[Any] = [] if reduce_dims is None else list(reduce_dims) if several else [reduce_dims]
    what = "the data" if variable.name is None else repr(variable.name)
    for dim in named:
        if dim not in variable.dims:
            raise InputError(f"{what}: {unknown_name(str(dim), variable.dims, 'dimension', 'reduce_dims')}")
    fitted = set(named)
    for coord in coords:
        if isinstance(coord, str) and coord not in variable.coords and coord not in variable.dims:
            known = [*variable.coords, *variable.dims]
            raise InputError(f"{what}: {unknown_name(coord, known, 'coordinate', 'coords')}")
        array = variable[coord] if isinstance(coord, str) else coord
        fitted |= set(getattr(array, "dims", ())) if np.ndim(array) == 1 else set()
    kept = [dim for dim in variable.dims if dim not in fitted]
    if len(kept) == len(variable.dims):
        raise InputError(
            f"{what} would be fitted at each of its points alone: no coordinate lies along one dimension, and "
            f"reduce_dims names none. Type for example: reduce_dims={variable.dims[-1]!r}"
        )
    return kept
