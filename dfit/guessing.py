"""Initial values out of the data, for ``p0="guess"`` and for the models' own `guess`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from dfit.core.drive import QUICK
from dfit.data.domain import Domain
from dfit.data.glance import glance
from dfit.errors import DataError, InputError
from dfit.guessable import Guessable, own_bounds
from dfit.model import Model
from dfit.precision import float64_on_cpu
from dfit.typed import read_bounds, with_own_bounds

GUESS = "guess"


def start_of(model: Model, domain: Domain) -> dict[str, float]:
    """Initial values of all parameters from some points of the data, see `dfit.data.glance`.

    Raises
    ------
    InputError
        If the model has no `start`, or the data are complex.
    DataError
        If none of the points is usable.
    """
    func = require_guessable(model)
    require_real(model, domain.is_complex)
    y, valid, coords = glance(domain)
    if not valid.any():
        raise DataError(f"none of the {y.size} points looked at can be used: type p0= with numbers")
    with float64_on_cpu():
        # Run once: most of its time is spent on compiling it.
        start = jax.jit(lambda *given: func.start(*given), compiler_options=QUICK)
        theta = np.asarray(start(y.astype(float), valid, *coords))
    return dict(zip(func.param_names, theta.tolist(), strict=True))


def asked_of(p0: Any) -> frozenset[str] | None:
    """Names of the parameters whose start p0 leaves to the model, None for all of them."""
    if isinstance(p0, str) and p0 == GUESS:
        return None
    if not isinstance(p0, Mapping) or hasattr(p0, "valuesdict"):
        return frozenset()
    return frozenset(name for name, value in p0.items() if isinstance(value, str) and value == GUESS)


def guessed(model: Model, domain: Domain, bounds: Any, tied: Iterable[str] = ()) -> dict[str, float]:
    """p0 of a fit: `start_of`, moved into the user's bounds, without tied parameters."""
    names = model.param_names
    lower, upper = read_bounds(names, with_own_bounds(names, bounds, own_bounds(model.func), tied))
    found = start_of(model, domain)
    left_out = set(tied)
    return {
        name: float(np.clip(found[name], low, high))
        for name, low, high in zip(names, lower, upper, strict=True)
        if name not in left_out
    }


def require_guessable(model: Model) -> Guessable:
    """The function of a model that has a start; others are refused."""
    func: Any = model.func
    if isinstance(func, Guessable) and func.param_names == model.param_names:
        return func
    example = ", ".join(f"{name!r}: 1.0" for name in model.param_names[:2])
    why = "takes its parameters under other names" if isinstance(func, Guessable) else "has none"
    raise InputError(
        f'p0="guess" asks the model for a start, but {model.name} {why}: type p0={{{example}}}, or use a model of '
        "dfit.models"
    )


def require_real(model: Model, is_complex: bool) -> None:
    """Refuse complex data where a model is asked for its start."""
    if is_complex:
        raise InputError(
            f"the data are complex, the start of {model.name} is for real ones: "
            f"type p0={{{model.param_names[0]!r}: 1.0, ...}}"
        )
