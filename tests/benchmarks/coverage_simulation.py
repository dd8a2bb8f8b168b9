"""How often 95 % intervals hold the truth, over simulated data sets.

python -m tests.benchmarks.coverage_simulation [--simulations 4000] [--through-fit 20]

A fit costs tens of milliseconds around its arithmetic, so the data sets of a case are solved side by
side: the kernel that workers run, the solver that `fit` runs (`dfit.core.drive.solve` under ``vmap``), then
`dfit.core.covariance` and the quantiles of the result for each.  The first few go through `dfit.fit` too,
and must give the same intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import dfit
from dfit.core.covariance import covariance, orthonormal
from dfit.core.drive import solve
from dfit.core.equations import Equations
from dfit.core.jackknife import group_table, jackknife
from dfit.core.kernel import Layout, Leaf, Scalars, forward, leaf_kernel, row_kernel
from dfit.core.state import Tolerances
from dfit.precision import float64_on_cpu
from dfit.statistics import quantile
from tests.benchmarks.measure import table

LEVEL = 0.95
NAMES = ("a", "tau", "c")
TRUTH = np.array([5.0, 2.0, 1.0])
NOISE = 0.1
MAX_PASSES = 100


def decay(t: Any, a: Any, tau: Any, c: Any) -> Any:
    return a * jnp.exp(-t / tau) + c


@dataclass(frozen=True)
class Case:
    """A way to draw data sets, and the options of `dfit.fit` that are to hold for them."""

    points: int
    noise: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]  # (simulations, points)
    sigma: np.ndarray | None = None
    absolute_sigma: bool = False
    loss: str = "linear"
    f_scale: float = 1.0
    groups: np.ndarray | None = None
    truth: np.ndarray = field(default_factory=lambda: TRUTH)
    lower: np.ndarray = field(default_factory=lambda: np.full(3, -np.inf))
    names: tuple[str, ...] = NAMES  # the parameters whose intervals count
    room: float = 1.1  # per cent

    @property
    def t(self) -> np.ndarray:
        return np.linspace(0, 10, self.points)

    def draw(self, simulations: int, seed: int) -> np.ndarray:
        clean = np.asarray(decay(self.t, *self.truth))
        return clean + self.noise(np.random.default_rng(seed), (simulations, self.points))


def normal(rng: np.random.Generator, shape: tuple[int, int], sigma: Any = NOISE) -> np.ndarray:
    return sigma * rng.normal(size=shape)


def outliers(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return NOISE * rng.normal(size=shape) * np.where(rng.uniform(size=shape) < 0.1, 10, 1)


def shared(rng: np.random.Generator, shape: tuple[int, int], groups: np.ndarray) -> np.ndarray:
    common = rng.normal(size=(shape[0], groups.max() + 1))[:, groups]
    return NOISE * (common + rng.normal(size=shape))


UNEVEN = NOISE * np.geomspace(0.3, 3, 60)
REPEATS = np.arange(400) % 40  # every group sees the whole curve
# Two or three groups, those at the start, determine a: the plain sum of squared scores by group would be too
# small here, with intervals that hold the truth 88 % of the time instead of 95.
RUNS = np.repeat(np.arange(40), 10)
CASES = {
    "unweighted": Case(40, normal),
    "relative sigma": Case(60, partial(normal, sigma=UNEVEN), sigma=7 * UNEVEN),
    "absolute sigma": Case(60, partial(normal, sigma=UNEVEN), sigma=UNEVEN, absolute_sigma=True),
    "robust, 10 % outliers": Case(500, outliers, loss="huber", f_scale=1.35 * NOISE),
    "truth on a bound": Case(
        60,
        normal,
        truth=np.array([5.0, 2.0, 0.0]),
        lower=np.array([-np.inf, -np.inf, 0.0]),
        names=("a", "tau"),
    ),
    "40 groups, repeats": Case(400, partial(shared, groups=REPEATS), groups=REPEATS, room=3.0),
    "40 groups, few that matter": Case(400, partial(shared, groups=RUNS), groups=RUNS, room=3.0),
}


def through_fit(case: Case, y: np.ndarray) -> np.ndarray:
    """Intervals (p, 2) of one data set by `dfit.fit`."""
    data = xr.DataArray(y, dims="t", coords={"t": case.t})
    cov = None
    if case.groups is not None:
        data, cov = data.assign_coords(run=("t", case.groups)), {"groups": "run"}
    result = dfit.fit(
        decay,
        data,
        "t",
        p0=case.truth,
        bounds=(case.lower, np.full(3, np.inf)),
        sigma=case.sigma,
        absolute_sigma=case.absolute_sigma,
        loss=case.loss,
        f_scale=case.f_scale,
        cov=cov,
    )
    assert result.success
    return result.conf_interval(LEVEL).to_numpy()


def solved(case: Case, data: np.ndarray) -> tuple[np.ndarray, Equations, np.ndarray, dict[str, np.ndarray]]:
    """theta (s, p), equations, sandwich matrices (s, 2, p, p) and rows of the points of data (s, n)."""
    evaluate = forward(lambda theta, coords, context: decay(*coords, *theta))
    scalars = Scalars(1.0, case.f_scale, True, None)

    def kernel(form: str, theta: Any, y: Any) -> Any:
        build = row_kernel if form == "groups" else leaf_kernel
        sigma = None if case.sigma is None else jnp.asarray(case.sigma)
        leaf = Leaf(y, (jnp.asarray(case.t),), sigma, None, (), case.points)
        return build(evaluate, Layout(form, case.loss, case.points, False))(theta, leaf, scalars)

    def equations(theta: Any, y: Any) -> Equations:
        found = kernel("triangle", theta, y)
        finite = jnp.all(jnp.isfinite(found["matrix"]))
        sums = (found["matrix"], found["cost"], found["psi2"], found["moments"][4], found["count"])
        return Equations(*sums, finite)

    def one(y: Any) -> Any:
        box = case.lower, np.full(3, np.inf)
        state = solve(lambda theta: equations(theta, y), case.truth, *box, Tolerances(), MAX_PASSES)
        sandwich = kernel("sandwich", state.theta, y)["matrix"]
        return state.theta, state.equations, sandwich, kernel("groups", state.theta, y)

    with float64_on_cpu():
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(data))


def side_by_side(case: Case, data: np.ndarray) -> np.ndarray:
    """Intervals (s, p, 2) of data (s, n)."""
    thetas, equations, sandwiches, rows = solved(case, data)
    out = []
    for k, theta in enumerate(thetas):
        own = Equations(*(part[k] for part in equations))
        at = own, theta, case.lower, np.full(3, np.inf)
        bread = meat = half = None
        if case.loss != "linear":
            bread, meat = sandwiches[k]
        if case.groups is not None:
            basis = orthonormal(*at)
            jacobian, psi, curvature = (rows[name][k] for name in ("jacobian", "psi", "curvature"))
            count = case.groups.max() + 1
            table = group_table(basis.T @ jacobian, psi, curvature, case.groups, count)
            half = jackknife(table, basis).half
        found = covariance(*at, absolute_sigma=case.absolute_sigma, bread=bread, meat=meat, half=half)
        nfree = found.nfree if case.groups is None else case.groups.max()
        width = quantile(LEVEL, nfree, case.absolute_sigma and meat is None) * found.stderr
        out.append(np.stack([theta - width, theta + width], axis=1))
    return np.array(out)


def coverage(case: Case, simulations: int, through: int, seed: int = 0) -> dict[str, float]:
    """Per cent of the intervals that hold the truth, by parameter."""
    data = case.draw(simulations, seed)
    intervals = side_by_side(case, data)
    for k in range(through):
        np.testing.assert_allclose(through_fit(case, data[k]), intervals[k], rtol=1e-6)
    hit = (intervals[..., 0] <= case.truth) & (case.truth <= intervals[..., 1])
    return {name: 100 * float(hit[:, NAMES.index(name)].mean()) for name in case.names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--through-fit", type=int, default=20)
    chosen = parser.parse_args()
    rows = []
    for name, case in CASES.items():
        for parameter, found in coverage(case, chosen.simulations, chosen.through_fit).items():
            verdict = "yes" if abs(found - 100 * LEVEL) <= case.room else "NO"
            rows.append([name, parameter, f"{found:.2f}", f"{verdict} (+- {case.room})"])
    table(["case", "parameter", "coverage %", "within"], rows)


if __name__ == "__main__":
    main()
