"""Fit trend, gradients and daily cycle of the 2 m temperature over the United Kingdom, March 2019.

1.2 million hourly values of the ERA5 reanalysis in a NetCDF file, chunked in time, latitude and longitude.
The three coordinates stay one-dimensional; time reaches the model in hours since the first sample.

    python examples/era5_season.py
"""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import xarray as xr
from reference import compare

import dfit

DATA = Path(__file__).parent / "data" / "era5_t2m_uk_2019-03.nc"

# Value and standard deviation by SciPy at tight tolerances, all values in memory.
REFERENCE = {
    "T0": (280.77497, 0.0018109909),
    "dlat": (-0.33985892, 0.00076068134),
    "dlon": (-0.045156019, 0.000512167),
    "trend": (1.196012, 0.0062747435),
    "amp": (0.98076484, 0.0025614411),
    "tmax": (15.140565, 0.019392296),
    "period": (23.995729, 0.0011141512),
}
CHISQR = 4745659.506554
START = {"T0": 280.0, "dlat": 0.0, "dlon": 0.0, "trend": 0.0, "amp": 1.0, "tmax": 14.0, "period": 24.0}


def season(time, latitude, longitude, T0, dlat, dlon, trend, amp, tmax, period):
    """Temperature (K): plane in latitude and longitude, linear trend over the month, daily cosine."""
    daily = amp * jnp.cos(2 * jnp.pi * (time - tmax) / period)
    return T0 + dlat * (latitude - 54) + dlon * (longitude + 4) + trend * (time / 744 - 0.5) + daily


def temperature() -> xr.DataArray:
    """The data, lazy, in the chunks of the file."""
    return xr.open_dataset(DATA, chunks={}).t2m


def fit_season(data: xr.DataArray, p0: dict[str, float] = START, **options) -> dfit.FitResult:
    """Fit the whole month; options as in dfit.fit."""
    return dfit.fit(season, data, coords=("time", "latitude", "longitude"), time_unit="h", p0=p0, **options)


def clustered_by_day(p0: dict[str, float] = START) -> dfit.FitResult:
    """The same fit with standard deviations that let the hours of one day depend on each other.

    They come from leaving out one day at a time (jackknife over groups).
    """
    data = temperature()
    by_day = data.assign_coords(day=data.time.dt.day)
    return fit_season(by_day, p0, cov={"groups": "day"})


def main() -> None:
    result = fit_season(temperature())
    print(result.fit_report())
    compare(result, REFERENCE, CHISQR)
    plain = result.params["T0"].stderr
    clustered = clustered_by_day(result.best_values).params["T0"].stderr
    print(f"standard deviation of T0: {plain:.4f} K if all hours were independent, {clustered:.4f} K by day")


if __name__ == "__main__":
    main()
