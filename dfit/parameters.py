"""Parameters: initial values, bounds, and which parameters vary, are fixed or tied to others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfit.errors import InputError, warn
from dfit.guessable import own_bounds
from dfit.model import Model
from dfit.typed import (
    by_name,
    number_of,
    read_bounds,
    read_fixed,
    read_lmfit,
    read_p0,
    with_own_bounds,
)

Tie = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, eq=False)
class Parameters:
    """All p parameters of a model, in the order of its `param_names`.

    Attributes
    ----------
    names : tuple of str
    init : (p,)
        Initial values; of a fixed parameter its value, of a tied one what its tie gives there.
    lower, upper : (p,)
        Bounds, infinite where there is none.
    vary : (p,) bool
        False for fixed and for tied parameters.
    ties : tuple of (int, callable)
        Tied parameters by index, in an order in which each needs only earlier ones.
    """

    names: tuple[str, ...]
    init: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    vary: np.ndarray
    ties: tuple[tuple[int, Tie], ...] = ()

    @classmethod
    def resolve(
        cls,
        model: Model,
        p0: Any = None,
        bounds: Any = None,
        fixed: Mapping[str, float] | Iterable[str] | None = None,
        tie: Mapping[str, Tie] | None = None,
    ) -> Parameters:
        """Parameters from what the user typed.

        Parameters
        ----------
        model : Model
        p0 : mapping, sequence of p values or lmfit.Parameters, optional
            Initial values.  What is missing takes the default in the signature of the model, else 1;
            such a value outside its bounds becomes their midpoint, lower + 1 or upper - 1, as in scipy.
        bounds : mapping of name to (lower, upper), scipy's (lower, upper) or scipy.optimize.Bounds, optional
            None stands for no bound.  A model of `dfit.models` has bounds of its own, which hold for the
            parameters that a mapping does not name.
        fixed : mapping of name to value, or names, optional
            Parameters that keep this value, or their initial one.
        tie : mapping of name to callable, optional
            ``{"b": lambda p: 1 - p["a"]}``: b follows from the other parameters, a mapping by name.

        Raises
        ------
        InputError
            For unknown names, values that are no finite numbers or outside their bounds, crossed or
            equal bounds, ties in a circle, or if nothing is left to vary.

        Warns
        -----
        DfitWarning
            Once, with the parameters that start from 1 or from a moved default.
        """
        names = model.param_names
        ties = dict(by_name(names, tie, "tie"))
        if hasattr(p0, "valuesdict"):
            p0, bounds, fixed = read_lmfit(names, p0, bounds, fixed, ties)
        typed = read_p0(names, p0, ties)
        bounds = with_own_bounds(names, bounds, own_bounds(model.func), ties)
        lower, upper = read_bounds(names, bounds)
        held = read_fixed(names, fixed, {**model.defaults, **typed})
        _check_ties(names, ties, held, lower, upper)
        values = _start(model, {**typed, **held}, ties, lower, upper)
        ordered = _order_ties(names, ties, values)
        init = np.array([values[name] for name in names])
        vary = np.array([name not in held and name not in ties for name in names])
        if not vary.any():
            raise InputError(
                f"all parameters of {model.name} are fixed or tied: leave at least one of {names} free"
            )
        return cls(names, init, lower, upper, vary, ordered)

    @property
    def varying(self) -> tuple[int, ...]:
        """Indices of the parameters that the fit determines."""
        return tuple(int(i) for i in np.flatnonzero(self.vary))

    @property
    def fixed(self) -> tuple[int, ...]:
        """Indices of the parameters that keep their value."""
        tied = {index for index, _ in self.ties}
        return tuple(i for i in range(len(self.names)) if not self.vary[i] and i not in tied)

    @property
    def typical(self) -> np.ndarray:
        """Sizes (p,) of the parameters, 1 for one that starts at 0: the unit of a step by differences."""
        return np.where(self.init != 0, np.abs(self.init), 1.0)

    def by_name(self, theta: Any) -> dict[str, float]:
        """Values of all parameters by name at theta (p,)."""
        return dict(zip(self.names, map(float, self.expand(theta)), strict=True))

    def in_words(self, theta: Any) -> str:
        """Values of all parameters at theta (p,), for a message."""
        return ", ".join(f"{name} = {value:.6g}" for name, value in self.by_name(theta).items())

    def expand(self, varying: Any, fixed: Any = None) -> list[Any]:
        """All p values from the varying ones and the fixed ones; JAX can trace it.

        Parameters
        ----------
        varying : sequence or array
            Values in the order of `varying`.
        fixed : sequence or array, optional
            Values in the order of `fixed`; their initial ones if not given.
        """
        values: list[Any] = [float(value) for value in self.init]
        for position, index in enumerate(self.varying):
            values[index] = varying[position]
        if fixed is not None:
            for position, index in enumerate(self.fixed):
                values[index] = fixed[position]
        pending = {index for index, _ in self.ties}
        for index, tie in self.ties:
            values[index] = tie({n: values[i] for i, n in enumerate(self.names) if i not in pending})
            pending.discard(index)
        return values


def _start(
    model: Model, typed: Mapping[str, float], ties: Mapping[str, Tie], lower: np.ndarray, upper: np.ndarray
) -> dict[str, float]:
    """Initial value of each parameter that is not tied; warns of those that nobody gave."""
    values, guessed = {}, []
    for name, low, high in zip(model.param_names, lower.tolist(), upper.tolist(), strict=True):
        if name in ties:
            continue
        if name in typed:
            value = typed[name]
            if not low <= value <= high:
                raise InputError(
                    f"{name} = {value} is outside its bounds [{low}, {high}]: "
                    f"type {{{name!r}: {min(max(low, value), high)}}}, or widen its bounds"
                )
        else:
            default = number_of(model.defaults.get(name, 1.0), f"the default of {name!r}")
            value = default if low <= default <= high else _inside(low, high)
            if name not in model.defaults or value != default:
                guessed.append(name)
        values[name] = value
    if guessed:
        listed = ", ".join(f"{name!r}: {values[name]}" for name in guessed)
        warn(f"no initial value for some parameters, used p0={{{listed}}}")
    return values


def _inside(low: float, high: float) -> float:
    """scipy's start for a bounded parameter (optimize/_lsq/least_squares.py)."""
    if math.isinf(high):
        return low + 1
    return high - 1 if math.isinf(low) else 0.5 * (low + high)


def _check_ties(
    names: Sequence[str],
    ties: Mapping[str, Tie],
    held: Mapping[str, float],
    lower: np.ndarray,
    upper: np.ndarray,
) -> None:
    for name, tie in ties.items():
        if not callable(tie):
            raise InputError(f"tie[{name!r}] is {tie!r}: type tie={{{name!r}: lambda p: 1 - p['other']}}")
        if name in held:
            raise InputError(f"{name!r} is both fixed and tied: remove it from fixed or from tie")
        index = names.index(name)
        if math.isfinite(lower[index]) or math.isfinite(upper[index]):
            raise InputError(
                f"{name!r} is tied and cannot be bounded: bound the parameters that it is computed from"
            )


def _order_ties(
    names: Sequence[str], ties: Mapping[str, Tie], values: dict[str, float]
) -> tuple[tuple[int, Tie], ...]:
    """Ties in an order in which each finds what it reads; puts their first values into `values`."""
    pending, ordered = dict(ties), []
    while pending:
        ready = []
        for name, tie in pending.items():
            try:
                result = tie(dict(values))
            except KeyError as error:
                missing = error.args[0] if error.args else None
                if missing in pending and missing != name:
                    continue
                others = ", ".join(n for n in names if n != name)
                raise InputError(f"tie[{name!r}] reads {missing!r}, but may read {others}") from error
            values[name] = number_of(result, f"tie[{name!r}] at the start")
            ready.append(name)
        if not ready:
            raise InputError(f"the ties of {', '.join(pending)} need each other: leave one of them free")
        ordered += [(names.index(name), pending.pop(name)) for name in ready]
    return tuple(ordered)
