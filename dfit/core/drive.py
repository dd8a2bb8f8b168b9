"""The loops around `trust_region.step`: on the host, and inside one compiled call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dfit.core.equations import Equations
from dfit.core.trust_region import State, Status, Tolerances, reopen, start, step
from dfit.precision import float64_on_cpu

# One function object for the process, so that a fit compiles once per number of parameters.  It runs once a
# pass for 0.2 ms whatever its code is like, so the compiler is told not to work at it: 0.5 s, not 1.7.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
_step = jax.jit(step, compiler_options=QUICK)
_reopen = jax.jit(reopen, compiler_options=QUICK)


def iterate(
    evaluate: Callable[[Any], Equations],
    state: State,
    lower: ArrayLike,
    upper: ArrayLike,
    tolerances: Tolerances,
    retract: Callable[[State], State] | None = None,
) -> Iterator[State]:
    """The states of a solve, one after each evaluation, as NumPy arrays.

    Ends after the first state whose status is not RUNNING; the consumer may stop earlier, and go on
    from any state it has kept.

    Parameters
    ----------
    evaluate : callable
        theta, a float64 array (p,), to the `Equations` there.
    state : State
        `start(theta0)`, or a state of an earlier solve.
    lower, upper : (p,)
        Bounds, may be infinite.
    tolerances : Tolerances
    retract : callable, optional
        Moves the trial of a state onto the model's own curve, where that is known without an evaluation.
    """
    box = [np.broadcast_to(np.asarray(bound, np.float64), state.theta.shape) for bound in (lower, upper)]
    limits = Tolerances(*map(np.float64, tolerances))
    state = _on_host(state, start(state.theta)._replace(second=state.second))
    while state.status == Status.RUNNING:
        equations = _on_host(evaluate(state.trial), state.equations)
        # p x p algebra: an accelerator would only add its latency.
        with float64_on_cpu():
            state = jax.tree.map(np.asarray, _step(state, equations, *box, limits))
        if retract is not None and state.status == Status.RUNNING:
            state = retract(state)
        yield state


def reopened(state: State, lower: ArrayLike, upper: ArrayLike, tolerances: Tolerances) -> State:
    """A state that has ended, under other tolerances: it may go on; see `trust_region.reopen`."""
    box = [np.broadcast_to(np.asarray(bound, np.float64), state.theta.shape) for bound in (lower, upper)]
    with float64_on_cpu():
        return jax.tree.map(np.asarray, _reopen(state, *box, Tolerances(*map(np.float64, tolerances))))


def _on_host(value: Any, like: Any) -> Any:
    """Value as NumPy arrays of the types in like: one type, one compilation."""
    return jax.tree.map(lambda a, b: np.asarray(a, b.dtype), value, like)


def solve(
    evaluate: Callable[[jax.Array], Equations],
    theta0: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    tolerances: Tolerances,
    max_evaluations: int,
) -> State:
    """The last state of a solve that runs as one compiled loop.

    To be called under `jax.enable_x64(True)`; may be jitted and vmapped.  The status is RUNNING where
    max_evaluations were not enough.

    Parameters
    ----------
    evaluate : callable
        theta (p,) to `Equations`, traceable by JAX.
    theta0, lower, upper : (p,)
    tolerances : Tolerances
    max_evaluations : int
    """

    def unfinished(state: State) -> jax.Array:
        return (state.status == Status.RUNNING) & (state.evaluations < max_evaluations)

    def advance(state: State) -> State:
        return step(state, evaluate(state.trial), low, high, tolerances)

    theta, low, high = (jnp.asarray(values, jnp.float64) for values in (theta0, lower, upper))
    return jax.lax.while_loop(unfinished, advance, jax.tree.map(jnp.asarray, start(theta)))
