"""Domain: what the user's data are, by name, before any of it is read.

`domain` checks everything that shapes, names, dtypes and values in memory can tell, and gives
y, the coordinates, sigma and the mask as xarray objects whose dimensions are subsets of y's, in y's
order.  Nothing is broadcast: what lies along one dimension stays there.  Chunked arrays stay lazy;
only the first value of a chunked date is computed, where no `time_origin` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from dfit.data.coordinates import TimeAxis, time_axis, time_unit_name
from dfit.data.inputs import as_data, as_sigma, as_where, first_value, kind_of, over, unknown_name
from dfit.errors import InputError
from dfit.model import Model
from dfit.signature import arguments_of


@dataclass(frozen=True, eq=False)
class Domain:
    """The data of one fit.

    Attributes
    ----------
    data : y, lazy or in memory, any dimensions.
    coords : the coordinates by argument of the model, in its order; dimensions are a subset of y's.
        Times in memory are float64 offsets already, chunked times are as given.
    time : unit and origin of the coordinates among them that are times.
    sigma : standard deviation of y, a number or an array over some of y's dimensions, or None.
    where : boolean, True for the points to fit, over some of y's dimensions, or None.
    skipna : whether NaN means missing.
    """

    data: xr.DataArray
    coords: dict[str, xr.DataArray]
    time: dict[str, TimeAxis]
    sigma: xr.DataArray | float | None = None
    where: xr.DataArray | None = None
    skipna: bool = True

    @property
    def is_complex(self) -> bool:
        """Whether y is complex, so that every point gives two real residuals."""
        return self.data.dtype.kind == "c"

    def numeric(self, name: str, values: Any) -> np.ndarray:
        """Values of a coordinate as numbers: float64 offsets for times, others untouched."""
        axis = self.time.get(name)
        return np.asarray(values) if axis is None else axis.offsets(values)


def coordinate_names(
    func: Callable[..., Any], coords: Any, param_names: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Names of the model's coordinates, in the order of its arguments.

    A name or a named DataArray gives its own name; bare arrays take the names of the model's
    first arguments.  Keys of a mapping that are the model's first arguments are put in its order,
    other keys keep the order of the mapping.

    Raises
    ------
    InputError
        When `coords` is missing, or a name stands in it twice.
    """
    items = _as_items(coords)
    arguments = _first_arguments(func, len(items), param_names or ())
    names = tuple(
        key or _own_name(value) or argument for (key, value), argument in zip(items, arguments, strict=True)
    )
    if isinstance(coords, Mapping) and set(names) == set(arguments):
        names = arguments
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the coordinate {twice[0]!r} stands twice in coords={list(names)}; expected once")
    return names


def build_domain(
    model: Model,
    data: Any,
    coords: Any,
    *,
    sigma: Any = None,
    where: Any = None,
    skipna: bool = True,
    time_unit: str = "s",
    time_origin: Any = None,
) -> Domain:
    """Domain of a fit from what the user gave.

    Parameters
    ----------
    model : its `coords` are the names of the coordinates, see `coordinate_names`.
    data : DataArray, dask array or NumPy array. Dimensions of bare arrays are "dim_0", "dim_1", ...
    coords : a name, a DataArray, an array, a sequence of these, or a mapping of names to these.
    sigma : positive number or array; inf drops a point.
    where : boolean array, True for the points to fit.
    time_unit, time_origin : how times become numbers.

    Raises
    ------
    InputError
        For everything that shapes, names, dtypes and values in memory can tell.
    """
    y = as_data(data)
    unit = time_unit_name(time_unit)
    origin = np.asarray(time_origin)[()] if hasattr(time_origin, "dtype") else time_origin
    arrays = _coordinates(y, model.coords, coords)
    time = {}
    for name, array in arrays.items():
        axis = time_axis(name, array.dtype, partial(first_value, array), unit, origin)
        if axis is not None:
            time[name] = axis
            if array.chunks is None:
                arrays[name] = array.copy(data=axis.offsets(array.values))
    if time_origin is not None and not time:
        raise InputError(
            f"time_origin={time_origin!r} was given, but no coordinate among {list(arrays)} is a time; "
            "leave it out"
        )
    mask = as_where(where, y)
    return Domain(y, arrays, time, as_sigma(sigma, y, mask), mask, bool(skipna))


def _as_items(coords: Any) -> list[tuple[str | None, Any]]:
    """Coordinates as (key of the mapping or None, what was given)."""
    if coords is None:
        raise InputError('coords is missing: which coordinates does the model take? Type: coords="time"')
    if isinstance(coords, Mapping):
        return [(str(key), value) for key, value in coords.items()]
    if isinstance(coords, str) or hasattr(coords, "dtype"):
        return [(None, coords)]
    if isinstance(coords, Sequence) and coords:
        several = any(isinstance(item, str) or np.ndim(item) > 0 for item in coords)
        return [(None, item) for item in (coords if several else [np.asarray(coords)])]
    raise InputError(
        f"coords is {kind_of(coords)}; expected a name, an array, a sequence or a mapping of these. "
        'Type for example: coords="time" or coords=("time", "x") or coords={"time": t}'
    )


def _own_name(value: Any) -> str | None:
    name = value if isinstance(value, str) else getattr(value, "name", None)
    # A dask array's name is its token, not a word of the user's.
    return str(name) if name is not None and isinstance(value, (str, xr.DataArray)) else None


def _first_arguments(func: Callable[..., Any], count: int, taken: Sequence[str]) -> tuple[str, ...]:
    """Names of the first arguments; "x0", "x1", ... where there are not as many (packed models)."""
    found = [p.name for p in arguments_of(func).positional if p.name not in taken][:count]
    return tuple(found if len(found) == count else [f"x{i}" for i in range(count)])


def _coordinates(y: xr.DataArray, names: Sequence[str], coords: Any) -> dict[str, xr.DataArray]:
    items = _as_items(coords)
    if len(items) != len(names):
        raise InputError(f"got {len(items)} coordinates for a model that takes {len(names)}: {list(names)}")
    given = {key: value for key, value in items if key is not None}
    missing = [name for name in names if given and name not in given]
    if missing:
        raise InputError(unknown_name(missing[0], given, "coordinate", "coords"))
    ordered = [given[name] for name in names] if given else [value for _, value in items]
    out = {}
    for name, value in zip(names, ordered, strict=True):
        if isinstance(value, str):
            if value not in y.coords and value not in y.dims:
                raise InputError(unknown_name(value, [*y.coords, *y.dims], "coordinate", "coords"))
            value = y[value]
        out[name] = over(y, value, f"the coordinate {name!r}", along=True).rename(name)
    return out
