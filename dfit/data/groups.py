"""Groups of points: those that share their noise, for a covariance clustered by them, or of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from dask.utils import format_bytes

from dfit.data.domain import Domain
from dfit.data.inputs import READ_WHOLE_BYTES, kind_of, over
from dfit.data.plan import Source
from dfit.errors import InputError


def group_source(domain: Domain, cov: Any) -> Source | None:
    """Group numbers of the points for a covariance clustered by groups."""
    if cov is None or cov in ("hc0", "hc1"):
        return None
    if not (isinstance(cov, Mapping) and set(cov) == {"groups"}):
        raise InputError(f'cov is {cov!r}; expected None, "hc0", "hc1" or {{"groups": "day"}}')
    source = numbered(domain, cov["groups"], "cov")
    if source.array.values.max() < 1:
        raise InputError("cov by groups needs at least two groups; with one there is nothing to compare")
    return source


def numbered(domain: Domain, wanted: Any, argument: str) -> Source:
    """Group numbers of the points from an array, or from the name of one; ``argument`` is where it stood."""
    data = domain.data
    if not isinstance(wanted, xr.DataArray) and (
        not isinstance(wanted, str) or wanted not in (*data.coords, *data.dims)
    ):
        known = ", ".join(map(str, dict.fromkeys((*data.coords, *data.dims))))
        wanted = wanted if isinstance(wanted, str) else kind_of(wanted)
        raise InputError(
            f"unknown groups {wanted!r} in {argument}; known coordinates and dimensions: {known}"
        )
    array = wanted if isinstance(wanted, xr.DataArray) else data[wanted]
    array = over(data, array, "the groups")
    if array.chunks is not None:
        if array.nbytes > READ_WHOLE_BYTES:
            raise InputError(
                f"the groups in {argument} take {format_bytes(array.nbytes)}; type groups.compute() for them"
            )
        array = array.compute()
    if array.isnull().any():
        raise InputError("a group is NaN; give every point a group, for example groups.fillna(-1)")
    _, codes = np.unique(array.values, return_inverse=True)
    coded = array.copy(data=codes.reshape(array.shape))
    return Source("group", coded, tuple(data.dims.index(d) for d in coded.dims))
