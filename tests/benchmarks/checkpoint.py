"""What checkpoints cost: the seconds of a save, and of all saves against those of the passes.

python -m tests.benchmarks.checkpoint [--points 4000000] [--rounds 3]

A model of 100 parameters over data in 200 partitions, and in 20,000; a save after every pass and after every
ten seconds, which is six times as often as by default.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Self
from unittest.mock import patch

import dask
import jax.numpy as jnp
import numpy as np
import xarray as xr

import dfit
from dfit.keeping import Keeper
from tests.benchmarks.measure import ratio, table

PARAMETERS, PASSES = 100, 2
NAMES = [f"p{k}" for k in range(PARAMETERS)]
EVERY = {"every_s": 10.0, "every_passes": 1}


def waves(t, *p):
    """A sum of cosines."""
    return jnp.cos(jnp.outer(t, jnp.arange(PARAMETERS))) @ jnp.stack(p)


def data(points: int, partitions: int) -> xr.DataArray:
    """Noise and one wave, one chunk a partition."""
    t = np.linspace(0, np.pi, points)
    y = np.cos(3 * t) + np.random.default_rng(0).normal(0, 0.1, points)
    return xr.DataArray(y, dims="i", coords={"t": ("i", t)}).chunk(i=points // partitions)


class Saves(list[float]):
    """Seconds of each save, whatever fit makes it."""

    def __enter__(self) -> Self:
        original = Keeper.save

        def save(keeper: Keeper, stopped: str = "") -> None:
            began = time.perf_counter()
            original(keeper, stopped)
            self.append(time.perf_counter() - began)

        self._patch = patch.object(Keeper, "save", save)
        self._patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.stop()


def seconds_of(y: xr.DataArray, passes: int, keeping: dfit.Checkpoint | None) -> float:
    """Seconds of so many passes, one leaf a chunk and one chunk a partition; nothing is gone on from."""
    options = {"p0": [0.5] * PARAMETERS, "param_names": NAMES, "warmup": False, "tol": 1e-15}
    alone = (
        dask.config.set({"dfit.partition-bytes": "1 B"}),
        patch("dfit.data.plan.LEAF_POINTS", y.chunksizes["i"][0]),
    )
    began = time.perf_counter()
    with alone[0], alone[1]:
        dfit.fit(waves, y, "t", max_passes=passes, checkpoint=keeping, resume=False, **options)
    return time.perf_counter() - began


def overhead(points: int, rounds: int) -> list[object]:
    """A row: seconds of a pass, and what saves, and all that a checkpoint does, add to the passes."""
    y = data(points, 200)
    seconds_of(y, 1, None)
    spent: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as place, Saves() as saves:
        for _ in range(rounds):
            spent["without"].append(seconds_of(y, PASSES, None))
            spent["with"].append(seconds_of(y, PASSES, dfit.Checkpoint(place, **EVERY)))
    more, low, high = ratio(*(np.array(spent[name]) for name in ("with", "without")))
    share = sum(saves) / sum(spent["with"])
    of_all = f"{more:.4f} ({low:.4f} to {high:.4f})"
    return [200, float(np.median(spent["without"])) / PASSES, len(saves), f"{share:.3%}", of_all]


def within(points: int, partitions: int) -> list[object]:
    """A row: saves in the midst of a pass over so many partitions."""
    with tempfile.TemporaryDirectory() as place, Saves() as saves:
        seconds_of(data(points, partitions), 1, dfit.Checkpoint(place, every_s=0.5))
        size = dfit.Checkpoint(place).entries()[0].size_bytes / 2**20
    return [partitions, len(saves), size, 1e3 * float(np.median(saves)), 1e3 * max(saves)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    head = ["partitions", "pass s", "saves", "saves / fit", "with / without (quartiles)"]
    table(head, [overhead(asked.points, asked.rounds)])
    rows = [within(asked.points, partitions) for partitions in (200, 20_000)]
    table(["partitions", "saves in a pass", "MiB", "median ms", "longest ms"], rows)


if __name__ == "__main__":
    main()
