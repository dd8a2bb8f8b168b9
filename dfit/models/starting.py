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

from dfit.models.estimates import basis_of, dot, explained, linear_fit, robust_level


class Addend(Protocol):
    """One model of a sum, as `dfit.models.base.SingleModel` documents it."""

    @property
    def shaped(self) -> bool: ...

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array: ...

    def columns(self, shape: jax.Array, *coords: jax.Array) -> list[jax.Array]: ...

    def assemble(self, shape: jax.Array, factors: jax.Array) -> list[jax.Array]: ...


class Step(NamedTuple):
    """The best shape (q,) so far and how much of the sum of squares it explains; the next one and its columns."""

    gain: jax.Array
    best: jax.Array
    shape: jax.Array
    columns: list[jax.Array]


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
    for k in order:
        one, own = addends[k], coords[k]
        if one.shaped:
            rest = y - robust_level(level, y, valid) if level else y
            tried = one.candidates(jnp.where(valid, rest, 0.0), valid, *own)
            shapes[k] = _best(one, tried, own, level, y, valid)
        else:
            shapes[k] = one.candidates(y, valid, *own)[0]
        level += one.columns(shapes[k], *own)
    factors = linear_fit(level, y, valid.astype(float))
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
) -> jax.Array:
    """The shape (q,) of those tried that leaves the smallest residual when all columns are fitted.

    What the level explains is taken out of y once, and out of the products of the other columns, so that a shape
    costs its columns and a few sums.
    """
    basis = basis_of(level, valid.astype(float)).directions
    rest = y - sum((dot(q, y) * q for q in basis), jnp.zeros_like(y))

    def columns(shape: jax.Array) -> list[jax.Array]:
        return [jnp.where(valid, c, 0.0) for c in one.columns(shape, *coords)]

    def attempt(step: Step, following: jax.Array) -> tuple[Step, None]:
        gain = explained(step.columns, rest, basis)
        better = gain > step.gain  # never for NaN
        best = jnp.where(better, gain, step.gain), jnp.where(better, step.shape, step.best)
        return Step(*best, following, columns(following)), None

    # A loop: all columns of all shapes at once would be the largest array of a fit per pixel. It hands columns on
    # to its next step, or XLA would compute their exponentials again in every sum.
    first = Step(jnp.asarray(-jnp.inf), tried[0], tried[0], columns(tried[0]))
    last, _ = jax.lax.scan(attempt, first, jnp.concatenate([tried[1:], tried[:1]]))
    return last.best
