"""What SciPy's curve_fit takes as xdata and ydata, as coordinates by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from dfit.errors import InputError
from dfit.model import unwrap
from dfit.signature import arguments_of


@dataclass(frozen=True, eq=False)
class Points:
    """xdata, one coordinate for each of its k rows.

    Attributes
    ----------
    names : of the coordinates.
    arrays : k arrays of y's shape, or that lie along some of its dimensions.
    layout : None where the function takes one coordinate as it is, "rows" where it takes an array
        (k, B), "columns" where it takes (B, k).
    """

    names: tuple[str, ...]
    arrays: tuple[Any, ...]
    layout: str | None

    @property
    def coords(self) -> dict[str, Any]:
        """Arrays by name."""
        return dict(zip(self.names, self.arrays, strict=True))

    @property
    def packed(self) -> str | None:
        """How a `Model` hands the coordinates to the function."""
        return None if self.layout is None else "array"

    def function(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function of coordinates stacked into (k, B)."""
        if self.layout != "columns":
            return func
        inner = unwrap(func)

        @functools.wraps(inner)  # its signature too
        def turned(x: Any, *args: Any, **named: Any) -> Any:
            return inner(x.T, *args, **named)

        return turned


def in_memory(array: Any) -> bool:
    """Whether an array is not chunked."""
    return getattr(array, "chunks", None) is None


def refuse_masks(**given: Any) -> None:
    """Refuse masked values, which SciPy would take as they lie under the mask."""
    for name, value in given.items():
        for array in value if isinstance(value, list | tuple) else (value,):
            if np.ma.is_masked(array):
                raise InputError(
                    f"{name} is a masked array, of which {np.ma.count_masked(array)} values are masked. To leave them "
                    f"out type: {name}.astype(float).filled(np.nan), nan_policy='omit'"
                )


def as_points(func: Callable[..., Any], xdata: Any, y: Any) -> Points:
    """Points from xdata for a y of known shape.

    Raises
    ------
    InputError
        For values that are no numbers, and shapes that are not those of y's points.
    """
    arrays, layout = _split(xdata, y)
    for array in arrays:
        if array.dtype.kind not in "fiubmM" and not _is_cftime(array):
            raise InputError(
                f"xdata has dtype {array.dtype}; expected real numbers. What is no number goes to the model as "
                "constants={'name': array}, or type xdata.astype(float)"
            )
    arguments = [p.name for p in arguments_of(func).positional]
    lead = arguments[0] if arguments else "x"
    if layout is None:
        return Points((lead,), arrays, None)
    while any(f"{lead}{i}" in arguments for i in range(len(arrays))):
        lead += "_"
    return Points(tuple(f"{lead}{i}" for i in range(len(arrays))), arrays, layout)


def _split(xdata: Any, y: Any) -> tuple[tuple[Any, ...], str | None]:
    if isinstance(xdata, list | tuple) and any(hasattr(item, "chunks") for item in xdata):
        return tuple(item if hasattr(item, "chunks") else np.asarray(item) for item in xdata), "rows"
    x = xdata if hasattr(xdata, "chunks") else np.asarray(xdata)
    if isinstance(x, xr.DataArray) and isinstance(y, xr.DataArray):
        extra = [dim for dim in x.dims if dim not in y.dims]
        if not extra:
            return (x,), None
        if len(extra) == 1:
            layout = "rows" if x.dims[0] == extra[0] else "columns"
            return tuple(x.isel({extra[0]: i}, drop=True) for i in range(x.sizes[extra[0]])), layout
    x = x.data if isinstance(x, xr.DataArray) else x
    along_one = x.ndim == 1 and y.ndim > 1 and x.size in y.shape
    if x.shape == y.shape or x.ndim == 0 or along_one:
        return (x,), None
    if x.shape[1:] == y.shape:
        return tuple(x), "rows"
    if x.shape[:-1] == y.shape:
        return tuple(x[..., i] for i in range(x.shape[-1])), "columns"
    raise InputError(
        f"xdata has shape {x.shape}, ydata {y.shape}; expected the same, or k rows of it. Arrays of another shape "
        "go to the model as constants={'name': array}"
    )


def _is_cftime(array: Any) -> bool:
    return isinstance(array, xr.DataArray) and array.dtype.kind == "O"


def read_nan_policy(
    points: Points, y: Any, check_finite: bool | None, nan_policy: str | None, where: Any
) -> bool:
    """Whether NaN is left out; raises for values in memory that SciPy would refuse.

    Chunked values are looked at by the first pass.  With `where` it alone decides what takes part.
    """
    if nan_policy not in (None, "raise", "omit"):
        raise InputError(f'nan_policy is {nan_policy!r}; expected None, "raise" or "omit"')
    finite = nan_policy is None if check_finite is None else bool(check_finite)
    for name, array in (*(("xdata", a) for a in points.arrays), ("ydata", y)):
        if where is not None or not in_memory(array) or array.dtype.kind not in "fc":
            continue
        values = np.asarray(array)
        if finite and not np.isfinite(values).all():
            raise InputError(
                f"{name}: array must not contain infs or NaNs. To leave NaN out type: nan_policy='omit'; "
                "to leave out more: where=np.isfinite(ydata)"
            )
        if nan_policy == "raise" and np.isnan(values).any():
            raise InputError(
                f"{name}: the input contains nan values. To leave them out type: nan_policy='omit'"
            )
    return nan_policy == "omit" and not finite
