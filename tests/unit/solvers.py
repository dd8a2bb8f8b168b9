"""A model on a sample in memory, ready to be solved; nothing is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import numpy as np

from dfit.core.kernel import Layout, block_points
from dfit.core.warm import Guards
from dfit.data.drawing import hold_out
from dfit.fingerprint import fingerprint
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.reduce.draw import Sample
from dfit.reduce.kernels import Recipe
from dfit.reduce.sampled import SampleSolver


def sample_of(columns: Sequence[np.ndarray], y: np.ndarray) -> Sample:
    """All points, one of five held out."""
    held = hold_out([y.size], seed=0, by_chunk=False)
    nothing = None, None, None
    return Sample(y, tuple(columns), *nothing, held, y.size, 1, 1, 0, 0.0, False, "the points of a test")


def solver_of(
    func: Callable[..., Any],
    columns: Sequence[np.ndarray],
    y: np.ndarray,
    p0: Any,
    bounds: Any = None,
    traceable: bool = True,
) -> tuple[SampleSolver, Parameters]:
    """The solver of func(*columns, *parameters) against y, and its parameters."""
    model = Model.from_callable(func, list(inspect.signature(func).parameters)[: len(columns)])
    parameters = Parameters.resolve(model, p0, bounds)
    recipe = Recipe(
        fingerprint(model, parameters, traceable),
        model.to_blob(),
        cloudpickle.dumps(parameters),
        model.name,
        traceable,
        Layout("normal", "linear", block_points(len(parameters.names)), False),
    )
    return SampleSolver(recipe, {}, sample_of(columns, y), np.zeros(0), 1.0, 1.0), parameters


def guards_of(parameters: Parameters, unit: Any = 1.0, **thresholds: float) -> Guards:
    """The box and unit of the parameters; layers are off unless named."""
    full = np.broadcast_to(np.asarray(unit, float), parameters.init.shape)
    return Guards(parameters.lower, parameters.upper, full)._replace(**thresholds)
