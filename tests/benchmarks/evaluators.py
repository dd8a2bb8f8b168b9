"""The evaluator of a fit without the fit: one call is one pass over the data at a given theta."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dfit.data.domain import build_domain, coordinate_names
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.prepare import Settings, prepare
from dfit.reduce.evaluators import PassEvaluator


def evaluator_of(
    func: Callable[..., Any],
    data: Any,
    coords: Any,
    p0: Mapping[str, float],
    names: tuple[str, ...] | None = None,
    on_task: Callable[[Any], None] = lambda task: None,
) -> PassEvaluator:
    """What `dfit.fit` calls in every pass, for the scheduler in force."""
    model = Model.from_callable(func, coordinate_names(func, coords, names), names)
    parameters = Parameters.resolve(model, p0, None, None, None)
    domain = build_domain(model, data, coords)
    return prepare(model, parameters, domain, Settings(), on_task).evaluator
