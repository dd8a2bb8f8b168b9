"""Full passes to the optimum, with a warm-up on a sample and without.

python -m tests.benchmarks.warmup [--points 10000000] [--around model] [--max-passes 60] [NAME ...]

Passes to the optimum end with the first whose point is within 1e-6 standard errors, or 1e-8 relative, of
the converged answer; beside them, in brackets, the passes of the whole fit at the default tolerance.
NIST's problems are repeated up to that size, each copy with noise of its own, of the certified residual
standard deviation: around the data, or around the model at its certified parameters.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import dfit
from dfit.events import PassDone
from dfit.warm_report import WarmupReport
from tests.benchmarks.measure import table
from tests.benchmarks.nist import PROBLEMS, STARTS, coordinates, model, response

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEAR_ERRORS, NEAR_RELATIVE = 1e-6, 1e-8
SAME_COST = 1e-6  # relative
ROUGHNESS = 16 * np.finfo(float).eps  # of the data: arguments of exp near 20 cost as many units
CHUNKS = 100
TIME_LIMIT_S = 120.0  # of one fit
MEDIAN_AIM, WORST_AIM = 3, 5


class Fit(NamedTuple):
    """One fit.

    Attributes
    ----------
    optimum : passes to the optimum; infinite where it was not found.
    passes : of the whole fit.
    rounding : by how much the rounding of data and model may change the cost.
    """

    optimum: float
    passes: int
    theta: np.ndarray
    stderr: np.ndarray
    cost: float
    rounding: float
    success: bool
    message: str
    warmup: WarmupReport | None


class Row(NamedTuple):
    """A problem from one start, with a warm-up and without."""

    problem: str
    start: str
    warmed: Fit
    plain: Fit
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether both fits ended at a minimum."""
        return self.warmed.success and self.plain.success

    @property
    def same_minimum(self) -> bool:
        return not (above(self.warmed, self.plain) or above(self.plain, self.warmed))

    @property
    def costs_more(self) -> bool:
        """Whether the warm-up costs more than one pass, where both find the minimum."""
        return (
            self.same_minimum
            and max(self.warmed.optimum - self.plain.optimum, self.warmed.passes - self.plain.passes) > 1
        )


Task = tuple[str, str, Callable[..., dfit.FitResult]]  # problem, start, the fit, which takes options


def above(one: Fit, other: Fit) -> bool:
    """Whether one cost is higher than the other by more than the same minimum allows."""
    return one.cost > other.cost * (1 + SAME_COST) + min(one.rounding, other.rounding)


def observed(fit: Callable[..., dfit.FitResult], **options: Any) -> Fit:
    """A fit, and when it came to where it ended."""
    path: list[tuple[int, np.ndarray]] = []

    def look(event: PassDone) -> None:
        path.append((event.npasses, np.array(list(event.params.values()))))

    try:
        result = fit(callback=look, **options)
    except dfit.DfitError as error:
        nothing = np.empty(0)
        message = f"{type(error).__name__}: {error}"
        return Fit(np.inf, len(path), nothing, nothing, np.inf, 0.0, False, message, None)
    end = path[-1][1]
    near = np.maximum(
        NEAR_ERRORS * np.nan_to_num(result.covariance.stderr, posinf=0.0), NEAR_RELATIVE * np.abs(end)
    )
    there = [passes for passes, theta in path if (np.abs(theta - end) <= near).all()]
    return Fit(
        there[0] if result.success else np.inf,
        result.npasses,
        end,
        np.asarray(result.covariance.stderr),
        result.cost,
        ROUGHNESS * float(np.sqrt(2 * result.cost * result.tallies.yy)),
        result.success,
        result.message,
        result.warmup,
    )


def replicated(name: str, points: int, around: str = "data", seed: int = 1) -> xr.DataArray:
    """A NIST problem, repeated up to a size with fresh noise, in chunks that lie in memory."""
    columns, centre = coordinates(name), response(name)
    if around == "model":
        with jax.enable_x64(True):
            centre = np.asarray(model(name)(*columns.values(), *PROBLEMS[name]["certified"]))
    spread = PROBLEMS[name]["rsd"]
    size = -(-points // CHUNKS)

    def lazy(values: np.ndarray, noise: float = 0.0) -> da.Array:
        out = np.resize(values, points)
        if noise:
            for k in range(0, points, size):
                part = out[k : k + size]
                part += noise * np.random.default_rng((seed, k)).standard_normal(part.size)
        return da.from_array(out, chunks=size, name=False)

    along = {key: ("point", lazy(x)) for key, x in columns.items()}
    return xr.DataArray(lazy(centre, spread), coords=along, dims="point", name="y")


def decay(x, a, b, c):
    """Decay with a constant."""
    return a * jnp.exp(-b * x) + c


def decaying(points: int, noise: float = 0.1, seed: int = 1) -> xr.DataArray:
    """The exponential, ordered in x."""
    x = np.linspace(0, 10, points)
    y = 5 * np.exp(-0.5 * x) + 1 + noise * np.random.default_rng(seed).standard_normal(points)
    chunks = -(-points // CHUNKS)
    lazy = {name: da.from_array(v, chunks=chunks, name=False) for name, v in (("x", x), ("y", y))}
    return xr.DataArray(lazy["y"], coords={"x": ("point", lazy["x"])}, dims="point", name="y")


def exponential(points: int) -> Iterator[Task]:
    data = decaying(points)
    for start, p0 in (("near", [4, 0.4, 0.8]), ("poor", [1, 2, 0])):
        yield "exponential", start, partial(dfit.fit, decay, data, "x", p0=p0)


def nist(name: str, points: int, around: str) -> Iterator[Task]:
    data, formula = replicated(name, points, around), model(name)
    for start in STARTS:
        p0 = PROBLEMS[name][start]
        yield name, start, partial(dfit.fit, formula, data, tuple(coordinates(name)), p0=p0)


def real(name: str) -> Iterator[Task]:
    """Measured data, from the start of the example and from a poorer one."""
    sys.path.insert(0, str(EXAMPLES))
    import era5_season
    import zpeak_h5

    if name == "ERA5":
        data = era5_season.temperature()
        far = {"T0": 273, "dlat": 1, "dlon": 1, "trend": 10, "amp": 5, "tmax": 10, "period": 24.5}
        for start, p0 in (("near", era5_season.START), ("poor", far)):
            yield name, start, partial(era5_season.fit_season, data, p0=p0)
    else:
        data = zpeak_h5.counts()
        near = {"N": 2500, "M": 91, "G": 2.5, "a": 1, "s": 0.05}
        far = {"N": 1000, "M": 88, "G": 6, "a": 5, "s": 0.2}
        for start, p0 in (("near", near), ("poor", far)):
            sigma = np.sqrt(data.clip(min=1))
            weighted = {"sigma": sigma, "absolute_sigma": True}
            yield name, start, partial(dfit.fit, zpeak_h5.peak, data, "mass", p0=p0, **weighted)


NAMES = ("exponential", *PROBLEMS, "ERA5", "Z peak")


def tasks(names: list[str], points: int, around: str) -> Iterator[Task]:
    """What is fitted."""
    for name in names:
        if name == "exponential":
            yield from exponential(points)
        elif name in PROBLEMS:
            yield from nist(name, points, around)
        else:
            yield from real(name)


def compare(task: Task, max_passes: int) -> Row:
    """One task with a warm-up and without; the latter may need hundreds of passes, and is not waited for."""
    problem, start, fit = task
    began = time.perf_counter()
    options = {"max_passes": max_passes, "time_limit": TIME_LIMIT_S}
    warmed, plain = (observed(fit, warmup=w, **options) for w in (True, False))
    return Row(problem, start, warmed, plain, time.perf_counter() - began)


def layers(report: WarmupReport | None) -> str:
    """What each of the four layers did."""
    if report is None:
        return "-"
    if report.skipped is not None:
        return f"1: {'loss' if report.skipped.startswith('the loss') else 'step'}"
    found = [f"2: {report.mode}", "3: fired" if report.guarded else "", f"4: {report.clips} clips"]
    return ", ".join(filter(None, found))


def _passes(fit: Fit) -> str:
    if np.isfinite(fit.optimum):
        return f"{fit.optimum:g} ({fit.passes})"
    stopped = any(word in fit.message for word in ("max_passes", "time_limit"))
    return f">{fit.passes}" if stopped else f"failed ({fit.passes})"


def show(row: Row) -> tuple[Any, ...]:
    """A line of the table."""
    report = row.warmed.warmup
    return (
        row.problem,
        row.start,
        _passes(row.warmed),
        _passes(row.plain),
        report.evaluations if report else 0,
        layers(report),
        (report.hand_over or "").rpartition(": ")[2] if report else "",
        ("same", "lower without", "lower with")[_lower(row)] if row.finished else "unfinished",
        "more" if row.costs_more else "",
        f"{row.seconds:.1f}",
    )


HEAD = ("problem", "start", "with", "without", "on sample", "layers", "hand-over", "minimum", "", "s")


def totals(rows: list[Row]) -> str:
    """Median and worst with a warm-up, and where it costs more."""
    found = [row.warmed.optimum for row in rows]
    whole = [row.warmed.passes for row in rows]
    plain = [row.plain.optimum for row in rows]
    return (
        f"passes to the optimum of {len(rows)} fits: median {np.median(found):g} (aim {MEDIAN_AIM}), worst "
        f"{max(found):g} (aim {WORST_AIM}), beyond the aim {sum(f > WORST_AIM for f in found)}; "
        f"of the whole fit: median {np.median(whole):g}, worst {max(whole)}; "
        f"without a warm-up: median {np.median(plain):g}, worst {max(plain):g}; "
        f"more than one pass more with a warm-up: {sum(row.costs_more for row in rows)}; "
        f"other minima: lower with a warm-up {sum(_lower(row) < 0 for row in rows)}, "
        f"without {sum(_lower(row) > 0 for row in rows)}"
    )


def _lower(row: Row) -> int:
    return 0 if row.same_minimum or not row.finished else -1 if row.warmed.cost < row.plain.cost else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="problems (default: all)")
    parser.add_argument("--points", type=int, default=10**7)
    parser.add_argument("--around", choices=("data", "model"), default="data", help="where the noise lies")
    parser.add_argument("--max-passes", type=int, default=60)
    asked = parser.parse_args()
    warnings.simplefilter("ignore", dfit.DfitWarning)
    rows = []
    for task in tasks(asked.names or list(NAMES), asked.points, asked.around):
        rows.append(compare(task, asked.max_passes))
        print(*show(rows[-1]), sep=" | ", file=sys.stderr, flush=True)
    table(HEAD, [show(row) for row in rows])
    print(totals(rows))
    for row in rows:
        for how, fit in (("with", row.warmed), ("without", row.plain)):
            if not fit.success:
                print(f"{row.problem} {row.start} {how}: {fit.message}")


if __name__ == "__main__":
    main()
