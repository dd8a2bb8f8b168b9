"""Value and forward derivatives of a model at a block of points.

Most parameters enter a part of a formula only: d/d tau_1 of a sum of decays knows nothing of the
others.  One pushforward per parameter, with the others held, leaves those parts out; pushing the
whole identity through the program multiplies zeros everywhere (measured for a sum of 4 and 8 decays:
1.6 and 1.9 times the time of a whole kernel).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# A loop would run once for each parameter instead of once for all.
LOOPS = {"while", "scan", "cond"}
# Equations times parameters: beyond this the program takes seconds to compile.
LARGEST_PROGRAM = 20_000


def value_and_derivatives(
    function: Callable[[Sequence[jax.Array]], jax.Array], theta: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """``function(theta)`` (B,) and its derivatives (p, B); ``function`` takes a sequence of p scalars."""
    values = [theta[k] for k in range(theta.size)]
    primitives = list(_primitives(jax.make_jaxpr(lambda *v: function(v))(*values).jaxpr))
    if theta.size == 0 or LOOPS & set(primitives) or len(primitives) * theta.size > LARGEST_PROGRAM:
        return _all_at_once(function, theta)
    value, linear = jax.linearize(lambda *v: function(v), *values)
    held = [jnp.zeros(()) for _ in values]

    def column(k: int) -> jax.Array:
        # `linear` is linear: its derivative by one argument is its value at that unit vector.
        _, pushed = jax.jvp(lambda t: linear(*held[:k], t, *held[k + 1 :]), (held[k],), (jnp.ones(()),))
        return pushed

    return value, jnp.stack([column(k) for k in range(theta.size)])


def _all_at_once(function: Callable[[Any], jax.Array], theta: jax.Array) -> tuple[jax.Array, jax.Array]:
    def push(direction: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(function, (theta,), (direction,))

    return jax.vmap(push, out_axes=(None, 0))(jnp.eye(theta.size))


def _primitives(jaxpr: Any) -> Iterator[str]:
    """Names of the primitives of a program and of all programs within it."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from _primitives(inner)
