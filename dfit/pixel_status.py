"""How the fit of one pixel ended: codes that a map keeps, and their words."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class PixelStatus(IntEnum):
    """Why the fit of a pixel ended; 0 to 7 as of every solve."""

    EVALUATIONS_USED_UP = 0
    CONVERGED = 1
    CONVERGED_BY_FTOL = 2
    CONVERGED_BY_XTOL = 3
    CONVERGED_BY_GTOL = 4
    CONVERGED_AT_ROUNDING = 5
    STALLED = 6
    MODEL_NOT_FINITE_AT_START = 7
    CONVERGED_BUT_UNDETERMINED = 8  # some parameter has no influence on the data there
    NO_DATA = 9  # every point is missing or masked
    TOO_FEW_POINTS = 10  # fewer than parameters
    UNUSABLE_DATA = 11  # infinite, sigma <= 0, NaN where none is allowed, or squares that underflow
    BAD_START = 12  # p0 is NaN or outside its bounds, or the bounds are crossed


SUCCESS = frozenset({1, 2, 3, 4, 5, 8})
# curve fits of nothing: NaN, and no error, as in xarray
WITHOUT_ERROR = SUCCESS | {PixelStatus.NO_DATA}

IN_WORDS = {
    PixelStatus.EVALUATIONS_USED_UP: "not converged after {limit} evaluations; type a larger max_passes, or another p0",
    PixelStatus.STALLED: "not converged: no step decreases the cost any more; type another p0",
    PixelStatus.MODEL_NOT_FINITE_AT_START: "the model or its derivative is not finite at the start; type another p0",
    PixelStatus.TOO_FEW_POINTS: "fewer points than parameters; fix some with fixed={{name: value}}",
    PixelStatus.UNUSABLE_DATA: "y, a coordinate or sigma is infinite, sigma is not positive, NaN is not skipped, or the "
    "squares of y / sigma are too small for float64; type where=mask for the points to fit, or y in a larger unit",
    PixelStatus.BAD_START: "p0 is NaN or outside its bounds, or the bounds are crossed",
}


def attributes() -> dict[str, object]:
    """CF attributes of a variable of codes."""
    return {
        "flag_values": np.array(list(PixelStatus), np.int8),  # of the variable's type, as CF asks
        "flag_meanings": " ".join(code.name.lower() for code in PixelStatus),
    }
