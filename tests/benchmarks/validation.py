"""What it costs to validate the numbers of a pass, as ratios to a pass that looks at nothing.

python -m tests.benchmarks.validation [--points 10000000] [--rounds 9]

One thread; y and one coordinate of float64 in zarr, read again by every pass, or kept in memory after the
first.  The sum over the content of what is read is nearly all that "sums" costs: a pass without it stands beside.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path
from unittest.mock import patch

import dask
import numpy as np
import xarray as xr

from tests.benchmarks.content_sum import TRUTH, decay, write
from tests.benchmarks.evaluators import evaluator_of
from tests.benchmarks.measure import interleaved, ratio, table

HOW = ("none", "sums", "sums, no content", "full")


def measure(data: xr.Dataset, kept: bool, rounds: int) -> list[str]:
    """Median and quartiles of the ratios of passes, each to one without validation, in the order of ``HOW``."""
    theta = np.array(list(TRUTH.values()))
    reading = contextlib.nullcontext() if kept else patch("dfit.planning.KEEP_FRACTION", 0)
    with dask.config.set(scheduler="synchronous"), reading:
        passes = {how: evaluator_of(decay, data.y, "x", TRUTH, validate=how.split(",")[0]) for how in HOW}

        def one(how: str) -> None:
            nothing = patch("dfit.data.loading.sum_of_bits", lambda array: 0)
            with nothing if how.endswith("no content") else contextlib.nullcontext():
                passes[how](theta)

        spent = interleaved({how: lambda how=how: one(how) for how in HOW}, rounds)
    reads = passes["sums"].account.bytes_read / (16 * data.y.size)
    assert reads == (1 if kept else passes["sums"].account.passes)
    found = [ratio(spent[how], spent["none"]) for how in HOW[1:]]
    return [f"{middle:.4f} ({low:.3f}-{high:.3f})" for middle, low, high in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for compressed in (False, True):
            data = write(Path(folder), asked.points, compressed)
            stored = "compressed" if compressed else "uncompressed"
            rows.append([f"{stored}, read again", *measure(data, False, asked.rounds)])
        rows.append(["kept in memory", *measure(data, True, asked.rounds)])
    table(["zarr", *(f"{how} / none" for how in HOW[1:])], rows)


if __name__ == "__main__":
    main()
