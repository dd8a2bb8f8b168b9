"""The eight workloads on which planning is measured: real files, known truth, the same at every call.

python -m tests.benchmarks.workloads FOLDER [--points POINTS]

builds those that FOLDER does not hold yet and lists them; at full size they take some 2 GB.  `build` gives
one of them to other benchmarks.  Noise and start follow from the place of a point alone.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

NOISE = 0.1
DIGIT = 2.0**-10  # instruments give so many digits, and so compression saves something
ROW = 1000  # points of a row, where the coordinate lies along one dimension
PEAKS = 6
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(32)


def decay(x, amplitude, tau, offset):
    """Decay with a constant: cheap, 3 parameters."""
    return amplitude * jnp.exp(-x / tau) + offset


def rates(x, amplitude, log_rate, width, offset):
    """Decay with a log-normal distribution of rates by Gauss-Hermite quadrature: costly, 4 parameters."""
    mean = sum(
        weight * jnp.exp(-x * jnp.exp(log_rate + width * node))
        for node, weight in zip(NODES, WEIGHTS, strict=True)
    )
    return amplitude / math.sqrt(2 * math.pi) * mean + offset


def peaks(x, h1, c1, w1, h2, c2, w2, h3, c3, w3, h4, c4, w4, h5, c5, w5, h6, c6, w6, slope, offset):
    """Six Gaussian peaks on a line: 20 parameters."""
    heights, centres, widths = (h1, h2, h3, h4, h5, h6), (c1, c2, c3, c4, c5, c6), (w1, w2, w3, w4, w5, w6)
    lines = (h * jnp.exp(-(((x - c) / w) ** 2) / 2) for h, c, w in zip(heights, centres, widths, strict=True))
    return sum(lines) + slope * x + offset


def _of_peaks(height: float, shift: float, width: float) -> dict[str, float]:
    places = [
        {f"h{k}": height + 0.2 * k, f"c{k}": 1.6 * k - 0.6 + shift, f"w{k}": width}
        for k in range(1, PEAKS + 1)
    ]
    return {name: value for place in places for name, value in place.items()}


@dataclass(frozen=True)
class Kind:
    """What a workload is made of.

    Attributes
    ----------
    points, chunk : in all, and of a chunk where `points` is as here.
    dtype : of the stored values.
    store : "zarr", "netcdf", or "memory" for NumPy arrays.
    compressed : whether the store compresses.
    rows : whether y has rows, x lying along them; else x is as large as y and stored beside it.
    """

    model: Callable[..., Any]
    truth: Mapping[str, float]
    p0: Mapping[str, float]
    points: int
    dtype: str = "f8"
    store: str = "zarr"
    compressed: bool = True
    chunk: int = 1_000_000
    rows: bool = False


@dataclass(frozen=True)
class Workload:
    """A fit to be done: ``dfit.fit(model, data, coords, p0=p0)`` finds ``truth``."""

    name: str
    model: Callable[..., Any]
    p0: dict[str, float]
    data: Any
    coords: Any
    truth: dict[str, float]


DECAY = (
    decay,
    {"amplitude": 5.0, "tau": 2.0, "offset": 1.0},
    {"amplitude": 2.0, "tau": 5.0, "offset": 0.0},
)
RATES = (
    rates,
    {"amplitude": 5.0, "log_rate": -0.5, "width": 0.6, "offset": 1.0},
    {"amplitude": 4.0, "log_rate": 0.0, "width": 0.3, "offset": 0.5},
)
LINES = (
    peaks,
    {**_of_peaks(3.0, 0.0, 0.3), "slope": 0.1, "offset": 1.0},
    {**_of_peaks(2.0, 0.05, 0.35), "slope": 0.0, "offset": 0.5},
)

KINDS = {
    "decay, zarr": Kind(*DECAY, 40_000_000),
    "decay, zarr uncompressed, float32": Kind(*DECAY, 40_000_000, "f4", compressed=False),
    "decay, zarr in 2,000 chunks": Kind(*DECAY, 40_000_000, chunk=20_000, rows=True),
    "decay, netcdf, float32": Kind(*DECAY, 40_000_000, "f4", "netcdf", rows=True),
    "decay, in memory": Kind(*DECAY, 20_000_000, store="memory"),
    "rates, zarr": Kind(*RATES, 20_000_000),
    "peaks, zarr": Kind(*LINES, 20_000_000, rows=True),
    "peaks, zarr uncompressed, float32": Kind(*LINES, 20_000_000, "f4", compressed=False, rows=True),
}


def build(name: str, folder: Path, points: int | None = None) -> Workload:
    """A workload by its name in `KINDS`, its file written into ``folder`` where it is not there yet.

    ``points`` instead of the kind's own; the number of chunks stays.
    """
    kind = KINDS[name]
    size = ROW * ((points or kind.points) // ROW)
    # Whole rows, so that no chunk ends within one.
    chunk = max(ROW, ROW * round(kind.chunk * size / kind.points / ROW))
    path = Path(folder) / f"{name.replace(', ', '-').replace(' ', '_')}-{size}.{kind.store}"
    if not path.exists():
        _write(kind, path, size, chunk)
    if kind.store == "memory":
        x, data = np.load(path)
        coords: Any = {"x": x}
    else:
        data, coords = _opened(kind, path), "x"
    return Workload(name, kind.model, dict(kind.p0), data, coords, dict(kind.truth))


def _values(kind: Kind, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of some points."""
    x = (np.arange(start, stop) % ROW) * (10 / ROW)
    noise = np.random.default_rng(start).normal(0, NOISE, x.size)
    with jax.enable_x64(True):
        exact = np.asarray(kind.model(x[:ROW], *kind.truth.values()))
    y = np.tile(exact, x.size // ROW) + noise
    return x.astype(kind.dtype), (np.round(y / DIGIT) * DIGIT).astype(kind.dtype)


def _write(kind: Kind, path: Path, size: int, chunk: int) -> None:
    """Store a workload chunk by chunk; a file of this name is complete."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    if kind.store == "memory":
        with unfinished.open("wb") as file:
            np.save(file, _values(kind, 0, size))
        unfinished.rename(path)
        return
    root, x, y = (_zarr_arrays if kind.store == "zarr" else _netcdf_arrays)(kind, unfinished, size, chunk)
    if kind.rows:
        x[:] = _values(kind, 0, ROW)[0]
    for start in range(0, size, chunk):
        stop = min(start + chunk, size)
        here, values = _values(kind, start, stop)
        if kind.rows:
            y[start // ROW : stop // ROW] = values.reshape(-1, ROW)
        else:
            x[start:stop], y[start:stop] = here, values
    if kind.store == "netcdf":
        root.close()
    try:
        unfinished.rename(path)
    except OSError:  # another process has built the same meanwhile
        shutil.rmtree(unfinished, ignore_errors=True)


def _shapes(kind: Kind, size: int, chunk: int) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Shape and chunks of x and y."""
    if kind.rows:
        return {"x": ((ROW,), (ROW,)), "y": ((size // ROW, ROW), (chunk // ROW, ROW))}
    return {name: ((size,), (chunk,)) for name in ("x", "y")}


def _zarr_arrays(kind: Kind, path: Path, size: int, chunk: int) -> tuple[Any, Any, Any]:
    import zarr

    root = zarr.open_group(path, mode="w")
    options: dict[str, Any] = {} if kind.compressed else {"compressors": None}
    arrays = [
        root.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype=kind.dtype,
            dimension_names=["row", "x"][-len(shape) :] if kind.rows else ["point"],
            **options,
        )
        for name, (shape, chunks) in _shapes(kind, size, chunk).items()
    ]
    return root, *arrays


def _netcdf_arrays(kind: Kind, path: Path, size: int, chunk: int) -> tuple[Any, Any, Any]:
    import h5netcdf

    root = h5netcdf.File(path, "w")
    root.dimensions = {"row": size // ROW, "x": ROW}
    options: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    x = root.create_variable("x", ("x",), kind.dtype)
    y = root.create_variable("y", ("row", "x"), kind.dtype, chunks=(chunk // ROW, ROW), **options)
    return root, x, y


def _opened(kind: Kind, path: Path) -> xr.DataArray:
    """The stored y, lazy, x beside it."""
    if kind.store == "netcdf":
        return xr.open_dataset(path, engine="h5netcdf", chunks={}).y
    found = xr.open_zarr(path, consolidated=False, chunks={})
    return (found if kind.rows else found.set_coords("x")).y


def main() -> None:
    from tests.benchmarks.measure import table

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, help="of every workload, instead of its own")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in KINDS:
        found = build(name, asked.folder, asked.points)
        chunks = math.prod(map(len, found.data.chunks)) if isinstance(found.data, xr.DataArray) else 1
        rows.append((name, found.data.size, str(found.data.dtype), chunks, len(found.p0)))
    table(("workload", "points", "dtype", "chunks", "parameters"), rows)


if __name__ == "__main__":
    main()
