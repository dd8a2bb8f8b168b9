"""dfit's kernel against plain JAX and C, outside and inside a dask worker, in CPU time.

python -m tests.benchmarks.kernel [--points 10000000] [--rounds 21]
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial

import numpy as np
from distributed import Client, LocalCluster

import dfit
from tests.benchmarks import kernels
from tests.benchmarks.measure import interleaved, ratio, table


def against_others(points: int, rounds: int) -> dict[str, np.ndarray]:
    """CPU seconds of dfit's kernel, plain JAX and C loops on the same three-parameter partition."""
    calls = {"dfit": partial(kernels.ours, points), "plain jacfwd": partial(kernels.plain, points)}
    for name in kernels.C_FLAGS:
        calls[name] = partial(kernels.by_c, name, points)
    return interleaved(calls, rounds)


def inside_and_outside(points: int, rounds: int) -> dict[str, np.ndarray]:
    """CPU seconds (rounds,) of "ours" and "plain", outside and inside a worker process with a nanny."""
    found: dict[str, list[float]] = {
        f"{k}, {where}": [] for k in ("ours", "plain") for where in ("outside", "inside")
    }
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, Client(cluster) as client:
        for k in range(-1, rounds):
            for name in list(found)[:: 1 if k % 2 else -1]:
                kernel, where = name.split(", ")
                if where == "inside":
                    taken = client.submit(kernels.seconds, kernel, points, pure=False).result()
                else:
                    taken = kernels.seconds(kernel, points)
                if k >= 0:  # the first round compiles
                    found[name].append(taken)
    return {name: np.array(values) for name, values in found.items()}


def forms(points: int, rounds: int) -> list[tuple[str, float, float]]:
    """For each number of parameters: price of the triangle against JtJ, and million points/s of JtJ."""
    rows = []
    for p in (3, 9, 17):
        calls = {form: partial(kernels.ours, points, p, form) for form in ("normal", "triangle")}
        taken = interleaved(calls, rounds)
        price = ratio(taken["triangle"], taken["normal"])[0]
        rows.append((f"p = {p}", price, points / float(np.median(taken["normal"])) / 1e6))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10**7)
    parser.add_argument("--rounds", type=int, default=21)
    asked = parser.parse_args()
    warnings.simplefilter("ignore", dfit.DfitWarning)
    head = ("", "median ratio", "quartiles", "", "million points/s")

    def rows(taken: dict[str, np.ndarray], base: str) -> list[tuple]:
        return [
            (name, *ratio(seconds, taken[base]), asked.points / float(np.median(seconds)) / 1e6)
            for name, seconds in taken.items()
        ]

    print(f"CPU seconds of one evaluation of {asked.points} points, p = 3, against dfit's kernel")
    table(head, rows(against_others(asked.points, asked.rounds), "dfit"))
    print("\nInside and outside a dask worker with a nanny, against dfit's kernel outside")
    taken = inside_and_outside(asked.points, asked.rounds)
    table(head, rows(taken, "ours, outside"))
    print(f"plain/ours outside {ratio(taken['plain, outside'], taken['ours, outside'])[0]:.2f}, ", end="")
    print(f"inside {ratio(taken['plain, inside'], taken['ours, inside'])[0]:.2f}; at least 4 expected")
    print(
        f"ours inside/outside {ratio(taken['ours, inside'], taken['ours, outside'])[0]:.2f}; within 1.25 expected"
    )
    print("\nTriangle against JtJ")
    table(
        ("", "price", "million points/s of JtJ"),
        forms(max(asked.points // 10, 1 << 18), max(asked.rounds // 3, 3)),
    )


if __name__ == "__main__":
    main()
