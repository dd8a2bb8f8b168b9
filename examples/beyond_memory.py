"""Generate a decay movie with known truth that is larger than memory, and fit all of it at once.

python examples/beyond_memory.py [FOLDER]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import dask.array as da
import jax.numpy as jnp
import numpy as np
import xarray as xr

import dfit

TRUTH = {"amplitude": 5.0, "tau": 12.0, "tilt": 0.3, "offset": 1.0}
NOISE = 0.5
SHAPE = (400, 1000, 1000)
CHUNKS = (100, 200, 200)


def decay(time, x, amplitude, tau, tilt, offset):
    """Signal that decays in time and is brighter towards one side of the picture."""
    return amplitude * (1 + tilt * x) * jnp.exp(-time / tau) + offset


def _frames(noise: np.ndarray, time: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The model with its true parameters, plus noise; one chunk."""
    a, tau, tilt, offset = TRUTH.values()
    return a * (1 + tilt * x) * np.exp(-time / tau) + offset + NOISE * noise


def movie(shape: tuple[int, int, int] = SHAPE, chunks: tuple[int, int, int] = CHUNKS) -> xr.DataArray:
    """Lazy noisy movie over time (s), y and x."""
    time = np.linspace(0, 60, shape[0])
    y, x = np.linspace(-1, 1, shape[1]), np.linspace(-1, 1, shape[2])
    noise = da.random.default_rng(2019).normal(size=shape, chunks=chunks)
    axes = (
        da.from_array(time[:, None, None], chunks=(chunks[0], 1, 1)),
        da.from_array(x[None, None, :], chunks=(1, 1, chunks[2])),
    )
    signal = da.map_blocks(_frames, noise, *axes, dtype=float)
    return xr.DataArray(signal, coords={"time": time, "y": y, "x": x}, dims=("time", "y", "x"), name="signal")


def write(data: xr.DataArray, folder: Path) -> Path:
    """Store the movie, chunk by chunk and uncompressed, and return its path."""
    need, free = data.nbytes, shutil.disk_usage(folder).free
    if free < 1.1 * need:
        raise SystemExit(
            f"{folder} has {free / 1e9:.1f} GB free, the movie needs {1.1 * need / 1e9:.1f} GB; "
            "name a folder on a larger disk: python examples/main_job.py FOLDER"
        )
    path = folder / "movie.zarr"
    print(f"Writing {data.size:.2g} points, {need / 1e9:.1f} GB, to {path}", flush=True)
    data.to_dataset().to_zarr(path, consolidated=False, encoding={"signal": {"compressors": None}})
    return path


def fit_movie(path: Path, verbose: int = 1) -> dfit.FitResult:
    """One fit over every chunk of the stored movie; verbose=1 prints its progress and its report."""
    data = xr.open_zarr(path, consolidated=False).signal
    start = {"amplitude": 1, "tau": 5, "tilt": 0, "offset": 0}
    return dfit.fit(decay, data, ("time", "x"), p0=start, verbose=verbose)


def compare_with_truth(result: dfit.FitResult) -> float:
    """Print fit and truth; return the largest distance in standard deviations."""
    print(f"{'':10}{'fit':>14}{'truth':>8}{'std. dev.':>12}{'distance':>10}")
    furthest = 0.0
    for name, truth in TRUTH.items():
        mine = result.params[name]
        distance = (mine.value - truth) / mine.stderr
        furthest = max(furthest, abs(distance))
        print(f"{name:10}{mine.value:14.8f}{truth:8.1f}{mine.stderr:12.2g}{distance:8.2f} sd")
    return furthest


def main() -> None:
    with tempfile.TemporaryDirectory(
        prefix="dfit-movie-", dir=sys.argv[1] if sys.argv[1:] else "."
    ) as folder:
        compare_with_truth(fit_movie(write(movie(), Path(folder))))


if __name__ == "__main__":
    main()
