"""Box bounds in the trust-region subproblem; infinite bounds are no case of their own.

At theta, a parameter on a bound whose downhill direction J^T r points out of the box is
*pressed* against it: by the Karush-Kuhn-Tucker conditions it stays there, and the others
are solved for.  The step of the others comes from an active-set iteration: solve, hold
what leaves the allowed range at the end of that range, solve again for the rest, at most
p times because each round holds one more.

Two rounds of this are made.  The first holds only parameters that are on a bound and
would leave it; its step can go some way, so that cut at the first bound it is always a
descent.  The second holds everything that would cross a bound and so finds the active set
in few passes over the data, but may lose descent.  The better of both in the quadratic
model is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Solve = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class BoxStep(NamedTuple):
    """A step to `trial` inside the box; `full` where the trust radius did not shorten it."""

    trial: jax.Array
    full: jax.Array


class _Search(NamedTuple):
    held: jax.Array  # (p,) bool: takes its step from `shift`
    shift: jax.Array  # (p,) the steps of what is held
    step: jax.Array  # (p,) the solution for what was held before
    full: jax.Array  # () bool
    first: jax.Array  # () bool: in the first round
    inside: jax.Array  # (p,) the solution of the first round
    unsettled: jax.Array  # () bool


def pressed(theta: Any, downhill: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
    """Which parameters are pressed against their lower and their upper bound, (p,) bool each.

    `downhill` is J^T r, minus the gradient of the cost.  Source: Nocedal & Wright 2006, sec. 16.7.
    """
    return (theta <= lower) & (downhill < 0), (theta >= upper) & (downhill > 0)


def box_step(
    solve: Solve,
    gain: Callable[[jax.Array], jax.Array],
    theta: jax.Array,
    lower: jax.Array,
    upper: jax.Array,
    free: jax.Array,
) -> BoxStep:
    """The step in the box lower <= theta + s <= upper.

    Parameters
    ----------
    solve : callable
        (held, shift) -> (step, full): the best step whose held entries equal those of shift.
    gain : callable
        step -> the decrease of the cost that the quadratic model predicts.
    theta, lower, upper : (p,)
    free : (p,) bool
        Parameters that are not pressed against a bound.
    """
    found = _search(solve, theta, lower, upper, free)
    cut, cut_step = _cut(found.inside, theta, lower, upper)
    landed = _land(found.step, found.held, theta, lower, upper)
    whole = gain(found.step) >= gain(cut_step)
    return BoxStep(jnp.where(whole, landed, cut), whole & found.full)


def _search(solve: Solve, theta: jax.Array, lower: jax.Array, upper: jax.Array, free: jax.Array) -> _Search:
    """Both rounds, in one loop because each place that solves is compiled."""
    below, above = lower - theta, upper - theta

    def hold(now: _Search) -> _Search:
        step, full = solve(now.held, now.shift)
        crossing = ~now.held & ((step < below) | (step > above))
        leaving = crossing & jnp.where(step < 0, below == 0, above == 0)
        first = now.first & jnp.any(leaving, axis=0)
        out = jnp.where(first, leaving, crossing)
        shift = jnp.where(out, jnp.clip(step, below, above), now.shift)
        inside = jnp.where(now.first, step, now.inside)
        return _Search(now.held | out, shift, step, full, first, inside, jnp.any(out, axis=0))

    zero, yes = jnp.zeros_like(theta), jnp.ones(theta.shape[1:], bool)
    start = _Search(~free, zero, zero, yes, yes, zero, yes)
    return jax.lax.while_loop(lambda now: jnp.any(now.unsettled), hold, start)


def _land(
    step: jax.Array, held: jax.Array, theta: jax.Array, lower: jax.Array, upper: jax.Array
) -> jax.Array:
    """theta + step, exactly on a bound where one is held there: theta + (upper - theta) may miss it."""
    trial = jnp.clip(theta + step, lower, upper)
    trial = jnp.where(held & (step < 0), lower, trial)
    return jnp.where(held & (step > 0), upper, trial)


def _cut(
    step: jax.Array, theta: jax.Array, lower: jax.Array, upper: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The trial and the step, shortened to end at the first bound on the way."""
    room = jnp.where(step < 0, lower - theta, upper - theta)
    part = jnp.where(step == 0, jnp.inf, room / jnp.where(step == 0, 1.0, step))
    share = jnp.minimum(1.0, jnp.min(part, axis=0))
    trial = jnp.clip(theta + share * step, lower, upper)
    hit = (part <= share) & (step != 0)
    trial = jnp.where(hit & (step < 0), lower, trial)
    return jnp.where(hit & (step > 0), upper, trial), share * step
