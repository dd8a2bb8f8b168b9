"""The accessors `.dfit` and `.fit` on xarray objects; importing this module registers them.

Everything heavy is imported by the call, so that `import dfit` costs little more than `import xarray`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from dfit.result import FitResult


class FitAccessor:
    """`da.fit(coords, func, ...)`: one fit over every dimension of a DataArray."""

    def __init__(self, data: xr.DataArray) -> None:
        self._data = data

    def __call__(self, coords: Any, func: Callable[..., Any], **options: Any) -> FitResult:
        """Fit func to the data; options as in dfit.fit."""
        from dfit.fitting import fit

        return fit(func, self._data, coords=coords, **options)


xr.register_dataarray_accessor("dfit")(FitAccessor)
if not hasattr(xr.DataArray, "fit"):
    xr.register_dataarray_accessor("fit")(FitAccessor)
