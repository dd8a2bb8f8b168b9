"""What a map refuses at the call: options of one fit, and values by pixel that no fit can begin with."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from dfit.data.domain import Domain
from dfit.data.inputs import kind_of, over
from dfit.errors import InputError
from dfit.fitting import fit
from dfit.parameters import Parameters
from dfit.pixels import Given

WORDS = {"p0": "p0", "lower": "the lower bound", "upper": "the upper bound", "fixed": "the fixed value"}
COVARIANCES = (None, "hc0", "hc1")
RESULT_DIMS = ("param", "cov_i", "cov_j")


def require_options(options: Mapping[str, Any], known: Collection[str], kept: Sequence[Any]) -> None:
    """Refuse options that a map does not have, and values of those that it has.

    Raises
    ------
    TypeError
        For what is no option of any fit.
    InputError
        For what only one fit over all dimensions has.
    """
    of_one_fit = inspect.signature(fit).parameters
    among = ", ".join(map(str, kept))
    for name, value in options.items():
        if name not in known and name not in of_one_fit:
            raise TypeError(f"fit() got an unexpected keyword argument {name!r}")
        if name not in known and value is not None:
            raise InputError(
                f"{name}= is for one fit over all dimensions, and {among} would be kept: leave it "
                "out, or type reduce_dims=... (the three dots)"
            )
    for kind in ("p0", "bounds", "fixed"):
        _require_names(kind, options.get(kind), kept)
    cov = options.get("cov")
    if not (cov is None or isinstance(cov, str)) or cov not in COVARIANCES:
        raise InputError(
            f'cov is {cov!r}; expected "hc0" or "hc1", or one fit over all dimensions, and {among} would be kept'
        )
    if options.get("absolute_sigma") and options.get("sigma") is None:
        raise InputError("absolute_sigma=True without sigma; type sigma=your_standard_deviations")


def require_own_names(coords: Sequence[Any], kept: Sequence[Any]) -> None:
    """Refuse coordinates without named dimensions, and dimensions with the names of those of a result."""
    for coord in coords:
        if not isinstance(coord, str | xr.DataArray):
            raise InputError(
                f"coords holds {kind_of(coord)}, and a map must know along which dimensions it lies. Type a name, or "
                "xr.DataArray(values, dims='time')"
            )
    for dim in kept:
        if dim in RESULT_DIMS:
            raise InputError(
                f"the dimension {dim!r} is kept, and the parameters of a map lie along one of this name. Type: "
                f"y.rename({dim}='of_{dim}')"
            )


def _require_names(kind: str, values: Any, kept: Sequence[Any]) -> None:
    """Refuse arrays by pixel that do not say along which dimensions they lie."""
    if not isinstance(values, Mapping):
        return
    for name, value in values.items():
        pair = kind == "bounds" and isinstance(value, tuple | list)
        for one in value if pair else (value,):
            if (
                not isinstance(one, xr.DataArray)
                and isinstance(one, np.ndarray | da.Array | list)
                and np.ndim(one)
            ):
                raise InputError(
                    f"{kind}[{name!r}] has an array of shape {np.shape(one)}; expected one number for all pixels, or "
                    f"values by pixel with their dimensions. Type: xr.DataArray(values, dims=({kept[0]!r},))"
                )


def require_origin(domain: Domain, kept: Sequence[Any], time_origin: Any) -> None:
    """Refuse dates by pixel without an origin: the first date of the first pixel is none for the others."""
    for name, axis in domain.time.items():
        along = [dim for dim in domain.coords[name].dims if dim in kept]
        if along and time_origin is None and not axis.is_duration:
            raise InputError(
                f"the coordinate {name!r} holds other dates for each {along[0]}, and none to count them from. Type for "
                f"example: time_origin={axis.origin!r}, or give it durations, times - times.isel(time=0)"
            )


def require_given(given: Sequence[Given], y: xr.DataArray, kept: Sequence[Any]) -> None:
    """Refuse what is given by pixel where its dimensions, its labels or its dtype tell that it is wrong."""
    for one in given:
        what = f"{WORDS[one.kind]} of {one.name!r}"
        for dim in one.values.dims:
            if dim in y.dims and dim not in kept:
                raise InputError(
                    f"{what} lies along {dim!r}, which is fitted over; expected dimensions that are kept: "
                    f"{', '.join(map(str, kept))}. Type for example: .isel({dim}=0)"
                )
        over(y, one.values, what)
        if one.values.dtype.kind not in "fiu":
            raise InputError(
                f"{what} has dtype {one.values.dtype}; expected real numbers. Type: values.astype(float)"
            )


def require_order(given: Sequence[Given], y: xr.DataArray, p: Parameters, free: Collection[str]) -> None:
    """Refuse bounds by pixel that are crossed and starts outside of them, where values in memory tell.

    NaN is no mistake: it marks pixels without a start.

    Parameters
    ----------
    p : what all pixels have in common.
    free : names of the parameters whose start follows from bounds or from points.
    """
    in_memory = {(one.kind, one.name): one.values for one in given if one.values.chunks is None}
    lazy = {(one.kind, one.name) for one in given} - set(in_memory)
    held = {one.name for one in given if one.kind == "fixed"}
    for name in sorted({one.name for one in given} - held):
        number = p.names.index(name)
        common = {"p0": p.init[number], "lower": p.lower[number], "upper": p.upper[number]}
        kinds = [kind for kind in common if (kind, name) not in lazy and not (kind == "p0" and name in free)]
        values = {kind: in_memory.get((kind, name), xr.DataArray(common[kind])) for kind in kinds}
        _require_order(name, values, y)


def _require_order(name: str, values: Mapping[str, xr.DataArray], y: xr.DataArray) -> None:
    """Refuse the first place where lower < upper or lower <= p0 <= upper does not hold."""
    plain = {kind: one.drop_vars(one.coords) for kind, one in values.items()}
    for low, high in (("lower", "upper"), ("lower", "p0"), ("p0", "upper")):
        if low not in plain or high not in plain:
            continue
        a, b = xr.broadcast(plain[low], plain[high])
        crossed = (a >= b) if "p0" not in (low, high) else (a > b)
        bad = np.atleast_1d(crossed.values)
        if not bad.any():
            continue
        index = np.unravel_index(int(np.argmax(bad)), bad.shape)
        labels = (y.indexes[d][i] if d in y.indexes else i for d, i in zip(a.dims, index, strict=False))
        at = ", ".join(f"{dim}={label}" for dim, label in zip(a.dims, labels, strict=True))
        found = [f"{WORDS[kind]} {np.atleast_1d(c.values)[index]:.6g}" for kind, c in ((low, a), (high, b))]
        what = "p0 is outside its bounds" if "p0" in (low, high) else "the bounds are crossed or equal"
        raise InputError(
            f"{name!r}: {what} at {at}, {found[0]} and {found[1]} ({int(bad.sum())} in all). To leave "
            "pixels unfitted type NaN there"
        )
