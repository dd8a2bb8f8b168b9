"""The trust-region subproblem, solved exactly through singular values.

    minimise |r - J s|  subject to  |D s| <= radius,  s given for some parameters

Derivation: with J D^-1 = U S V^T and z = D s, the unrestricted solution is
z = V S^-1 U^T r.  Where it is too long, z = V S / (S^2 + m) U^T r for the m > 0 at which
|z| = radius, a scalar equation (More 1978, sec. 2).  Singular values that are rounding
are left out: the step has no part in what J does not see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

EPS = float(np.finfo(np.float64).eps)
# Columns of J are known to some rounding errors each: singular values below this, times p, are noise.
NULL = 32 * EPS
SECULAR_ROUNDS = 60


class Algebra(NamedTuple):
    """How the linear algebra of a step is done."""

    projection: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]  # as `projection`
    restricted_step: Callable[..., tuple[jax.Array, jax.Array]]  # as `restricted_step`


Carry = tuple[jax.Array, jax.Array, jax.Array]  # m, |z| there, rounds


def norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x * x, axis=0))


def times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """A x, over the first axes: further ones are of problems side by side."""
    return jnp.sum(matrix * vector[None], axis=1)


def transposed_times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """A^T x, over the first axes."""
    return jnp.sum(matrix * vector[:, None], axis=0)


def inner(a: jax.Array, b: jax.Array) -> jax.Array:
    """a . b, over the first axis."""
    return jnp.sum(a * b, axis=0)


def choose(condition: jax.Array, yes: Any, no: Any) -> Any:
    """One of two values of the same structure."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def one_if_zero(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, 1.0)


def spectrum(
    jacobian: jax.Array, residual: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """U^T r, S, V^T of J weights^-1 and which of S are not null.

    The threshold follows weights that exceed the column norms: such columns are small, not null.
    """
    norms = norm(jacobian)
    u, s, vt = jnp.linalg.svd(jacobian / weights, full_matrices=False)
    smallest = jnp.min(jnp.where(norms > 0, norms / weights, 1.0), initial=1.0)
    seen = s > NULL * s.size * smallest * s[0]
    return u.T @ residual, s, vt, seen


def projection(
    jacobian: jax.Array, residual: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Squared length of the part of r in the span of J weights^-1, its rank, and the condition of what is seen."""
    along, s, _, seen = spectrum(jacobian, residual, weights)
    rank = jnp.sum(seen, dtype=along.dtype)
    smallest = jnp.min(jnp.where(seen, s, jnp.inf), initial=jnp.inf)
    return jnp.sum(jnp.where(seen, along, 0.0) ** 2), rank, jnp.max(s, initial=0.0) / smallest


def restricted_step(
    jacobian: jax.Array,
    residual: jax.Array,
    weights: jax.Array,
    radius: jax.Array,
    held: jax.Array,
    shift: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The s with s[held] = shift[held] that minimises |r - J s| subject to |weights s| <= radius.

    Also says whether the radius left the Gauss-Newton step as it was.  That step is taken from columns of
    norm 1, which keeps digits that weights far above the column norms would lose.
    """
    residual = residual - jacobian @ shift
    jacobian = jnp.where(held, 0.0, jacobian)
    room = jnp.sqrt(jnp.maximum(radius**2 - jnp.sum((weights * shift) ** 2), 0.0))
    norms = one_if_zero(norm(jacobian))
    along, s, vt, seen = spectrum(jacobian, residual, norms)
    newton = (jnp.where(seen, along / one_if_zero(s), 0.0) @ vt) / norms
    full = norm(weights * newton) <= room
    short = _secular(*spectrum(jacobian, residual, weights), room) / weights
    return jnp.where(held, shift, jnp.where(full, newton, short)), full


def _secular(along: jax.Array, s: jax.Array, vt: jax.Array, seen: jax.Array, radius: jax.Array) -> jax.Array:
    """The z of length radius that minimises |U^T r - S V^T z|, where the unrestricted one is longer.

    z = V S / (S^2 + m) U^T r for the m >= 0 at which |z| = radius.  Newton on 1/|z| - 1/radius rises
    monotonically from m = 0 (Reinsch 1971; Conn, Gould & Toint 2000, sec. 7.3).
    """
    s2, top = s * s, jnp.where(seen, s * along, 0.0)

    def length(m: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        below = jnp.where(seen, s2 + m, 1.0)
        z = top / below
        size = norm(z)
        return z, below, size

    def improve(carry: Carry) -> Carry:
        m, _, rounds = carry
        z, below, size = length(m)
        slope = jnp.sum(z * z / below)
        grow = (size - radius) / one_if_zero(radius) * (size * size) / one_if_zero(slope)
        return m + jnp.maximum(grow, 0.0), size, rounds + 1

    def unfinished(carry: Carry) -> jax.Array:
        _, size, rounds = carry
        return (rounds < SECULAR_ROUNDS) & (size > (1 + 1e-12) * radius) & (radius > 0)

    begin = (jnp.zeros_like(radius), jnp.full_like(radius, jnp.inf), jnp.asarray(0))
    m, _, _ = jax.lax.while_loop(unfinished, improve, begin)
    z, _, size = length(m)
    return (z * jnp.where(size > 0, jnp.minimum(1.0, radius / one_if_zero(size)), 0.0)) @ vt


BY_SVD = Algebra(projection, restricted_step)
