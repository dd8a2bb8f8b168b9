"""What the fits of many pixels begin with and end as, whoever runs them and wherever their points are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from dfit.core.cholesky import MOST_PARAMETERS
from dfit.core.pixel_covariance import spreads
from dfit.core.pixels import Facts, Problem
from dfit.core.state import State, Tolerances, start
from dfit.core.sums import DROPS, FAULTS, MISSING, underflows
from dfit.pixel_status import PixelStatus
from dfit.reduce.kernels import Box, Recipe, without_noise_of
from dfit.reduce.pixel_kernels import invert

# Lanes of the vector units' path: some hundred kilobytes for each column of their points.
LANES = 2048
# Lanes of the path by LAPACK, which gains nothing from more.
EXACT_LANES = 64
FEW = 256  # pixels of up to three parameters for which a second program is not worth its compilation


@dataclass(frozen=True)
class PixelJob:
    """What the fits of all pixels have in common.

    Attributes
    ----------
    recipe : of the model.
    tolerances, limit : of the solves; ``limit`` evaluations of a pixel.
    sigma, f_scale : scalars, as in `Job`.
    absolute_sigma, cov : as of `dfit.fit`.
    skipna : whether NaN is a missing point.
    """

    recipe: Recipe
    tolerances: Tolerances
    limit: int
    sigma: float
    f_scale: float
    absolute_sigma: bool
    cov: str | None
    skipna: bool

    @property
    def robust(self) -> bool:
        """Whether covariances need the two sums of a sandwich."""
        return self.recipe.layout.loss != "linear" or self.cov is not None


@dataclass(frozen=True, eq=False)
class Starts:
    """Where pixels begin, (N, .) each: all parameters, their bounds, and which of them can be used."""

    theta: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    held: np.ndarray
    usable: np.ndarray


@dataclass(frozen=True, eq=False)
class Solved:
    """Solves of N pixels at their ends.

    Attributes
    ----------
    states, starts, facts : of them.
    refused : (N,) as of `refused_of`.
    well : (N,) bool, where sums of squares were enough.
    """

    states: State
    starts: Starts
    facts: Facts
    refused: np.ndarray
    well: np.ndarray


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of N pixels.

    Attributes
    ----------
    theta : (N, p) of the varying parameters.
    matrix : (N, p, p) their covariance.
    status, nfev, nfree : (N,)
    ndata : (N,) residuals.
    cost, tss : (N,)
    """

    theta: np.ndarray
    matrix: np.ndarray
    status: np.ndarray
    nfev: np.ndarray
    ndata: np.ndarray
    nfree: np.ndarray
    cost: np.ndarray
    tss: np.ndarray


def begin(theta: Any) -> State:
    """States (N, ...) that begin at theta (N, p)."""
    one = start(theta[0])
    states: State = jax.tree.map(lambda a: np.repeat(np.asarray(a)[None], len(theta), axis=0), one)
    return states._replace(theta=theta.copy(), trial=theta.copy())


def begin_again(states: State, which: np.ndarray) -> None:
    """Solves that have ended begin where they are, to be judged by other equations."""
    if not which.size:
        return
    used = states.evaluations[which]
    fresh = begin(states.theta[which])._replace(evaluations=used)
    for whole, part in zip(jax.tree.leaves(states), jax.tree.leaves(fresh), strict=True):
        whole[which] = part


def problem_of(starts: Starts, facts: Facts) -> Problem:
    """Operands of the solves, arrays (N, ...)."""
    return Problem(starts.lower, starts.upper, facts.count, facts.moments[:, 4])


def refused_of(job: PixelJob, facts: Facts, starts: Starts) -> np.ndarray:
    """Status (N,) of pixels that are not fitted, -1 for the others."""
    found = np.full(facts.count.size, -1)
    kinds = FAULTS if job.skipna else (*MISSING, *FAULTS)
    wrong = [facts.counts[:, (*DROPS, *FAULTS).index(kind)] > 0 for kind in kinds]
    found[~starts.usable] = PixelStatus.BAD_START
    found[underflows(facts.moments)] = PixelStatus.UNUSABLE_DATA
    found[facts.count < starts.theta.shape[1]] = PixelStatus.TOO_FEW_POINTS
    found[facts.count == 0] = PixelStatus.NO_DATA
    found[np.any(wrong, axis=0)] = PixelStatus.UNUSABLE_DATA
    return found


def quick_enough(job: PixelJob, starts: Starts, pixels: int) -> bool:
    """Whether so many pixels begin with sums of squares, whose program grows with the parameters."""
    p = starts.theta.shape[1]
    return job.recipe.traceable and p <= MOST_PARAMETERS and pixels > FEW * 2 ** max(p - 3, 0)


def box_of(starts: Starts) -> Box:
    """Sizes and bounds (N, p) for derivatives by differences, as `Parameters.typical` has them of one fit."""
    return np.where(starts.theta != 0, np.abs(starts.theta), 1.0), starts.lower, starts.upper


def without_noise(job: PixelJob, fields: Any, theta: Any, scale2: np.ndarray, typical: np.ndarray) -> Any:
    """Triangles (k, ...) of all points of pixels; of differences, without what is their rounding alone."""
    if job.recipe.traceable:
        return fields
    fields = jax.tree.map(np.array, fields)
    for k, size in enumerate(scale2):
        root = fields["matrix"][k]
        fields["matrix"][k] = without_noise_of(job.recipe, root, theta[k], float(size), typical[k])
    return fields


def answers_of(job: PixelJob, solved: Solved, sandwich: np.ndarray | None) -> Answers:
    """Answers where the solves ended; ``sandwich`` (N, 2, p, p) where the job is robust."""
    states, starts, facts = solved.states, solved.starts, solved.facts
    if sandwich is not None and job.cov == "hc1":
        rest = np.maximum(facts.count - states.theta.shape[1], 1)
        # Not in place: the sums may be another task's, which is asked for them again.
        factor = np.stack([np.ones_like(rest), facts.count / rest], axis=1)
        sandwich = sandwich * factor[:, :, None, None]
    lanes = LANES if len(states.theta) > FEW else EXACT_LANES

    def inverses(roots: np.ndarray, free: np.ndarray) -> np.ndarray:
        return in_lanes(lambda some: invert(roots[some], free[some]), lanes, len(roots))

    spread = spreads(
        states.equations,
        states.theta,
        starts.lower,
        starts.upper,
        solved.well,
        inverses,
        absolute_sigma=job.absolute_sigma and not job.robust,
        sandwich=sandwich,
        bread=job.recipe.layout.loss != "linear",
    )
    status = np.where(solved.refused < 0, states.status, solved.refused)
    good = np.isin(status, [PixelStatus.CONVERGED, *range(2, 6)]) & spread.undetermined
    status[good] = PixelStatus.CONVERGED_BUT_UNDETERMINED
    return Answers(
        np.asarray(states.theta),
        spread.matrix,
        status.astype(np.int8),
        np.asarray(states.evaluations),
        facts.count.astype(np.int64),
        spread.nfree,
        states.equations.cost,
        facts.moments[:, 3],
    )


def at(values: Any, which: Any) -> Any:
    """Some of N pixels, of arrays (N, ...)."""
    return jax.tree.map(lambda a: a[which], values)


def some_of(starts: Starts, which: Any) -> Starts:
    """Starts of some pixels."""
    return Starts(**{name: values[which] for name, values in vars(starts).items()})


def runs(pixels: np.ndarray, lanes: int) -> Iterator[tuple[np.ndarray, int]]:
    """Pixels by as many as there are lanes, the last ones repeated, and how many of each are no repetition."""
    for first in range(0, pixels.size, lanes):
        these = pixels[first : first + lanes]
        yield np.resize(these, lanes), these.size


def in_lanes(function: Any, lanes: int, count: int) -> Any:
    """What a compiled function gives for all of so many pixels, as NumPy arrays."""
    parts = [
        jax.tree.map(lambda a, n=n: np.asarray(a)[:n], function(these))
        for these, n in runs(np.arange(count), lanes)
    ]
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)
