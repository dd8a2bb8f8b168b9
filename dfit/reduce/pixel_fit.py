"""The fits of all pixels of one chunk along the kept dimensions, from their points to their answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import jax
import numpy as np

from dfit import fingerprint
from dfit.core.cholesky import MOST_PARAMETERS
from dfit.core.kernel import Leaf, Scalars
from dfit.core.lanes import Engine, solve
from dfit.core.pixel_covariance import Spread, spreads
from dfit.core.pixels import ROUGH, Facts, Points, Problem
from dfit.core.state import State, Status, Tolerances, start
from dfit.core.sums import DROPS, FAULTS, MISSING
from dfit.parameters import Parameters
from dfit.pixel_status import PixelStatus
from dfit.precision import float64_on_cpu, one_blas_thread
from dfit.reduce.evaluators import TRIANGLE_ABOVE
from dfit.reduce.kernels import Recipe, without_noise_of
from dfit.reduce.pixel_kernels import Programs, invert, judge, judge_exactly, programs_for
from dfit.reduce.pixel_stack import Stack

# Lanes of the vector units' path: some hundred kilobytes for each column of their points.
LANES = 2048
# Lanes of the path by LAPACK, which gains nothing from more.
EXACT_LANES = 64
LANE_BYTES = 64 << 20
# Pixels whose states are held at a time.
SLAB = 1 << 15
FEW = 256  # pixels for which a second program is not worth its compilation


@dataclass(frozen=True)
class PixelJob:
    """What every task of a map must know.

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


@dataclass(frozen=True, eq=False)
class Starts:
    """Where pixels begin, (N, .) each: all parameters, their bounds, and which of them can be used."""

    theta: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    held: np.ndarray
    usable: np.ndarray


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


class PixelFit:
    """The fits of a stack of pixels."""

    def __init__(self, job: PixelJob, constants: Mapping[str, np.ndarray], stack: Stack) -> None:
        self.job, self.stack = job, stack
        self.parameters: Parameters = cloudpickle.loads(job.recipe.parameters)
        self._constants = dict(constants)
        self._block = min(job.recipe.layout.block, 1 << max(stack.points - 1, 1).bit_length())
        self._padded = -(-stack.points // self._block) * self._block
        shared = stack.leaf(stack.shared, 0)
        self.programs: Programs = programs_for(job.recipe, self._constants, shared, self._block)

    def lanes(self, wanted: int) -> int:
        """A number of lanes, fewer where pixels have very many points."""
        size = self._padded * 8 * 2
        return max(1, min(wanted, 1 << max(LANE_BYTES // size, 1).bit_length() - 1))

    def answers(self, starts: Starts) -> Answers:
        """The answers of all pixels."""
        parts = []
        for first in range(0, self.stack.size, SLAB):
            pixels = np.arange(first, min(first + SLAB, self.stack.size))
            some = replace(starts, **{name: values[pixels] for name, values in vars(starts).items()})
            parts.append(self._slab(pixels, some))
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
        return Answers(**joined)

    def _slab(self, pixels: np.ndarray, starts: Starts) -> Answers:
        with one_blas_thread(), float64_on_cpu(), fingerprint.fresh(self.job.recipe.fingerprint):
            facts, points = self._survey(pixels)
            refused = self._refused(facts, starts)
            states = _begin(starts.theta)
            problem = Problem(starts.lower, starts.upper, facts)
            wanted = np.flatnonzero(refused < 0)
            well = self._solve(pixels, states, starts, points, problem, wanted)
            spread = self._spread(pixels, states, starts, facts, well)
        status = np.where(refused < 0, states.status, refused)
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

    def _survey(self, pixels: np.ndarray) -> tuple[Facts, Points]:
        """What the data of each pixel are, and their points for the quick engine, pixels along the last axis."""
        lanes, none = self.lanes(LANES if pixels.size > FEW else EXACT_LANES), np.empty((0,))
        facts: list[Facts] = []
        points: list[Points] = []
        for these, n in _runs(pixels, lanes):
            leaf = self.stack.leaf(self.stack.columns(these), self.stack.points)
            one, ready = self.programs.survey(leaf, self._scalars(np.broadcast_to(none, (lanes, 0))))
            facts.append(jax.tree.map(lambda a, n=n: np.asarray(a)[:n], one))
            points.append(
                jax.tree.map(lambda a, n=n: np.asarray(a)[..., :n] if a.ndim == 2 else np.asarray(a), ready)
            )
        joined = jax.tree.map(lambda *a: np.concatenate(a, axis=1) if a[0].ndim == 2 else a[0], *points)
        return jax.tree.map(lambda *a: np.concatenate(a), *facts), joined

    def _refused(self, facts: Facts, starts: Starts) -> np.ndarray:
        """Status (N,) of pixels that are not fitted, -1 for the others."""
        found = np.full(facts.count.size, -1)
        kinds = FAULTS if self.job.skipna else (*MISSING, *FAULTS)
        wrong = [facts.counts[:, (*DROPS, *FAULTS).index(kind)] > 0 for kind in kinds]
        found[~starts.usable] = PixelStatus.BAD_START
        found[facts.count < starts.theta.shape[1]] = PixelStatus.TOO_FEW_POINTS
        found[facts.count == 0] = PixelStatus.NO_DATA
        found[np.any(wrong, axis=0)] = PixelStatus.UNUSABLE_DATA
        return found

    def _solve(
        self,
        pixels: np.ndarray,
        states: State,
        starts: Starts,
        points: Points,
        problem: Problem,
        wanted: np.ndarray,
    ) -> np.ndarray:
        """Run the wanted solves; says where sums of squares were enough."""
        left = wanted
        quick = self.job.recipe.traceable and starts.theta.shape[1] <= MOST_PARAMETERS and wanted.size > FEW
        if quick:
            left = solve(self._quick(points, starts, problem), states, wanted, self.job.limit)
            _begin_again(states, left[states.status[left] != Status.RUNNING])
        solve(self._exact(pixels, starts, problem), states, left, self.job.limit)
        well = np.full(pixels.size, quick)
        well[left] = False
        return well

    def _quick(self, points: Points, starts: Starts, problem: Problem) -> Engine:
        """By sums of squares and Cholesky factors."""
        lanes = self.lanes(LANES)

        def load(data: Points | None, places: np.ndarray, which: np.ndarray) -> Points:
            def filled(values: np.ndarray, before: np.ndarray | None) -> np.ndarray:
                if values.ndim == 1:
                    return values
                if before is None:
                    return np.take(values, which, axis=1)
                before[:, places] = values[:, which]
                return before

            if data is None:
                return jax.tree.map(lambda values: filled(values, None), points)
            return jax.tree.map(filled, points, data)

        def advance(state: State, data: Points, which: np.ndarray) -> tuple[State, np.ndarray]:
            fields = self.programs.sums(state.trial, data, self._scalars(starts.held[which]))
            out = judge(state, fields, _at(problem, which), self._tolerances)
            return jax.tree.map(np.asarray, out)

        return Engine(lanes, load, advance, (ROUGH, TRIANGLE_ABOVE), leaves=True)

    def _exact(self, pixels: np.ndarray, starts: Starts, problem: Problem) -> Engine:
        """By triangles and singular values, as a fit of one array is done."""
        lanes, stack = self.lanes(EXACT_LANES), self.stack

        def load(data: Any, places: np.ndarray, which: np.ndarray) -> Any:
            columns = [self._whole(values) for values in stack.columns(pixels[which])]
            if data is None:
                return columns
            for whole, part in zip(data, columns, strict=True):
                if part.ndim == 2:
                    whole[places] = part
            return data

        def advance(state: State, data: Any, which: np.ndarray) -> tuple[State, np.ndarray]:
            leaf = stack.leaf(data, stack.points)
            fields = self._triangles(state.trial, leaf, starts.held[which], problem.facts.moments[which, 4])
            out = judge_exactly(state, fields, _at(problem, which), self._tolerances)
            return jax.tree.map(np.asarray, out)

        return Engine(lanes, load, advance, (np.inf, np.inf), leaves=False)

    def _triangles(self, theta: Any, leaf: Leaf, held: np.ndarray, scale2: np.ndarray) -> Any:
        recipe, scalars = self.job.recipe, self._scalars(held)
        if recipe.traceable:
            return self.programs.triangles(theta, leaf, scalars)
        given = self._given(theta, leaf, held)
        fields = jax.tree.map(np.array, self.programs.triangles(theta, leaf._replace(given=given), scalars))
        for k in range(len(theta)):
            fields["matrix"][k] = without_noise_of(recipe, fields["matrix"][k], theta[k], float(scale2[k]))
        return fields

    def _given(self, theta: Any, leaf: Leaf, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Value (k, S) and derivatives (k, p, S) of a model that is called from Python."""
        shared = self.stack.leaf(self.stack.shared, 0)
        found = []
        for k in range(len(theta)):
            one = jax.tree.map(
                lambda same, a, k=k: a if same else a[k], shared._replace(n=None), leaf._replace(n=None)
            )
            one = one._replace(n=self.stack.points)
            found.append(self.programs.kernel.by_differences(theta[k], one, (held[k], self._constants)))
        f, jacobian = zip(*found, strict=True)
        return np.stack(f), np.stack(jacobian)

    def _spread(
        self, pixels: np.ndarray, states: State, starts: Starts, facts: Facts, well: np.ndarray
    ) -> Spread:
        """Covariances where the solves ended."""
        equations, job = states.equations, self.job
        robust = job.recipe.layout.loss != "linear" or job.cov is not None
        both = self._sandwich(pixels, states.theta, starts.held) if robust else None
        if both is not None and job.cov == "hc1":
            rest = np.maximum(facts.count - states.theta.shape[1], 1)
            both[:, 1] *= (facts.count / rest)[:, None, None]
        lanes = LANES if pixels.size > FEW else EXACT_LANES

        def inverses(roots: np.ndarray, free: np.ndarray) -> np.ndarray:
            return _in_lanes(lambda some: invert(roots[some], free[some]), lanes, len(roots))

        return spreads(
            equations,
            states.theta,
            starts.lower,
            starts.upper,
            well,
            inverses,
            absolute_sigma=job.absolute_sigma and not robust,
            sandwich=both,
            bread=job.recipe.layout.loss != "linear",
        )

    def _sandwich(self, pixels: np.ndarray, theta: Any, held: np.ndarray) -> np.ndarray:
        def some(these: np.ndarray) -> np.ndarray:
            columns = [self._whole(values) for values in self.stack.columns(pixels[these])]
            leaf = self.stack.leaf(columns, self.stack.points)
            if not self.job.recipe.traceable:
                leaf = leaf._replace(given=self._given(theta[these], leaf, held[these]))
            return np.asarray(
                self.programs.sandwich(theta[these], leaf, self._scalars(held[these]))["matrix"]
            )

        return np.array(_in_lanes(some, self.lanes(EXACT_LANES), pixels.size))

    def _whole(self, values: np.ndarray) -> np.ndarray:
        """Columns (points, k) as padded rows (k, S); (points,) as (S,)."""
        rows = values.T
        out = np.zeros((*rows.shape[:-1], self._padded), rows.dtype)
        out[..., : rows.shape[-1]] = rows
        return out

    def _scalars(self, held: np.ndarray) -> Scalars:
        return Scalars(self.job.sigma, self.job.f_scale, False, (held, self._constants))

    @property
    def _tolerances(self) -> Tolerances:
        return Tolerances(*map(np.float64, self.job.tolerances))


def _begin(theta: Any) -> State:
    """States (N, ...) that begin at theta (N, p)."""
    one = start(theta[0])
    states: State = jax.tree.map(lambda a: np.repeat(np.asarray(a)[None], len(theta), axis=0), one)
    return states._replace(theta=theta.copy(), trial=theta.copy())


def _begin_again(states: State, which: np.ndarray) -> None:
    """Solves that have ended begin where they are, to be judged by other equations."""
    if not which.size:
        return
    used = states.evaluations[which]
    fresh = _begin(states.theta[which])._replace(evaluations=used)
    for whole, part in zip(jax.tree.leaves(states), jax.tree.leaves(fresh), strict=True):
        whole[which] = part


def _at(values: Any, which: np.ndarray) -> Any:
    return jax.tree.map(lambda a: a[which], values)


def _runs(pixels: np.ndarray, lanes: int) -> Iterator[tuple[np.ndarray, int]]:
    """Pixels by as many as there are lanes, the last ones repeated, and how many of each are no repetition."""
    for first in range(0, pixels.size, lanes):
        these = pixels[first : first + lanes]
        yield np.resize(these, lanes), these.size


def _in_lanes(function: Any, lanes: int, count: int) -> np.ndarray:
    """What a compiled function gives for all of so many pixels."""
    parts = [np.asarray(function(these))[:n] for these, n in _runs(np.arange(count), lanes)]
    return np.concatenate(parts)
