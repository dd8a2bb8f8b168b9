"""Where a fit starts: some shapes are tried, and the rest follows by linear least squares.

Every model is a linear combination of *columns*, functions of the coordinates that a few other numbers, its
*shape*, determine.  The shape that leaves the smallest residual is taken (variable projection over a short
list: Golub & Pereyra 1973); in a sum, all columns of all models are fitted together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dfit.models.estimates import linear_fit, robust_level


class Addend(Protocol):
    """One model of a sum, as `dfit.models.base.SingleModel` documents it."""

    @property
    def shaped(self) -> bool: ...

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array: ...

    def columns(self, shape: jax.Array, *coords: jax.Array) -> list[jax.Array]: ...

    def assemble(self, shape: jax.Array, factors: jax.Array) -> list[jax.Array]: ...


class Attempt(NamedTuple):
    """A shape (q,), the factors of all columns that go with it, and the sum of squares that is left."""

    left: jax.Array
    shape: jax.Array
    factors: jax.Array


def initial_values(
    addends: Sequence[Addend], y: jax.Array, valid: jax.Array, coords: Sequence[Sequence[jax.Array]]
) -> jax.Array:
    """Initial values (p,) of a sum of polynomials and at most one model whose shape must be found.

    Parameters
    ----------
    y, valid : (n,), y is 0 where not valid.
    coords : of each addend, (n,) each.
    """
    top = jnp.max(jnp.abs(y))
    scale = jnp.where(top > 0, top, 1.0)
    y = y / scale
    shapes = [jnp.zeros(0)] * len(addends)
    level: list[jax.Array] = []
    order = sorted(range(len(addends)), key=lambda k: addends[k].shaped)
    factors = jnp.zeros(0)
    for k in order:
        one, own = addends[k], coords[k]
        if one.shaped:
            rest = y - robust_level(level, y, valid) if level else y
            tried = one.candidates(jnp.where(valid, rest, 0.0), valid, *own)
            shapes[k], factors = _best(one, tried, own, level, y, valid)
        else:
            shapes[k] = one.candidates(y, valid, *own)[0]
            level += one.columns(shapes[k], *own)
            factors, _ = linear_fit(level, y, valid.astype(float))
    parts: list[list[jax.Array]] = [[]] * len(addends)
    used = 0
    for k in order:
        count = len(addends[k].columns(shapes[k], *coords[k]))
        parts[k] = addends[k].assemble(shapes[k], scale * factors[used : used + count])
        used += count
    return jnp.stack([jnp.asarray(value, float) for part in parts for value in part])


def _best(
    one: Addend,
    tried: jax.Array,
    coords: Sequence[jax.Array],
    level: Sequence[jax.Array],
    y: jax.Array,
    valid: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The shape (q,) of those tried that leaves the smallest residual, and the factors of all columns."""
    weight = valid.astype(float)

    def attempt(best: Attempt, shape: jax.Array) -> tuple[Attempt, None]:
        factors, rest = linear_fit([*level, *one.columns(shape, *coords)], y, weight)
        left = jnp.dot(rest, rest)
        better = jnp.isfinite(left) & jnp.all(jnp.isfinite(factors)) & (left < best.left)
        now = Attempt(left, shape, factors)
        return Attempt(*(jnp.where(better, n, b) for n, b in zip(now, best, strict=True))), None

    count = len(level) + len(one.columns(tried[0], *coords))
    first = Attempt(jnp.asarray(jnp.inf), tried[0], jnp.zeros(count))
    # A loop: all columns of all shapes at once would be the largest array of a fit per pixel.
    best, _ = jax.lax.scan(attempt, first, tried)
    return best.shape, best.factors
