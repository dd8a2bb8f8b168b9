"""Per-pixel fits: CPU seconds a fit of dfit against its rivals, and whether all find the same optimum.

python -m tests.benchmarks.pixels [--pixels 100000] [--rounds 3] [--quick] [--arms dfit xarray.curvefit ...]

Two maps of 100 points a pixel in memory: an exponential with offset, a gaussian with line.  The same data
and the same start for every arm (pixel_data.py); the slow ones fit the first pixels only, and what counts
is the time of a fit.  Times are CPU seconds of this process with all threads; no arm starts another.
Arms run in turn.  dfit's compilation is excluded: a call on the same map goes before.  It is measured
apart, in a fresh process whose imports do not count, for the number of pixels from which dfit costs less
with all of it included.  xarray-lmfit and astropy: pip install -e ".[bench]"
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from tests.benchmarks.measure import cpu_seconds, ratio, table
from tests.benchmarks.pixel_data import PROBLEMS, Problem, judge, make, reference
from tests.benchmarks.rivals import ARMS, Fit

BASE = "xarray.curvefit"
LIMITS = {"dfit": None, "dfit, tol=1e-4": None, BASE: 10_000}
SLOW = 2_000
CHECKED = 4_000
QUICK = 50
EXPECTED = {"exponential": 40, "gaussian": 10}


@dataclass
class Measured:
    """One arm on one problem: the data it fits, CPU seconds (rounds,), what it found at last."""

    fit: Fit
    data: xr.DataArray
    seconds: list[float] = field(default_factory=list)
    params: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    cost: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def per_fit(self) -> np.ndarray:
        """CPU microseconds a fit (rounds,)."""
        return np.array(self.seconds) / self.data.sizes["pixel"] * 1e6

    def run(self, p0: Mapping[str, float]) -> None:
        self.params, self.cost = self.fit(self.data, p0)


def part(name: str, data: xr.DataArray, quick: bool) -> xr.DataArray:
    """The first pixels, as many as an arm fits."""
    limit = LIMITS.get(name, SLOW)
    return data if limit is None else data[: limit // (QUICK if quick else 1)]


def measure(problem: Problem, data: xr.DataArray, arms: Sequence[str], rounds: int, quick: bool) -> dict:
    """Every arm in turn, after a call of each that does not count: on all of it for dfit, which compiles."""
    found = {name: Measured(ARMS[name](problem), part(name, data, quick)) for name in arms}
    for name, arm in found.items():
        arm.fit(arm.data if name.startswith("dfit") else arm.data[:10], problem.p0)
    for k in range(rounds):
        for name in arms[:: 1 if k % 2 else -1]:
            arm = found[name]
            arm.seconds.append(cpu_seconds(lambda arm=arm: arm.run(problem.p0)))
    return found


def first_call(name: str, pixels: int) -> float:
    """CPU seconds of dfit's first call in a fresh process, compilation included."""
    command = [sys.executable, "-m", "tests.benchmarks.pixels", "--first-call", name, "--pixels", str(pixels)]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["cpu_s"])


def break_even(first_s: float, pixels: int, ours_us: float, theirs_us: float) -> float:
    """Pixels from which dfit costs less, from its first call on `pixels`; infinite if it never does."""
    constant_us = first_s * 1e6 - pixels * ours_us
    return max(constant_us, 0.0) / (theirs_us - ours_us) if theirs_us > ours_us else np.inf


def speed(name: str, found: Mapping[str, Measured], first_s: float | None, pixels: int) -> None:
    """Print what a fit costs, against curvefit, and from how many pixels dfit is worth its compilation."""
    base = found[BASE].per_fit if BASE in found else None
    rows = []
    for arm, one in found.items():
        us = float(np.median(one.per_fit))
        against = ("-", "-") if base is None else _times(base, one.per_fit)
        even = "-"
        if first_s is not None and not arm.startswith("dfit"):
            even = f"{break_even(first_s, pixels, float(np.median(found['dfit'].per_fit)), us):.0f}"
        rows.append((arm, one.data.sizes["pixel"], us, *against, even))
    table(("CPU of a fit", "pixels", "us", "curvefit / arm", "quartiles", "dfit cheaper from"), rows)
    if first_s is not None:
        print(f"dfit's first call in a process, {pixels} pixels: {first_s:.2f} CPU s")
    if "dfit" in found and base is not None:
        middle = ratio(base, found["dfit"].per_fit)[0]
        print(f"curvefit / dfit: {middle:.1f}, at least {EXPECTED[name]} expected")


def _times(base: np.ndarray, ours: np.ndarray) -> tuple[float, str]:
    middle, low, high = ratio(base, ours)
    return middle, f"{low:.3g} to {high:.3g}"


def optimum(problem: Problem, found: Mapping[str, Measured], y: np.ndarray, truth: np.ndarray) -> None:
    """Print how far each arm is from the optimum, with its worst pixels."""
    wanted = reference(problem, y, truth)
    best = judge(problem, y, wanted)
    rows = []
    for arm, one in found.items():
        here = judge(problem, one.data.values, one.params)
        n = min(len(here.chisqr), len(y))
        excess = here.chisqr[:n] / best.chisqr[:n] - 1
        off = np.abs((problem.canonical(one.params[:n]) - wanted[:n]) / best.stderr[:n]).max(axis=1)
        own = np.abs(2 * one.cost / here.chisqr - 1)
        failed = int((~np.isfinite(one.params)).any(axis=1).sum())
        rows.append(
            (arm, n, *worst(excess), *worst(off), len(here.left), failed, *worst(here.left), *worst(own)[:1])
        )
    head = ("optimum", "checked", "chi-square above", "pixel", "parameters off", "pixel")
    table((*head, "all", "failed", "step left", "pixel", "own chi-square off"), rows)
    print(
        "against least_squares at 1e-15 from the truth and Gauss-Newton steps, worst pixel each: chi-square relative; parameters and "
        f"what a Gauss-Newton step would still move in standard errors, for the reference {best.left.max():.1e}"
    )


def worst(values: np.ndarray) -> tuple[str, str]:
    """The largest finite value, and where."""
    if not np.isfinite(values).any():
        return "-", "-"
    at = int(np.nanargmax(values))
    return f"{values[at]:.1e}", str(at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="2,000 pixels, few for the others, one round")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--problem", choices=PROBLEMS, help="only this one")
    parser.add_argument("--first-call", choices=PROBLEMS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    if asked.first_call:
        problem = PROBLEMS[asked.first_call]
        fit, data = ARMS["dfit"](problem), make(problem, asked.pixels)[0]
        print(json.dumps({"cpu_s": cpu_seconds(lambda: fit(data, problem.p0))}))
        return
    pixels, rounds = (2_000, 1) if asked.quick else (asked.pixels, asked.rounds)
    for name in [asked.problem] if asked.problem else PROBLEMS:
        problem = PROBLEMS[name]
        data, truth = make(problem, pixels)
        print(f"\n{problem.title}: {pixels} pixels x {data.sizes['x']} points, {rounds} rounds", flush=True)
        found = measure(problem, data, asked.arms, rounds, asked.quick)
        few = min(SLOW, pixels)
        speed(name, found, first_call(name, few) if "dfit" in found else None, few)
        optimum(problem, found, data.values[:CHECKED], truth[:CHECKED])


if __name__ == "__main__":
    main()
