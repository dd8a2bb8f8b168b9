"""Passes and reads without a fit around them, in a module that workers import once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import zarr

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
    on_partition: Callable[[Any], None] = lambda event: None,
    **settings: Any,
) -> PassEvaluator:
    """What `dfit.fit` calls in every pass, for the scheduler in force: one call is one pass."""
    model = Model.from_callable(func, coordinate_names(func, coords, names), names)
    parameters = Parameters.resolve(model, p0, None, None, None)
    domain = build_domain(model, data, coords)
    return prepare(model, parameters, domain, Settings(**settings), on_partition).evaluator


@cache
def _opened(path: str) -> tuple[Any, Any]:
    group = zarr.open_group(path, mode="r")
    return group["x"], group["y"]


def read_chunk(path: str, size: int, number: int) -> float:
    """Read chunk ``number`` of x and y, ``size`` points each, and nothing else."""
    at = slice(number * size, (number + 1) * size)
    x, y = (array[at] for array in _opened(path))
    return float(x[-1] + y[-1])
