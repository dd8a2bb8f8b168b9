"""Waves: sine, damped or not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from dfit.models.base import POSITIVE, SingleModel
from dfit.models.estimates import extent
from dfit.models.trigonometry import cos_sin

# In steps of half a period over the range of x, beyond which a fit would not find its way.
MOST_FREQUENCIES = 128
RATES = (1.0, 6.0)  # of decay to try, over the range of x


@dataclass(frozen=True)
class SineModel(SingleModel):
    """``f(x) = amplitude * sin(frequency * x + shift)``.

    It has no offset, as in lmfit: ``SineModel() + ConstantModel()`` swings about a level c.  The start looks for
    up to 64 periods within the range of x, no more than half of the points.

    Parameters of the model
    -----------------------
    amplitude : in the unit of y, at least 0.
    frequency : angular, in radians per unit of x, at least 0.
    shift : the phase at x = 0, in radians, within two pi (and 1e-5, as in lmfit) of 0.
    """

    names = ("amplitude", "frequency", "shift")
    limits: ClassVar = {
        "amplitude": POSITIVE,
        "frequency": POSITIVE,
        "shift": (-2 * math.pi - 1e-5, 2 * math.pi + 1e-5),
    }

    def evaluate(self, x: Any, amplitude: Any, frequency: Any, shift: Any) -> Any:
        """The formula."""
        return amplitude * jnp.sin(x * frequency + shift)

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """Frequencies in steps of half a period over the range of x, each with the lowest x."""
        low, span = extent(coords[0], valid)
        frequencies = _periods(coords[0].size) / span
        return jnp.stack([frequencies, jnp.full_like(frequencies, low)], axis=-1)

    def columns(self, shape: jax.Array, *coords: jax.Array) -> list[jax.Array]:
        """Sine and cosine."""
        cos, sin = cos_sin(shape[0] * (coords[0] - shape[1]))
        return [sin, cos]

    def assemble(self, shape: jax.Array, factors: jax.Array) -> list[jax.Array]:
        """Amplitude, frequency, and the phase at x = 0."""
        return _polar(shape[0], shape[1], factors)


@dataclass(frozen=True)
class DampedSineModel(SingleModel):
    """``f(x) = amplitude * sin(frequency * x + shift) * exp(-x * decay)``: a damped oscillator in time.

    lmfit has the formula (`lmfit.lineshapes.expsine`) and no model of it.  Its `decay` is a rate, not the time
    constant of `ExponentialModel`.  The oscillator's resonance curve is `DampedOscillatorModel`.

    Parameters of the model
    -----------------------
    amplitude, frequency, shift : as of `SineModel`, at x = 0.
    decay : the rate of the amplitude's decay, per unit of x, at least 0.
    """

    names = ("amplitude", "frequency", "shift", "decay")
    limits: ClassVar = {**SineModel.limits, "decay": POSITIVE}

    def evaluate(self, x: Any, amplitude: Any, frequency: Any, shift: Any, decay: Any) -> Any:
        """The formula."""
        return amplitude * jnp.sin(x * frequency + shift) * jnp.exp(-x * decay)

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """Frequencies as of `SineModel` and the lowest x, each with some rates."""
        low, span = extent(coords[0], valid)
        frequencies = jnp.tile(_periods(coords[0].size) / span, len(RATES))
        rates = jnp.repeat(jnp.array(RATES) / span, frequencies.size // len(RATES))
        return jnp.stack([frequencies, jnp.full_like(rates, low), rates], axis=-1)

    def columns(self, shape: jax.Array, *coords: jax.Array) -> list[jax.Array]:
        """Sine and cosine, damped."""
        apart = coords[0] - shape[1]
        damping = jnp.exp(-apart * shape[2])
        cos, sin = cos_sin(shape[0] * apart)
        return [sin * damping, cos * damping]

    def assemble(self, shape: jax.Array, factors: jax.Array) -> list[jax.Array]:
        """Amplitude and phase at x = 0, frequency and rate."""
        return [*_polar(shape[0], shape[1], factors * jnp.exp(shape[1] * shape[2])), shape[2]]


def _periods(points: int) -> jax.Array:
    """Frequencies times the range of x, up to what so many points can tell."""
    return jnp.arange(1, min(points, MOST_FREQUENCIES) + 1) * math.pi


def _polar(frequency: jax.Array, begin: jax.Array, factors: jax.Array) -> list[jax.Array]:
    """Amplitude, frequency, and the phase at x = 0, of a sine and a cosine of frequency * (x - begin)."""
    phase = jnp.arctan2(factors[1], factors[0]) - frequency * begin
    turns = jnp.round(phase / (2 * math.pi))
    return [jnp.hypot(factors[0], factors[1]), frequency, phase - 2 * math.pi * turns]
