"""Maps larger than memory: pixels per second and memory of per-pixel fits, from 10^4 to 10^7 pixels.

python -m tests.benchmarks.pixels_out_of_core [--largest 10000000] [--limit-bytes 2000000000] [--folder PATH]

An exponential with offset at 64 times, float32 in zarr, chunked in two ways: each pixel's points in one
chunk, and in chunks of 16.  10^7 pixels are 2.6 GB and their map of answers is of that size too; both lie
under --folder (default: the temporary one) and are removed afterwards.  Each fit runs in a process whose
data segment the kernel limits (RLIMIT_DATA), after one of a single tile, which compiles; maps of up to
10^5 pixels several times, of which the median counts.  Memory is the peak of the process (VmHWM, set back
before) above what it held when the fit began.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dfit.face.accessor import FitAccessor
from dfit.reduce.allocator import reset_peak, resident_bytes
from tests.benchmarks.measure import table
from tests.benchmarks.out_of_core import last_json

SHAPES = {10**4: (100, 100), 10**5: (250, 400), 10**6: (1000, 1000), 10**7: (2500, 4000)}
BASE = 10**5
TILE = (125, 200)
TIMES = np.linspace(0, 10, 64)
LAYOUTS = {"whole": len(TIMES), "chunked": 16}
START = {"amplitude": 4.0, "tau": 2.5, "offset": 0.5}
NOISE = 0.1
MIB = 1 << 20
BYTES_PER_PIXEL = 700  # of the data, of the map, and some to spare


def decay(time, amplitude, tau, offset):
    """Exponential with offset."""
    import jax.numpy as jnp

    return amplitude * jnp.exp(-time / tau) + offset


def truth_at(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """True parameters (3, len(y), len(x)) of pixels by their numbers, which vary by 30 % across a tile."""
    waves = [np.sin(y[:, None] / 7 + k) * np.cos(x[None, :] / 11 + 2 * k) for k in range(3)]
    return np.array([5.0, 2.0, 1.0])[:, None, None] * (1 + 0.3 * np.array(waves))


def _tile(block_info: Any = None) -> np.ndarray:
    """Data (time, y, x) of one tile; its place is the seed of its noise."""
    _, *place = block_info[None]["array-location"]
    truth = truth_at(*(np.arange(*span, dtype=float) for span in place))
    amplitude, tau, offset = truth[:, None]
    clean = amplitude * np.exp(-TIMES[:, None, None] / tau) + offset
    rng = np.random.default_rng([begin for begin, _ in place])
    return (clean + NOISE * rng.standard_normal(clean.shape)).astype("f4")


def write(folder: Path, shape: tuple[int, int], points: int) -> Path:
    """Store a map's data in chunks of ``points`` times; the same numbers whatever the chunks."""
    import dask.array as da

    need, free = BYTES_PER_PIXEL * shape[0] * shape[1], shutil.disk_usage(folder).free
    if free < need:
        raise SystemExit(
            f"{folder} has {free / 1e9:.1f} GB free, {need / 1e9:.1f} GB are needed; type --folder PATH"
        )
    tiles = da.core.normalize_chunks(TILE, shape=shape)
    values = da.map_blocks(_tile, chunks=((len(TIMES),), *tiles), dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    cube = xr.DataArray(values, {"time": TIMES}, ("time", "y", "x"), name="signal").chunk(time=points)
    path = folder / "data.zarr"
    cube.to_dataset().to_zarr(path, mode="w", consolidated=False)
    return path


def open_data(path: Path) -> xr.DataArray:
    """The stored cube, lazy, in its own chunks."""
    return xr.open_zarr(path, consolidated=False).signal


def distances(found: xr.Dataset) -> tuple[int, float, float]:
    """Pixels without an answer; root mean square and largest distance of the others, in standard errors."""
    failed, total, count, largest = 0, 0.0, 0, 0.0
    for tile in _tiles(found):
        values, stderr = (
            tile[f"curvefit_{name}"].transpose("param", "y", "x").values
            for name in ("coefficients", "stderr")
        )
        distance = (values - truth_at(tile.y.values, tile.x.values)) / stderr
        good = np.isfinite(distance).all(axis=0)
        failed += int((~good).sum())
        total, count = total + float((distance[:, good] ** 2).sum()), count + 3 * int(good.sum())
        largest = max(largest, float(np.abs(distance[:, good]).max(initial=0.0)))
    return failed, float(np.sqrt(total / max(count, 1))), largest


def _tiles(found: xr.Dataset) -> Iterator[xr.Dataset]:
    """The map tile by tile with the numbers of its pixels, so that it is never in memory."""
    height, width = found.sizes["y"], found.sizes["x"]
    numbered = found.assign_coords(y=np.arange(height, dtype=float), x=np.arange(width, dtype=float))
    for top in range(0, height, TILE[0]):
        for left in range(0, width, TILE[1]):
            yield numbered.isel(y=slice(top, top + TILE[0]), x=slice(left, left + TILE[1]))


def fit_map(data: xr.DataArray, to: Path) -> xr.Dataset:
    """The map of a cube, written as it is found and opened again."""
    return FitAccessor(data)("time", decay, p0=START, errors="ignore", to=str(to))


def measure(path: Path, rounds: int) -> dict[str, Any]:
    """Pixels a second, memory and answers of a map of the stored data, in this process."""
    data, folder = open_data(path), path.parent
    pixels = data.sizes["y"] * data.sizes["x"]
    fit_map(data[:, : TILE[0], : TILE[1]], folder / "first.zarr")
    wall, cpu, peak = [], [], 0
    for k in range(rounds):
        reset_peak()
        idle, spent, began = resident_bytes()[0], time.process_time(), time.perf_counter()
        found = fit_map(data, folder / f"map{k}.zarr")
        wall.append(pixels / (time.perf_counter() - began))
        cpu.append(pixels / (time.process_time() - spent))
        peak = max(peak, resident_bytes()[1] - idle)
    failed, typical, furthest = distances(found)
    return {
        "per_s": statistics.median(wall),
        "per_cpu_s": statistics.median(cpu),
        "peak_mib": peak / MIB,
        "failed": failed,
        "typical": typical,
        "furthest": furthest,
    }


def measured(
    folder: Path, shape: tuple[int, int], layout: str, rounds: int, limit_bytes: int
) -> dict[str, Any]:
    """Write a map's data and measure it in a process that the kernel limits."""
    with tempfile.TemporaryDirectory(prefix="dfit-pixels-", dir=folder) as place:
        path = write(Path(place), shape, LAYOUTS[layout])
        command = [sys.executable, "-m", "tests.benchmarks.pixels_out_of_core", "--path", str(path)]
        options = ["--rounds", str(rounds), "--limit-bytes", str(limit_bytes)]
        root = Path(__file__).parents[2]
        return last_json(
            subprocess.run([*command, *options], check=False, capture_output=True, text=True, cwd=root)
        )


def report(layout: str, found: dict[int, dict[str, Any]]) -> None:
    """Print one layout's maps by their size, against the one of 10^5 pixels."""
    print(f"\nthe {len(TIMES)} times in chunks of {LAYOUTS[layout]}")
    base = found[BASE]
    rows = [
        (
            pixels,
            one["per_s"],
            one["per_s"] / base["per_s"],
            one["per_cpu_s"],
            one["per_cpu_s"] / base["per_cpu_s"],
            one["peak_mib"],
            one["failed"],
            one["typical"],
            one["furthest"],
        )
        for pixels, one in found.items()
    ]
    speed = ("per second", "ratio", "per CPU second", "ratio")
    table(("pixels", *speed, "peak MiB", "failed", "typical distance", "furthest"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=max(SHAPES))
    parser.add_argument("--limit-bytes", type=int, default=2 * 10**9)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.path:
        resource.setrlimit(resource.RLIMIT_DATA, (asked.limit_bytes, asked.limit_bytes))
        print(json.dumps(measure(asked.path, asked.rounds)))
        return
    print("distance to the truth in standard errors: 1 is typical of right answers; peak above idle")
    for layout in LAYOUTS:
        found = {}
        for pixels, shape in SHAPES.items():
            if pixels <= max(asked.largest, BASE):
                rounds = 5 if pixels <= BASE else 1
                found[pixels] = measured(asked.folder, shape, layout, rounds, asked.limit_bytes)
        report(layout, found)


if __name__ == "__main__":
    main()
