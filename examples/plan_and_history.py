"""How a fit is planned: by rules, by a dry run, and by what earlier fits have cost.

Writes 6 million points, fits them again and again as a user who comes back to the same data, and prints of each fit
what its plan predicted of a pass and what a pass then took. The history is one of its own, and goes with its folder.

    python examples/plan_and_history.py
"""

from __future__ import annotations

import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

import dask
import xarray as xr
from beyond_memory import decay, movie

import dfit

SHAPE, CHUNKS = (400, 120, 125), (100, 40, 125)
START = {"amplitude": 4, "tau": 10, "tilt": 0.2, "offset": 1}
WARM = 6  # after five predictions from history it is known what these are worth


def stored(folder: str) -> xr.DataArray:
    """A small movie of a decay with noise, in a zarr store."""
    path = Path(folder) / "movie.zarr"
    movie(SHAPE, CHUNKS).to_dataset().to_zarr(path, consolidated=False)
    return xr.open_zarr(path, consolidated=False).signal


def fit(y: xr.DataArray, plan: str) -> dfit.FitResult:
    """One fit that reads its data in every pass, as those that are larger than memory must be."""
    return dfit.fit(decay, y, ("time", "x"), p0=START, strategy="streaming", plan=plan)


def took_s(result: dfit.FitResult) -> float:
    """Seconds of a pass after the first, which may compile."""
    return statistics.median(after.elapsed_s - before.elapsed_s for before, after in pairwise(result.history))


def row(name: str, result: dfit.FitResult) -> str:
    """One fit: where its costs come from, what they predicted, and what happened."""
    plan, took = result.plan, took_s(result)
    between = "" if plan.interval_s is None else "{:.2f} to {:.2f}".format(*plan.interval_s)
    return (
        f"{name:8}{plan.terms.origin:9}{plan.partitions:>10}{plan.pass_s:>13.3f}{between:>16}"
        f"{took:>10.3f}{took / plan.pass_s:>8.2f}"
    )


def compare(y: xr.DataArray) -> dfit.FitResult:
    """Fit by rules, by a dry run, and with a history; print a row of each, and return the last."""
    print(
        f"{'plan':8}{'costs':9}{'partitions':>10}{'predicted s':>13}{'80 % between':>16}{'took s':>10}{'ratio':>8}"
    )
    print(row("static", fit(y, plan="static")), flush=True)
    for name in ("cold", *(f"warm {k}" for k in range(1, WARM + 1))):
        result = fit(y, plan="auto")
        print(row(name, result), flush=True)
    return result


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="dfit-plan-") as folder,
        dask.config.set({"dfit.history": f"{folder}/history"}),
    ):
        y = stored(folder)
        print("Left to itself a fit of these data would run so:")
        print(dfit.plan(decay, y, ("time", "x"), p0=START))
        print("\nRead in every pass, of which each takes:")
        last = compare(y)
        print("\nWhere the numbers of the last plan come from:")
        print(dfit.history.explain(last))
        print()
        print(dfit.history.show())
        print(f"\nremoved {dfit.history.clear()} files")


if __name__ == "__main__":
    main()
