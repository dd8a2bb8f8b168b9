"""What Gauss-Newton leaves out of the Hessian, known from a sample.

With r = y - f and J = df/dtheta the cost has the gradient -J^T r and the Hessian H = J^T J - S,
S = sum r d2f/dtheta2.  Where residuals are large, because the model is not the data's own, S is not small
against J^T J, and steps without it converge linearly.  S of a sample, scaled to all points, makes them
converge at the rate of its own error, without a pass more.  Where residuals are noise S is zero but for
noise, and a sample's S would do harm: it is used only where the sample tells it from its own noise.

Everything happens in the coordinates z = s V^T theta of J = U s V^T, in which J^T J is the identity and S
becomes M, so H = I - M.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dfit.core.subproblem import norm, one_if_zero, spectrum

# Smallest curvature, as a part of J^T J, that a step trusts: ten times the Gauss-Newton step.
FLOOR = 0.1
SIGNIFICANT = 3.0  # of M over its own noise
# Of a standard error: in a curved valley a whole one leaves the region where the gradient is linear.
STEP = 1e-4
WELL_SEEN = 1e-7  # differences along what is hardly seen would leave the region of the minimum


class Curvature(NamedTuple):
    """S over the count of residuals, as factor^T m factor.

    Not multiplied out: S of an ill-conditioned problem would bury in its rounding what it says of
    the directions that are seen least, and m does not.

    Attributes
    ----------
    factor : (q, p), theta to z
    m : (q, q)
    """

    factor: Any
    m: Any


def corrected(
    jacobian: jax.Array, residual: jax.Array, second: Curvature, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """J (p + 1, p) and r (p + 1,) whose J^T J is J^T J - S, and whose J^T r is the same.

    Singular values of J that are rounding are left out, as in the step.
    """
    norms = one_if_zero(norm(jacobian))
    along, s, vt, seen = spectrum(jacobian, residual, norms)
    back = jnp.where(seen, 1 / one_if_zero(s), 0.0)[:, None] * vt
    to_sample = (second.factor / norms) @ back.T
    m = to_sample.T @ (second.m * count) @ to_sample
    values, vectors = jnp.linalg.eigh(jnp.eye(s.size) - m)
    size = jnp.sqrt(jnp.maximum(values, FLOOR))[:, None]
    square = size * vectors.T @ (jnp.where(seen, s, 0.0)[:, None] * vt) * norms
    rotated = vectors.T @ jnp.where(seen, along, 0.0) / size[:, 0]
    return jnp.concatenate([square, jnp.zeros_like(square[:1])]), jnp.concatenate([rotated, jnp.zeros(1)])


def second_order(
    gradients: Callable[[np.ndarray], tuple[np.ndarray, bool]],
    theta: np.ndarray,
    roots: np.ndarray,
    psi2: float,
    count: np.ndarray,
    free: np.ndarray,
) -> Curvature | None:
    """S of the sample over its count, or None where it is not told from noise.

    Parameters
    ----------
    gradients : callable
        theta to J^T r of the leaves of the sample, (K, p), and whether all of it is finite.
    theta : (p,)
        A minimum on the sample.
    roots : (K, p + 1, p + 1)
        Of the leaves, there.
    psi2 : of all leaves, there.
    count : (K,)
        Residuals of each leaf.
    free : (p,) bool
        Parameters that are not at a bound.
    """
    if not free.any():
        return None
    jacobians = roots[:, :, :-1][:, :, free]
    jacobian = jacobians.reshape(-1, jacobians.shape[-1])
    norms = np.linalg.norm(jacobian, axis=0)
    total = count.sum()
    if not (norms > 0).all() or psi2 == 0 or total <= free.sum():
        return None
    _, s, vt = np.linalg.svd(jacobian / norms, full_matrices=False)
    if s[-1] < WELL_SEEN * s[0]:
        return None
    to_theta = (vt.T / s) / norms[:, None]  # columns: one unit of z
    width = STEP * np.sqrt(psi2 / total)
    seen = jacobians @ to_theta
    m = np.einsum("kai,kaj->kij", seen, seen)  # of each leaf: its J^T J, less its H
    for k in range(s.size):
        shift = np.zeros_like(theta)
        shift[free] = width * to_theta[:, k]
        above, below = (gradients(theta + sign * shift) for sign in (1, -1))
        if not (above[1] and below[1]):
            return None
        m[:, :, k] += (above[0] - below[0])[:, free] @ to_theta / (2 * width)
    whole = m.sum(axis=0)
    whole = (whole + whole.T) / 2
    if np.linalg.norm(whole, 2) <= SIGNIFICANT * _noise(m, count):
        return None
    factor = np.zeros((s.size, theta.size))
    factor[:, free] = (s[:, None] * vt) * norms
    return Curvature(factor, whole / total)


def _noise(by_leaf: np.ndarray, count: np.ndarray) -> float:
    """Noise of the sum over two leaves, from how far they are apart."""
    if (count == 0).any():
        return float("inf")
    part = count / count.sum()
    apart = by_leaf[0] / part[0] - by_leaf[1] / part[1]
    return float(np.linalg.norm(apart, 2) * np.sqrt(part[0] * part[1]))


def gradient(root: Any) -> Any:
    """J^T r of a root (..., p + 1, p + 1)."""
    return np.einsum("...kp,...k->...p", root[..., :-1], root[..., -1])
