"""Guessable: what a model must offer so that a fit can find its initial values in the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Guessable(Protocol):
    """A callable ``f(coordinates, parameters)`` that knows its bounds and a start, as those of `dfit.models`.

    Attributes
    ----------
    coords, param_names : names of the arguments, in order.
    bounds : (lower, upper) by name of the parameters that have some.
    """

    @property
    def coords(self) -> tuple[str, ...]: ...

    @property
    def param_names(self) -> tuple[str, ...]: ...

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def start(self, y: Any, valid: Any, *coords: Any) -> Any:
        """Initial values (p,) from the points of y (n,) where valid (n,), for coordinates (n,); JAX traces it."""
        ...


def own_bounds(func: Any) -> Mapping[str, tuple[float, float]]:
    """Bounds that a model brings along by name, none for a plain function."""
    return func.bounds if isinstance(func, Guessable) else {}
