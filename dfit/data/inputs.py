"""What the user gave, checked by dtype, shape and name, as xarray objects over y's dimensions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import dask
import dask.array
import numpy as np
import xarray as xr

from dfit.errors import InputError

READ_WHOLE_BYTES = 32 << 20


def as_data(data: Any) -> xr.DataArray:
    if isinstance(data, xr.Dataset):
        names = list(data.data_vars)
        pick = names[0] if names else "y"
        raise InputError(
            f"data is a Dataset of {names}; expected one variable. "
            f"Type: dfit.fit(model, ds[{pick!r}], ...), or ds.fit(...) for all of them"
        )
    if hasattr(data, "chunks") and not isinstance(data, (xr.DataArray, dask.array.Array)):
        raise InputError(
            f"data is {kind_of(data)}, an open file; expected an array that workers can read. Type: "
            'xr.open_dataset(path, engine="h5netcdf", phony_dims="sort", chunks="auto") for HDF5, '
            "or dask.array.from_zarr(path)"
        )
    y = data if isinstance(data, xr.DataArray) else _bare(data)
    kind, name = y.dtype.kind, "data" if y.name is None else repr(y.name)
    if kind == "m":
        raise InputError(f'{name} has dtype {y.dtype}; expected numbers. Type: y / np.timedelta64(1, "s")')
    if kind == "M":
        raise InputError(
            f"{name} has dtype {y.dtype}; expected numbers. "
            'Type: (y - np.datetime64("2000-01-01")) / np.timedelta64(1, "s")'
        )
    if kind not in "fiubc":
        raise InputError(f"{name} has dtype {y.dtype}; expected numbers. Type: y.astype(float)")
    if y.ndim == 0:
        raise InputError("data is one number without a dimension; expected an array. Type: np.atleast_1d(y)")
    if any(np.isnan(size) for size in y.shape):
        raise InputError(
            f"{name} has unknown chunk sizes; type y.compute_chunk_sizes() on the dask array first"
        )
    if y.size == 0:
        raise InputError(f"{name} has no points: its shape is {dict(y.sizes)}")
    return _never_whole(y)


def _never_whole(array: xr.DataArray) -> xr.DataArray:
    """A large array of a file that was opened without ``chunks=`` cut into chunks; others as they are.

    dask never sees such an array, and its first use would load it whole.
    """
    if array.chunks is not None or array.variable._in_memory or array.nbytes <= READ_WHOLE_BYTES:
        return array
    with dask.config.set({"array.chunk-size": READ_WHOLE_BYTES}):
        return array.chunk("auto")


def over(y: xr.DataArray, value: Any, what: str, along: bool = False) -> xr.DataArray:
    """An array over some of y's dimensions, in y's order; `along` allows a bare 1-D array to find its own."""
    if isinstance(value, xr.DataArray):
        return _never_whole(_aligned(y, value, what))
    array = value if isinstance(value, (np.ndarray, dask.array.Array)) else np.asarray(value)
    if array.ndim == 0 or array.shape == y.shape:
        return xr.DataArray(array, dims=y.dims if array.ndim else ())
    fitting = [dim for dim, size in y.sizes.items() if array.shape == (size,)]
    if along and len(fitting) == 1:
        return xr.DataArray(array, dims=fitting)
    how = "fits more than one dimension" if along and fitting else "expected the same shape or names"
    raise InputError(
        f"{what} has shape {array.shape}, y has {dict(y.sizes)}: {how}. "
        f"Type: xr.DataArray(values, dims=({str(y.dims[-1])!r},)) with the dimensions it lies along"
    )


def _aligned(y: xr.DataArray, other: xr.DataArray, what: str) -> xr.DataArray:
    extra = [dim for dim in other.dims if dim not in y.dims]
    if extra:
        raise InputError(
            f"{what} has the dimension {extra[0]!r}, y has {list(y.dims)}. "
            f"Type for example: .isel({extra[0]}=0) or .rename({extra[0]}={str(y.dims[-1])!r})"
        )
    for dim in other.dims:
        if other.sizes[dim] != y.sizes[dim]:
            raise InputError(
                f"{what} has {other.sizes[dim]} values along {dim!r}, y has {y.sizes[dim]}. "
                "Type: y, other = xr.align(y, other)"
            )
        if dim in other.indexes and dim in y.indexes and not other.indexes[dim].equals(y.indexes[dim]):
            raise InputError(
                f"{what} and y have different values of {dim!r}. Type: y, other = xr.align(y, other), "
                f"or other.drop_vars({dim!r}) where only the order counts"
            )
    return other.transpose(*(dim for dim in y.dims if dim in other.dims))


def as_sigma(sigma: Any, y: xr.DataArray, where: xr.DataArray | None = None) -> xr.DataArray | float | None:
    """Sigma, checked where it is in memory at the points of ``where``, what `as_where` gave."""
    if sigma is None:
        return None
    array = over(y, sigma, "sigma")
    if array.dtype.kind not in "fiu":
        raise InputError(f"sigma has dtype {array.dtype}; expected positive real numbers")
    if array.chunks is not None:
        return array
    bad = ~(array.values > 0) if array.ndim == 0 else array.values <= 0
    if bad.any() and array.ndim and where is not None:
        if where.chunks is not None:  # the first pass looks at both
            return array
        bad &= _somewhere(where, array)
    if bad.any():
        at = "" if array.ndim == 0 else f" at {_place(array, bad)} ({int(bad.sum())} in all)"
        value = array.values[bad][0] if array.ndim else array.item()
        raise InputError(
            f"sigma is {value}{at}; expected positive numbers. To leave points out type: where=sigma > 0"
        )
    if not np.isfinite(array.values).any():
        raise InputError("sigma is infinite or NaN at every point, so no point is left; leave it out")
    return array if array.ndim else float(array.item())


def as_where(where: Any, y: xr.DataArray) -> xr.DataArray | None:
    if where is None:
        return None
    array = over(y, where, "where")
    if array.dtype.kind != "b" and isinstance(getattr(where, "_meta", where), np.ma.MaskedArray):
        raise InputError(
            "where is a masked array; expected plain True and False. Type: where=mask.filled(False)"
        )
    if array.dtype.kind != "b":
        raise InputError(f"where has dtype {array.dtype}; expected bool. Type: where=mask.astype(bool)")
    if array.chunks is None and not array.values.any():
        raise InputError("all points masked: where is False everywhere; it is True for the points to fit")
    return array


def _somewhere(where: xr.DataArray, array: xr.DataArray) -> np.ndarray:
    """Whether any point of an array's element is to be fitted: a mask of the array's shape."""
    seen = where.any([dim for dim in where.dims if dim not in array.dims])
    return seen.variable.set_dims(dict(array.sizes)).values


def first_value(array: xr.DataArray) -> Any:
    """The first value that is not missing; of a chunked array, its very first one."""
    if array.chunks is not None:
        return array[dict.fromkeys(array.dims, 0)].values[()]
    values = array.values.ravel()
    there = np.flatnonzero(~array.isnull().values.ravel())
    return values[there[0] if there.size else 0]


def unknown_name(name: str, known: Iterable[Any], what: str, argument: str) -> str:
    """The message for a name that is not among the known ones, with the nearest of them."""
    names = list(dict.fromkeys(str(item) for item in known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r} in {argument}; known: {', '.join(names) or 'none'}.{hint}"


def _bare(values: Any) -> xr.DataArray:
    try:
        array = values if isinstance(values, (np.ndarray, dask.array.Array)) else np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise InputError(
            f"data is no array: {str(error).rstrip('. ')}. Type one array of one shape, NaN where it has no value"
        ) from error
    # A dask array's own name is a token, not a word of the user's.
    return xr.DataArray(array, dims=[f"dim_{i}" for i in range(array.ndim)]).rename(None)


def _place(array: xr.DataArray, bad: np.ndarray) -> str:
    index = np.unravel_index(int(np.argmax(bad)), bad.shape)
    return ", ".join(f"{dim}={i}" for dim, i in zip(array.dims, index, strict=True))


def kind_of(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}"
