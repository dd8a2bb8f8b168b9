"""A few points of the data: what a model is tried on before the first pass."""

from __future__ import annotations

import numpy as np
import xarray as xr

from dfit.data.domain import Domain


def trial_coordinates(domain: Domain) -> list[np.ndarray]:
    """Coordinates (n,) of a few points along every dimension, to try the model on; y is not read.

    Of a chunked coordinate only the first chunk is read.
    """
    few = {}
    for dim, size in domain.data.sizes.items():
        chunked = [c.chunksizes[dim][0] for c in domain.coords.values() if c.chunks and dim in c.dims]
        few[dim] = np.unique(np.linspace(0, min([size, *chunked]) - 1, 5).astype(int))
        if domain.data.ndim == 1:
            few[dim] = np.unique(np.linspace(0, min([size, *chunked]) - 1, 49).astype(int))
    shape = tuple(index.size for index in few.values())
    template = xr.DataArray(np.zeros(shape), dims=list(few))
    out = []
    for name, array in domain.coords.items():
        values = array.isel({d: few[d] for d in array.dims}).compute()
        numbers = values.copy(data=domain.numeric(name, values.values))
        out.append(numbers.broadcast_like(template).transpose(*few).values.ravel().astype(float))
    valid = np.all([np.isfinite(c) for c in out], axis=0)
    return [c[valid] for c in out] if valid.any() else [np.ones(1) for _ in out]
