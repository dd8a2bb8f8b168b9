"""What tests of plans, strategies and learning share: fits of a straight line to data in chunks."""

from __future__ import annotations

from typing import Any

import xarray as xr

import dfit
from dfit.plans import Plan

CHUNK = 2048
START = {"offset_of_it": 1.0, "slope_of_it": 1.0}


def secret_line(x, offset_of_it, slope_of_it):
    return offset_of_it + slope_of_it * x


def fitted(data: xr.DataArray, **options: Any) -> dfit.FitResult:
    """Fit without a warm-up."""
    model = options.pop("model", secret_line)
    return dfit.fit(model, data, "x", p0=START, **{"warmup": False, "retries": 0, **options})


def planned(data: xr.DataArray, **options: Any) -> Plan:
    """Plan of the same fit."""
    model = options.pop("model", secret_line)
    return dfit.plan(model, data, "x", p0=START, **{"warmup": False, "retries": 0, **options})


def same_bits(first: dfit.FitResult, second: dfit.FitResult) -> bool:
    numbers = [(found.best_values, found.chisqr, found.covar.tobytes()) for found in (first, second)]
    return numbers[0] == numbers[1]
