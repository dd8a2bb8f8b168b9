"""The base of all models of the library: a value that is called, knows its bounds, and finds its start."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dfit.errors import InputError
from dfit.models.guess import guess_from
from dfit.models.starting import initial_values
from dfit.precision import float64_on_cpu

# Stands for a width of 0 in a denominator. lmfit's is 1e-15, which makes a line of 1 nm in metres flat.
TINY = 1e-60
POSITIVE = (0.0, math.inf)
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


class LibraryModel:
    """A callable ``f(coordinates, parameters)`` in jax.numpy; a value, equal to another of the same content.

    Attributes
    ----------
    coords, param_names : names of the arguments, in order.
    bounds : (lower, upper) by name of the parameters that have some; those of a fit unless it gives others.
    """

    coords: tuple[str, ...] = ("x",)

    def _sign(self) -> None:
        """Give the instance the signature that it is called with; the class keeps that of its constructor."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        arguments = [inspect.Parameter(name, kind) for name in (*self.coords, *self.param_names)]
        object.__setattr__(self, "__signature__", inspect.Signature(arguments))

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        raise NotImplementedError

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Bounds by name, of the parameters that have some."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """What messages call it."""
        raise NotImplementedError

    @property
    def __name__(self) -> str:
        return self.label

    def evaluate(self, *given: Any) -> Any:
        """The formula, for the coordinates (n,) and then the parameters, in order."""
        raise NotImplementedError

    @property
    def addends(self) -> tuple[SingleModel, ...]:
        """The models that this one is the sum of."""
        raise NotImplementedError

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Value at each point; float64 NumPy unless an argument is of JAX, so that it may be plotted."""
        signature: inspect.Signature = inspect.signature(self)
        given = signature.bind(*args, **kwargs).arguments.values()
        if any(isinstance(value, jax.Array) for value in given):
            return self.evaluate(*given)
        with float64_on_cpu():
            return np.asarray(self.evaluate(*(jnp.asarray(value, float) for value in given)))

    def start(self, y: Any, valid: Any, *coords: Any) -> jax.Array:
        """Initial values (p,), finite and inside the bounds, from the valid points; for `jax.jit` and `jax.vmap`.

        Parameters
        ----------
        y, coords : (n,)
            Any finite numbers where not valid.
        valid : (n,) bool

        Raises
        ------
        InputError
            For a sum with several models whose shape must be found, and for what is no sum.
        """
        addends = self.addends
        shaped = [one.label for one in addends if one.shaped]
        if len(shaped) > 1:
            raise self._no_start(
                f"a sum with {' and '.join(shaped)}: only one of them may stand beside polynomials"
            )
        coords = tuple(map(jnp.asarray, coords))
        own = [[coords[self.coords.index(name)] for name in one.coords] for one in addends]
        theta = initial_values(addends, jnp.where(valid, y, 0.0), valid, own)
        pairs = [self.bounds.get(name, (-math.inf, math.inf)) for name in self.param_names]
        lower, upper = (jnp.array(limits, float) for limits in zip(*pairs, strict=True))
        inside = jnp.array([_inside(*pair) for pair in pairs])
        return jnp.clip(jnp.where(jnp.isfinite(theta), theta, inside), lower, upper)

    def _no_start(self, why: str) -> InputError:
        example = ", ".join(f"{name!r}: 1.0" for name in self.param_names[:2])
        return InputError(f"{self.label} finds no start of its own, it is {why}. Type p0={{{example}, ...}}")

    def guess(self, data: Any, /, *coords: Any, **named: Any) -> dict[str, float]:
        """Initial values by name, from data of any kind.

        Parameters
        ----------
        data : DataArray, dask array or array
            NaN is left out; at most 65,536 points of 64 chunks are looked at.
        *coords, **named
            Coordinates in order or by name, as in `dfit.fit`: names of `data`'s, or arrays.

        Examples
        --------
        >>> import numpy as np
        >>> from dfit.models import LinearModel
        >>> {name: round(value, 9) for name, value in LinearModel().guess([1.0, 3.0, 5.0], x=[0, 1, 2]).items()}
        {'slope': 2.0, 'intercept': 1.0}
        """
        return guess_from(self, data, coords, named)

    def __add__(self, other: LibraryModel) -> CompositeModel:
        return self._with("+", other)

    def __sub__(self, other: LibraryModel) -> CompositeModel:
        return self._with("-", other)

    def __mul__(self, other: LibraryModel) -> CompositeModel:
        return self._with("*", other)

    def __truediv__(self, other: LibraryModel) -> CompositeModel:
        return self._with("/", other)

    def _with(self, sign: str, other: LibraryModel) -> CompositeModel:
        return CompositeModel(self, sign, other) if isinstance(other, LibraryModel) else NotImplemented


@dataclass(frozen=True)
class SingleModel(LibraryModel):
    """One model of the library.

    Parameters
    ----------
    prefix : str
        Stands before the name of every parameter, so that two models of one kind can be added.
    """

    names: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {}
    # Whether the shape has to be found; that of a polynomial follows from the coordinate alone.
    shaped: ClassVar[bool] = True

    prefix: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.prefix, str) or not (self.prefix == "" or self.prefix.isidentifier()):
            raise InputError(
                f'prefix is {self.prefix!r}, which cannot begin a name: type {self.label}(prefix="g1_")'
            )
        self._sign()

    @property
    def plain_names(self) -> tuple[str, ...]:
        """Names of the parameters without the prefix."""
        return self.names

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(self.prefix + name for name in self.plain_names)

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Bounds by name, of the parameters that have some."""
        return {self.prefix + name: pair for name, pair in self.limits.items()}

    @property
    def label(self) -> str:
        """What messages call it."""
        return type(self).__qualname__

    @property
    def addends(self) -> tuple[SingleModel, ...]:
        """The model itself."""
        return (self,)

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """Shapes (k, q) to try; y is the data less what other models of a sum are likely to explain."""
        raise NotImplementedError

    def columns(self, shape: jax.Array, *coords: jax.Array) -> list[jax.Array]:
        """Columns (n,) for a shape (q,); by default the first parameter is a factor, and the others the shape."""
        return [self.evaluate(*coords, jnp.ones(()), *shape)]

    def assemble(self, shape: jax.Array, factors: jax.Array) -> list[jax.Array]:
        """Parameters from a shape (q,) and the factors of the columns."""
        return [factors[0], *shape]


@dataclass(frozen=True)
class CompositeModel(LibraryModel):
    """Two models joined by an operation: ``GaussianModel() + LinearModel()``.

    The parameters are those of the left one, then those of the right one; coordinates of the same name are one.
    A sum of one model of any kind and polynomials finds its start; others need p0.

    Raises
    ------
    InputError
        If a parameter of both has the same name.
    """

    left: LibraryModel
    sign: str
    right: LibraryModel

    def __post_init__(self) -> None:
        both = [name for name in self.left.param_names if name in self.right.param_names]
        if both:
            raise InputError(
                f"{self.left.label} and {self.right.label} both have {', '.join(map(repr, both))}: type {_prefixed(self.right)}"
            )
        joined = (*self.left.coords, *(c for c in self.right.coords if c not in self.left.coords))
        clash = [name for name in joined if name in (*self.left.param_names, *self.right.param_names)]
        if clash:
            raise InputError(
                f"{clash[0]!r} is a coordinate of one model and a parameter of the other: "
                f"type {_prefixed(self.right)}"
            )
        object.__setattr__(self, "coords", joined)
        self._sign()

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the parameters of the left model, then of the right one."""
        return (*self.left.param_names, *self.right.param_names)

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Bounds of both."""
        return {**self.left.bounds, **self.right.bounds}

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"({self.left.label} {self.sign} {self.right.label})"

    def evaluate(self, *given: Any) -> Any:
        """Both, each at its own coordinates and parameters."""
        coords, theta = dict(zip(self.coords, given, strict=False)), given[len(self.coords) :]
        count = len(self.left.param_names)
        left = self.left.evaluate(*(coords[name] for name in self.left.coords), *theta[:count])
        right = self.right.evaluate(*(coords[name] for name in self.right.coords), *theta[count:])
        return OPERATIONS[self.sign](left, right)

    @property
    def addends(self) -> tuple[SingleModel, ...]:
        """The models that this one is the sum of.

        Raises
        ------
        InputError
            If it is no sum.
        """
        if self.sign != "+":
            raise self._no_start("no sum")
        return (*self.left.addends, *self.right.addends)


def _prefixed(model: LibraryModel) -> str:
    """The line that gives the first of a model's parts a prefix."""
    while isinstance(model, CompositeModel):
        model = model.left
    return f'{model.label}(prefix="b_")'


def _inside(lower: float, upper: float) -> float:
    """A plain number within bounds: where nothing can be told from the data."""
    if lower < 0 < upper:
        return 0.0
    return min(lower + 1, 0.5 * (lower + upper))
