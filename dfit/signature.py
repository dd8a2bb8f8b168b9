"""Which argument of a callable is a coordinate, a parameter or a constant.

The first arguments are the coordinates (one each, or one tuple or stacked array for all of them),
the rest are parameters, except those that `constants` or a `functools.partial` fill in.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from dfit.errors import InputError

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Layout(NamedTuple):
    """How a callable is called: its coordinates, then `positional`, then `keyword`.

    A slot is the index of a parameter or the name of a constant.
    """

    param_names: tuple[str, ...]
    defaults: dict[str, float]
    packed: str | None
    positional: tuple[int | str, ...]
    keyword: tuple[tuple[str, int | str], ...]


class Arguments(NamedTuple):
    """The arguments of a callable, without those that a partial has filled in by keyword."""

    text: str
    positional: list[inspect.Parameter]
    keyword: list[inspect.Parameter]
    more_positional: bool
    more_keyword: bool


def name_of(func: Callable[..., Any]) -> str:
    """Name under which messages speak of a callable."""
    while isinstance(func, functools.partial):
        func = func.func
    return getattr(func, "__name__", type(func).__name__)


def arguments_of(func: Callable[..., Any]) -> Arguments:
    """Arguments of a callable; a NumPy ufunc has its inputs only, an unknown signature is ``*args``."""
    if isinstance(func, np.ufunc):
        names = ["x", "a"] if func.nin == 2 else [f"x{i}" for i in range(1, func.nin + 1)]
        found = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_ONLY) for n in names]
        return Arguments(f"{name_of(func)}({', '.join(names)}, /)", found, [], False, False)
    if isinstance(func, np.vectorize):
        func = func.pyfunc
    try:
        signature = inspect.signature(func)
    except ValueError:  # some builtins tell none
        return Arguments(f"{name_of(func)}(*args)", [], [], True, False)
    bound = func.keywords if isinstance(func, functools.partial) else {}
    free = [p for p in signature.parameters.values() if p.name not in bound]
    # behind an argument that a partial fills by keyword, inspect calls the others keyword-only: so they are
    return Arguments(
        f"{name_of(func)}{signature}",
        [p for p in free if p.kind in POSITIONAL],
        [p for p in free if p.kind is inspect.Parameter.KEYWORD_ONLY],
        any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in free),
        any(p.kind is inspect.Parameter.VAR_KEYWORD for p in free),
    )


def lay_out(
    func: Callable[..., Any],
    coords: Sequence[str],
    param_names: Sequence[str] | None,
    constants: Collection[str],
    packed: str | None,
) -> Layout:
    """Layout of `func` for these coordinates, parameters and constants.

    Raises
    ------
    InputError
        If the signature does not fit them; the message shows it and the line to type.
    """
    arguments = arguments_of(func)
    _refuse_duplicates(coords, param_names or (), constants)
    if (
        packed is None
        and param_names is not None
        and _looks_packed(arguments, coords, param_names, constants)
    ):
        packed = "tuple"
    lead = len(coords) if packed is None else 1
    _check_coordinates(arguments, coords, constants, lead, packed)
    rest = arguments._replace(positional=arguments.positional[lead:])
    _check_constants(rest, constants)
    assigned = _assign(rest, coords, param_names, constants)
    names = tuple(assigned)
    slots: dict[str, int | str] = {name: name for name in constants}
    slots.update({argument: index for index, argument in enumerate(assigned.values())})
    positional, keyword = _order_call(rest, slots)
    given = {p.name: p.default for p in (*rest.positional, *rest.keyword)}
    defaults = {
        name: _number(arguments, argument, given[argument])
        for name, argument in assigned.items()
        if given.get(argument, inspect.Parameter.empty) is not inspect.Parameter.empty
    }
    return Layout(names, defaults, packed, positional, keyword)


def _refuse_duplicates(coords: Sequence[str], params: Sequence[str], constants: Collection[str]) -> None:
    everything = [*coords, *params, *constants]
    twice = sorted({name for name in everything if everything.count(name) > 1})
    if twice:
        raise InputError(
            f"the name {twice[0]!r} occurs twice among coords={tuple(coords)}, param_names={tuple(params)} "
            f"and constants={tuple(constants)}: every name must be given once"
        )


def _looks_packed(
    arguments: Arguments, coords: Sequence[str], param_names: Sequence[str] | None, constants: Collection[str]
) -> bool:
    """Whether there are too few positional arguments for one per coordinate."""
    if len(coords) < 2 or param_names is None:
        return False
    named = [p.name for p in arguments.positional if p.name not in constants]
    if arguments.more_positional:
        return 0 < len(named) < len(coords)
    by_keyword = {p.name for p in arguments.keyword}
    return len(named) == 1 + sum(name not in by_keyword for name in param_names)


def _check_coordinates(
    arguments: Arguments, coords: Sequence[str], constants: Collection[str], lead: int, packed: str | None
) -> None:
    found = [p.name for p in arguments.positional]
    if not coords:
        raise InputError(
            f"no coordinate for the model {arguments.text}: type coords={found[0] if found else 'x'!r}"
        )
    if len(found) < lead and not arguments.more_positional:
        raise InputError(
            f"the model {arguments.text} has {len(found)} positional arguments, but there are {lead} "
            f"coordinates {tuple(coords)}: type def {arguments.text.partition('(')[0]}"
            f"({', '.join(coords)}, a, b): ..., or give the parameters as param_names=[...] "
            "if the first argument takes all coordinates as one tuple"
        )
    for position, name in enumerate(found):
        in_lead = position < lead
        if in_lead and name in constants:
            raise InputError(
                f"{name!r} is a coordinate of the model {arguments.text}, not one of its constants"
            )
        if packed is None and name in coords and (not in_lead or coords[position] != name):
            passed = repr(coords[position]) if in_lead else "a parameter"
            raise InputError(
                f"coords={tuple(coords)} would pass {passed} as the "
                f"argument {name!r} of the model {arguments.text}: the coordinates come first and in its "
                f"order, type coords={tuple(found[:lead])}"
            )


def _check_constants(rest: Arguments, constants: Collection[str]) -> None:
    known = [p.name for p in (*rest.positional, *rest.keyword)]
    unknown = [name for name in constants if name not in known]
    if unknown and not rest.more_keyword:
        raise InputError(
            f"constants has {unknown[0]!r}, which is no argument of the model {rest.text}: "
            f"type def {rest.text.partition('(')[0]}(..., *, {unknown[0]}): ..."
        )


def _assign(
    rest: Arguments, coords: Sequence[str], param_names: Sequence[str] | None, constants: Collection[str]
) -> dict[str, str]:
    """Argument of the callable for each parameter name; beyond the signature, the name itself."""
    positional = [p.name for p in rest.positional if p.name not in constants]
    keyword = [p.name for p in rest.keyword if p.name not in constants]
    everything = positional + keyword
    if param_names is None:
        if rest.more_positional:
            raise InputError(
                f"the model {rest.text} does not name its parameters: type param_names=['a', 'b'], "
                "one name for each of them"
            )
        if not everything:
            raise InputError(
                f"the model {rest.text} has no parameter left after its coordinates {tuple(coords)}: "
                f"type def {rest.text.partition('(')[0]}({', '.join(coords)}, a): ..."
            )
        return {name: name for name in everything}
    if not param_names:
        raise InputError(f"param_names is empty: type param_names={everything or ['a']!r}")
    if set(param_names) <= set(everything) or (
        rest.more_keyword and not rest.more_positional and not positional
    ):
        return {name: name for name in param_names}
    moved = [n for i, n in enumerate(param_names) if n in positional and positional.index(n) != i]
    too_many = len(param_names) > len(everything) and not rest.more_positional and not rest.more_keyword
    if moved or too_many:
        raise InputError(
            f"param_names={tuple(param_names)} does not fit the parameters {tuple(everything)} of the model "
            f"{rest.text}: type param_names={everything!r}"
        )
    by_position = [n for n in param_names if n not in keyword]
    # names beyond the signature stand for themselves: further positions of *args, or keywords of **kwargs
    pairs = dict(zip(by_position, positional, strict=False))
    return {name: pairs.get(name, name) for name in param_names}


def _order_call(
    rest: Arguments, slots: dict[str, int | str]
) -> tuple[tuple[int | str, ...], tuple[tuple[str, int | str], ...]]:
    """Slots by position and by keyword; what is left to its default pushes the others to keywords."""
    left = dict(slots)
    positional: list[int | str] = []
    keyword: list[tuple[str, int | str]] = []
    skipped = None
    for parameter in (*rest.positional, *rest.keyword):
        if parameter.name not in left:
            if parameter.default is inspect.Parameter.empty:
                raise InputError(
                    f"nothing is given for the argument {parameter.name!r} of the model {rest.text}: "
                    f"add it to param_names, or type constants={{{parameter.name!r}: value}}"
                )
            skipped = parameter.name
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY or (
            skipped is not None and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ):
            keyword.append((parameter.name, left.pop(parameter.name)))
        elif skipped is not None:
            raise InputError(f"param_names leaves out {skipped!r} of the model {rest.text}: add it")
        else:
            positional.append(left.pop(parameter.name))
    if rest.more_positional and skipped is None:
        positional += [slot for slot in left.values() if isinstance(slot, int)]
        left = {name: slot for name, slot in left.items() if isinstance(slot, str)}
    if left and not rest.more_keyword:
        raise InputError(f"the model {rest.text} has no argument for {tuple(left)}")
    return tuple(positional), (*keyword, *left.items())


def _number(arguments: Arguments, name: str, default: object) -> float:
    """Default of a parameter as its initial value."""
    array = np.asarray(default)
    if array.shape == () and array.dtype.kind in "iuf":
        return float(array)
    raise InputError(
        f"the argument {name!r} of the model {arguments.text} has the default {default!r}, which is no "
        f"number to start from: type functools.partial(model, {name}={default!r}), "
        f"or leave {name!r} out of param_names"
    )
