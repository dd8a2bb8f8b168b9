"""What the numbers of a pass and of the solver must be, each rule alone: None, or what is wrong in words.

A pass that has finite sums everywhere still may not be believed: the sum of all of them may overflow, and a
pass that counts other points than the one before has read other data.  A step that is not finite would cost
a pass to find that out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfit.core.state import State
from dfit.core.sums import Sums
from dfit.core.trust_region import ROUGHNESS

# Rounding may leave a predicted decrease below zero by this part of the cost.
ROUNDED = 1e-6
# Squares of smaller derivatives have lost digits: the smallest number that has all of them is 2e-308.
TINY = 1e-146


def is_finite(sums: Sums) -> bool:
    """Whether sums can be used: those of a model that is finite everywhere may still overflow."""
    return bool(np.isfinite(sums.matrix).all() and np.isfinite(sums.cost))


def bad_total(sums: Sums, survey: Sums | None, surveyed: bool) -> str | None:
    """Of the finite sums of a whole pass.

    Parameters
    ----------
    survey : of the first pass, which has read the same points; None for the first itself.
    surveyed : whether this one has counted and measured as much as that one.
    """
    if sums.cost < 0:
        return f"its cost is {sums.cost:g}, and a sum of squares is not negative"
    if survey is None:
        return None
    if sums.count != survey.count:
        return f"it counts {sums.count:.0f} residuals, the first one {survey.count:.0f}"
    if not surveyed:
        return None
    if not np.array_equal(sums.counts, survey.counts):
        return "it leaves out other points than the first one"
    if sums.moments.tobytes() != survey.moments.tobytes():
        return "the moments of y, or its weights, are not those of the first one"
    return None


def bad_step(state: State, lower: np.ndarray, upper: np.ndarray, names: Sequence[str]) -> str | None:
    """Of what the solver proposes next; ``names`` are those of theta (p,), inside lower, upper (p,)."""
    trial, theta = np.asarray(state.trial), np.asarray(state.theta)
    sizes = _sizes(state)
    inside = np.isfinite(trial) & (trial >= lower) & (trial <= upper)
    if not inside.all():
        which = "; ".join(
            f"{names[k]} from {theta[k]:g} to {trial[k]:g}, with derivatives of size {sizes[k]:.2g}"
            for k in np.flatnonzero(~inside).tolist()
        )
        return f"it would move {which}"
    # Where a large constant is fitted, the rounding of the data is more than what a last step can gain.
    rounding = ROUGHNESS * np.sqrt(state.equations.psi2 * state.equations.scale2)
    if not state.predicted >= -ROUNDED * state.equations.cost - rounding:
        return f"it is predicted to lower the cost of {float(state.equations.cost):g} by {float(state.predicted):g}"
    return None


def lost_squares(state: State, stderr: np.ndarray, names: Sequence[str]) -> str | None:
    """Of a fit that ended: derivatives whose squares have lost digits, though they give a standard error (p,)."""
    sizes = _sizes(state)
    lost = (sizes > 0) & (sizes < TINY) & np.isfinite(stderr)
    if not lost.any():
        return None
    which = ", ".join(f"{names[k]} ({sizes[k]:.2g})" for k in np.flatnonzero(lost).tolist())
    return f"the squares of the derivatives by {which} are too small for float64"


def _sizes(state: State) -> np.ndarray:
    """Size (p,) of the derivatives of all points, weighted: the largest entry of each column of a root."""
    return np.asarray(np.abs(np.asarray(state.equations.root)[:, :-1]).max(axis=0))
