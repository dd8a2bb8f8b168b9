"""Constant, line, parabola and higher polynomials: their start is the answer, up to rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dfit.errors import InputError
from dfit.models.base import SingleModel
from dfit.models.estimates import extent

MAX_DEGREE = 7


class Polynomial(SingleModel):
    """A polynomial in x; its shape is the middle and half the range of x, in which the columns are powers.

    Powers of x itself, such as a date in seconds, would be all alike.
    """

    shaped = False

    @property
    def powers(self) -> tuple[int, ...]:
        """The power of x that belongs to each parameter, in order."""
        raise NotImplementedError

    def evaluate(self, x: Any, *theta: Any) -> Any:
        """The polynomial, by Horner's rule."""
        factors = dict(zip(self.powers, theta, strict=True))
        value = jnp.zeros_like(x) + factors[max(factors)]
        for power in range(max(factors) - 1, -1, -1):
            value = value * x + factors[power]
        return value

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """Middle and half range of x."""
        low, span = extent(coords[0], valid)
        return jnp.stack([low + 0.5 * span, 0.5 * span])[None]

    def columns(self, shape: jax.Array, *coords: jax.Array) -> list[jax.Array]:
        """Powers of x - middle in units of half the range, from the lowest."""
        u = (coords[0] - shape[0]) / shape[1]
        return [u**power for power in range(len(self.powers))]

    def assemble(self, shape: jax.Array, factors: jax.Array) -> list[jax.Array]:
        """Factors of powers of x itself, by the binomial theorem."""
        middle, half = shape
        plain = [
            sum(
                factors[j] * math.comb(j, i) * (-middle) ** (j - i) / half**j
                for j in range(i, len(self.powers))
            )
            for i in range(len(self.powers))
        ]
        return [jnp.asarray(plain[power]) for power in self.powers]


@dataclass(frozen=True)
class ConstantModel(Polynomial):
    """``f(x) = c`` at every x: an offset, to be added to another model.

    Parameters of the model
    -----------------------
    c : in the unit of y.
    """

    names = ("c",)
    powers = (0,)


@dataclass(frozen=True)
class LinearModel(Polynomial):
    """``f(x) = slope * x + intercept``.

    Parameters of the model
    -----------------------
    slope : unit of y per unit of x.
    intercept : value at x = 0, in the unit of y.
    """

    names = ("slope", "intercept")
    powers = (1, 0)


@dataclass(frozen=True)
class QuadraticModel(Polynomial):
    """``f(x) = a x^2 + b x + c``.

    Parameters of the model
    -----------------------
    a, b, c : unit of y per unit of x squared, per unit of x, and of y.
    """

    names = ("a", "b", "c")
    powers = (2, 1, 0)


@dataclass(frozen=True)
class PolynomialModel(Polynomial):
    """``f(x) = c0 + c1 x + ... + c7 x^7``, up to `degree`.

    Parameters
    ----------
    degree : int
        0 to 7, as in lmfit.

    Parameters of the model
    -----------------------
    c0, c1, ... : unit of y per unit of x to that power.
    """

    degree: int = MAX_DEGREE

    def __post_init__(self) -> None:
        if isinstance(self.degree, bool) or self.degree not in range(MAX_DEGREE + 1):
            raise InputError(
                f"degree is {self.degree!r}; expected a whole number from 0 to {MAX_DEGREE}. "
                "Type: PolynomialModel(3)"
            )
        super().__post_init__()

    @property
    def plain_names(self) -> tuple[str, ...]:
        """c0, c1, ... up to the degree."""
        return tuple(f"c{power}" for power in self.powers)

    @property
    def powers(self) -> tuple[int, ...]:
        """0 to the degree."""
        return tuple(range(self.degree + 1))
