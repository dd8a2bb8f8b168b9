"""What is given pixel by pixel, told from what all pixels have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from dfit.data.inputs import unknown_name
from dfit.errors import InputError
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.pixels import Given


class Common(NamedTuple):
    """Arguments of `Parameters.resolve` that all pixels have in common, and the others."""

    p0: Any
    bounds: Any
    fixed: Any
    given: tuple[Given, ...]


def common(p0: Any, bounds: Any, fixed: Any) -> Common:
    """Take the DataArrays over dimensions out of p0, bounds and fixed, mappings by name."""
    given: list[Given] = []

    def numbers(kind: str, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        rest = {}
        for name, value in values.items():
            if isinstance(value, xr.DataArray) and value.ndim:
                given.append(Given(kind, str(name), value))
            else:
                rest[name] = value
        return rest

    p0, fixed = numbers("p0", p0), numbers("fixed", fixed)
    if isinstance(bounds, Mapping):
        limits: dict[str, list[Any]] = {}
        for name, pair in bounds.items():
            limits[str(name)] = pair = list(pair) if isinstance(pair, tuple | list) else pair
            for k, kind in enumerate(("lower", "upper")):
                if (
                    isinstance(pair, list)
                    and len(pair) == 2
                    and isinstance(pair[k], xr.DataArray)
                    and pair[k].ndim
                ):
                    given.append(Given(kind, str(name), pair[k]))
                    pair[k] = None
        bounds = limits
    return Common(p0, bounds, fixed, tuple(given))


def resolved(model: Model, these: Common, tie: Any) -> tuple[Parameters, tuple[str, ...]]:
    """Parameters with any value in the place of what is given by pixel, and whose start follows from bounds."""
    by_pixel: dict[str, set[str]] = {}
    for one in these.given:
        by_pixel.setdefault(one.kind, set()).add(one.name)
    starts = by_pixel.get("p0", set())
    held = by_pixel.get("fixed", set())
    bounded = by_pixel.get("lower", set()) | by_pixel.get("upper", set())
    p0, fixed = these.p0, these.fixed
    if held:
        fixed = {**dict(fixed or {}), **dict.fromkeys(held, 1.0)}
    if starts:
        p0 = {**dict(p0 or {}), **{name: _any_within(these.bounds, name) for name in starts}}
    parameters = Parameters.resolve(model, p0, these.bounds, fixed, tie)
    typed = (
        {str(name) for name in p0}
        if isinstance(p0, Mapping)
        else set()
        if p0 is None
        else set(parameters.names)
    )
    return parameters, tuple(sorted(bounded - typed))


def _any_within(bounds: Any, name: str) -> float:
    """A number within the bounds of a parameter that are the same for all pixels."""
    pair = bounds.get(name, (None, None)) if isinstance(bounds, Mapping) else (None, None)
    low, high = (math.nan if limit is None else float(limit) for limit in pair)
    if math.isfinite(low) and math.isfinite(high):
        return 0.5 * (low + high)
    return low + 1 if math.isfinite(low) else high - 1 if math.isfinite(high) else 1.0


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
