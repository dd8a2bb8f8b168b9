"""Small least-squares problems in memory, as the solver sees them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dfit.core.equations import Equations


def equations_of(model: Callable, x, y) -> Callable:
    """An evaluator, traceable by JAX, of model(x, theta) against y: a QR of the whole [J r]."""

    def evaluate(theta):
        value = model(x, theta)
        jacobian = jax.jacfwd(lambda t: model(x, t))(theta)
        residual = y - value
        stacked = jnp.column_stack([jacobian, residual])
        finite = jnp.all(jnp.isfinite(stacked))
        padded = jnp.vstack([stacked, jnp.zeros((len(theta) + 1, len(theta) + 1))])
        root = jnp.linalg.qr(padded, mode="r")
        psi2 = jnp.sum(residual**2)
        size = jnp.asarray(float(len(y)))
        return Equations(root, psi2 / 2, psi2, jnp.sum(jnp.asarray(y) ** 2), size, finite)

    return evaluate


def on_host(evaluate: Callable) -> Callable:
    """The same evaluator for the host loop: NumPy in, NumPy out."""
    compiled = jax.jit(evaluate)

    def at(theta):
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, compiled(theta))

    return at


def linear(a: np.ndarray, y: np.ndarray) -> Callable:
    """The evaluator of a @ theta against y, in NumPy."""

    def at(theta):
        residual = y - a @ theta
        root = np.linalg.qr(np.column_stack([a, residual]), mode="r")
        padded = np.zeros((a.shape[1] + 1,) * 2)
        padded[: len(root)] = root
        return Equations(padded, residual @ residual / 2, residual @ residual, y @ y, float(y.size), True)

    return at
