"""A program that fits with a checkpoint, to be killed and started again: python -m tests.cluster.killed_client."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import dask
import dask.array as da
import numpy as np
import xarray as xr

import dfit
from tests.cluster.faults import POINTS, decay

PARTITIONS = 40
READ_S = 0.02
P0 = {"a": 2.8, "tau": 1.9, "c": 1.05}
NOT_BITS = ("elapsed_s", "params")


def note(log: Path, what: str) -> None:
    """Add a line to a log that several processes write."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{what}\n".encode())
    os.close(handle)


def block(log: str, block_id: Any = None) -> np.ndarray:
    """A chunk of noisy decays; tells when its read begins and ends."""
    number = block_id[0]
    note(Path(log), f"begin {number}")
    time.sleep(READ_S)
    rng = np.random.default_rng(number)
    t = np.linspace(0, 6, POINTS)
    y = 3 * np.exp(-t / 2) + 1 + rng.normal(0, 0.1, (1, POINTS))
    note(Path(log), f"end {number}")
    return y


class Reads(NamedTuple):
    """Chunks of which a read has begun, and ended."""

    begun: int
    ended: int


def reads(log: Path) -> Reads:
    """What a log tells."""
    words = log.read_text().split() if log.exists() else []
    counts = Counter(words)
    return Reads(counts["begin"], counts["end"])


def fit(log: Path, **options: Any) -> dfit.FitResult:
    """The fit, one leaf a chunk and one chunk a partition, read again in every pass."""
    chunks = ((1,) * PARTITIONS, (POINTS,))
    lazy = da.map_blocks(block, str(log), chunks=chunks, dtype=float, meta=np.empty((0, 0)), name="slow")
    y = xr.DataArray(lazy, dims=("shot", "time"), coords={"time": np.linspace(0, 6, POINTS)})
    with (
        patch("dfit.data.plan.LEAF_POINTS", POINTS),
        patch("dfit.planning.KEEP_FRACTION", 1e-9),
        dask.config.set({"dfit.partition-bytes": "1 B"}),
    ):
        return dfit.fit(decay, y, "time", p0=P0, warmup=False, **options)


def numbers(found: dfit.FitResult) -> dict[str, np.ndarray]:
    """All that a kill must not change."""
    rows = [
        [*event.params.values(), *(v for name, v in sorted(vars(event).items()) if name not in NOT_BITS)]
        for event in found.history
    ]
    stderr = np.array([found.params[name].stderr for name in found.params])
    return {
        "theta": found.theta,
        "stderr": stderr,
        "cost": np.array([found.cost, found.ndata, found.npasses]),
        "history": np.array(rows, float),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--workers", type=int, default=0, help="processes of a cluster of its own; 0: threads"
    )
    parser.add_argument("--every-s", type=float, default=0.0)
    asked = parser.parse_args()
    keeping = dfit.Checkpoint(asked.folder / "run", every_s=asked.every_s)
    with cluster_of(asked.workers, asked.folder):
        found = fit(asked.folder / "log", checkpoint=keeping)
    np.savez(asked.folder / "result.npz", **numbers(found))


def cluster_of(workers: int, folder: Path) -> Any:
    """Client of a cluster that this process starts; it notes the processes of the workers."""
    if not workers:
        return dask.config.set(scheduler="threads", num_workers=2)
    from distributed import Client

    client = Client(
        n_workers=workers, threads_per_worker=1, dashboard_address=":0", local_directory=str(folder)
    )
    for pid in client.run(os.getpid).values():
        note(folder / "workers", str(pid))
    return client


if __name__ == "__main__":
    main()
