"""Coordinates far from zero whose type cannot tell neighbours apart, and those that are only narrow."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from dfit.data.resolution import rounded

SECONDS = 1.7e9 + np.arange(400.0)
COARSE: dict[str, tuple[np.ndarray, float]] = {
    "seconds since 1970 in float32": (SECONDS.astype("f4"), 128),
    "big-endian": (SECONDS.astype(">f4"), 128),
    "negative": (-SECONDS.astype("f4"), 128),
    "in any order": (np.random.default_rng(0).permutation(SECONDS).astype("f4"), 128),
    "with missing values": (np.where(SECONDS % 7 == 0, np.nan, SECONDS).astype("f4"), 128),
    "of two dimensions": (np.broadcast_to(SECONDS[:, None], (400, 5000)).astype("f4"), 128),
    "a minute, all of it one number": (SECONDS[:60].astype("f4"), 128),
    "thousands in float16": ((4000 + np.arange(400)).astype("f2"), 4),
    "Julian dates in float32": ((2459000.5 + np.arange(4000) / 144).astype("f4"), 0.25),
    "tenths of microseconds in float64": (1.7e9 + np.arange(400) * 1e-7, 2.0**-22),
    "nanoseconds since 1970 as integers": (1_700_000_000_000_000_000 + 100 * np.arange(400), 256),
}
FINE: dict[str, np.ndarray] = {
    "seconds since 1970 in float64": SECONDS,
    "hours since 1970 as float32 seconds": (1.7e9 + 3600 * np.arange(8760)).astype("f4"),
    "milliseconds as integer nanoseconds": 1_700_000_000_000_000_000 + 1_000_000 * np.arange(400),
    "longitudes": np.arange(-180, 180, 0.25).astype("f4"),
    "years by month": np.arange(1990, 2020, 1 / 12).astype("f4"),
    "energies": np.arange(7100, 7200, 0.1).astype("f4"),
    "millions of steps from zero": np.linspace(0, 6, 10**6).astype("f4"),
    "a constant": np.full(10, 273.15, "f4"),
    "all missing": np.full(10, np.nan, "f4"),
    "one number": np.float32(1.7e9),
}


@pytest.mark.parametrize("name", COARSE)
def test_values_nearer_than_their_type_can_tell_are_found_with_its_spacing(name: str) -> None:
    values, spacing = COARSE[name]
    found = rounded(xr.DataArray(values))
    assert found is not None
    assert found.spacing == spacing
    assert found.step <= 2 * spacing


@pytest.mark.parametrize("name", FINE)
def test_values_that_their_type_tells_apart_are_left_alone(name: str) -> None:
    assert rounded(xr.DataArray(FINE[name])) is None
