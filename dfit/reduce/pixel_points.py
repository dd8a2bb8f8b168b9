"""The points of a stack of pixels, ready for the compiled programs: sums of some pixels at their thetas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dfit.core.kernel import Leaf, Scalars
from dfit.core.pixels import Facts, Points
from dfit.core.sums import DROPS, FAULTS
from dfit.reduce.kernels import Box
from dfit.reduce.pixel_answers import EXACT_LANES, LANES, PixelJob, at, in_lanes, runs
from dfit.reduce.pixel_kernels import Programs, programs_for
from dfit.reduce.pixel_stack import Stack

# Of y and the root weights of all lanes, and how much is taken in all while they are made ready and summed.
LANE_BYTES = 32 << 20
WORK = 4


def lanes_for(points: int, wanted: int) -> int:
    """A number of lanes, fewer where pixels have very many points."""
    return max(1, min(wanted, 1 << max(LANE_BYTES // (16 * points), 1).bit_length() - 1))


def work_of(points: int, pixels: int) -> int:
    """Bytes that the sums of so many pixels of so many points take at a time."""
    return WORK * 16 * points * lanes_for(points, min(pixels, LANES))


class PixelPoints:
    """Sums of the pixels of a stack, for a model.

    Parameters
    ----------
    room : points of the largest stack, where several share their compiled programs.
    """

    def __init__(
        self, job: PixelJob, constants: Mapping[str, np.ndarray], stack: Stack, room: int | None = None
    ) -> None:
        self.job, self.stack = job, stack
        self._constants = dict(constants)
        self._room = room or stack.points
        self._block = min(job.recipe.layout.block, 1 << max(self._room - 1, 1).bit_length())
        self._padded = -(-self._room // self._block) * self._block
        shared = stack.leaf(stack.shared, 0)
        self.programs: Programs = programs_for(job.recipe, self._constants, shared, self._block)

    def lanes(self, wanted: int) -> int:
        """A number of lanes, fewer where pixels have very many points."""
        return lanes_for(self._padded, wanted)

    def survey(self, pixels: np.ndarray, wanted: int) -> tuple[Facts, Points]:
        """What the data of each pixel are, and their points for `sums`, pixels along the last axis."""
        lanes = self.lanes(wanted)
        held = np.empty((lanes, 0))
        whole = self.stack.points * (2 if self.job.recipe.layout.is_complex else 1)
        facts: list[Facts] = []
        points: list[Points] = []
        for these, n in runs(pixels, lanes):
            columns = [self._filled(values, self._room) for values in self.stack.columns(these)]
            leaf = self.stack.leaf(columns, self.stack.points)
            count, moments, ready = self.programs.survey(leaf, self._scalars(held))
            # Most data have no gaps, and to count them by their reasons takes as long as the rest.
            gaps = np.any(np.asarray(count) < whole)
            counts = self.programs.reasons(leaf) if gaps else np.zeros((lanes, len(DROPS) + len(FAULTS)))
            facts.append(Facts(*(np.asarray(a)[:n] for a in (count, counts, moments))))
            points.append(
                jax.tree.map(lambda a, n=n: np.asarray(a)[..., :n] if a.ndim == 2 else np.asarray(a), ready)
            )
        if len(points) == 1:
            return facts[0], points[0]
        joined = jax.tree.map(lambda *a: np.concatenate(a, axis=1) if a[0].ndim == 2 else a[0], *points)
        return jax.tree.map(lambda *a: np.concatenate(a), *facts), joined

    def lane_sums(self, theta: Any, points: Points, held: np.ndarray) -> dict[str, Any]:
        """Sums of squares (..., lanes) at theta (p, lanes), see `dfit.core.pixels.sums`; held (k, lanes)."""
        return self.programs.sums(theta, points, self._scalars(held))

    def sums(self, theta: Any, points: Points, held: np.ndarray) -> dict[str, Any]:
        """Sums of squares (lanes, ...) at theta (lanes, p)."""
        found = self.lane_sums(np.moveaxis(theta, 0, -1), points, np.moveaxis(held, 0, -1))
        return {name: np.moveaxis(values, -1, 0) for name, values in found.items()}

    def rows(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Columns of some pixels for `triangles`: (lanes, S), or (S,) of what all pixels share."""
        return [np.ascontiguousarray(self._filled(v, self._padded).T) for v in self.stack.columns(pixels)]

    def triangles(
        self, theta: Any, rows: Sequence[np.ndarray], held: np.ndarray, box: Box | None = None
    ) -> dict[str, Any]:
        """Triangles of J and r (lanes, ...), see `dfit.core.kernel.leaf_kernel`; ``box`` (lanes, p) by pixel."""
        return self.programs.triangles(theta, self._leaf(theta, rows, held, box), self._scalars(held))

    def sandwich(
        self, pixels: np.ndarray, theta: Any, held: np.ndarray, box: Box | None = None
    ) -> np.ndarray:
        """Both sums of a robust covariance (k, 2, p, p) of some pixels."""

        def some(these: np.ndarray) -> Any:
            own = None if box is None else at(box, these)
            leaf = self._leaf(theta[these], self.rows(pixels[these]), held[these], own)
            return self.programs.sandwich(theta[these], leaf, self._scalars(held[these]))["matrix"]

        return np.array(in_lanes(some, self.lanes(EXACT_LANES), pixels.size))

    def _leaf(self, theta: Any, rows: Sequence[np.ndarray], held: np.ndarray, box: Box | None) -> Leaf:
        leaf = self.stack.leaf(rows, self.stack.points)
        if self.job.recipe.traceable:
            return leaf
        return leaf._replace(given=self._given(theta, leaf, held, box))

    def _given(
        self, theta: Any, leaf: Leaf, held: np.ndarray, box: Box | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Value (k, S) and derivatives (k, p, S) of a model that is called from Python."""
        shared = self.stack.leaf(self.stack.shared, 0)
        found = []
        for k in range(len(theta)):
            one = jax.tree.map(
                lambda same, a, k=k: a if same else a[k], shared._replace(n=None), leaf._replace(n=None)
            )
            one = one._replace(n=self.stack.points)
            own = None if box is None else at(box, k)
            found.append(self.programs.kernel.by_differences(theta[k], one, (held[k], self._constants), own))
        f, jacobian = zip(*found, strict=True)
        return np.stack(f), np.stack(jacobian)

    def _filled(self, values: np.ndarray, length: int) -> np.ndarray:
        """Columns (points, ...) with zeros up to a length."""
        if len(values) == length:
            return values
        out = np.zeros((length, *values.shape[1:]), values.dtype)
        out[: len(values)] = values
        return out

    def _scalars(self, held: np.ndarray) -> Scalars:
        return Scalars(self.job.sigma, self.job.f_scale, False, (held, self._constants))
