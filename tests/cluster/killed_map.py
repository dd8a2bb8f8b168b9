"""A program that writes a map, to be killed and started again: python -m tests.cluster.killed_map."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from tests.cluster.killed_client import cluster_of, note

TIME = np.linspace(0, 4, 16)
SIZE, REGION = 12, 2
REGIONS = (SIZE // REGION) ** 2
READ_S = 0.05
P0 = {"a": 1.5, "tau": 1.2}


def decay(time, a, tau):
    import jax.numpy as jnp

    return a * jnp.exp(-time / tau)


def block(log: str, block_id: Any = None) -> np.ndarray:
    """Half of the images of a region; tells that it is read."""
    time.sleep(READ_S)
    half, *place = block_id
    note(Path(log), f"{half}-{'.'.join(map(str, place))}")
    rng = np.random.default_rng(block_id)
    clean = 2 * np.exp(-TIME[8 * half : 8 * half + 8] / (1 + sum(place) / 10))
    return clean[:, None, None] + rng.normal(0, 0.01, (8, REGION, REGION))


def fit(log: Path, **options: Any) -> xr.Dataset:
    """The map of a stack whose images lie in two chunks."""
    from dfit.face.accessor import FitAccessor

    cuts = (REGION,) * (SIZE // REGION)
    meta = np.empty((0, 0, 0))
    lazy = da.map_blocks(block, str(log), chunks=((8, 8), cuts, cuts), dtype=float, meta=meta, name="slow")
    stack = xr.DataArray(lazy, {"time": TIME}, ("time", "y", "x"), name="signal")
    return FitAccessor(stack)("time", decay, p0=P0, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--workers", type=int, default=0, help="processes of a cluster of its own; 0: threads"
    )
    asked = parser.parse_args()
    with cluster_of(asked.workers, asked.folder):
        note(asked.folder / "log", "begin")
        fit(asked.folder / "log", to=asked.folder / "map.zarr")


if __name__ == "__main__":
    main()
