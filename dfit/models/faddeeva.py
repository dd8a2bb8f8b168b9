"""The Faddeeva function w(z) = exp(-z^2) erfc(-iz) in the upper half plane, in float64 and differentiable.

Legend: z = x + iy with y >= 0, h the step of a trapezoidal rule, t its nodes, c = exp(-t^2).

Near the origin, w is (i z / pi) times the integral of exp(-t^2) / (z^2 - t^2) over the real line. The
trapezoidal rule gives it to exp(-(pi / h)^2) when the pole at t = z is put back (Matta & Reichel 1971;
rule and step from Al Azah & Chandler-Wilde 2021, Computation of the complex error function using modified
trapezoidal rules, eqs. 11-13)::

    w = (2 i h z / pi) sum_k c_k / (z^2 - t_k^2) + 2 exp(-z^2) / (1 + exp(-2 pi i (z - m) / h))

with nodes shifted by half a step where x is near one of them; m is then the middle between two nodes, so
that |x - m| <= h / 4 and the denominator has a real part above 1.  Parted into real numbers,

    Re i z / (z^2 - t^2) = y (x^2 + y^2 + t^2) / D,  Im = x (x^2 + y^2 - t^2) / D,  D = |z^2 - t^2|^2,

where the real part is a sum of positive terms: it keeps its relative accuracy where it is many orders below
the imaginary one, in the tails of a narrow Voigt profile.  Far out the asymptotic series takes over, again in
real numbers: complex ones are slow under XLA, and a program of plain operations is seen to be pointwise.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dfit.models.trigonometry import cos_sin

STEP = math.sqrt(math.pi / 12)
NODES = 13  # one more than the error of the rule asks for: near the last one it would be missed
FAR = 8.0  # |z| beyond which the series converges to rounding in TERMS
TERMS = 16
CLOSE = 1e-9  # y below which exp(-x^2) is seen beyond FAR
ABOVE = 6.0  # y beyond which the pole gives less than 1e-16
ROOT_PI = math.sqrt(math.pi)

_k = np.arange(NODES)
_SQUARES = np.stack([(STEP * _k) ** 2, (STEP * (_k + 0.5)) ** 2], axis=-1)
_WEIGHTS = np.exp(-_SQUARES) * np.where(np.stack([_k == 0, _k < 0], axis=-1), 0.5, 1.0) * 2 * STEP / math.pi
# (2 n + 1)!! / 2^n
_SERIES = np.cumprod(np.concatenate([[1.0], (2 * np.arange(1, TERMS) + 1) / 2]))


@jax.custom_jvp
def faddeeva(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Real and imaginary part of w(x + iy), y >= 0, float64, of the common shape of x and y."""
    return _both(x, y)[0]


@faddeeva.defjvp
def _tangents(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    value, (real, imag) = _both(*primals)
    dx, dy = tangents
    return value, (real * dx - imag * dy, imag * dx + real * dy)


def _both(x: jax.Array, y: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """w and its derivative w' = -2 z w + 2 i / sqrt(pi), each as two real numbers."""
    near = x * x + y * y < FAR * FAR
    # a point of the other branch would give infinities there, and NaN in their derivatives
    inner = _near(jnp.where(near, x, 0.0), jnp.where(near, y, 1.0))
    outer = _far(jnp.where(near, 0.0, x), jnp.where(near, FAR, y))
    chosen = [
        jnp.where(near, i, o) for i, o in zip((*inner[0], *inner[1]), (*outer[0], *outer[1]), strict=True)
    ]
    return (chosen[0], chosen[1]), (chosen[2], chosen[3])


def _near(x: jax.Array, y: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    place = x / STEP
    off = place - jnp.round(place)
    shifted = jnp.abs(off) < 0.25  # x is near a node of the rule that is not shifted
    off = jnp.where(shifted, off, off - jnp.copysign(0.5, off))
    xx, yy, xy = x * x, y * y, x * y
    size, real_square, bb = xx + yy, xx - yy, 4 * xy * xy

    def node(sums: tuple[jax.Array, jax.Array], k: tuple[jax.Array, ...]) -> tuple[Any, None]:
        tt, weight = (jnp.where(shifted, there, here) for here, there in k)
        apart = real_square - tt
        share = weight / (apart * apart + bb)
        return (sums[0] + share, sums[1] + share * tt), None

    # A loop, or XLA would repeat the sum for either part of w and for every derivative: 130 ns against 750 for
    # the four of a Voigt profile.
    nothing = jnp.zeros_like(x), jnp.zeros_like(x)
    (plain, squares), _ = jax.lax.scan(node, nothing, (jnp.asarray(_SQUARES), jnp.asarray(_WEIGHTS)))
    real, imag = size * plain + squares, size * plain - squares
    pole_real, pole_imag = _pole(x, y, off)
    real, imag = y * real + pole_real, x * imag + pole_imag
    slope = -2 * (x * real - y * imag), 2 / ROOT_PI - 2 * (x * imag + y * real)
    return (real, imag), slope


def _pole(x: jax.Array, y: jax.Array, off: jax.Array) -> tuple[jax.Array, jax.Array]:
    """2 exp(-z^2) / (1 + exp(-2 pi i (z - m) / h)), `off` = (x - m) / h."""
    angle = 2 * math.pi * off
    low = jnp.minimum(y, ABOVE)
    growth = jnp.exp(2 * math.pi / STEP * low)
    cos, sin = (growth * part for part in cos_sin(angle))
    scale = 2 * jnp.exp((low - x) * (low + x)) / (1 + 2 * cos + growth * growth)
    scale = jnp.where(y < ABOVE, scale, 0.0)
    turn_cos, turn_sin = cos_sin(2 * x * y)
    return (
        scale * ((1 + cos) * turn_cos + sin * turn_sin),
        scale * (sin * turn_cos - (1 + cos) * turn_sin),
    )


def _far(x: jax.Array, y: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """w' = -(i / sqrt(pi)) v sum_n (2n+1)!! (v/2)^n with v = 1 / z^2, and w = (i / sqrt(pi) - w' / 2) / z."""
    scale = jnp.maximum(jnp.abs(x), y)  # |z|^2 would overflow first
    a, b = x / scale, y / scale
    size = a * a + b * b
    inverse_real, inverse_imag = a / size / scale, -b / size / scale
    real = (inverse_real - inverse_imag) * (inverse_real + inverse_imag)
    imag = 2 * inverse_real * inverse_imag
    p, q = jnp.full_like(x, _SERIES[-1]), jnp.zeros_like(x)
    for term in _SERIES[-2::-1]:
        p, q = p * real - q * imag + term, p * imag + q * real
    p, q = p * real - q * imag, p * imag + q * real
    slope = q / ROOT_PI, -p / ROOT_PI
    p, q = 1 + p / 2, q / 2
    # The series knows nothing of exp(-z^2), which is all that is left of the real part on the real axis.
    core = jnp.where(y < CLOSE, jnp.exp(-x * x), 0.0)
    value = (
        core - (p * inverse_imag + q * inverse_real) / ROOT_PI,
        (p * inverse_real - q * inverse_imag) / ROOT_PI,
    )
    return value, (slope[0] - 2 * x * core, slope[1])
