"""Whether all of the data agree with the answer that a sample gave."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import numpy as np

from dfit.core.equations import Equations
from dfit.core.state import State

# In the sample's standard errors, of which one is expected; groups and chunks of data make it several.
AGREES = 10.0
NOISE = 5.0  # standard errors by which the cost of a sample may be below that of the data by chance
# Cost of a point, over that of a point of the sample at its own answer: beyond this the sample has not seen
# most of what there is to fit, and p0 may be the better place.
ALIKE = 2.0


class Decision(Enum):
    """What the first full pass makes of the sample's answer."""

    TRUST = "go on, with what the sample knows of the model's curvature"
    GO_ON = "go on, without it"
    BACK = "try p0 as well"


class HandOver(NamedTuple):
    """The decision and why."""

    decision: Decision
    sentence: str


def hand_over(state: State, sample: Equations, cost_at_start: float) -> HandOver:
    """Whether all of the data agree with the sample, from the first pass at the sample's answer.

    The step that the pass asks for is measured in the standard errors of the sample, in which the
    answers of samples scatter by about one.  A step beyond ``AGREES`` of them says that the sample is not
    like the data; p0 is tried where even its cost on the sample was lower, or the sample was fitted far
    better than the data are.

    Parameters
    ----------
    state : after the pass.
    sample : equations of the sample, at its answer.
    cost_at_start : of the sample at p0.
    """
    at = state.equations
    if not at.finite:
        return HandOver(Decision.BACK, "the model is not finite at the sample's answer: p0 is tried")
    away = float(state.offset) * np.sqrt(sample.count / at.count)
    step = f"all data ask for a step of {away:.2g} of the sample's standard errors"
    if not np.isfinite(away):
        return HandOver(
            Decision.GO_ON, "all data leave no error to measure a step by, and do not judge the sample"
        )
    if at.cost / at.count > (1 + NOISE * np.sqrt(2 / sample.count)) * cost_at_start / sample.count:
        return HandOver(Decision.BACK, f"{step}, and their cost is above the sample's at p0: p0 is tried")
    if away > AGREES and at.cost / at.count > ALIKE * sample.cost / sample.count:
        return HandOver(Decision.BACK, f"{step}: the sample is not like the data at all; p0 is tried")
    if away > AGREES:
        return HandOver(Decision.GO_ON, f"{step}: the sample is not like the data")
    return HandOver(Decision.TRUST, f"{step}: the sample is like the data")
