"""Levenberg-Marquardt against L-BFGS on samples of the NIST problems, with and without the longest step.

python -m tests.benchmarks.warmup_methods [--points 20000] [NAME ...]

Each copy of a problem's data has fresh noise of the certified residual standard deviation about the
certified curve.  Reached is a cost within a thousandth of the minimum next to the certified values.  Every
arm may evaluate the model 1000 times and stops by the same test; CPU seconds are without compiling.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

import dfit
from dfit.core.trust_region import Tolerances
from dfit.core.warm import Guards, Warm, begin
from dfit.parameters import Parameters
from dfit.precision import one_blas_thread
from dfit.reduce.sampled import EVERYTHING, SampleSolver
from dfit.warm_settings import Warmup
from dfit.warmup import unit_of
from tests.benchmarks.measure import cpu_seconds, table
from tests.benchmarks.nist import PROBLEMS, REFERENCE, STARTS, coordinates, model
from tests.unit.solvers import guards_of, solver_of

LIMIT = 1000
REACHED = 1e-3
HANDED_OVER = 1.0  # standard errors, for the arm that leaves L-BFGS early
DONE = Tolerances(Warmup().tolerance)


class Run(NamedTuple):
    """One solve: how it ended and what it cost."""

    reached: bool
    evaluations: int
    seconds: float


def certified(name: str) -> np.ndarray:
    return np.array([float(number) for number in REFERENCE[name]["b"]])


def problem(name: str, start: str, points: int) -> tuple[SampleSolver, Parameters]:
    """Solver of a problem's model over that many points of fresh noise."""
    columns = [np.resize(x, points) for x in coordinates(name).values()]
    with jax.enable_x64(True):
        curve = np.asarray(model(name)(*columns, *certified(name)))
    y = curve + np.random.default_rng(0).normal(0, float(PROBLEMS[name]["rsd"]), points)
    return solver_of(model(name), columns, y, PROBLEMS[name][start])


def lm(solver: SampleSolver, warm: Warm, guards: Guards) -> Warm:
    return solver.solve(warm, EVERYTHING, guards, DONE, LIMIT - solver.evaluations)


def lbfgs(solver: SampleSolver, warm: Warm, guards: Guards) -> Warm:
    return solver.descend(warm, EVERYTHING, guards, DONE, LIMIT).warm


def both(solver: SampleSolver, warm: Warm, guards: Guards) -> Warm:
    return lm(solver, lbfgs(solver, warm, guards), guards)


def handed_over(solver: SampleSolver, warm: Warm, guards: Guards) -> Warm:
    early = solver.descend(warm, EVERYTHING, guards, Tolerances(HANDED_OVER), LIMIT)
    return lm(solver, early.warm, guards)


ARMS: dict[str, Callable[[SampleSolver, Warm, Guards], Warm]] = {
    "lm": lm,
    "lbfgs": lbfgs,
    "lbfgs, then lm": both,
    "lbfgs to 1 error, then lm": handed_over,
}


def measured(arm: str, solver: SampleSolver, theta0: np.ndarray, guards: Guards, least: float) -> Run:
    """One arm on one problem, the minimum of which is known."""
    solver.evaluations = 0
    ends: list[Warm] = []
    spent = cpu_seconds(lambda: ends.append(ARMS[arm](solver, begin(theta0), guards)))
    reached = bool(ends[0].state.equations.cost <= (1 + REACHED) * least)
    return Run(reached, solver.evaluations, spent)


def runs(name: str, start: str, points: int) -> dict[tuple[str, float], Run]:
    """Every arm, without and with the longest step."""
    solver, parameters = problem(name, start, points)
    theta0, free = parameters.init, guards_of(parameters)
    least = solver.solve(begin(certified(name)), EVERYTHING, free, Tolerances(1e-6), LIMIT)
    at_start = solver.solve(begin(theta0), EVERYTHING, free, Tolerances(), 1)
    unit = unit_of(parameters, "auto", at_start.state.equations.root)
    solver.descend(begin(theta0), EVERYTHING, free, Tolerances(), 1)  # compiles it
    return {
        (arm, longest): measured(
            arm, solver, theta0, guards_of(parameters, unit, max_step=longest), least.state.equations.cost
        )
        for longest in (np.inf, Warmup().max_step)
        for arm in ARMS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="problems (default: all)")
    parser.add_argument("--points", type=int, default=20_000)
    asked = parser.parse_args()
    warnings.simplefilter("ignore", dfit.DfitWarning)
    print(
        f"evaluations by {'; '.join(ARMS)}; the same with the longest step; no: the minimum was not reached"
    )
    found: list[dict[tuple[str, float], Run]] = []
    for name in asked.names or PROBLEMS:
        for start in STARTS:
            with one_blas_thread():  # as in a fit
                found.append(runs(name, start, asked.points))
            words = [f"{run.evaluations}{'' if run.reached else ' no'}" for run in found[-1].values()]
            print(name.ljust(9), start, *(word.rjust(8) for word in words), flush=True)
    totals = []
    for arm, longest in found[0]:
        ends = [one[arm, longest] for one in found]
        seconds = sum(end.seconds for end in ends)
        evaluations = [end.evaluations for end in ends]
        reached = sum(end.reached for end in ends)
        totals.append((arm, longest, reached, len(ends), sum(evaluations), np.median(evaluations), seconds))
    table(("arm", "longest step", "reached", "of", "evaluations", "median", "CPU s"), totals)


if __name__ == "__main__":
    main()
