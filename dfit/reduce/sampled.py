"""The model on a sample in memory: equations there, and the warm-up's loop in one compiled call.

The points that are fitted and those held out are two leaves of one size, so that one kernel serves both
and a cost of either is there after every evaluation.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dfit import fingerprint
from dfit.core.kernel import Leaf, Scalars
from dfit.core.lbfgs import Descent, descend
from dfit.core.sums import Sums, as_sums, combine
from dfit.core.trust_region import Tolerances
from dfit.core.warm import Fields, Guards, Warm, advance, begin, run, unfinished
from dfit.data.leaves import empty_aligned
from dfit.data.plan import SMALLEST_LEAF
from dfit.errors import InputError
from dfit.precision import float64_on_cpu
from dfit.reduce.kernels import COMPILER, KERNELS_KEPT, Kernel, Recipe, kernel_for, without_noise_of

if TYPE_CHECKING:
    from dfit.reduce.draw import Sample

EVERYTHING = np.array([True, True])
NOT_HELD = np.array([True, False])

Solve = Callable[..., Any]  # a loop: `run`, `_solve_batch` or `descend`

_loops: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
_building = threading.Lock()
_advance = jax.jit(advance, compiler_options=COMPILER)


class SampleSolver:
    """Evaluations and solves of a model on a sample.

    Parameters
    ----------
    recipe, constants : of the model, see `dfit.reduce.kernels`.
    sample : Sample
    held : values of the parameters that do not vary.
    sigma, f_scale : scalars, as in `Job`.

    Attributes
    ----------
    leaves, codes : the points fitted and the points held out, and their group numbers.
    evaluations : of the model on the sample, so far.
    """

    def __init__(
        self,
        recipe: Recipe,
        constants: Mapping[str, np.ndarray],
        sample: Sample,
        held: np.ndarray,
        sigma: float,
        f_scale: float,
    ) -> None:
        self.sample = sample
        self.leaves, self.codes = leaves_of_sample(sample)
        block = min(recipe.layout.block, self.leaves.y.shape[-1])
        self.recipe = replace(recipe, layout=recipe.layout._replace(form="triangle", block=block))
        self.constants = constants
        self.scalars = Scalars(sigma, f_scale, True, (held, dict(constants)))
        self.evaluations = 0

    def solve(self, warm: Warm, fit: np.ndarray, guards: Guards, tolerances: Tolerances, limit: int) -> Warm:
        """The solve from ``warm`` to its end or to ``limit`` evaluations; NumPy arrays.

        ``fit`` (2,) says which of the leaves the solver sees.  Starts may be batched: every array of
        ``warm`` then has one axis more, in front.
        """
        before = np.sum(warm.state.evaluations)
        limits = Tolerances(*map(np.float64, tolerances))
        batched = np.ndim(warm.state.theta) == 2
        if self.recipe.traceable:
            out = self._compiled(_solve_batch if batched else run, warm, fit, guards, limits, limit)
        elif batched:
            each = [
                self._on_host(jax.tree.map(lambda a, k=k: a[k], warm), fit, guards, limits, limit)
                for k in range(len(warm.state.theta))
            ]
            out = jax.tree.map(lambda *values: np.stack(values), *each)
        else:
            out = self._on_host(warm, fit, guards, limits, limit)
        self.evaluations += int(np.sum(out.state.evaluations) - before)
        return out

    def in_order(self) -> SampleSolver:
        """The same sample with its points in the order of the data, none held out."""
        ordered = copy(self)
        ordered.leaves, ordered.codes = leaves_of_sample(self.sample, in_order=True)
        return ordered

    def at(self, theta: np.ndarray, guards: Guards) -> Warm:
        """One evaluation, at theta (p,), of all of the sample."""
        return self.solve(begin(theta), EVERYTHING, guards, Tolerances(), 1)

    def descend(
        self, warm: Warm, fit: np.ndarray, guards: Guards, tolerances: Tolerances, limit: int
    ) -> Descent:
        """L-BFGS from ``warm``, see `dfit.core.lbfgs`; operands as in `solve`.

        Raises
        ------
        InputError
            Where JAX cannot trace the model, or optax is not installed.
        """
        require_traced(self.recipe)
        limits = Tolerances(*map(np.float64, tolerances))
        out: Descent = self._compiled(descend, warm, fit, guards, limits, limit)
        self.evaluations += int(out.evaluations)
        return out

    def not_finite(self, theta: np.ndarray) -> str:
        """Where on the sample the model or its derivative is not finite."""
        kernel = kernel_for(self.recipe, self.constants)
        names = kernel.coordinates
        bad, total, first = 0, 0, ""
        for k in range(2):
            leaf = leaf_at(self.leaves, k)
            value = kernel.tangent(theta, np.zeros_like(theta), leaf, self.scalars.context)
            wrong = ~np.isfinite(value[: leaf.n])
            if leaf.where is not None:
                wrong &= leaf.where[: leaf.n]
            if wrong.any() and not first:
                at = np.argmax(wrong)
                first = ", ".join(f"{name} = {c[at]}" for name, c in zip(names, leaf.coords, strict=True))
            bad, total = bad + int(wrong.sum()), total + int(leaf.n)
        return (
            f"at {bad} of {total} points of the sample, the first at "
            f"{first or 'a place that its value does not show'}"
        )

    def new_compilations(self) -> int:
        """Compilations for this recipe in this process since the last call of this."""
        return kernel_for(self.recipe, self.constants).new_compilations()

    def _compiled(
        self, solve: Solve, warm: Warm, fit: np.ndarray, guards: Guards, limits: Tolerances, limit: int
    ) -> Any:
        """What one of the compiled loops gives, NumPy arrays."""
        loop = _loop(self.recipe, self.constants, solve)
        warm = warm._replace(fields=None)
        with float64_on_cpu(), fingerprint.fresh(self.recipe.fingerprint):
            out = loop(warm, self.leaves, self.scalars, fit, guards, limits, np.int32(limit))
            return jax.tree.map(np.asarray, out)

    def _on_host(
        self, warm: Warm, fit: np.ndarray, guards: Guards, tolerances: Tolerances, limit: int
    ) -> Warm:
        """The same loop where the model is called from Python."""
        kernel = kernel_for(self.recipe, self.constants)
        while warm.fields is None or unfinished(warm, limit):
            fields = self._fields(kernel, np.asarray(warm.state.trial))
            with float64_on_cpu():
                out = _advance(warm._replace(fields=None), fields, fit, guards, tolerances)
                warm = jax.tree.map(np.asarray, out)
        return warm

    def _fields(self, kernel: Kernel, theta: np.ndarray) -> Fields:
        each = [kernel(theta, leaf_at(self.leaves, k), self.scalars) for k in range(2)]
        joined = {name: np.stack([fields[name] for fields in each]) for name in each[0]}
        scale2 = np.sum(joined["moments"][:, 4])
        joined["matrix"] = without_noise_of(self.recipe, joined["matrix"], theta, scale2)
        return joined


def require_traced(recipe: Recipe) -> None:
    """Refuse L-BFGS for a model that JAX cannot trace."""
    if not recipe.traceable:
        raise InputError(
            f'method="lbfgs" needs a model that JAX can trace, and {recipe.name} is not; '
            'type: method="lm", or write the model with jax.numpy'
        )


def sums_of(fields: Fields) -> Sums:
    """Sums of the whole sample, of triangles."""
    first, second = (as_sums({name: values[k] for name, values in fields.items()}) for k in range(2))
    return combine(first, second, "triangle")


def leaf_at(leaves: Leaf, k: int) -> Leaf:
    """One of the two leaves."""
    return jax.tree.map(lambda a: a[k], leaves)


def leaves_of_sample(sample: Sample, in_order: bool = False) -> tuple[Leaf, Sequence[Any]]:
    """The points fitted and the points held out, padded to the power of two that holds the more.

    ``in_order`` puts the points of both into the same two leaves in the order of the data.  Beside them
    are their group numbers (2, S), or (None, None).
    """
    parts = [np.flatnonzero(~sample.held), np.flatnonzero(sample.held)]
    size = max(SMALLEST_LEAF, 1 << (max(part.size for part in parts) - 1).bit_length())
    if in_order:
        parts = [np.arange(min(sample.y.size, size)), np.arange(size, sample.y.size)]

    def stacked(values: Any) -> Any:
        if values is None:
            return None
        out = empty_aligned(2 * size, values.dtype).reshape(2, size)
        for row, part in zip(out, parts, strict=True):
            row[: part.size] = values[part]
            row[part.size :] = values[0] if values.size else 0  # what is beyond is never counted
        return out

    coords = tuple(stacked(c) for c in sample.coords)
    # As wide as the values that `retracted` puts in its place, so that one compiled loop serves both.
    wide = np.complex128 if np.iscomplexobj(sample.y) else np.float64
    leaf = Leaf(
        stacked(sample.y.astype(wide)),
        coords,
        stacked(sample.sigma),
        stacked(sample.where),
        (),
        np.array([part.size for part in parts]),
    )
    return leaf, stacked(sample.codes) if sample.codes is not None else (None, None)


def _solve_batch(
    evaluate: Callable[[jax.Array], Fields],
    warm: Warm,
    fit: jax.Array,
    guards: Guards,
    tolerances: Tolerances,
    limit: jax.Array,
) -> Warm:
    """`run` from many starts."""
    return jax.vmap(lambda one: run(evaluate, one, fit, guards, tolerances, limit))(warm)


def _loop(recipe: Recipe, constants: Mapping[str, np.ndarray], solve: Solve) -> Any:
    """The process's compiled loop of a kind for a recipe."""
    key = (recipe.fingerprint, recipe.layout, solve)
    with _building:
        if key not in _loops:
            _loops[key] = _build(kernel_for(recipe, constants), solve)
            while len(_loops) > KERNELS_KEPT:
                _loops.popitem(last=False)
        _loops.move_to_end(key)
        return _loops[key]


def _build(kernel: Kernel, solve: Solve) -> Any:
    def loop(
        warm: Warm,
        leaves: Leaf,
        scalars: Scalars,
        fit: jax.Array,
        guards: Guards,
        tolerances: Tolerances,
        limit: jax.Array,
    ) -> Any:
        def evaluate(theta: jax.Array) -> Fields:
            return jax.lax.map(lambda leaf: kernel.function(theta, leaf, scalars), leaves)

        return solve(evaluate, warm, fit, guards, tolerances, limit)

    return jax.jit(kernel.counted(loop), compiler_options=COMPILER)
