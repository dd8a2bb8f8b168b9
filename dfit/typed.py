"""What the user typed about parameters: p0, bounds and fixed in all their forms, by name and checked."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dfit.errors import InputError
from dfit.signature import name_of


def require_known(names: Sequence[str], given: Iterable[Any], what: str) -> None:
    """Refuse a name that is no parameter, listing the known ones."""
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise InputError(f"{what} has {name!r}, but the parameters are {', '.join(names)}{hint}")


def by_name(names: Sequence[str], given: Mapping[str, Any] | None, what: str) -> Mapping[str, Any]:
    """A dict of the user's, empty if there is none, with known names only."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(
            f"{what} is {type(given).__name__}, expected a dict: type {what}={{{names[0]!r}: ...}}"
        )
    require_known(names, given, what)
    return given


def number_of(value: Any, what: str) -> float:
    """A finite real number; booleans, text and complex values are refused."""
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise InputError(f"{what} is {value!r}, expected a number")
    if not isinstance(value, numbers.Real):
        array = np.asarray(value)
        if array.shape != () or array.dtype.kind not in "iuf":
            raise InputError(f"{what} is {value!r}, expected one real number")
        value = array[()]
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"{what} is {number}, expected a finite number")
    return number


def read_p0(names: Sequence[str], p0: Any, ties: Mapping[str, Any]) -> dict[str, float]:
    """Initial values that the user typed, by name."""
    if p0 is None:
        return {}
    if isinstance(p0, Mapping):
        require_known(names, p0, "p0")
        tied = [name for name in p0 if name in ties]
        if tied:
            raise InputError(f"p0 has {tied[0]!r}, which tie computes: remove it from p0 or from tie")
        return {name: number_of(value, f"p0[{name!r}]") for name, value in p0.items()}
    if isinstance(p0, (str, bytes)):
        raise InputError(f"p0 is {p0!r}, expected numbers: type p0={{{names[0]!r}: 1.0}}")
    if callable(p0):
        raise InputError(
            f"p0 is the function {name_of(p0)}, which a map calls for each of its pixels; one fit takes numbers: "
            f"type p0={name_of(p0)}(y, x) with a part of the data"
        )
    values = list(p0) if np.ndim(p0) else [p0]
    if len(values) != len(names):
        raise InputError(
            f"p0 has {len(values)} values for the {len(names)} parameters {', '.join(names)}: give one for "
            f"each in this order, or some by name as p0={{{names[0]!r}: 1.0}}"
        )
    pairs = zip(names, values, strict=True)
    return {name: number_of(value, f"p0[{name!r}]") for name, value in pairs if name not in ties}


def read_lmfit(
    names: Sequence[str], p0: Any, bounds: Any, fixed: Any, ties: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, float]]:
    """p0, bounds and fixed out of lmfit.Parameters, which has all three."""
    if bounds is not None or fixed is not None:
        raise InputError(
            "p0 is an lmfit.Parameters, which holds bounds and vary: do not pass bounds or fixed"
        )
    require_known(names, p0, "p0")
    for name, parameter in p0.items():
        if parameter.expr:
            raise InputError(
                f"p0[{name!r}] has the expression {parameter.expr!r}: set its expr to None and "
                f"type tie={{{name!r}: lambda p: ...}}"
            )
    own = {name: parameter for name, parameter in p0.items() if name not in ties}
    values = {name: parameter.value for name, parameter in own.items()}
    limits = {name: (parameter.min, parameter.max) for name, parameter in own.items() if parameter.vary}
    held = {name: parameter.value for name, parameter in own.items() if not parameter.vary}
    return values, limits, held


def read_bounds(names: Sequence[str], bounds: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (p,) from one of the three ways of giving them."""
    lower, upper = np.full(len(names), -np.inf), np.full(len(names), np.inf)
    if bounds is None:
        return lower, upper
    if isinstance(bounds, Mapping):
        require_known(names, bounds, "bounds")
        for name, pair in bounds.items():
            if np.ndim(pair) == 0 or len(pair) != 2:
                raise InputError(
                    f"bounds[{name!r}] is {pair!r}, expected (lower, upper): type bounds={{{name!r}: (0, None)}}"
                )
            index = names.index(name)
            lower[index] = _limit(pair[0], -np.inf, name)
            upper[index] = _limit(pair[1], np.inf, name)
    else:
        pair = (bounds.lb, bounds.ub) if hasattr(bounds, "lb") else tuple(bounds)
        if len(pair) != 2:
            raise InputError(
                f"bounds has {len(pair)} entries, expected (lower, upper) with one value for each of "
                f"{', '.join(names)}, or by name: type bounds={{{names[0]!r}: (0, None)}}"
            )
        lower[:] = _limits(names, pair[0], -np.inf)
        upper[:] = _limits(names, pair[1], np.inf)
    _check_bounds(names, lower, upper)
    return lower, upper


def with_own_bounds(
    names: Sequence[str], bounds: Any, own: Mapping[str, tuple[float, float]], tied: Iterable[str]
) -> Any:
    """The user's bounds, and by name a model's own where the user gave none; a tied parameter has none."""
    if not own or not (bounds is None or isinstance(bounds, Mapping)):
        return bounds
    free = set(names) - set(tied)
    return {**{name: pair for name, pair in own.items() if name in free}, **(bounds or {})}


def _limits(names: Sequence[str], given: Any, missing: float) -> list[float]:
    values = list(given) if np.ndim(given) else [given] * len(names)
    if len(values) == 1:  # scipy broadcasts
        values *= len(names)
    if len(values) != len(names):
        raise InputError(
            f"bounds has {len(values)} values for the {len(names)} parameters {', '.join(names)}: "
            f"type bounds={{{names[0]!r}: (0, None)}}"
        )
    return [_limit(value, missing, name) for name, value in zip(names, values, strict=True)]


def _limit(value: Any, missing: float, name: str) -> float:
    if value is None:
        return missing
    if isinstance(value, numbers.Real) and math.isinf(value):
        return float(value)
    return number_of(value, f"a bound of {name!r}")


def _check_bounds(names: Sequence[str], lower: np.ndarray, upper: np.ndarray) -> None:
    for name, low, high in zip(names, lower.tolist(), upper.tolist(), strict=True):
        if low == high and math.isfinite(low):
            raise InputError(f"both bounds of {name!r} are {low}: type fixed={{{name!r}: {low}}}")
        if low == high:
            raise InputError(
                f"both bounds of {name!r} are {low}: type bounds={{{name!r}: (None, None)}} for none"
            )
        if low > high:
            raise InputError(
                f"the bounds of {name!r} are crossed, lower {low} and upper {high}: "
                f"type bounds={{{name!r}: ({high}, {low})}}"
            )


def read_fixed(names: Sequence[str], fixed: Any, known: Mapping[str, float]) -> dict[str, float]:
    """Value of each fixed parameter: the one given with it, else the initial one."""
    if fixed is None:
        return {}
    if isinstance(fixed, Mapping):
        require_known(names, fixed, "fixed")
        return {name: number_of(value, f"fixed[{name!r}]") for name, value in fixed.items()}
    listed = [fixed] if isinstance(fixed, str) else list(fixed)
    require_known(names, listed, "fixed")
    for name in listed:
        if name not in known:
            raise InputError(f"{name!r} is fixed, but at no value: type fixed={{{name!r}: 1.0}}")
    return {name: number_of(known[name], f"the value of {name!r}") for name in listed}
