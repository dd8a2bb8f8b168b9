"""How the residual stands to J at a point: what is free to move, and how far a further step would go."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dfit.core.bounds import pressed
from dfit.core.equations import Equations
from dfit.core.subproblem import BY_SVD, Algebra, norm, one_if_zero, transposed_times


class Geometry(NamedTuple):
    """How the residual stands to the columns of J that are free to move."""

    free: jax.Array  # (p,) bool
    norms: jax.Array  # (p,) column norms of J
    rank: jax.Array  # () of the free columns
    tangential: jax.Array  # () |t|
    offset: jax.Array  # ()
    condition: jax.Array  # () of the free columns scaled to norm 1


def halves(equations: Equations) -> tuple[jax.Array, jax.Array]:
    """J, (p + 1, p), and r, (p + 1,), as rotated into the root."""
    return equations.root[:, :-1], equations.root[:, -1]


def geometry(
    equations: Equations,
    theta: jax.Array,
    lower: jax.Array,
    upper: jax.Array,
    algebra: Algebra = BY_SVD,
) -> Geometry:
    """How the residual stands to J at theta (p,), inside the box lower, upper (p,)."""
    jacobian, residual = halves(equations)
    at_lower, at_upper = pressed(theta, transposed_times(jacobian, residual), lower, upper)
    free = ~(at_lower | at_upper)
    norms = norm(jacobian)
    t2, rank, condition = algebra.projection(jacobian * free, residual, one_if_zero(norms))
    rest2, nfree = equations.psi2 - t2, equations.count - rank
    defined = (rest2 > 0) & (nfree > 0) & (rank > 0)
    offset2 = (t2 / jnp.where(defined, rank, 1.0)) / jnp.where(defined, rest2 / nfree, 1.0)
    offset = jnp.where(defined, jnp.sqrt(offset2), jnp.inf)
    nothing_to_do = equations.finite & ~jnp.any(free, axis=0)
    return Geometry(free, norms, rank, jnp.sqrt(t2), jnp.where(nothing_to_do, 0.0, offset), condition)
