"""Compiled programs of many small problems, found by content as those of `dfit.reduce.kernels` are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dfit.core.cholesky import inverse
from dfit.core.drive import QUICK
from dfit.core.kernel import Leaf, Scalars, as_given, leaf_kernel
from dfit.core.pixels import Points, judged, judged_exactly, sums, survey
from dfit.reduce.kernels import KERNELS_KEPT, Kernel, Recipe, kernel_for

# Programs that know no model: one compilation for all of them.
judge = jax.jit(jax.vmap(judged, in_axes=(0, 0, 0, None)))
judge_exactly = jax.jit(jax.vmap(judged_exactly, in_axes=(0, 0, 0, None)), compiler_options=QUICK)
invert = jax.jit(jax.vmap(inverse))


class Programs(NamedTuple):
    """Compiled functions of one model, over lanes.

    ``survey`` (pixels, scalars) takes and gives points along the first axis and lanes along the second,
    ``sums`` (theta, points, scalars) takes them; ``triangles`` and ``sandwich`` (theta, pixels, scalars) take
    lanes along the first axis.
    """

    kernel: Kernel
    survey: Any
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
        return jax.jit(kernel.counted(mapped), compiler_options=QUICK)

    points = Points(1, 1, axes(1).coords)
    facts = jax.vmap(survey(layout), in_axes=(axes(1)._replace(given=()), scalars), out_axes=(0, points))
    by_point = jax.vmap(sums(evaluate, layout), in_axes=(0, points, scalars))
    return Programs(
        kernel, jax.jit(facts), jax.jit(kernel.counted(by_point)), whole("triangle"), whole("sandwich")
    )
