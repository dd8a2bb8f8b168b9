"""What the sum over the bits of all that is read costs, against the pass that carries it.

python -m tests.benchmarks.content_sum [--points 10000000] [--rounds 7]

One thread; y and one coordinate of float64 in zarr, 2^20 points a chunk, uncompressed and as zarr writes
them by itself.  The arrays summed are those of the same chunks, more than any cache holds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from unittest.mock import patch

import dask
import jax.numpy as jnp
import numpy as np
import xarray as xr

from dfit.data.loading import sum_of_bits
from tests.benchmarks.evaluators import evaluator_of
from tests.benchmarks.measure import interleaved, ratio, table

CHUNK = 1 << 20
TRUTH = {"amplitude": 5.0, "tau": 2.0, "offset": 1.0}


def decay(x, amplitude, tau, offset):
    """Decay with a constant."""
    return amplitude * jnp.exp(-x / tau) + offset


def write(folder: Path, points: int, compressed: bool) -> xr.Dataset:
    """Data of known truth in zarr, opened."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, points)
    amplitude, tau, offset = TRUTH.values()
    y = amplitude * np.exp(-x / tau) + offset + 0.1 * rng.standard_normal(points)
    path = folder / f"{compressed}.zarr"
    stored = {} if compressed else {name: {"compressors": None} for name in ("x", "y")}
    data = xr.Dataset({"x": ("i", x), "y": ("i", y)}).chunk(i=CHUNK)
    data.to_zarr(path, encoding=stored, consolidated=False)
    return xr.open_zarr(path, consolidated=False, chunks={}).set_coords("x")


def measure(folder: Path, points: int, rounds: int, compressed: bool) -> tuple[list[float], float]:
    """Median nanoseconds per point of a pass and of the sums, and the ratio of the two."""
    data = write(folder, points, compressed)
    starts = range(0, points, CHUNK)
    arrays = [data[name].values[start : start + CHUNK] for name in ("x", "y") for start in starts]
    theta = np.array(list(TRUTH.values()))
    # Read again in every pass, as data that do not fit in memory are.
    with dask.config.set(scheduler="synchronous"), patch("dfit.planning.KEEP_FRACTION", 0):
        evaluator = evaluator_of(decay, data.y, "x", TRUTH)
        calls = {
            "pass": lambda: evaluator(theta),
            "sums": lambda: [sum_of_bits(array) for array in arrays],
        }
        spent = interleaved(calls, rounds)
    assert evaluator.account.bytes_read == 16 * points * evaluator.account.passes
    share, *_ = ratio(spent["sums"], spent["pass"])
    return [1e9 * float(np.median(spent[name])) / points for name in calls], share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for compressed in (False, True):
            times, share = measure(Path(folder), asked.points, asked.rounds, compressed)
            rows.append(["compressed" if compressed else "uncompressed", *times, f"{share:.2%}"])
    table(["zarr", "pass ns/point", "sums ns/point", "sums / pass"], rows)


if __name__ == "__main__":
    main()
