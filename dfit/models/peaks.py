"""Peaks: areas and widths as in lmfit, whose `amplitude` is an area except where it is said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from dfit.models.base import POSITIVE, TINY, SingleModel
from dfit.models.estimates import above_half, extent
from dfit.models.faddeeva import faddeeva

ROOT_2PI = math.sqrt(2 * math.pi)
HALF_OF_GAUSSIAN = math.sqrt(2 * math.log(2))  # half width at half maximum over sigma
WIDTHS = (0.4, 1.0, 2.5)  # to try, in units of the width that the points above half of the maximum show
# Wide peaks to try beside these, as shares of the range: a slope and the flank of a wide peak look alike.
WIDE, WIDE_AT = 1 / 6, (1 / 8, 3 / 8, 5 / 8, 7 / 8)


def unit_gaussian(x: Any, center: Any, sigma: Any) -> Any:
    """Gaussian of area 1."""
    width = jnp.maximum(sigma, TINY)
    u = (x - center) / width
    return jnp.exp(-0.5 * u * u) / (ROOT_2PI * width)


def unit_lorentzian(x: Any, center: Any, sigma: Any) -> Any:
    """Lorentzian of area 1, half width at half maximum sigma."""
    width = jnp.maximum(sigma, TINY)
    u = (x - center) / width
    return 1 / ((1 + u * u) * math.pi * width)


def seeds(y: jax.Array, valid: jax.Array, x: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Centers and half widths at half maximum to try."""
    return [*at_the_top(y, valid, x), *wide(valid, x)]


def at_the_top(y: jax.Array, valid: jax.Array, x: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """The center of the highest or deepest peak, with some half widths."""
    ((center, half),) = above_half(y, valid, [x])
    return [(center, factor * half) for factor in WIDTHS]


def wide(valid: jax.Array, x: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Centers all over the range, with one large half width."""
    low, span = extent(x, valid)
    return [(low + place * span, WIDE * span) for place in WIDE_AT]


class PeakModel(SingleModel):
    """A peak of one coordinate; its start is found where y is above half of its maximum."""

    limits: ClassVar = {"sigma": POSITIVE}
    per_half_width: ClassVar[float] = 1.0  # sigma over the half width at half maximum

    def others(self, sigma: jax.Array) -> list[jax.Array]:
        """Where the parameters beyond amplitude, center and sigma begin."""
        return []

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """Centers and widths."""
        pairs = [(center, self.per_half_width * half) for center, half in seeds(y, valid, coords[0])]
        return jnp.stack([jnp.stack([center, sigma, *self.others(sigma)]) for center, sigma in pairs])


@dataclass(frozen=True)
class GaussianModel(PeakModel):
    """``f(x) = amplitude / (sigma sqrt(2 pi)) * exp(-(x - center)^2 / (2 sigma^2))``.

    Parameters of the model
    -----------------------
    amplitude : the area, unit of y times unit of x; the height is amplitude / (sigma sqrt(2 pi)).
    center, sigma : place and standard deviation, in the unit of x; sigma is at least 0.
    """

    names = ("amplitude", "center", "sigma")
    per_half_width = 1 / HALF_OF_GAUSSIAN

    def evaluate(self, x: Any, amplitude: Any, center: Any, sigma: Any) -> Any:
        """The formula."""
        return amplitude * unit_gaussian(x, center, sigma)


@dataclass(frozen=True)
class LorentzianModel(PeakModel):
    """``f(x) = amplitude / pi * sigma / ((x - center)^2 + sigma^2)``.

    Parameters of the model
    -----------------------
    amplitude : the area, unit of y times unit of x; the height is amplitude / (pi sigma).
    center, sigma : place and half width at half maximum, in the unit of x; sigma is at least 0.
    """

    names = ("amplitude", "center", "sigma")

    def evaluate(self, x: Any, amplitude: Any, center: Any, sigma: Any) -> Any:
        """The formula."""
        return amplitude * unit_lorentzian(x, center, sigma)


@dataclass(frozen=True)
class VoigtModel(PeakModel):
    """A Gaussian of standard deviation sigma convolved with a Lorentzian of half width gamma.

    ``f(x) = amplitude Re w(z) / (sigma sqrt(2 pi))`` with ``z = (x - center + i gamma) / (sigma sqrt(2))``, w the
    Faddeeva function (`dfit.models.faddeeva`).  gamma is a parameter of its own and starts from sigma; lmfit
    ties it to sigma by default, as ``tie={"gamma": lambda p: p["sigma"]}`` does here.  At sigma = 0 it is the
    Lorentzian, where lmfit's is too large by the square root of pi.

    Parameters of the model
    -----------------------
    amplitude : the area, unit of y times unit of x.
    center, sigma, gamma : in the unit of x; sigma and gamma are at least 0.
    """

    names = ("amplitude", "center", "sigma", "gamma")
    limits: ClassVar = {"sigma": POSITIVE, "gamma": POSITIVE}
    per_half_width = 2 / 3.6013  # where gamma equals sigma (lmfit, VoigtModel)

    def evaluate(self, x: Any, amplitude: Any, center: Any, sigma: Any, gamma: Any) -> Any:
        """The formula."""
        width = jnp.maximum(sigma, TINY)
        across = (x - center) / (math.sqrt(2) * width)
        real, _ = faddeeva(across, jnp.broadcast_to(gamma / (math.sqrt(2) * width), jnp.shape(across)))
        return amplitude * real / (ROOT_2PI * width)

    def others(self, sigma: jax.Array) -> list[jax.Array]:
        """gamma begins at sigma."""
        return [sigma]


@dataclass(frozen=True)
class PseudoVoigtModel(PeakModel):
    """``f(x) = amplitude ((1 - fraction) gaussian + fraction lorentzian)``, both of area 1 and one width.

    Parameters of the model
    -----------------------
    amplitude : the area, unit of y times unit of x.
    center, sigma : place and half width at half maximum of both, in the unit of x; sigma is at least 0.
    fraction : share of the Lorentzian, 0 to 1.
    """

    names = ("amplitude", "center", "sigma", "fraction")
    limits: ClassVar = {"sigma": POSITIVE, "fraction": (0.0, 1.0)}

    def evaluate(self, x: Any, amplitude: Any, center: Any, sigma: Any, fraction: Any) -> Any:
        """The formula."""
        gaussian = unit_gaussian(x, center, sigma / HALF_OF_GAUSSIAN)
        return amplitude * ((1 - fraction) * gaussian + fraction * unit_lorentzian(x, center, sigma))

    def others(self, sigma: jax.Array) -> list[jax.Array]:
        """fraction begins at one half."""
        return [jnp.full_like(sigma, 0.5)]


@dataclass(frozen=True)
class MoffatModel(PeakModel):
    """``f(x) = amplitude * (((x - center) / sigma)^2 + 1)^(-beta)``.

    Parameters of the model
    -----------------------
    amplitude : the height, in the unit of y.
    center, sigma : place and width, in the unit of x; sigma is at least 0.
    beta : without unit; 1 is the Lorentzian, large values with sigma a Gaussian.
    """

    names = ("amplitude", "center", "sigma", "beta")

    def evaluate(self, x: Any, amplitude: Any, center: Any, sigma: Any, beta: Any) -> Any:
        """The formula."""
        u = (x - center) / jnp.maximum(sigma, TINY)
        return amplitude * jnp.exp(-beta * jnp.log1p(u * u))

    def others(self, sigma: jax.Array) -> list[jax.Array]:
        """beta begins at 1, as in lmfit."""
        return [jnp.ones_like(sigma)]


@dataclass(frozen=True)
class SkewedGaussianModel(PeakModel):
    """A Gaussian times ``1 + erf(gamma (x - center) / (sigma sqrt(2)))``: the skew normal distribution.

    Parameters of the model
    -----------------------
    amplitude : the area, unit of y times unit of x.
    center, sigma : in the unit of x, those of the Gaussian; sigma is at least 0.
    gamma : without unit; below 0 the tail is to the left, above 0 to the right.
    """

    names = ("amplitude", "center", "sigma", "gamma")

    def evaluate(self, x: Any, amplitude: Any, center: Any, sigma: Any, gamma: Any) -> Any:
        """The formula."""
        bend = gamma * (x - center) / (math.sqrt(2) * jnp.maximum(sigma, TINY))
        return amplitude * unit_gaussian(x, center, sigma) * (1 + erf(bend))

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """Widths with a skew to either side: without one, gamma and center do the same."""
        tried = []
        for gamma in (-2.0, 2.0):
            delta = gamma / math.sqrt(1 + gamma * gamma)
            for middle, half in seeds(y, valid, coords[0]):
                sigma = half / HALF_OF_GAUSSIAN / math.sqrt(1 - 2 * delta * delta / math.pi)
                center = middle - sigma * delta * math.sqrt(2 / math.pi)
                tried.append(jnp.stack([center, sigma, jnp.full_like(sigma, gamma)]))
        return jnp.stack(tried)


@dataclass(frozen=True)
class LognormalModel(PeakModel):
    """``f(x) = amplitude / (x sigma sqrt(2 pi)) * exp(-(ln x - center)^2 / (2 sigma^2))``, 0 for x <= 0.

    Parameters of the model
    -----------------------
    amplitude : the area, unit of y times unit of x.
    center, sigma : mean and standard deviation of ln x, without unit; sigma is at least 0.
    """

    names = ("amplitude", "center", "sigma")

    def evaluate(self, x: Any, amplitude: Any, center: Any, sigma: Any) -> Any:
        """The formula."""
        inside = x > 0
        safe = jnp.where(inside, x, 1.0)
        return jnp.where(inside, amplitude * unit_gaussian(jnp.log(safe), center, sigma) / safe, 0.0)

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """Those of a Gaussian: y times x over ln x is one, where noise has not grown with x."""
        x = coords[0]
        inside = valid & (x > 0)
        safe = jnp.where(inside, x, 1.0)
        at = jnp.log(safe)
        tried = [*at_the_top(y * safe, inside, at), *at_the_top(y, inside, at), *wide(inside, at)]
        return jnp.stack([jnp.stack([center, half / HALF_OF_GAUSSIAN]) for center, half in tried])


@dataclass(frozen=True)
class DampedOscillatorModel(PeakModel):
    """``f(x) = amplitude / sqrt((1 - (x / center)^2)^2 + (2 sigma x / center)^2)``: a resonance curve.

    x is the frequency of what drives the oscillator.  Its motion in time is `DampedSineModel`.

    Parameters of the model
    -----------------------
    amplitude : value at x = 0, in the unit of y; the height at the resonance is amplitude / (2 sigma).
    center : the resonance, in the unit of x.
    sigma : the damping ratio, without unit, at least 0.
    """

    names = ("amplitude", "center", "sigma")

    def evaluate(self, x: Any, amplitude: Any, center: Any, sigma: Any) -> Any:
        """The formula."""
        ratio = x / jnp.maximum(jnp.abs(center), TINY)
        square = (1 - ratio * ratio) ** 2 + (2 * sigma * ratio) ** 2
        return amplitude / jnp.sqrt(jnp.maximum(square, TINY))

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """The center, with dampings that a width over the center tells: at half of the maximum sqrt(3) sigma."""
        pairs = [(jnp.maximum(jnp.abs(c), TINY), half) for c, half in seeds(y, valid, coords[0])]
        return jnp.stack([jnp.stack([center, half / center / math.sqrt(3)]) for center, half in pairs])


@dataclass(frozen=True)
class Gaussian2dModel(SingleModel):
    """A product of a Gaussian of x and one of y, ``f(x, y)``, of volume `amplitude`; its axes are those of x and y.

    Parameters of the model
    -----------------------
    amplitude : the volume; the height is amplitude / (2 pi sigmax sigmay).
    centerx, sigmax : place and standard deviation, in the unit of x; sigmax is at least 0.
    centery, sigmay : the same in the unit of y.
    """

    coords = ("x", "y")
    names = ("amplitude", "centerx", "centery", "sigmax", "sigmay")
    limits: ClassVar = {"sigmax": POSITIVE, "sigmay": POSITIVE}

    def evaluate(
        self, x: Any, y: Any, amplitude: Any, centerx: Any, centery: Any, sigmax: Any, sigmay: Any
    ) -> Any:
        """The formula."""
        return amplitude * unit_gaussian(x, centerx, sigmax) * unit_gaussian(y, centery, sigmay)

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """The center, with some widths."""
        (x0, half_x), (y0, half_y) = above_half(y, valid, coords)
        halves = jnp.stack([half_x, half_y]) / HALF_OF_GAUSSIAN
        return jnp.stack([jnp.stack([x0, y0, *(factor * halves)]) for factor in WIDTHS])
