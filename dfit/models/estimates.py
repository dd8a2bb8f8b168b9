"""What starts are made of: sums over the valid points of one pixel, without sorting and without loops over points.

Legend: y (n,) the data, x (n,) a coordinate, weight (n,) 0 where a point does not count.  All of it is traced,
and vmapped over pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# A column of which less than this is left beside the ones before it (squared) says nothing of its own.
DEPENDENT = 1e-20
ROUNDS = 4


def mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    """Weighted mean, 0 without a weight."""
    total = jnp.sum(weight)
    return jnp.sum(weight * values) / jnp.where(total > 0, total, 1.0)


def extent(x: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lowest value of the valid points and their range, 1 where all are one."""
    low = jnp.min(jnp.where(valid, x, jnp.inf))
    span = jnp.max(jnp.where(valid, x, -jnp.inf)) - low
    return jnp.where(jnp.isfinite(low), low, 0.0), jnp.where(jnp.isfinite(span) & (span > 0), span, 1.0)


def linear_fit(columns: Sequence[jax.Array], y: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Factors (k,) of columns (n,) each that fit y best, and the residual (n,) times the root of the weight.

    By modified Gram-Schmidt: no call of LAPACK for each of a million pixels, and a column that the ones before
    it explain has the factor 0, so that too few points do no harm.
    """
    root = jnp.sqrt(weight)
    rest = jnp.where(weight > 0, root * y, 0.0)
    basis: list[jax.Array] = []
    rows: list[list[jax.Array]] = []
    shares: list[jax.Array] = []
    for column in columns:
        own = jnp.where(weight > 0, root * column, 0.0)
        before = jnp.dot(own, own)
        row = []
        for direction in basis:
            row.append(jnp.dot(direction, own))
            own = own - row[-1] * direction
        norm = jnp.dot(own, own)
        length = jnp.where(norm > DEPENDENT * before, jnp.sqrt(norm), jnp.inf)
        direction = own / length
        basis.append(direction)
        rows.append([*row, length])
        shares.append(jnp.dot(direction, rest))
        rest = rest - shares[-1] * direction
    factors: list[jax.Array] = []
    for j in reversed(range(len(columns))):
        later = sum(rows[j + 1 + i][j] * factor for i, factor in enumerate(reversed(factors)))
        factors.append((shares[j] - later) / rows[j][j])
    return jnp.stack(factors[::-1]), rest


def robust_level(columns: Sequence[jax.Array], y: jax.Array, valid: jax.Array) -> jax.Array:
    """What the columns fit to most points, by weights of Cauchy: a peak beside them does not draw it.

    Source: Holland & Welsch 1977, Robust regression using iteratively reweighted least-squares.
    """
    weight = valid.astype(y.dtype)
    for _ in range(ROUNDS):
        factors, _rest = linear_fit(columns, y, weight)
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
