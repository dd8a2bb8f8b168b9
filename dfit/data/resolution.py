"""Coordinates that their number type cannot tell apart: far from zero, and in steps of the type's own spacing.

float32 holds every 128th whole number at 1.7e9, so seconds since 1970 become few values, and a fit of
them looks like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr

from dfit.data.domain import Domain
from dfit.errors import warn

# Half a spacing of rounding is then more than 6 % of a step.
COARSE_STEPS = 8
# Of values that begin near zero the spacing is small beside their range, and another origin would not help.
FAR = 8
LINE = 4096  # neighbours that are looked at, at either end of every dimension


class Rounded(NamedTuple):
    """Where a coordinate is coarse: the number it lies near, the type's spacing there, its own steps."""

    near: float
    spacing: float
    step: float


def warn_of_resolution(domain: Domain) -> None:
    """Warn of coordinates whose neighbouring values their type has rounded together.

    Of a chunked coordinate the first and last chunk are read, and only where it is narrower than float64.

    Warns
    -----
    DfitWarning
        With the coordinate, the spacing of its type there, and the line that keeps the digits.
    """
    for name, array in domain.coords.items():
        looked_at = "iuf" if array.chunks is None else "f"
        narrow = array.dtype.kind == "f" and array.dtype.itemsize < 8
        if (
            name in domain.time
            or array.dtype.kind not in looked_at
            or (array.chunks is not None and not narrow)
        ):
            continue
        found = rounded(array)
        if found is not None:
            kind = array.dtype.newbyteorder("=").name if narrow else "float64"
            line = f"({name} - {name}[0])" + (f".astype({kind!r}), or keep them in float64" if narrow else "")
            warn(
                f"the coordinate {name!r} is {kind} near {found.near:.6g}, where the numbers of that type are "
                f"{found.spacing:.3g} apart, and its values no further than {found.step:.3g}: they are rounded, and "
                f"what lay between is lost. Type, from the numbers as they were measured: {line}"
            )


def rounded(array: xr.DataArray) -> Rounded | None:
    """Where the steps of a coordinate are of the size of its type's spacing, None if they are not."""
    lines = list(_lines(array))
    ends = [end for line in lines for end in (line[0], line[-1])]
    if not ends:
        return None
    near, reach = max(map(abs, ends)), max(ends) - min(ends)
    kind = array.dtype if array.dtype.kind == "f" and array.dtype.itemsize < 8 else np.dtype(np.float64)
    spacing = float(np.spacing(kind.newbyteorder("=").type(near)))
    steps = [float(np.median(np.diff(line))) for line in lines if line.size > 1]
    if not steps:  # one value: whether there were more shows only where whole numbers are lost
        return Rounded(near, spacing, 0.0) if array.size > 1 and spacing >= 1 else None
    if reach * FAR > near or min(steps) > COARSE_STEPS * spacing:
        return None
    return Rounded(near, spacing, min(steps))


def _lines(array: xr.DataArray) -> Iterator[np.ndarray]:
    """Distinct finite values, ascending, of both ends of a line along each dimension."""
    for dim in array.dims:
        line = array.isel({other: 0 for other in array.dims if other != dim})
        for part in (slice(LINE), slice(-LINE, None)):
            values = np.unique(line.isel({dim: part}).values.astype(np.float64))
            values = values[np.isfinite(values)]
            if values.size:
                yield values
