"""Where in a leaf a model is not finite: looked for only where the sums of the leaf have told that it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dfit.core.kernel import Leaf, Scalars
from dfit.reduce.kernels import Recipe, kernel_for

OVERFLOW = "; it is finite at every point, but the squares add up to more than the largest number, 1.8e308"


def first_point(
    recipe: Recipe, constants: Mapping[str, np.ndarray], theta: np.ndarray, leaf: Leaf, scalars: Scalars
) -> str:
    """The first point of a leaf at which model or derivatives are not finite, to be put behind its partition."""
    by_point = replace(recipe, layout=recipe.layout._replace(form="groups"))
    kernel = kernel_for(by_point, constants)
    rows = kernel(theta, leaf, scalars)
    wrong = ~(np.isfinite(rows["psi"]) & np.isfinite(rows["jacobian"]).all(axis=0))
    wrong = wrong.reshape(-1, leaf.y.shape[-1]).any(axis=0)  # complex residuals stand twice
    if not wrong.any():
        return OVERFLOW
    at = int(np.argmax(wrong))
    place = ", ".join(f"{n} = {c[at]}" for n, c in zip(kernel.coordinates, leaf.coords, strict=True))
    f = kernel.value(theta, leaf, scalars.context)[at]
    if not np.isfinite(f):
        return f", first at {place}, where y = {leaf.y[at]:g} and the model is {f:g}"
    return f", first at {place}, where y = {leaf.y[at]:g}, the model is {f:g} and a derivative is not finite"
