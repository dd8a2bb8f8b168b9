"""`guess` of a model, from what users have in hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dfit.data.domain import build_domain, coordinate_names
from dfit.errors import InputError
from dfit.guessable import Guessable
from dfit.guessing import start_of
from dfit.model import Model


def guess_from(
    func: Guessable, data: Any, coords: Sequence[Any], named: Mapping[str, Any]
) -> dict[str, float]:
    """Initial values by name, as `dfit.models.base.LibraryModel.guess` documents it."""
    wanted = func.coords[len(coords) :]
    if set(wanted) != set(named) or len(coords) > len(func.coords):
        line = ", ".join(f"{name}=..." for name in func.coords)
        raise InputError(
            f"got {len(coords)} coordinates and {', '.join(map(repr, named)) or 'none'} by name, but the model has "
            f"{', '.join(map(repr, func.coords))}: type guess(data, {line})"
        )
    given = [*coords, *(named[name] for name in wanted)]
    model = Model.from_callable(func, coordinate_names(func, given))
    return start_of(model, build_domain(model, data, given))
