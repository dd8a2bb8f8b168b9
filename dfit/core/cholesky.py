"""The trust-region subproblem through Cholesky factors of J^T J, for thousands of small problems at once.

The same answers as `dfit.core.subproblem` where the columns of J, scaled to norm 1, have a condition well
below 1e8: squaring it costs twice its digits.  In return no LAPACK is called: every entry of a small matrix is
an array over all problems, which are the last axis, so that the processor's vector units do the algebra of
several problems with one instruction.

    J^T J = N C N, N = diag(column norms), C = L L^T;   |U^T r| = |L^-1 N^-1 J^T r|

A column of zeros, one that is not free, and one that depends on those before it has the pivot 0, and no part
in any answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dfit.core.subproblem import SECULAR_ROUNDS, Algebra, choose, one_if_zero

Row = list[jax.Array]
# Below this part of a column's square its pivot is rounding: 1 - R^2 on the columns before it.
PIVOT = 1e-14
# The program grows with the cube of p; beyond this it compiles for longer than it saves.
MOST_PARAMETERS = 8


class Factor(NamedTuple):
    """L of C = L L^T by rows, and the reciprocals of its diagonal, 0 for a column that is left out."""

    rows: list[Row]
    inverse: Row


def factor(matrix: Sequence[Row]) -> Factor:
    """Cholesky factor of a matrix (p, p), given by rows up to the diagonal; its digits need no scaling."""
    rows: list[Row] = []
    inverse: Row = []
    for i, entries in enumerate(matrix):
        row: Row = []
        for j in range(i):
            row.append((entries[j] - _dot(row, rows[j])) * inverse[j])
        pivot = entries[i] - _dot(row, row)
        seen = pivot > PIVOT * entries[i]
        inverse.append(jnp.where(seen, jax.lax.rsqrt(jnp.where(seen, pivot, 1.0)), 0.0))
        rows.append([*row, jnp.where(seen, pivot, 0.0) * inverse[i]])
    return Factor(rows, inverse)


def forward(found: Factor, right: Row) -> Row:
    """L^-1 b."""
    out: Row = []
    for row, inverse, value in zip(found.rows, found.inverse, right, strict=True):
        out.append((value - _dot(row, out)) * inverse)
    return out


def backward(found: Factor, right: Row) -> Row:
    """L^-T b."""
    p = len(right)
    out: Row = list(right)
    for i in reversed(range(p)):
        column = [found.rows[k][i] for k in range(i + 1, p)]
        out[i] = (right[i] - _dot(column, out[i + 1 :])) * found.inverse[i]
    return out


def root_of(pairs: Sequence[jax.Array], size: int) -> jax.Array:
    """An upper triangular B (size, size) with B^T B = M, from the upper triangle of M by rows."""
    entry = iter(pairs)
    square: list[Row] = [[] for _ in range(size)]
    for i in range(size):
        for j in range(i, size):
            square[j].append(next(entry))
    rows = factor(square).rows
    zero = jnp.zeros_like(pairs[0])
    return jnp.stack([jnp.stack([rows[j][i] if i <= j else zero for j in range(size)]) for i in range(size)])


def inverse(root: jax.Array, free: jax.Array) -> jax.Array:
    """(J^T J)^-1 of the free columns (p, p), zero in the rows and columns of the others."""
    square, _ = gram(root[:, :-1] * free, root[:, -1])
    found = factor(square)
    p = len(square)
    units = [[jnp.ones(()) if i == k else jnp.zeros(()) for i in range(p)] for k in range(p)]
    return jnp.stack([jnp.stack(backward(found, forward(found, unit))) for unit in units])


def gram(jacobian: jax.Array, residual: jax.Array) -> tuple[list[Row], Row]:
    """Scalars of J^T J, by rows up to the diagonal, and of J^T r (p,)."""
    m, p = jacobian.shape[:2]
    columns = [[jacobian[k, i] for k in range(m)] for i in range(p)]
    last = [residual[k] for k in range(m)]
    square = [[_dot(columns[i], columns[j]) for j in range(i + 1)] for i in range(p)]
    return square, [_dot(column, last) for column in columns]


def projection(
    jacobian: jax.Array, residual: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `subproblem.projection`; the condition is that of the smallest pivot, which is not far from it."""
    square, along = gram(jacobian, residual)
    found = factor(square)
    part = forward(found, along)
    rank = jnp.sum(jnp.stack(found.inverse) > 0, axis=0, dtype=jnp.float64)
    smallest = jnp.ones(())
    for row, entries in zip(found.rows, square, strict=True):
        share = row[-1] / one_if_zero(jnp.sqrt(entries[-1]))
        smallest = jnp.minimum(smallest, jnp.where(entries[-1] > 0, share, 1.0))
    return _dot(part, part), rank, jnp.where(smallest > 0, 1 / one_if_zero(smallest), jnp.inf)


class _Search(NamedTuple):
    m: jax.Array  # to be tried next
    z: jax.Array  # (p,) of the one before
    size: jax.Array  # |z|
    rounds: jax.Array


def restricted_step(
    jacobian: jax.Array,
    residual: jax.Array,
    weights: jax.Array,
    radius: jax.Array,
    held: jax.Array,
    shift: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """As `subproblem.restricted_step`: (J^T J + m W^2) s = J^T r, for the m >= 0 at which |W s| = radius."""
    square, along = gram(jnp.where(held, 0.0, jacobian), residual - jnp.sum(jacobian * shift, axis=1))
    room = jnp.sqrt(jnp.maximum(radius**2 - jnp.sum((weights * shift) ** 2, axis=0), 0.0))
    sizes = [weights[i] for i in range(weights.shape[0])]
    square = [[a / (sizes[i] * sizes[j]) for j, a in enumerate(row)] for i, row in enumerate(square)]
    along = [g / w for g, w in zip(along, sizes, strict=True)]

    def improve(now: _Search) -> _Search:
        found = factor([[*row[:-1], row[-1] + now.m] for row in square])
        z = backward(found, forward(found, along))
        size = jnp.sqrt(_dot(z, z))
        again = forward(found, z)
        # Newton on 1 / |z| - 1 / radius, see `subproblem._secular`
        grow = (size - room) / one_if_zero(room) * (size * size) / one_if_zero(_dot(again, again))
        new = _Search(now.m + jnp.maximum(grow, 0.0), jnp.stack(z), size, now.rounds + 1)
        return choose(unfinished(now), new, now)

    def unfinished(now: _Search) -> jax.Array:
        beyond = (now.size > (1 + 1e-12) * room) & (room > 0)
        return (now.rounds == 0) | (beyond & (now.rounds < SECULAR_ROUNDS))

    zero = jnp.zeros_like(radius)
    first = _Search(zero, jnp.zeros_like(weights), zero, jnp.zeros(radius.shape, jnp.int32))
    last = jax.lax.while_loop(lambda now: jnp.any(unfinished(now)), improve, first)
    full = (last.size <= room) & (last.rounds == 1)
    share = jnp.where(last.size > 0, jnp.minimum(1.0, room / one_if_zero(last.size)), 0.0)
    return jnp.where(held, shift, share * last.z / weights), full


def _dot(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> jax.Array:
    """Sum of the products of as many pairs as both have."""
    total = jnp.zeros(())
    for left, right in zip(a, b, strict=False):
        total = total + left * right
    return total


BY_CHOLESKY = Algebra(projection, restricted_step)
