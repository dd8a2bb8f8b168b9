"""A map whose pixels have more points than the process may hold: what `tests/test_pixel_passes.py` starts.

python -m tests.beyond_limit LIMIT_BYTES

Prints the size of the data, the largest error of the answers, and the plan.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from dfit.face.accessor import FitAccessor

PIXELS, POINTS, CHUNK = 300, 360_000, 4_000
SLOPES = 1 + np.arange(PIXELS) / PIXELS
TIMES = np.linspace(0, 2, POINTS)


def line(t, slope, level):
    return slope * t + level


def _chunk(block_info: Any = None) -> np.ndarray:
    first, last = block_info[None]["array-location"][0]
    return TIMES[first:last, None] * SLOPES + 3


def main() -> None:
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    chunks = ((CHUNK,) * (POINTS // CHUNK), (PIXELS,))
    values = da.map_blocks(_chunk, chunks=chunks, dtype=float, meta=np.empty((0, 0)))
    data = xr.DataArray(values, {"t": TIMES}, ("t", "x"))
    with dask.config.set(scheduler="synchronous"):
        found = FitAccessor(data)("t", line, p0={"slope": 1.5, "level": 2.0}).compute()
    truth = np.stack([SLOPES, np.full(PIXELS, 3.0)], axis=1)
    worst = float(abs(found.curvefit_coefficients.values - truth).max())
    print(json.dumps({"bytes": data.nbytes, "worst": worst, "plan": found.attrs["dfit_plan"]}))


if __name__ == "__main__":
    main()
