"""What starts are made of: sums over the valid points of one pixel, without sorting and without loops over points.

Legend: y (n,) the data, x (n,) a coordinate, weight (n,) 0 where a point does not count.  All of it is traced,
and vmapped over pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

# A column of which less than this is left beside the ones before it (squared) says nothing of its own.
DEPENDENT = 1e-20
SAID_ALREADY = 1e-12  # the same, where it is a difference of sums
ROUNDS = 3


def mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    """Weighted mean, 0 without a weight."""
    total = jnp.sum(weight)
    return jnp.sum(weight * values) / jnp.where(total > 0, total, 1.0)


def extent(x: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lowest value of the valid points and their range, 1 where all are one."""
    low = jnp.min(jnp.where(valid, x, jnp.inf))
    span = jnp.max(jnp.where(valid, x, -jnp.inf)) - low
    return jnp.where(jnp.isfinite(low), low, 0.0), jnp.where(jnp.isfinite(span) & (span > 0), span, 1.0)


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Inner product; as a sum, which XLA joins with what makes its factors, also over a batch of pixels."""
    return jnp.sum(a * b)


class Basis(NamedTuple):
    """Directions (n,) of length 1 that span some columns, zero for a column that the ones before it explain.

    ``columns[j] = sum_i rows[j][i] * directions[i]`` for i up to j, at the points that count.
    """

    directions: list[jax.Array]
    rows: list[list[jax.Array]]


def basis_of(columns: Sequence[jax.Array], weight: jax.Array) -> Basis:
    """Basis of columns times the root of the weight, by modified Gram-Schmidt.

    No call of LAPACK for each of a million pixels, and too few points do no harm.
    """
    root = jnp.sqrt(weight)
    basis = Basis([], [])
    for column in columns:
        own = jnp.where(weight > 0, root * column, 0.0)
        before = dot(own, own)
        row = []
        for direction in basis.directions:
            row.append(dot(direction, own))
            own = own - row[-1] * direction
        norm = dot(own, own)
        length = jnp.where(norm > DEPENDENT * before, jnp.sqrt(norm), jnp.inf)
        basis.directions.append(own / length)
        basis.rows.append([*row, length])
    return basis


def linear_fit(columns: Sequence[jax.Array], y: jax.Array, weight: jax.Array) -> jax.Array:
    """Factors (k,) of columns (n,) each that fit y best; 0 for one that the others before it explain."""
    basis = basis_of(columns, weight)
    rest = jnp.where(weight > 0, jnp.sqrt(weight) * y, 0.0)
    shares = []
    for direction in basis.directions:
        shares.append(dot(direction, rest))
        rest = rest - shares[-1] * direction
    factors: list[jax.Array] = [jnp.zeros(())] * len(columns)
    for j in reversed(range(len(columns))):
        later = sum(basis.rows[i][j] * factors[i] for i in range(j + 1, len(columns)))
        factors[j] = (shares[j] - later) / basis.rows[j][j]
    return jnp.stack(factors)


def explained(columns: Sequence[jax.Array], y: jax.Array, basis: Sequence[jax.Array]) -> jax.Array:
    """Part of the sum of squares of y that one or two columns explain beside a basis, to which y is orthogonal.

    0 where they say nothing beyond the basis, NaN or infinite where they are not finite.
    """
    shares = [[dot(q, c) for q in basis] for c in columns]

    def product(i: int, j: int) -> jax.Array:
        along = sum((a * b for a, b in zip(shares[i], shares[j], strict=True)), jnp.zeros(()))
        return dot(columns[i], columns[j]) - along

    a, p, least = product(0, 0), dot(columns[0], y), SAID_ALREADY * dot(columns[0], columns[0])
    if len(columns) == 1:
        return jnp.where(a > least, p * p / jnp.where(a > least, a, 1.0), 0.0 * a)
    b, c, q = product(0, 1), product(1, 1), dot(columns[1], y)
    size = a * c - b * b
    told = size > SAID_ALREADY * dot(columns[0], columns[0]) * dot(columns[1], columns[1])
    return jnp.where(told, (c * p * p - 2 * b * p * q + a * q * q) / jnp.where(told, size, 1.0), 0.0 * size)


def robust_level(columns: Sequence[jax.Array], y: jax.Array, valid: jax.Array) -> jax.Array:
    """What the columns fit to most points, by weights of Cauchy: a peak beside them does not draw it.

    Source: Holland & Welsch 1977, Robust regression using iteratively reweighted least-squares.
    """
    weight = valid.astype(y.dtype)
    for _ in range(ROUNDS):
        factors = linear_fit(columns, y, weight)
        level = sum(f * c for f, c in zip(factors, columns, strict=True))
        off = y - level
        scale = mean(jnp.abs(off), weight)
        weight = valid / (1 + (off / jnp.where(scale > 0, scale, 1.0)) ** 2)
    return jnp.asarray(level)


def above_half(
    y: jax.Array, valid: jax.Array, coords: Sequence[jax.Array]
) -> list[tuple[jax.Array, jax.Array]]:
    """Center and half width at half maximum of the highest peak of y, or the deepest, along each coordinate.

    A uniform stretch of half width a has the standard deviation a / sqrt(3), so the points above half of the
    maximum tell a without an order, and without a spacing.
    """
    kept = jnp.where(valid, y, 0.0)
    up = jnp.where(jnp.max(kept) >= -jnp.min(kept), kept, -kept)
    top, height = jnp.argmax(up), jnp.max(up)
    weight = jnp.where(valid & (up > 0.5 * height), 1.0, 0.0)
    near = weight
    out = []
    for x in coords:
        spread = jnp.sqrt(3 * mean((x - x[top]) ** 2, weight))
        near = near * (jnp.abs(x - x[top]) <= 1.5 * spread)
    for x in coords:
        low, span = extent(x, valid)
        center = jnp.where(jnp.sum(near) > 0, mean(x, near), low + 0.5 * span)
        half = jnp.sqrt(3 * mean((x - center) ** 2, near))
        least = 0.5 * span / jnp.maximum(jnp.sum(valid), 1)
        out.append((center, jnp.maximum(half, least)))
    return out
