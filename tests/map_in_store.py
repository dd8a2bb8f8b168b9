"""A small stack of images with its map, and a look at the store that a map is written to."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import dask.array as da
import jax.numpy as jnp
import numpy as np
import xarray as xr

TIME = np.linspace(0, 4, 20)
SHAPE = (10, 6)
RATE = 1.5 + np.arange(60).reshape(SHAPE) / 60
CLEAN = 2 * np.exp(-TIME[:, None, None] / RATE) + 0.3
VALUES = CLEAN + np.random.default_rng(4).normal(0, 0.01, CLEAN.shape)
P0 = {"a": 1.5, "tau": 1.2, "c": 0.1}
SIZES = {"time": 8, "y": 4, "x": 3}
REGIONS = 6


def decay(time, a, tau, c):
    return a * jnp.exp(-time / tau) + c


def doubled(time, a, tau, c):
    return 2 * a * jnp.exp(-time / tau) + c


def cube(values: Any = VALUES, **sizes: int) -> xr.DataArray:
    """A stack of images with a name for each row, in chunks."""
    coords = {"time": TIME, "row": ("y", [f"r{k}" for k in range(values.shape[1])]), "x": np.arange(6) / 2}
    array = xr.DataArray(values, coords, ("time", "y", "x"), name="signal", attrs={"units": "mV"})
    return array.chunk(**(sizes or SIZES))


def fit(y: Any = None, model: Any = decay, **options: Any) -> xr.Dataset:
    return (cube() if y is None else y).fit("time", model, **{"p0": P0, **options})


class Reads:
    """A stack that counts how often each of its chunks is read."""

    def __init__(self, values: np.ndarray = VALUES) -> None:
        self.seen: list[tuple[int, ...]] = []
        self._values = values

    def _block(self, block_id: Any = None, block_info: Any = None) -> np.ndarray:
        self.seen.append(tuple(block_id))
        return self._values[tuple(slice(*span) for span in block_info[None]["array-location"])]

    def array(self) -> xr.DataArray:
        like = cube().data
        name = f"counted-{uuid.uuid4().hex}"
        return cube().copy(
            data=da.map_blocks(
                self._block, chunks=like.chunks, dtype=float, meta=np.empty((0, 0, 0)), name=name
            )
        )

    def of_regions(self) -> set[tuple[int, ...]]:
        """Regions of which all chunks were read."""
        times = len(cube().data.chunks[0])
        places = {place[1:] for place in self.seen}
        return {place for place in places if {(k, *place) for k in range(times)} <= set(self.seen)}


def require_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Refuse a map out of a store that is another one; it does not say how one was planned."""
    attrs = {name: text for name, text in expected.attrs.items() if "dfit_plan" not in name}
    xr.testing.assert_identical(found, expected.drop_attrs(deep=False).assign_attrs(attrs))


def marks(path: Path) -> list[str]:
    """Names of the marks of finished regions."""
    return sorted(p.name for p in (path / "dfit_regions").iterdir() if re.match(r"\d+-\d", p.name))


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def forget(path: Path, *regions: str, torn: bool = False) -> None:
    """Leave a store as a kill in the midst of some regions would, with chunks half written if `torn`."""
    for name in regions:
        (path / "dfit_regions" / name).unlink()
        place = name.partition("-")[2].replace(".", "/")
        for file in (f"coefficients/c/{place}/0", f"status/c/{place}"):
            written = path / f"curvefit_{file}"
            written.write_bytes(written.read_bytes()[:5]) if torn else written.unlink()
