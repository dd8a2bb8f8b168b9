"""Points of one leaf for tests of the kernel, and the kernel's sums over them."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dfit.core.kernel import Layout, Leaf, Scalars, forward, leaf_kernel, row_kernel
from dfit.core.sums import DROPS, FAULTS
from dfit.precision import float64_on_cpu

SIZE, BLOCK = 512, 64
THETA = np.array([2.0, 1.5, 0.3])
REASONS = (*DROPS, *FAULTS)


def decay(theta: Any, coords: Any, context: Any) -> Any:
    return theta[0] * jnp.exp(-coords[0] / theta[1]) + theta[2]


def wave(theta: Any, coords: Any, context: Any) -> Any:
    return theta[0] * jnp.exp(1j * theta[1] * coords[0]) + theta[2]


def root_law(theta: Any, coords: Any, context: Any) -> Any:
    return theta[0] * jnp.sqrt(coords[0]) + theta[1] * jnp.log(coords[0]) + theta[2]


class Points(NamedTuple):
    """Points of a leaf before padding."""

    x: np.ndarray
    y: np.ndarray
    sigma: np.ndarray | None = None
    where: np.ndarray | None = None


def points_of(n: int, seed: int = 0, sigma: bool = False) -> Points:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 5, n)
    y = np.asarray(decay(THETA, [x], None)) + rng.normal(0, 0.3, n)
    y[::7] += 5
    return Points(x, y, rng.uniform(0.5, 2, n) if sigma else None)


def padded(values: np.ndarray | None, fill: Any = np.nan) -> np.ndarray | None:
    if values is None:
        return None
    rest = np.full(SIZE - values.size, fill if values.dtype.kind in "fc" else 0)
    return np.concatenate([values, rest.astype(values.dtype)])


@cache
def compiled(form: str, loss: str, predict: Any, is_complex: bool) -> Any:
    build = row_kernel if form == "groups" else leaf_kernel
    return jax.jit(build(forward(predict), Layout(form, loss, BLOCK, is_complex)))


def kernel_sums(
    points: Points,
    form: str = "normal",
    loss: str = "linear",
    f_scale: float = 1.0,
    predict: Any = decay,
    theta: np.ndarray = THETA,
    scalar_sigma: float = 1.0,
    survey: bool = True,
) -> Any:
    leaf = Leaf(
        padded(points.y),
        (padded(points.x),),
        padded(points.sigma),
        padded(points.where),
        (),
        points.x.size,
    )
    scalars = Scalars(scalar_sigma, f_scale, survey, None)
    with float64_on_cpu():
        kernel = compiled(form, loss, predict, points.y.dtype.kind == "c")
        return jax.tree.map(np.asarray, kernel(theta, leaf, scalars))
