"""The fits of all pixels of one chunk along the kept dimensions, from their points to their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from dfit import fingerprint
from dfit.core.lanes import Engine, solve
from dfit.core.pixels import ROUGH, Points, Problem
from dfit.core.state import State, Status
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
    quick_enough,
    refused_of,
    without_noise,
)
from dfit.reduce.pixel_kernels import judge, judge_exactly
from dfit.reduce.pixel_points import PixelPoints
from dfit.reduce.pixel_stack import Stack

# Pixels whose states are held at a time, and bytes of their points: fewer pixels where they have many.
SLAB = 1 << 15
SLAB_BYTES = 256 << 20


def slab_of(points: int) -> int:
    """Pixels that are fitted at a time, of so many points: y and its root weight are held, 16 bytes each."""
    return max(EXACT_LANES, min(SLAB, SLAB_BYTES // (16 * points)))


class PixelFit:
    """The fits of a stack of pixels."""

    def __init__(self, job: PixelJob, constants: Mapping[str, np.ndarray], stack: Stack) -> None:
        self.job, self.stack = job, stack
        self._points = PixelPoints(job, constants, stack)

    def answers(self, starts: Starts) -> Answers:
        """The answers of all pixels."""
        parts, slab = [], slab_of(self.stack.points)
        for first in range(0, self.stack.size, slab):
            pixels = np.arange(first, min(first + slab, self.stack.size))
            some = replace(starts, **{name: values[pixels] for name, values in vars(starts).items()})
            parts.append(self._slab(pixels, some))
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
        return Answers(**joined)

    def _slab(self, pixels: np.ndarray, starts: Starts) -> Answers:
        job = self.job
        with one_blas_thread(), float64_on_cpu(), fingerprint.fresh(job.recipe.fingerprint):
            facts, points = self._points.survey(pixels, LANES if pixels.size > FEW else EXACT_LANES)
            refused = refused_of(job, facts, starts)
            states = begin(starts.theta)
            problem = Problem(starts.lower, starts.upper, facts)
            well = self._solve(pixels, states, starts, points, problem, np.flatnonzero(refused < 0))
            both = self._points.sandwich(pixels, states.theta, starts.held) if job.robust else None
            return answers_of(job, Solved(states, starts, facts, refused, well), both)

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
        quick = quick_enough(self.job, starts, wanted.size)
        if quick:
            left = solve(self._quick(points, starts, problem), states, wanted, self.job.limit)
            begin_again(states, left[states.status[left] != Status.RUNNING])
        solve(self._exact(pixels, starts, problem), states, left, self.job.limit)
        well = np.full(pixels.size, quick)
        well[left] = False
        return well

    def _quick(self, points: Points, starts: Starts, problem: Problem) -> Engine:
        """By sums of squares and Cholesky factors."""

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
            fields = self._points.sums(state.trial, data, starts.held[which])
            out = judge(state, fields, at(problem, which), self.job.tolerances)
            return jax.tree.map(np.asarray, out)

        return Engine(self._points.lanes(LANES), load, advance, (ROUGH, TRIANGLE_ABOVE), leaves=True)

    def _exact(self, pixels: np.ndarray, starts: Starts, problem: Problem) -> Engine:
        """By triangles and singular values, as a fit of one array is done."""

        def load(data: Any, places: np.ndarray, which: np.ndarray) -> Any:
            rows = self._points.rows(pixels[which])
            if data is None:
                return rows
            for whole, part in zip(data, rows, strict=True):
                if part.ndim == 2:
                    whole[places] = part
            return data

        def advance(state: State, data: Any, which: np.ndarray) -> tuple[State, np.ndarray]:
            fields = self._points.triangles(state.trial, data, starts.held[which])
            these = at(problem, which)
            fields = without_noise(self.job, fields, state.trial, these.facts)
            out = judge_exactly(state, fields, these, self.job.tolerances)
            return jax.tree.map(np.asarray, out)

        return Engine(self._points.lanes(EXACT_LANES), load, advance, (np.inf, np.inf), leaves=False)
