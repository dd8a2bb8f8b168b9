"""The four defence layers of a warm-up: when to skip it, how far to step first, when to stop it, how far at most.

A warm-up runs on a sample, so it can be led astray by it.  Each layer is one small function of numbers,
so that it can be tested without a model.  Thresholds are operands; infinity turns a layer off.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dfit.core.state import State
from dfit.core.subproblem import EPS, NULL, norm, one_if_zero

# Of the data's variance, at the start: where layer 2 is careful, and where it explores.
CAREFUL_FROM, EXPLORE_FROM = 0.1, 1.0
# Starts within one standard error are recognised and those beyond ten are not: between them in proportion.
NEAR = float(np.sqrt(10.0))


def relative_loss(cost: float, about_mean: float) -> float:
    """Loss as a part of the data's variance: 2 cost over the weighted squares about the mean of y."""
    if about_mean > 0:
        return 2 * cost / about_mean
    return 0.0 if cost == 0 else float("inf")


def errors_away(root: np.ndarray, psi2: float, count: float) -> float:
    """Largest Gauss-Newton step of a parameter, in its standard error, from a root (p + 1, p + 1).

    Infinite where the points do not determine every parameter, or leave no degree of freedom.
    """
    jacobian, residual = root[:, :-1], root[:, -1]
    norms = np.linalg.norm(jacobian, axis=0)
    p = norms.size
    if not (norms > 0).all() or count <= p:
        return float("inf")
    u, s, vt = np.linalg.svd(jacobian / norms, full_matrices=False)
    if s[-1] <= NULL * p * s[0]:
        return float("inf")
    along = u.T @ residual
    rest2 = psi2 - along @ along
    spread = np.sqrt(max(rest2, 0.0) / (count - p)) * np.sqrt(((vt.T / s) ** 2).sum(axis=1))
    step = np.abs((along / s) @ vt)
    rounding = EPS * np.sqrt(psi2)
    return float(np.max(step / np.maximum(spread, rounding))) if psi2 > 0 else 0.0


def already_good(loss: float, away: float, threshold: float) -> str | None:
    """Layer 1: why a start needs no warm-up, or None.

    Parameters
    ----------
    loss : relative loss at the start.
    away : `errors_away` there: at a noisy optimum the loss is large, but no step would help.
    threshold : relative loss below which a start is good; 0 and the layer is off.
    """
    if threshold <= 0:
        return None
    if loss < threshold:
        return f"the loss at p0 is {loss:.2g} of the data's variance, below {threshold:g}"
    if away < NEAR:
        return (
            f"a step from p0 would move no parameter by more than {away:.2g} of the sample's standard errors"
        )
    return None


def fit_quality(loss: float) -> str:
    """Layer 2: the mode that a start of this relative loss calls for."""
    if loss < CAREFUL_FROM:
        return "refinement"
    return "careful" if loss < EXPLORE_FROM else "exploration"


def risen(held: Any, lowest: Any, tolerance: Any) -> Any:
    """Layer 3: whether the cost of points held out has risen too far above the lowest seen."""
    return held > (1 + tolerance) * lowest


def clip(state: State, unit: Any, most: Any) -> tuple[State, jax.Array]:
    """Layer 4: the state with its next step no longer than ``most``, and whether it was.

    The step is measured in ``unit`` (p,) and keeps its direction.  Parameters that have grown beyond
    their unit are measured by themselves, or a start that is wrong by a thousand would need as many steps.
    """
    step = state.trial - state.theta
    room = most * jnp.maximum(1.0, norm(state.theta / unit))
    length = norm(step / unit)
    clipped = length > room
    share = jnp.where(clipped, room / one_if_zero(length), 1.0)
    # Along a line the model of the cost falls by t slope - t^2 (slope - predicted).
    predicted = share * state.slope - share**2 * (state.slope - state.predicted)
    shorter = state._replace(
        trial=jnp.where(clipped, state.theta + share * step, state.trial),
        slope=share * state.slope,
        predicted=jnp.where(clipped, predicted, state.predicted),
        full=state.full & ~clipped,
    )
    return shorter, clipped
