"""The fits of all pixels of one chunk along the kept dimensions, from their points to their answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from dfit import fingerprint
from dfit.core.lanes import Engine, solve
from dfit.core.pixels import ROUGH, Facts, Lane, Points, Problem
from dfit.core.state import State, Status
from dfit.data.leaves import empty_aligned
from dfit.precision import float64_on_cpu, one_blas_thread
from dfit.reduce.evaluators import TRIANGLE_ABOVE
from dfit.reduce.pixel_answers import (
    EXACT_LANES,
    FEW,
    LANES,
    Answers,
    PixelJob,
    Solved,
    Starts,
    answers_of,
    at,
    begin,
    begin_again,
    box_of,
    problem_of,
    quick_enough,
    refused_of,
    some_of,
    without_noise,
)
from dfit.reduce.pixel_kernels import judge_exactly, judge_lanes, nowhere
from dfit.reduce.pixel_points import PixelPoints
from dfit.reduce.pixel_stack import Stack

# Pixels whose states are held at a time, and bytes of their points: fewer pixels where they have many.
SLAB = 1 << 15
SLAB_BYTES = 128 << 20

Find = Callable[[np.ndarray, Points, Starts], Starts]


def slab_of(points: int) -> int:
    """Pixels that are fitted at a time, of so many points: y and its root weight are held, 16 bytes each."""
    return max(EXACT_LANES, min(SLAB, SLAB_BYTES // (16 * points)))


def _slabs(pixels: np.ndarray, starts: Starts, points: int) -> Iterator[tuple[np.ndarray, Starts]]:
    """Pixels that are held at a time, and their starts."""
    step = slab_of(points)
    for first in range(0, pixels.size, step):
        yield pixels[first : first + step], some_of(starts, slice(first, first + step))


def empty_lanes(values: np.ndarray, lanes: int) -> np.ndarray:
    """Array for so many pixels in the place of all, which JAX reads where it is."""
    shape = values.shape[:-1]
    return empty_aligned(math.prod(shape) * lanes, values.dtype).reshape(*shape, lanes)


def last(values: np.ndarray) -> np.ndarray:
    """View with the first axis as the last: `np.moveaxis` takes longer than a step of a hundred pixels."""
    return values if values.ndim == 1 else values.transpose(*range(1, values.ndim), 0)


def first(values: np.ndarray) -> np.ndarray:
    """View with the last axis as the first."""
    return values if values.ndim == 1 else values.transpose(-1, *range(values.ndim - 1))


class PixelFit:
    """The fits of a stack of pixels."""

    def __init__(self, job: PixelJob, constants: Mapping[str, np.ndarray], stack: Stack) -> None:
        self.job, self.stack = job, stack
        self._points = PixelPoints(job, constants, stack)

    def answers(self, starts: Starts, pixels: np.ndarray | None = None, find: Find | None = None) -> Answers:
        """The answers of all pixels, or of some by number.

        Parameters
        ----------
        starts : of these pixels.
        find : (pixels, their points, their starts) -> starts that the points tell.
        """
        parts = [
            self._slab(these, some, find)
            for these, some in _slabs(self._all() if pixels is None else pixels, starts, self.stack.points)
        ]
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
        return Answers(**joined)

    def costs(self, starts: Starts, pixels: np.ndarray) -> np.ndarray:
        """Costs (k,) of some pixels where they would begin; infinite where the model is not finite."""
        costs = []
        for these, some in _slabs(pixels, starts, self.stack.points):
            with self._numerics():
                facts, points = self._survey(these)
                states, problem = begin(some.theta), problem_of(some, facts)
                self._solve(these, states, some, points, problem, np.arange(these.size), 1)
            costs.append(np.where(states.equations.finite, states.equations.cost, np.inf))
        return np.concatenate(costs)

    def lanes(self, count: int) -> int:
        """In how many lanes a program that is called once for so many pixels runs."""
        return self._points.lanes(LANES if count > FEW else EXACT_LANES)

    def _all(self) -> np.ndarray:
        return np.arange(self.stack.size)

    @contextmanager
    def _numerics(self) -> Iterator[None]:
        with one_blas_thread(), float64_on_cpu(), fingerprint.fresh(self.job.recipe.fingerprint):
            yield

    def _survey(self, pixels: np.ndarray) -> tuple[Facts, Points]:
        return self._points.survey(pixels, LANES if pixels.size > FEW else EXACT_LANES)

    def _slab(self, pixels: np.ndarray, starts: Starts, find: Find | None) -> Answers:
        job = self.job
        with self._numerics():
            facts, points = self._survey(pixels)
            if find is not None:
                starts = find(pixels, points, starts)
            refused = refused_of(job, facts, starts)
            states = begin(starts.theta)
            problem = problem_of(starts, facts)
            wanted = np.flatnonzero(refused < 0)
            well = self._solve(pixels, states, starts, points, problem, wanted, job.limit)
            own = states.theta, starts.held, box_of(starts)
            both = self._points.sandwich(pixels, *own) if job.robust else None
            return answers_of(job, Solved(states, starts, facts, refused, well), both)

    def _solve(
        self,
        pixels: np.ndarray,
        states: State,
        starts: Starts,
        points: Points,
        problem: Problem,
        wanted: np.ndarray,
        limit: int,
    ) -> np.ndarray:
        """Run the wanted solves to so many evaluations; says where sums of squares were enough."""
        left = wanted
        quick = quick_enough(self.job, starts, wanted.size)
        if quick:
            left = solve(self._quick(points, starts, problem), states, wanted, limit)
            begin_again(states, left[states.status[left] != Status.RUNNING])
        solve(self._exact(pixels, starts, problem), states, left, limit)
        well = np.full(pixels.size, quick)
        well[left] = False
        return well

    def _quick(self, points: Points, starts: Starts, problem: Problem) -> Engine:
        """By sums of squares and Cholesky factors."""
        lanes = self._points.lanes(LANES)
        # All that differs between lanes, pixels last; coordinates along points alone are the same for all.
        by_pixel = points._replace(coords=tuple(c for c in points.coords if c.ndim == 2))
        whole = (by_pixel, *(jax.tree.map(np.transpose, a) for a in (problem, starts.held)))
        here = nowhere(starts.theta.shape[1], lanes)

        def load(data: Any, places: np.ndarray, which: np.ndarray) -> Any:
            if data is None:
                data = jax.tree.map(lambda a: empty_lanes(a, lanes), whole)
            # Those that wait are beside each other, mostly.
            beside = which[-1] - which[0] == which.size - 1
            taken = slice(which[0], which[-1] + 1) if beside and (np.diff(which) == 1).all() else which
            for values, now in zip(jax.tree.leaves(whole), jax.tree.leaves(data), strict=True):
                now[..., places] = values[..., taken]
            return data

        def advance(state: State, data: Any, which: np.ndarray) -> tuple[State, np.ndarray]:
            nonlocal here
            own, these, held = data
            varying = iter(own.coords)
            own = own._replace(coords=tuple(c if c.ndim == 1 else next(varying) for c in points.coords))
            # Views: the arrays have their lanes last in memory all the time.
            now = Lane(jax.tree.map(last, state), here)
            fields = self._points.lane_sums(now.state.trial, own, held)
            new = jax.tree.map(np.asarray, judge_lanes(now, fields, these, self.job.tolerances))
            here = new.here
            return jax.tree.map(first, new.state), here.condition

        return Engine(lanes, load, advance, (ROUGH, TRIANGLE_ABOVE), leaves=True)

    def _exact(self, pixels: np.ndarray, starts: Starts, problem: Problem) -> Engine:
        """By triangles and singular values, as a fit of one array is done."""
        box = box_of(starts)

        def load(data: Any, places: np.ndarray, which: np.ndarray) -> Any:
            rows = self._points.rows(pixels[which])
            if data is None:
                return rows
            for whole, part in zip(data, rows, strict=True):
                if part.ndim == 2:
                    whole[places] = part
            return data

        def advance(state: State, data: Any, which: np.ndarray) -> tuple[State, np.ndarray]:
            own = at(box, which)
            fields = self._points.triangles(state.trial, data, starts.held[which], own)
            these = at(problem, which)
            fields = without_noise(self.job, fields, state.trial, these.scale2, own[0])
            out = judge_exactly(state, fields, these, self.job.tolerances)
            return jax.tree.map(np.asarray, out)

        return Engine(self._points.lanes(EXACT_LANES), load, advance, (np.inf, np.inf), leaves=False)
