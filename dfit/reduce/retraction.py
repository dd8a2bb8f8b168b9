"""A step of a pass, carried from the model's tangent onto the model itself, on the sample.

A pass asks for a step s, the best one if the model were its own tangent f + J s.  Where the model is
curved in its parameters (a valley that bends within a standard error), theta + s is a poor place for
those predictions.  The sample knows the model as well as all of the data do: the theta whose predictions on
it are nearest to f + J s is found in memory, and a pass is saved.  What the data say is in s alone, so the
sample's noise has no part in it.  (Parameter-effects curvature: Bates & Watts 1980; the map is a
retraction: Absil, Mahony & Sepulchre 2008, sec. 4.1.)
"""

from __future__ import annotations

from copy import copy

import numpy as np

from dfit.core.state import State
from dfit.core.trust_region import Tolerances
from dfit.core.warm import Guards, Warm
from dfit.reduce.kernels import kernel_for
from dfit.reduce.sampled import EVERYTHING, SampleSolver, leaf_at

# A trial need not be exact, and a step that bends so much is better judged by a pass.
TOLERANCE, EVALUATIONS = 0.01, 50
MOST_BEND = 0.5  # of the step
MOST_OF_THE_WAY = 0.25  # of the squares that lie between theta and f + J s


def retracted(solver: SampleSolver, state: State, guards: Guards) -> State:
    """The state with its trial moved onto the model; as it is while the steps are too short to bend."""
    if state.polishing:
        return state
    theta = np.asarray(state.theta)
    kernel = kernel_for(solver.recipe, solver.constants)
    context = solver.scalars.context
    step = np.asarray(state.trial) - theta
    line = [kernel.tangent(theta, step, leaf_at(solver.leaves, k), context) for k in range(2)]
    on_line = copy(solver)
    on_line.leaves = solver.leaves._replace(y=np.stack(line))
    straight = on_line.at(np.asarray(state.trial), guards)
    before = on_line.at(theta, guards)
    found = on_line.solve(before, EVERYTHING, guards, Tolerances(TOLERANCE), EVALUATIONS)
    solver.evaluations = on_line.evaluations
    # Where the sample does not determine a direction, it knows nothing better than the straight step; how
    # far the trial may bend is measured in the scaling of all the data, which do.
    bend, length = (np.linalg.norm(state.scaling * way) for way in (found.state.theta - state.trial, step))
    if bend > MOST_BEND * length or not _cost(found) < min(_cost(straight), MOST_OF_THE_WAY * _cost(before)):
        return state
    return state._replace(trial=found.state.theta)


def _cost(at: Warm) -> float:
    """Cost of an evaluation, infinite where it is not finite."""
    return float(at.state.equations.cost) if at.state.equations.finite else float("inf")
