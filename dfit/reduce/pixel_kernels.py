"""Compiled programs of many small problems, found by content as those of `dfit.reduce.kernels` are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dfit.core.cholesky import inverse
from dfit.core.drive import QUICK
from dfit.core.geometry import Geometry
from dfit.core.kernel import Leaf, Scalars, as_given, leaf_kernel
from dfit.core.pixels import Problem, begun, judged, judged_exactly, reasons, sums, survey
from dfit.core.state import State, Tolerances
from dfit.reduce.kernels import KERNELS_KEPT, Kernel, Recipe, kernel_for

Tree = TypeVar("Tree")
_batched = threading.Lock()


def alone(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program with LAPACK over lanes, one call at a time in this process, giving finished NumPy arrays.

    JAX spreads such a batch over XLA's threads and waits for it on one of them: as many calls at a time as
    there are threads would wait for each other for ever.
    """

    def run(*arguments: Any) -> Any:
        with _batched:
            return jax.tree.map(np.asarray, program(*arguments))

    return run


def lanes_last(values: Tree) -> Tree:
    """Arrays (lanes, ...) as (..., lanes)."""
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), values)


def lanes_first(values: Tree) -> Tree:
    """Arrays (..., lanes) as (lanes, ...)."""
    return jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), values)


def _judged(
    state: State, fields: dict[str, Any], problem: Problem, tolerances: Tolerances
) -> tuple[State, jax.Array]:
    problem = lanes_last(problem)
    lane = judged(begun(lanes_last(state), problem), lanes_last(fields), problem, tolerances)
    return lanes_first(lane.state), lane.here.condition


# Programs that know no model: one compilation for all of them.  Lanes are the first axis, but of the first one.
judge_lanes = jax.jit(judged)
judge = jax.jit(_judged)
judge_exactly = alone(jax.jit(jax.vmap(judged_exactly, in_axes=(0, 0, 0, None)), compiler_options=QUICK))
invert = jax.jit(lambda roots, free: lanes_first(inverse(lanes_last(roots), lanes_last(free))))


def nowhere(p: int, lanes: int) -> Geometry:
    """Geometries of lanes whose problems are all at their beginning."""
    none: Any = np.zeros(lanes)
    each: Any = np.zeros((p, lanes))
    return Geometry(each.astype(bool), each, none, none, none, none)


class Programs(NamedTuple):
    """Compiled functions of one model, over lanes.

    ``survey`` (pixels, scalars) takes and gives points along the first axis and lanes along the second, and
    gives facts by lane; ``reasons`` (pixels) gives counts by lane; ``sums`` (theta, points, scalars) has lanes
    along the last axis of everything; ``triangles`` and ``sandwich`` (theta, pixels, scalars) along the first.
    """

    kernel: Kernel
    survey: Any
    reasons: Any
    sums: Any
    triangles: Any
    sandwich: Any


_programs: OrderedDict[tuple[Any, ...], Programs] = OrderedDict()
_building = threading.Lock()


def programs_for(recipe: Recipe, constants: Mapping[str, np.ndarray], shared: Leaf, block: int) -> Programs:
    """The process's programs for a recipe.

    Parameters
    ----------
    shared : a `Leaf` of bools, True for what all pixels share; None where there is no such array.
    block : points of a block of the kernels that take whole pixels.
    """
    steps = None if recipe.traceable else recipe.parameters
    key = (recipe.fingerprint, recipe.layout, steps, shared, block)
    with _building:
        if key not in _programs:
            _programs[key] = _build(recipe, constants, shared, block)
            while len(_programs) > KERNELS_KEPT:
                _programs.popitem(last=False)
        _programs.move_to_end(key)
        return _programs[key]


def _build(recipe: Recipe, constants: Mapping[str, np.ndarray], shared: Leaf, block: int) -> Programs:
    kernel = kernel_for(recipe, constants)
    evaluate = kernel.evaluate() if recipe.traceable else as_given
    layout = recipe.layout
    scalars = Scalars(None, None, None, (0, None))

    def axes(lanes: int) -> Leaf:
        return jax.tree.map(lambda same: None if same else lanes, shared)._replace(
            given=() if recipe.traceable else (0, 0), n=None
        )

    def whole(form: str) -> Any:
        function = leaf_kernel(evaluate, layout._replace(form=form, block=block))
        mapped = jax.vmap(function, in_axes=(0, axes(0), scalars))
        return alone(jax.jit(mapped, compiler_options=QUICK))

    return Programs(
        kernel,
        jax.jit(survey(layout)),
        jax.jit(reasons),
        jax.jit(sums(evaluate, layout)),
        whole("triangle"),
        whole("sandwich"),
    )
