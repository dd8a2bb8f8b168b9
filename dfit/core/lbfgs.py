"""L-BFGS on a sample: quasi-Newton steps from costs and gradients alone.

The variables are u = theta / unit and the cost is a part of that at the start, so that neither the unit of
the data nor that of a parameter matters.  The kernel's sums give cost and gradient together, -J^T r of the
root: no reverse pass runs through the model.  The history and the line search (strong Wolfe conditions,
Nocedal & Wright 2006, algorithms 3.5, 3.6 and 7.4) are optax's.

Bounds are a projection: the cost is looked at where u is clipped to the box, and a parameter pressed
against its bound takes no part in the direction.  Layer 3 judges the points held out after every line
search.  Layer 4 is the line search's longest step, and not a cut of what it found: so a clipped step still
decreases the cost.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dfit.core.bounds import pressed
from dfit.core.equations import Equations
from dfit.core.geometry import geometry
from dfit.core.guards import risen
from dfit.core.state import Status, Tolerances
from dfit.core.subproblem import choose, norm, one_if_zero
from dfit.core.warm import Fields, Guards, Warm, joined
from dfit.optional import load

HISTORY = 10  # pairs of differences; optax's default, and more than most models have parameters
SEARCH_STEPS = 20  # doublings and bisections of one line search: a millionth of the first guess


class Descent(NamedTuple):
    """Where L-BFGS ended, and how.

    Attributes
    ----------
    warm : Warm
        For Levenberg-Marquardt to go on from: its state holds the equations, and has evaluated nothing.
    status : () int
        OFFSET, STALLED or NOT_FINITE; RUNNING where it was given up or out of evaluations.
    evaluations : () int
    filled : () int
        How often the history was filled; a line search that fails empties it.
    failures : () int
        Line searches that did not decrease the cost.
    """

    warm: Warm
    status: Any
    evaluations: Any
    filled: Any
    failures: Any


class _Point(NamedTuple):
    """What the line search moves: u (p,), and zeros whose derivative is what the kernel gave.

    It returns the gradient of the point it ends on, and in this way the kernel's sums, too: every step would
    cost one evaluation more without them.
    """

    u: jax.Array
    fields: Fields


class _Now(NamedTuple):
    u: jax.Array
    value: jax.Array  # cost as a part of that at the start
    gradient: jax.Array  # of value by u, zero where pressed against a bound
    history: Any
    descent: Descent


class _Landscape(NamedTuple):
    """The cost over u."""

    evaluate: Callable[[jax.Array], Fields]
    fit: jax.Array
    guards: Guards
    cost0: jax.Array

    def theta(self, u: jax.Array) -> jax.Array:
        return jnp.clip(u * self.guards.unit, self.guards.lower, self.guards.upper)

    def relative(self, theta: jax.Array, fields: Fields) -> tuple[jax.Array, jax.Array]:
        """Value and gradient (p,) by u from the sums at theta; infinite and zero where those are not finite."""
        at = _equations(fields, self.fit)
        downhill = at.root[:, :-1].T @ at.root[:, -1]
        flat = (theta < self.guards.lower) | (theta > self.guards.upper)
        for held in pressed(theta, downhill, self.guards.lower, self.guards.upper):
            flat |= held
        gradient = jnp.where(flat | ~at.finite, 0.0, -downhill * self.guards.unit / self.cost0)
        return jnp.where(at.finite, at.cost / self.cost0, jnp.inf), gradient

    def value(self) -> Callable[[_Point], jax.Array]:
        """The value as a function whose derivatives are known: what optax's line search asks for."""

        def forward(at: _Point) -> tuple[jax.Array, _Point]:
            fields = self.evaluate(self.theta(at.u))
            value, gradient = self.relative(at.u * self.guards.unit, fields)
            return value, _Point(gradient, fields)

        def backward(derivatives: _Point, seed: jax.Array) -> tuple[_Point]:
            return (jax.tree.map(lambda values: seed * values, derivatives),)

        value = jax.custom_vjp(lambda at: forward(at)[0])
        value.defvjp(forward, backward)
        return value


def require_optax() -> ModuleType:
    """The optax package, which only this method needs."""
    return load("optax", 'method="lbfgs"')


def descend(
    evaluate: Callable[[jax.Array], Fields],
    warm: Warm,
    fit: jax.Array,
    guards: Guards,
    tolerances: Tolerances,
    limit: Any,
) -> Descent:
    """L-BFGS from ``warm`` until the relative offset is small or the cost decreases no more.

    To be called under `jax.enable_x64(True)`.  Operands as those of `dfit.core.warm.run`; the line search
    in which ``limit`` evaluations are reached is ended.

    Raises
    ------
    InputError
        Where optax is not installed.
    """
    history = require_optax().scale_by_lbfgs(HISTORY)
    theta0 = jnp.asarray(warm.state.theta)
    fields = evaluate(theta0)
    cost0 = one_if_zero(_equations(fields, fit).cost)
    landscape = _Landscape(evaluate, fit, guards, cost0)
    u = theta0 / guards.unit
    none = jnp.asarray(0)
    descent = Descent(warm._replace(fields=fields), none, none + 1, none, none)
    value, gradient = landscape.relative(theta0, fields)
    first = _Now(
        u, value, gradient, history.init(u), _judged(descent, theta0, fields, fit, guards, tolerances)
    )
    last = jax.lax.while_loop(
        lambda now: _unfinished(now.descent, limit), lambda now: _advance(landscape, now, tolerances), first
    )
    return last.descent


def _equations(fields: Fields, fit: jax.Array) -> Equations:
    """Equations of the leaves that are fitted; not finite where the cost of the others is not."""
    at = joined(fields, fit)
    return at._replace(finite=at.finite & jnp.all(jnp.isfinite(fields["cost"])))


def _unfinished(descent: Descent, limit: Any) -> jax.Array:
    return (descent.status == Status.RUNNING) & ~descent.warm.aborted & (descent.evaluations < limit)


def _advance(landscape: _Landscape, now: _Now, tolerances: Tolerances) -> _Now:
    """One direction, one line search, and the verdict on where it ended."""
    optax, guards, before = require_optax(), landscape.guards, now.descent
    memory = optax.scale_by_lbfgs(HISTORY)
    toward, history = memory.update(now.gradient, now.history, now.u)
    free = now.gradient != 0
    direction = jnp.where(free, -toward, 0.0)
    longest = guards.max_step * jnp.maximum(1.0, norm(now.u)) / one_if_zero(norm(direction))
    search = optax.scale_by_zoom_linesearch(SEARCH_STEPS, longest, initial_guess_strategy="one")
    still = jax.tree.map(jnp.zeros_like, before.warm.fields)
    at = _Point(now.u, still)
    step, found = search.update(
        _Point(direction, still),
        search.init(at),
        at,
        value=now.value,
        grad=_Point(now.gradient, before.warm.fields),
        value_fn=landscape.value(),
    )
    fell = (found.learning_rate > 0) & (found.value <= now.value)
    theta = landscape.theta(now.u + step.u)
    counted = before._replace(
        warm=before.warm._replace(clips=before.warm.clips + (fell & (found.learning_rate >= longest))),
        evaluations=before.evaluations + found.info.num_linesearch_steps,
        filled=before.filled + (history.count == HISTORY + 1),
    )
    moved = _judged(counted, theta, found.grad.fields, landscape.fit, guards, tolerances)
    # Steepest descent, from an empty history, is the last thing to try.
    stuck = now.history.count == 0
    status = jnp.where(stuck, Status.STALLED, Status.RUNNING).astype(before.status.dtype)
    failed = counted._replace(failures=counted.failures + 1, status=status)
    # Once more, because at the bound itself a parameter may be free again.
    value, gradient = landscape.relative(theta, found.grad.fields)
    after = _Now(theta / guards.unit, value, gradient, history, moved)
    return choose(fell, after, now._replace(history=memory.init(now.u), descent=failed))


def _judged(
    descent: Descent, theta: jax.Array, fields: Fields, fit: jax.Array, guards: Guards, tolerances: Tolerances
) -> Descent:
    """The descent at theta: layer 3, and whether it has arrived."""
    at = _equations(fields, fit)
    at = choose(at.finite, at, jax.tree.map(jnp.zeros_like, at))
    offset = geometry(at, theta, guards.lower, guards.upper).offset
    held = jnp.sum(jnp.where(fit, 0.0, fields["cost"]))
    warm = descent.warm
    better = at.finite & (held <= warm.lowest)
    status = jnp.where(offset <= tolerances.offset, Status.OFFSET, Status.RUNNING)
    status = jnp.where(at.finite, status, Status.NOT_FINITE).astype(descent.status.dtype)
    state = warm.state._replace(theta=theta, trial=theta, equations=at, offset=offset)
    return descent._replace(
        status=status,
        warm=warm._replace(
            state=state,
            fields=fields,
            best=jnp.where(better, theta, warm.best),
            lowest=jnp.where(better, held, warm.lowest),
            aborted=risen(held, warm.lowest, guards.rise),
        ),
    )
