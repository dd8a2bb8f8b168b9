"""Fit the Z peak in di-muon events of the CMS experiment, from a bare HDF5 file.

Counts in 240 bins of the invariant mass: a Lorentzian over an exponential background, each bin with the
square root of its counts as uncertainty.

    python examples/zpeak_h5.py
"""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import xarray as xr
from reference import compare

import dfit

DATA = Path(__file__).parent / "data" / "cms_zmumu.h5"

# Value and standard deviation by SciPy at tight tolerances.
REFERENCE = {
    "N": (2427.0981, 30.608),
    "M": (90.748705, 0.027522),
    "G": (3.6845812, 0.066297),
    "a": (1.8759336, 0.37502),
    "s": (0.075249488, 0.0075682),
}
CHISQR = 523.516215


def peak(mass, N, M, G, a, s):
    """Counts per bin: Lorentzian of area N, position M and width G (GeV), background a at 91 GeV."""
    return N * G / (2 * jnp.pi) / ((mass - M) ** 2 + G**2 / 4) + a * jnp.exp(-s * (mass - 91))


def counts() -> xr.DataArray:
    """Counts, lazy, with the mass as coordinate.

    A bare file names no dimensions: xarray numbers them when phony_dims says so. This way works on any
    cluster, where a dask array over an h5py object does not: open files cannot be sent to a worker.
    """
    opened = xr.open_dataset(DATA, engine="h5netcdf", phony_dims="sort", chunks={})
    return opened.set_coords("mass").counts


def fit_peak() -> dfit.FitResult:
    """Fit all bins; an empty bin counts with an uncertainty of one."""
    data = counts()
    start = {"N": 2500, "M": 91, "G": 2.5, "a": 1, "s": 0.05}
    return dfit.fit(peak, data, "mass", p0=start, sigma=np.sqrt(data.clip(min=1)), absolute_sigma=True)


def main() -> None:
    result = fit_peak()
    print(result.fit_report())
    compare(result, REFERENCE, CHISQR)


if __name__ == "__main__":
    main()
