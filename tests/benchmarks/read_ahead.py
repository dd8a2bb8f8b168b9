"""Reading ahead inside a task: what a pass takes beside its reads and its arithmetic, each alone.

python -m tests.benchmarks.read_ahead [--rounds 7] [--chunks 60] [--only zstd | delayed] [--kind threads | processes]

y lies in a zarr store of chunks of 10^6 values (8 MB, zstd), read again in every pass by two tasks at a time,
as dask's threads and as two processes of one thread.  "zstd": from the page cache, where decoding is what a
read costs; a pass is compared with (CPU of the bare read + CPU of the pass over data in memory) / cores.
"delayed": every chunk comes 50 ms late; a pass is compared with the longer of its reads alone and its
arithmetic alone.  All are measured in turn; with reading ahead, without, and on threads with one task more
at a time, which computes while another waits for the first chunk of its partition.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import dask
import jax.numpy as jnp
import numpy as np
import xarray as xr
import zarr
from zarr.storage import LocalStore, WrapperStore

from dfit.plans import Plan
from dfit.reduce.evaluators import PassEvaluator
from tests.benchmarks.evaluators import evaluator_of
from tests.benchmarks.measure import ratio, table

SHAPE = (1000, 1000)  # of a chunk
DELAY_S = 0.05
CORES = os.cpu_count() or 1
TASKS = 2
X = np.linspace(0, 10, SHAPE[1])


def line(x, a, b):
    """Cheap: reading is all."""
    return a + b * x


def decay(x, a, tau, c):
    """Medium: an exponential a point."""
    return a * jnp.exp(-x / tau) + c


def peaks(x, a, b, c, u, v, w, s, d):
    """Costly: three peaks of one width."""
    return sum(h * jnp.exp(-(((x - m) / s) ** 2)) for h, m in ((a, u), (b, v), (c, w))) + d


MODELS: dict[str, tuple[Callable[..., Any], dict[str, float]]] = {
    "line": (line, {"a": 1.0, "b": 1.0}),
    "decay": (decay, {"a": 5.0, "tau": 2.0, "c": 1.0}),
    "peaks": (peaks, {"a": 1.0, "b": 1.0, "c": 1.0, "u": 2.0, "v": 5.0, "w": 8.0, "s": 1.0, "d": 0.0}),
}


class Late(WrapperStore[LocalStore]):
    """A folder whose chunks come `DELAY_S` late, as from a store far away."""

    async def get(self, key: str, *others: Any, **settings: Any) -> Any:
        if "/c/" in f"/{key}":
            await asyncio.sleep(DELAY_S)
        return await super().get(key, *others, **settings)


@cache
def store_at(path: str, late: bool) -> LocalStore | Late:
    return Late(LocalStore(path)) if late else LocalStore(path)


def write(path: str, chunks: int) -> None:
    """A decay with noise, with the three digits of an instrument: zstd takes it to a quarter."""
    group = zarr.open_group(path, mode="w")
    y = group.create_array(
        "y", shape=(chunks * SHAPE[0], SHAPE[1]), chunks=SHAPE, dtype="f8", dimension_names=["shot", "time"]
    )
    for k in range(chunks):
        noise = np.random.default_rng(k).normal(0, 0.1, SHAPE)
        y[k * SHAPE[0] : (k + 1) * SHAPE[0]] = np.round(5 * np.exp(-X / 2) + 1 + noise, 3)


def opened(path: str, late: bool) -> xr.DataArray:
    data = xr.open_zarr(store_at(path, late), consolidated=False, chunks={}).y
    return data.assign_coords(x=("time", X))


@cache
def _array(path: str, late: bool) -> Any:
    return zarr.open_group(store_at(path, late), mode="r")["y"]


def read(path: str, late: bool, chunks: range) -> float:
    """Read some chunks, one after the other, and nothing else."""
    total = 0.0
    for k in chunks:
        total += float(_array(path, late)[k * SHAPE[0] : (k + 1) * SHAPE[0]][-1, -1])
    return total


@contextmanager
def scheduler(kind: str) -> Iterator[Callable[[], float]]:
    """dask's threads or two processes in force; gives CPU seconds of those that do the work."""
    if kind == "threads":
        with dask.config.set(scheduler="threads", num_workers=TASKS):
            yield time.process_time
        return
    from distributed import Client, LocalCluster

    setup = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        LocalCluster(TASKS, **setup) as cluster,
        Client(cluster) as client,
        dask.config.set(scheduler=client),
    ):
        yield lambda: sum(client.run(time.process_time).values())


def calls_of(path: str, late: bool, model: str) -> dict[str, Callable[[], Any]]:
    """A pass, one without reading ahead, one with a task more at a time, its reads and its arithmetic alone."""
    func, p0 = MODELS[model]
    theta = np.array(list(p0.values()))
    data = opened(path, late)

    def streaming(**given: Any) -> PassEvaluator:
        return evaluator_of(func, data, "x", p0, plan=Plan("streaming", **given))

    ahead = streaming(read_ahead=True, in_flight=TASKS)
    sizes = [len(p.chunks) for p in ahead._partitions]
    points = max(sizes) * SHAPE[0] * SHAPE[1]
    plain = streaming(read_ahead=False, in_flight=TASKS, partition_points=points)
    in_memory = evaluator_of(func, opened(path, False), "x", p0, plan=Plan("cached", points))
    ends = np.cumsum(sizes)
    parts = [range(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]
    reads = [dask.delayed(read)(path, late, part) for part in parts]
    calls = {
        "pass": lambda: ahead(theta),
        "without": lambda: plain(theta),
        "reads": lambda: dask.compute(*reads),
        "arithmetic": lambda: in_memory(theta),
    }
    if dask.config.get("scheduler") == "threads":  # a worker has the threads that it was given
        more = streaming(read_ahead=True, in_flight=TASKS + 1, partition_points=points)
        calls["one more"] = lambda: more(theta)
    return calls


def measured(
    calls: dict[str, Callable[[], Any]], cpu: Callable[[], float], rounds: int
) -> dict[str, np.ndarray]:
    """Wall and CPU seconds (2, rounds) of each call, in turn, after one each that does not count."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for k in range(-1, rounds):
        for name in list(calls)[:: 1 if k % 2 else -1]:
            spent, began = cpu(), time.perf_counter()
            calls[name]()
            wall = time.perf_counter() - began
            if k >= 0:
                found[name].append((wall, cpu() - spent))
    return {name: np.array(times).T for name, times in found.items()}


PASSES = ("pass", "without", "one more")


def row(model: str, late: bool, found: dict[str, np.ndarray]) -> list[Any]:
    """Median seconds, and the passes' ratios to what the parts allow, with quartiles."""
    wall = {name: times[0] for name, times in found.items()}
    if late:
        least = np.maximum(wall["reads"], wall["arithmetic"])
    else:
        least = (found["reads"][1] + found["arithmetic"][1]) / CORES
    ratios = [ratio(wall[name], least) for name in PASSES if name in wall]
    seconds = [float(np.median(wall[name])) for name in ("reads", "arithmetic", *PASSES) if name in wall]
    return [model, *seconds, *(f"{middle:.2f} ({low:.2f}-{high:.2f})" for middle, low, high in ratios)]


def report(path: str, late: bool, kind: str, models: list[str], rounds: int) -> None:
    rows = []
    with scheduler(kind) as cpu:
        for model in models:
            found = measured(calls_of(path, late, model), cpu, rounds)
            rows.append(row(model, late, found))
    passes = [name for name in PASSES if name in found]
    print(f"\n{'delayed' if late else 'zstd'}, {kind}: seconds, and times what the parts allow")
    table(("", "reads", "arithmetic", *passes, *(f"{name} / parts" for name in passes)), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--chunks", type=int, default=60)
    parser.add_argument("--only", choices=("zstd", "delayed"))
    parser.add_argument("--kind", choices=("threads", "processes"))
    parser.add_argument("--model", choices=tuple(MODELS))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{asked.chunks} chunks of 8 MB, {TASKS} tasks at a time, {CORES} cores")
    with tempfile.TemporaryDirectory(prefix="dfit-benchmark-") as folder:
        path = str(Path(folder) / "y.zarr")
        write(path, asked.chunks)
        for name in [asked.only] if asked.only else ["zstd", "delayed"]:
            for kind in [asked.kind] if asked.kind else ["threads", "processes"]:
                models = [asked.model] if asked.model else list(MODELS)
                report(path, name == "delayed", kind, models, asked.rounds)
    print("\npass / parts: median (quartiles) of the rounds' ratios, at most 1.1 expected")


if __name__ == "__main__":
    main()
