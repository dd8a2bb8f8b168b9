"""The warm-up's loop: a solve on some leaves of a sample, watched on the others.

The leaves of a sample are evaluated together; ``fit`` says which of them the solver sees.  The others are
held out: their cost judges the solve (layer 3), and every step is clipped (layer 4).  `advance` is one
step of it, the same inside one compiled loop (`run`), under `jax.vmap`, and from a loop on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dfit.core.equations import Equations
from dfit.core.guards import clip, risen
from dfit.core.trust_region import State, Status, Tolerances, start, step

Fields = dict[str, Any]  # what a leaf kernel gives, with the leaves along the first axis


class Guards(NamedTuple):
    """Operands of layers 3 and 4, and the box.

    Attributes
    ----------
    lower, upper : (p,)
    unit : (p,) the unit in which steps are measured.
    max_step : () longest step, in the unit; infinite is off.
    rise : () part by which the cost of the points held out may rise; infinite is off.
    """

    lower: Any
    upper: Any
    unit: Any
    max_step: Any = np.inf
    rise: Any = np.inf


class Warm(NamedTuple):
    """A solve on a sample, between two evaluations.

    Attributes
    ----------
    state : State
        Of the solver, on the leaves that it fits.
    fields : dict
        What the last evaluation left behind, by leaf.
    best : (p,)
        Where the cost of the points held out was lowest, of the points the solver accepted.
    lowest : ()
        That cost.
    clips : () int
        Steps that were clipped.
    aborted : () bool
        Whether that cost rose too far.
    """

    state: State
    fields: Any
    best: Any
    lowest: Any
    clips: Any
    aborted: Any


def begin(theta0: Any, share: float = 1.0) -> Warm:
    """Nothing evaluated yet; ``share`` of the first trust radius, see `start`."""
    state = start(theta0, share)
    return Warm(state, None, state.theta, np.float64(np.inf), np.int32(0), np.bool_(False))


def joined(fields: Fields, chosen: jax.Array) -> Equations:
    """Equations of the chosen leaves (K,), of triangles."""
    triangles = jnp.where(chosen[:, None, None], fields["matrix"], 0.0)

    def total(values: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(chosen, values, 0.0))

    root = jnp.linalg.qr(triangles.reshape(-1, triangles.shape[-1]), mode="r")
    cost = total(fields["cost"])
    finite = jnp.all(jnp.isfinite(root)) & jnp.isfinite(cost)
    scale2 = total(fields["moments"][:, 4])
    return Equations(root, cost, total(fields["psi2"]), scale2, total(fields["count"]), finite)


def advance(warm: Warm, fields: Fields, fit: jax.Array, guards: Guards, tolerances: Tolerances) -> Warm:
    """Judge what was evaluated at the trial and propose the next.

    A trial at which the points held out are not finite counts as not finite.
    """
    at_trial = joined(fields, fit)
    held = jnp.sum(jnp.where(fit, 0.0, fields["cost"]))
    at_trial = at_trial._replace(finite=at_trial.finite & jnp.isfinite(held))
    tried = warm.state.trial
    state = step(warm.state, at_trial, guards.lower, guards.upper, tolerances)
    # The solver has no hold-out: what it accepted is where it stands now.
    here = at_trial.finite & jnp.all(state.theta == tried)
    better = here & (held <= warm.lowest)
    aborted = here & risen(held, warm.lowest, guards.rise) & (warm.state.evaluations > 0)
    state, clipped = clip(state, guards.unit, guards.max_step)
    state = state._replace(trial=jnp.clip(state.trial, guards.lower, guards.upper))  # a rounding beyond
    return Warm(
        state,
        fields,
        jnp.where(better, tried, warm.best),
        jnp.where(better, held, warm.lowest),
        warm.clips + clipped.astype(warm.clips.dtype),
        aborted,
    )


def unfinished(warm: Warm, limit: Any) -> Any:
    """Whether the solve goes on: it runs, was not aborted, and has evaluations left."""
    return (warm.state.status == Status.RUNNING) & ~warm.aborted & (warm.state.evaluations < limit)


def run(
    evaluate: Callable[[jax.Array], Fields],
    warm: Warm,
    fit: jax.Array,
    guards: Guards,
    tolerances: Tolerances,
    limit: Any,
) -> Warm:
    """The solve from ``warm`` to its end, or to ``limit`` evaluations, as one compiled loop.

    To be called under `jax.enable_x64(True)`; may be jitted and vmapped.
    """
    shapes = jax.eval_shape(evaluate, warm.state.trial)
    nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    first = jax.tree.map(jnp.asarray, warm._replace(fields=nothing))
    return jax.lax.while_loop(
        lambda now: unfinished(now, limit),
        lambda now: advance(now, evaluate(now.state.trial), fit, guards, tolerances),
        first,
    )
