"""Decays and powers: exponential, stretched exponential, power law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from dfit.models.base import POSITIVE, TINY, SingleModel
from dfit.models.estimates import extent

# Time constants to try, as shares of the range of x; a fit finds its way over a factor of two. Negative: growth.
SHARES = (0.04, 0.13, 0.4, 1.3, -0.13, -0.5, -2.0)
STRETCHES = (0.5, 1.0, 2.0)
EXPONENTS = (-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0)


def away_from_zero(value: Any) -> Any:
    """The value, its size at least `TINY`: lmfit's guard of a denominator."""
    return jnp.where(jnp.abs(value) < TINY, jnp.where(value < 0, -TINY, TINY), value)


@dataclass(frozen=True)
class ExponentialModel(SingleModel):
    """``f(x) = amplitude * exp(-x / decay)``.

    It has no offset, as in lmfit: ``ExponentialModel() + ConstantModel()`` decays to a level c.

    Parameters of the model
    -----------------------
    amplitude : value at x = 0, in the unit of y.
    decay : the time constant, in the unit of x; negative for growth.
    """

    names = ("amplitude", "decay")

    def evaluate(self, x: Any, amplitude: Any, decay: Any) -> Any:
        """The formula."""
        return amplitude * jnp.exp(-x / away_from_zero(decay))

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """Time constants, each with the x at which its exponential is 1: where it is largest."""
        low, span = extent(coords[0], valid)
        shares = jnp.array(SHARES)
        return jnp.stack([shares * span, jnp.where(shares > 0, low, low + span)], axis=-1)

    def columns(self, shape: jax.Array, *coords: jax.Array) -> list[jax.Array]:
        """The exponential, 1 where it is largest."""
        return [jnp.exp(-(coords[0] - shape[1]) / shape[0])]

    def assemble(self, shape: jax.Array, factors: jax.Array) -> list[jax.Array]:
        """Amplitude at x = 0, and decay."""
        return [factors[0] * jnp.exp(shape[1] / shape[0]), shape[0]]


@dataclass(frozen=True)
class StretchedExponentialModel(SingleModel):
    """``f(x) = amplitude * exp(-(x / decay)^beta)``, and the amplitude for x <= 0 (Kohlrausch 1854).

    lmfit has no such model; the names follow its ExponentialModel.

    Parameters of the model
    -----------------------
    amplitude : value at x = 0, in the unit of y.
    decay : in the unit of x, at least 0.
    beta : without unit, at least 0; 1 is the exponential, below 1 a broad distribution of time constants.
    """

    names = ("amplitude", "decay", "beta")
    limits: ClassVar = {"decay": POSITIVE, "beta": POSITIVE}

    def evaluate(self, x: Any, amplitude: Any, decay: Any, beta: Any) -> Any:
        """The formula; x <= 0 is kept out of the power, whose derivatives are infinite there."""
        inside = x > 0
        power = (jnp.where(inside, x, 1.0) / jnp.maximum(decay, TINY)) ** beta
        return amplitude * jnp.where(inside, jnp.exp(-power), 1.0)

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """Time constants that are shares of the largest x, each with some exponents."""
        low, span = extent(coords[0], valid)
        largest = jnp.where(low + span > 0, low + span, 1.0)
        pairs = [(share, beta) for share in SHARES if share > 0 for beta in STRETCHES]
        return jnp.array(pairs) * jnp.stack([largest, jnp.ones(())])


@dataclass(frozen=True)
class PowerLawModel(SingleModel):
    """``f(x) = amplitude * x^exponent``, for x > 0; NaN for x < 0 unless the exponent is whole.

    Parameters of the model
    -----------------------
    amplitude : value at x = 1, in the unit of y.
    exponent : without unit.
    """

    names = ("amplitude", "exponent")

    def evaluate(self, x: Any, amplitude: Any, exponent: Any) -> Any:
        """The formula."""
        return amplitude * x**exponent

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """Exponents, each with the geometric mean of x, where the power is 1."""
        x = coords[0]
        positive = valid & (x > 0)
        logs = jnp.where(positive, jnp.log(jnp.where(positive, x, 1.0)), 0.0)
        unit = jnp.exp(jnp.sum(logs) / jnp.maximum(jnp.sum(positive), 1))
        exponents = jnp.array(EXPONENTS)
        return jnp.stack([exponents, jnp.full_like(exponents, unit)], axis=-1)

    def columns(self, shape: jax.Array, *coords: jax.Array) -> list[jax.Array]:
        """The power, 1 at the geometric mean of x."""
        ratio = coords[0] / shape[1]
        return [jnp.where(ratio > 0, jnp.where(ratio > 0, ratio, 1.0) ** shape[0], 0.0)]

    def assemble(self, shape: jax.Array, factors: jax.Array) -> list[jax.Array]:
        """Amplitude at x = 1, and exponent."""
        return [factors[0] * shape[1] ** -shape[0], shape[0]]
