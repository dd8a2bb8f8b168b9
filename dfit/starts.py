"""More than one start: where the first warm-up ends badly, or the user asks for it, on the sample alone.

Starts lie in a box of parameters, looked at as a unit cube: by a scrambled Sobol sequence, or by CMA-ES
(Hansen & Ostermeier 2001).  Levenberg-Marquardt goes on from all of them in one batched call, without
layers 2 to 4: a longest step is what keeps some fits from their minimum, and the lowest cost on the
whole sample judges them here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from dfit.core.state import Status
from dfit.core.sums import condition
from dfit.core.trust_region import Tolerances
from dfit.core.warm import Guards, Warm, begin
from dfit.optional import load
from dfit.parameters import Parameters
from dfit.reduce.sampled import EVERYTHING, SampleSolver
from dfit.warm_settings import Warmup

# Where dfit itself asks for more: one call of a few seconds on a sample of 131,072 points.
AUTOMATIC = 16
# Of the column-scaled Jacobian.  On the NIST problems it is at most 6e4 at the certified minima, above 1e5 at
# the two starts that end badly, and above 1e13 where they end.
HARD, UNDETERMINED = 1e4, 1e8
WIDE = 1e3  # positive bounds further apart than this are searched by factors
# Around a p0 without bounds: from a tenth of it to ten times it, with its sign.  Of 16 such starts from every
# NIST start 480 of 864 reach the minimum; 243 with signs of both kinds, 382 with factors of a hundred.
DECADES = 1.0
LIMIT = 100  # evaluations of each start; the best goes on alone
# CMA-ES in the unit cube: its first spread, the width of a generation at which the solver takes over, and a
# ceiling of generations, which two parameters with many minima nearly need.
SPREAD, SETTLED, GENERATIONS = 0.3, 0.01, 50
NEARBY = 0.05  # of each parameter
BETTER = 1e-6  # costs of one minimum are closer than this; then p0 is preferred

ENDED = {
    Status.RUNNING: "has not ended",
    Status.OFFSET: "a minimum",
    Status.ROUNDING: "a minimum, to rounding",
    Status.STALLED: "no step decreases the cost any more",
    Status.NOT_FINITE: "dropped: the model is not finite at the start",
}


@dataclass(frozen=True)
class Start:
    """One start on the sample and what came of it.

    Attributes
    ----------
    origin : "p0, warm-up" for the first; then "p0", "Sobol sequence" or "CMA-ES", without layers 2 to 4.
    values : where it began, varying parameters by name.
    cost_at_start, cost : on the whole sample, infinite where the model is not finite.
    reason : how it ended.
    chosen : whether the passes begin where it ended.
    """

    origin: str
    values: dict[str, float]
    cost_at_start: float
    cost: float
    reason: str
    chosen: bool


class Region(NamedTuple):
    """Where starts are looked for: the unit cube (p,) made parameters.

    ``low`` and ``high`` are values, or the logarithms of distances from ``origin`` where ``by_factor``.
    """

    low: np.ndarray
    high: np.ndarray
    origin: np.ndarray
    sign: np.ndarray
    by_factor: np.ndarray

    def theta(self, cube: np.ndarray) -> np.ndarray:
        """Parameters (..., p) of points of the unit cube."""
        place = self.low + cube * (self.high - self.low)
        by_factor = self.by_factor
        return np.where(by_factor, self.origin + self.sign * np.exp(np.where(by_factor, place, 0.0)), place)

    def cube(self, theta: np.ndarray) -> np.ndarray:
        """The point of the unit cube (p,) nearest to theta."""
        away = self.sign * (theta - self.origin)
        by_factor = self.by_factor & (away > 0)
        place = np.where(by_factor, np.log(np.where(by_factor, away, 1.0)), theta)
        middle = (self.low + self.high) / 2
        place = np.where(self.by_factor & ~by_factor, middle, place)
        return np.clip((place - self.low) / (self.high - self.low), 0.0, 1.0)


def region(theta0: np.ndarray, guards: Guards) -> Region:
    """The box of the bounds, by factors where they are wide; around p0 (p,) where one of them is missing.

    A parameter with one bound is looked for by its distance from it; one that starts at 0, or on its only
    bound, by its unit: upwards where it may.
    """
    lower, upper = guards.lower, guards.upper
    boxed, wide = np.isfinite(lower) & np.isfinite(upper), _wide(guards)
    one_sided = np.where(np.isfinite(lower), lower, np.where(np.isfinite(upper), upper, 0.0))
    origin = np.where(boxed, 0.0, one_sided)
    away = np.where(boxed, 1.0, theta0 - origin)
    away = np.where(away == 0, np.where(np.isfinite(upper), -guards.unit, guards.unit), away)
    middle, half = np.log(np.abs(away)), DECADES * np.log(10.0)
    low, high = (np.where(boxed, bound, middle + sign * half) for bound, sign in ((lower, -1), (upper, 1)))
    low[wide], high[wide] = np.log(lower[wide]), np.log(upper[wide])
    return Region(low, high, origin, np.sign(away), wide | ~boxed)


def _wide(guards: Guards) -> np.ndarray:
    return (guards.lower > 0) & np.isfinite(guards.upper) & (guards.upper > WIDE * guards.lower)


def asked_for(settings: Warmup) -> bool:
    """Whether the user wants more starts than p0."""
    return settings.multistart > 1 or settings.global_search is not None


def needs_more(guards: Guards, at_start: Warm, first: Warm, aborted: bool) -> str | None:
    """Why more starts than p0 are worth their time, or None.

    Parameters
    ----------
    at_start, first : the whole sample at p0, and where the warm-up ended.
    aborted : whether layer 3 gave the warm-up up.
    """
    hard, wide = condition(at_start.state.equations.root), bool(_wide(guards).any())
    ends = {
        "found no step that decreases the cost": first.state.status == Status.STALLED,
        "ended where the sample does not determine the parameters": (
            condition(first.state.equations.root) > UNDETERMINED
        ),
    }
    if hard > HARD or wide:
        ends["was given up"] = aborted
        ends["reached its ceiling"] = first.state.status == Status.RUNNING
    why = f"p0 is ill-conditioned ({hard:.1g}), and " if hard > HARD else ""
    why = f"bounds span a factor of more than {WIDE:g}, and " if wide else why
    return next((f"{why}the warm-up {end}" for end, true in ends.items() if true), None)


def nearby(
    solver: SampleSolver, theta0: np.ndarray, settings: Warmup, guards: Guards, stalled: Warm, enough: float
) -> tuple[Warm, np.ndarray] | None:
    """The end of a start within ``NEARBY`` of p0 (p,), and that start; None where it is no better.

    For a search that stalls where it begins: on a saddle, or at a kink of the model.
    """
    rng = np.random.default_rng([settings.seed, 0])
    size = np.where(theta0 != 0, np.abs(theta0), guards.unit)
    start = np.clip(theta0 + NEARBY * size * rng.uniform(-1, 1, theta0.size), guards.lower, guards.upper)
    free = guards._replace(max_step=np.inf, rise=np.inf)
    end = solver.solve(begin(start), EVERYTHING, free, Tolerances(enough), settings.iterations)
    lower = end.state.equations.cost < (1 - BETTER) * stalled.state.equations.cost
    return (end, start) if lower else None


def more_starts(
    solver: SampleSolver, parameters: Parameters, settings: Warmup, guards: Guards, first: Warm
) -> tuple[Warm, tuple[Start, ...]]:
    """The best of several starts on the sample, and what came of each.

    Parameters
    ----------
    guards : the box, and the unit of the parameters.
    first : where the warm-up from p0 ended; beside it `settings.multistart` starts are made, p0 first.

    Raises
    ------
    InputError
        Where CMA-ES is asked for and not installed.
    """
    free = guards._replace(max_step=np.inf, rise=np.inf)
    enough = Tolerances(settings.tolerance)
    theta0 = parameters.init[list(parameters.varying)]

    def look(thetas: np.ndarray) -> Warm:
        return solver.solve(_batch(thetas), EVERYTHING, free, enough, 1)

    origin, thetas = _places(look, theta0, settings, guards)
    looked = look(thetas)
    ended = solver.solve(looked, EVERYTHING, free, enough, LIMIT)
    ends = [first, *(jax.tree.map(lambda values, k=k: values[k], ended) for k in range(len(thetas)))]
    chosen = _chosen(ends)
    if chosen > 0 and ends[chosen].state.status == Status.RUNNING:
        ends[chosen] = solver.solve(ends[chosen], EVERYTHING, free, enough, settings.iterations)
    at_start = looked.state.equations.cost
    names = [parameters.names[k] for k in parameters.varying]
    starts = tuple(
        Start(
            label,
            dict(zip(names, theta.tolist(), strict=True)),
            float(cost),
            float(end.state.equations.cost),
            ENDED[Status(int(end.state.status))],
            end is ends[chosen],
        )
        for label, theta, cost, end in zip(
            ["p0, warm-up", "p0", *[origin] * (len(thetas) - 1)],
            [theta0, *thetas],
            [at_start[0], *at_start],
            ends,
            strict=True,
        )
    )
    return ends[chosen], starts


def _places(
    look: Callable[[np.ndarray], Warm], theta0: np.ndarray, settings: Warmup, guards: Guards
) -> tuple[str, np.ndarray]:
    """Where the starts (n, p) come from, and they, p0 first."""
    count = settings.multistart if settings.multistart > 1 else AUTOMATIC
    place = region(theta0, guards)
    if settings.global_search == "cmaes":
        origin, cube = "CMA-ES", _by_cmaes(look, place, theta0, count, settings.seed)
    else:
        origin, cube = "Sobol sequence", _by_sobol(theta0.size, count - 1, settings.seed)
    return origin, np.clip(np.vstack([theta0, place.theta(cube)]), guards.lower, guards.upper)


def _chosen(ends: Sequence[Warm]) -> int:
    """The first of those that are as good as the best: p0 where it is one of them."""
    costs = np.array([end.state.equations.cost for end in ends])
    return int(np.argmax(costs <= (1 + BETTER) * costs.min()))


def _batch(thetas: np.ndarray) -> Warm:
    """Starts (n, p) as one value."""
    return jax.tree.map(lambda *values: np.stack(values), *map(begin, thetas))


def _by_sobol(p: int, count: int, seed: int) -> np.ndarray:
    """Points (count, p) of the unit cube."""
    from scipy.stats import qmc  # a third of a second, which few fits need

    return qmc.Sobol(p, rng=seed).random_base2((count - 1).bit_length())[:count]


def _by_cmaes(
    look: Callable[[np.ndarray], Warm], place: Region, theta0: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Points (count - 1, p) of the unit cube that CMA-ES finds from p0: the best of some generations.

    The last of them is where it settled; the earlier ones lie further apart.
    """
    bounds = np.tile([0.0, 1.0], (theta0.size, 1))
    search = load("cmaes", 'global_search="cmaes"').CMA(
        place.cube(theta0), SPREAD, bounds, seed=seed, population_size=max(count, 4)
    )
    best: list[np.ndarray] = []
    for _ in range(GENERATIONS):
        asked = [search.ask() for _ in range(search.population_size)]
        costs = look(place.theta(np.array(asked))).state.equations.cost
        best.append(asked[int(np.argmin(costs))])
        # Ranks are all it needs; costs may be infinite.
        search.tell(list(zip(asked, np.argsort(np.argsort(costs)).tolist(), strict=True)))
        if np.ptp(asked, axis=0).max() < SETTLED:
            break
    spread = np.unique(np.linspace(len(best) - 1, 0, count - 1).round().astype(int))
    return np.array(best)[spread]
