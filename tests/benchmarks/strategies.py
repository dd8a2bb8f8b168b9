"""The strategies side by side on the same data: points per second of the first pass and of later ones.

python -m tests.benchmarks.strategies [--points N] [--rounds 7] [--folder F] [--only NAME]

Each fits the same data in `PASSES` passes by a plan made before, with dask's threads and on a cluster of as many
processes of one thread, in rounds of random order after one of each that does not count.  A pass is timed from
one callback to the next, the first from the call, with all that comes before it but planning.  What is printed
are ratios to "streaming" of the same place and round (90 % intervals), and of streaming on the cluster to that on
threads; "cached" on threads differs from "in_memory" in dask's scheduler alone, and in a cluster it keeps the data
in the workers, where "in_memory" keeps them here.  Files lie in the page cache: a disk or a network would part
streaming further from the others.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import dask
import numpy as np

import dfit
from dfit.plans import STRATEGIES
from tests.benchmarks.measure import table
from tests.benchmarks.rounds import ratio
from tests.benchmarks.workloads import KINDS, Workload, build

PASSES = 4
POINTS = 8_000_000
NAMES = ("decay, zarr", "decay, zarr uncompressed, float32", "decay, netcdf, float32", "peaks, zarr")
CORES = os.cpu_count() or 1
THREADS, CLUSTER = "threads", "cluster"


@contextmanager
def place_of(kind: str) -> Iterator[None]:
    """dask's threads or processes in force."""
    if kind == THREADS:
        with dask.config.set(scheduler="threads"):
            yield
        return
    from distributed import Client, LocalCluster

    with (
        LocalCluster(CORES, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        yield


def passes_of(workload: Workload, plan: dfit.Plan) -> tuple[list[float], Any]:
    """Seconds of each pass of a fit, and its result."""
    ended: list[float] = [time.perf_counter()]
    result = dfit.fit(
        workload.model,
        workload.data,
        workload.coords,
        p0=workload.p0,
        warmup=False,
        plan=plan,
        max_passes=PASSES,
        callback=lambda event: ended.append(time.perf_counter()),
    )
    return np.diff(ended).tolist(), result


def measure(workload: Workload, rounds: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Seconds (rounds, 2) of the first pass and of a later one by strategy, where dask's tasks now run."""
    runs: dict[str, Callable[[], list[float]]] = {}
    for strategy in STRATEGIES:
        given = (workload.model, workload.data, workload.coords)
        plan = dfit.plan(*given, p0=workload.p0, warmup=False, plan=dfit.Plan(strategy))
        runs[strategy] = lambda plan=plan: passes_of(workload, plan)[0]
    for run in runs.values():
        run()
    found: dict[str, list[tuple[float, float]]] = {strategy: [] for strategy in runs}
    for _ in range(rounds):
        for strategy in rng.permutation(list(runs)):
            first, *later = runs[strategy]()
            found[strategy].append((first, float(np.median(later))))
    return {strategy: np.array(seconds) for strategy, seconds in found.items()}


def rows_of(
    found: dict[str, dict[str, np.ndarray]], points: int, rng: np.random.Generator
) -> list[tuple[Any, ...]]:
    """Points per second of each strategy at each place, and by those of streaming there."""
    rows = []
    for place, seconds in found.items():
        slow = seconds["streaming"]
        for strategy, took in seconds.items():
            rate = points / np.median(took, axis=0) / 1e6
            gain = [str(ratio(slow[:, k], took[:, k], rng)) for k in (0, 1)]
            rows.append((f"{strategy}, {place}", rate[0], gain[0], rate[1], gain[1]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the data are, or are put")
    parser.add_argument("--only", choices=tuple(KINDS), action="append")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    head = ("strategy", "first, 1e6 points/s", "of streaming", "later, 1e6 points/s", "of streaming")
    place = (
        nullcontext(asked.folder) if asked.folder else tempfile.TemporaryDirectory(prefix="dfit-benchmark-")
    )
    with place as folder, dask.config.set({"dfit.history": False}):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in asked.only or NAMES:
            workload = build(name, Path(folder), asked.points)
            found: dict[str, dict[str, np.ndarray]] = {}
            for kind in (THREADS, CLUSTER):
                with place_of(kind):
                    found[kind] = measure(workload, asked.rounds, rng)
            print(f"\n{name}: {workload.data.size:,} points, {CORES} cores")
            table(head, rows_of(found, workload.data.size, rng))
            later = ratio(found[THREADS]["streaming"][:, 1], found[CLUSTER]["streaming"][:, 1], rng)
            print(f"streaming on the cluster, points per second by those on threads: {later}")


if __name__ == "__main__":
    main()
