"""Scheduler and client beside the work: a pass over many small chunks on a LocalCluster.

python -m tests.benchmarks.overhead [--chunks 2000] [--rounds 5]

2 worker processes of one thread; y and x are generated inside the tasks, so that nothing waits for a
disk.  Overhead is the part of a pass's wall time in which a worker's thread runs no task.
"""

from __future__ import annotations

import argparse
import os
import time

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
from distributed import Client, LocalCluster

from tests.benchmarks.evaluators import evaluator_of
from tests.benchmarks.measure import table

CHUNK = 100_000
TRUTH = {"amplitude": 5.0, "tau": 2.0, "offset": 1.0}
WORKERS = 2


def decay(x, amplitude, tau, offset):
    """Decay with a constant."""
    return amplitude * jnp.exp(-x / tau) + offset


def generate(block_info=None) -> np.ndarray:
    """One chunk of y, of known truth and deterministic noise."""
    (start, stop) = block_info[None]["array-location"][0]
    x = np.arange(start, stop) % 1000 / 100
    amplitude, tau, offset = TRUTH.values()
    noise = np.random.default_rng(start).standard_normal(stop - start)
    return amplitude * np.exp(-x / tau) + offset + 0.1 * noise


def one_pass(evaluator, theta: np.ndarray, tasks: list) -> dict[str, float]:
    """Wall seconds of a pass, of its tasks by thread, CPU seconds of this process, number of tasks."""
    account = evaluator.account
    tasks.clear()
    busy, spent, began = account.wait_s + account.compute_s, time.process_time(), time.perf_counter()
    evaluator(theta)
    wall = time.perf_counter() - began
    return {
        "wall s": wall,
        "task s / threads": (account.wait_s + account.compute_s - busy) / WORKERS,
        "client and scheduler CPU s": time.process_time() - spent,
        "partitions": float(len(tasks)),
    }


def measure(chunks: int, rounds: int) -> list[dict[str, float]]:
    """Passes after a first one that compiles."""
    setup = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    size = chunks * CHUNK
    y = da.map_blocks(generate, chunks=((CHUNK,) * chunks,), dtype=float, meta=np.empty(0))
    x = da.arange(size, chunks=CHUNK, dtype=float) % 1000 / 100
    theta, tasks = np.array(list(TRUTH.values())), []
    with (
        LocalCluster(WORKERS, **setup) as cluster,
        Client(cluster) as client,
        dask.config.set(scheduler=client),
    ):
        evaluator = evaluator_of(decay, y, {"x": x}, TRUTH, on_partition=tasks.append)
        evaluator(theta)
        return [one_pass(evaluator, theta, tasks) for _ in range(rounds)]


def overhead(passes: list[dict[str, float]]) -> float:
    """Median part of the wall time beside the tasks."""
    return float(np.median([1 - one["task s / threads"] / one["wall s"] for one in passes]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    passes = measure(asked.chunks, asked.rounds)
    print(f"{asked.chunks} chunks of {CHUNK} points, {WORKERS} worker processes, {os.cpu_count()} cores")
    table(list(passes[0]), [list(one.values()) for one in passes])
    print(f"overhead {overhead(passes):.1%} of a pass; at most 5 % expected")


if __name__ == "__main__":
    main()
