"""Robust losses, with scipy's names and meaning.

With z = (r / f_scale)^2 the cost is 1/2 f_scale^2 sum rho(z), so that a loss changes nothing for
residuals well below ``f_scale``.  Every entry gives (rho, rho', rho'') at z >= 0.

Source: Triggs et al. 2000, "Bundle adjustment - a modern synthesis", sec. 4.3; the functions are
those of ``scipy.optimize.least_squares``.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

Rho = tuple[jax.Array, jax.Array, jax.Array]

# The exact Hessian weight of a point, rho' + 2 z rho'', is zero or negative for an outlier. Keeping at
# least this part of rho' leaves a positive model whose step still shrinks the error about tenfold or
# better a pass at 10 % outliers; rho' alone (iterative reweighting) needs several times as many passes.
CURVATURE_FLOOR = 0.1


def linear(z: jax.Array) -> Rho:
    return z, jnp.ones_like(z), jnp.zeros_like(z)


def soft_l1(z: jax.Array) -> Rho:
    t = jnp.sqrt(1 + z)
    return 2 * z / (t + 1), 1 / t, -0.5 / t**3  # 2 (t - 1) without its cancellation


def huber(z: jax.Array) -> Rho:
    inside = z <= 1
    s = jnp.sqrt(jnp.where(inside, 1.0, z))
    return (
        jnp.where(inside, z, 2 * s - 1),
        jnp.where(inside, 1.0, 1 / s),
        jnp.where(inside, 0.0, -0.5 / s**3),
    )


def cauchy(z: jax.Array) -> Rho:
    t = 1 + z
    return jnp.log1p(z), 1 / t, -1 / t**2


def arctan(z: jax.Array) -> Rho:
    t = 1 + z**2
    return jnp.arctan(z), 1 / t, -2 * z / t**2


LOSSES: dict[str, Callable[[jax.Array], Rho]] = {
    "linear": linear,
    "soft_l1": soft_l1,
    "huber": huber,
    "cauchy": cauchy,
    "arctan": arctan,
}


def gauss_newton_weight(z: jax.Array, rho1: jax.Array, rho2: jax.Array) -> jax.Array:
    """Positive curvature weight of each point for the Gauss-Newton matrix."""
    return jnp.maximum(rho1 + 2 * z * rho2, CURVATURE_FLOOR * rho1)
