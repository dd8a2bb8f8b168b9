"""Accuracy and speed of the Faddeeva function, beside SciPy's.

python -m tests.benchmarks.voigt [--points 400000] [--rounds 9]

Errors are relative, of the real part by itself (it is the Voigt profile), and of the derivatives by x and y
against w' = -2 z w + 2 i / sqrt(pi) from SciPy's w where that formula cancels little (|z| < 30: to some 1e-11), and from its
asymptotic series beyond.  SciPy promises 1e-13; where the two differ by that much, `mpmath` finds SciPy's off.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import voigt_profile, wofz

from dfit.core.derivatives import value_and_derivatives
from dfit.models import VoigtModel
from dfit.models.faddeeva import faddeeva
from dfit.precision import float64_on_cpu
from tests.benchmarks.measure import interleaved, ratio, table

THETA = (2.0, 0.1, 0.7, 0.4)
BLOCK = 8192
REPEATS = 50


def grids(points: int) -> dict[str, np.ndarray]:
    """Points z of the upper half plane by name."""
    rng = np.random.default_rng(0)
    size = 10 ** rng.uniform(-8, 8, points)
    slope = 10 ** rng.uniform(-12, 12, points)
    far = size / np.hypot(1, slope) * (rng.choice([-1, 1], points) + 1j * slope)
    return {
        "|z| 1e-8 to 1e8, y/x 1e-12 to 1e12": far,
        "|x| < 12, 0 < y < 12": rng.uniform(-12, 12, points) + 1j * rng.uniform(0, 12, points),
        "|x| < 30, y 1e-20 to 10": rng.uniform(-30, 30, points) + 1j * 10 ** rng.uniform(-20, 1, points),
        "|x| < 26, y = 0": rng.uniform(-26, 26, points) + 0j,
    }


def errors(z: np.ndarray) -> tuple[float, float, float]:
    """Largest relative errors: of the real part, of w, of w'."""
    with float64_on_cpu():
        (real, imag), (slope_real, slope_imag) = jax.jvp(
            jax.jit(faddeeva), (z.real, z.imag), (np.ones(z.shape), np.zeros(z.shape))
        )
    w, slope = wofz(z), derivative(z)
    found, found_slope = (
        np.asarray(real) + 1j * np.asarray(imag),
        np.asarray(slope_real) + 1j * np.asarray(slope_imag),
    )
    return (
        float(np.max(np.abs(found.real - w.real) / w.real)),
        float(np.max(np.abs(found - w) / np.abs(w))),
        float(np.max(np.abs(found_slope - slope) / np.abs(slope))),
    )


def derivative(z: np.ndarray) -> np.ndarray:
    """w'(z) from SciPy's w, or the first six terms of its asymptotic series (DLMF 7.12.1)."""
    near = np.abs(z) < 30
    v = 1 / np.where(near, 30j, z) ** 2
    series = v * (1 + v * (1.5 + v * (3.75 + v * (13.125 + v * (59.0625 + v * 324.84375)))))
    return np.where(
        near, -2 * np.where(near, z, 0) * wofz(z) + 2j / np.sqrt(np.pi), -1j / np.sqrt(np.pi) * series
    )


def profile_error(points: int) -> float:
    """Largest error of VoigtModel against SciPy's profile, sigma / gamma from 1e-6 to 1e6."""
    rng = np.random.default_rng(1)
    gamma = 10 ** rng.uniform(-6, 6, points)
    x = rng.normal(size=points) * (1 + gamma) * 10 ** rng.uniform(-2, 2, points)
    with float64_on_cpu():
        found = VoigtModel()(x, 1.0, 0.0, 1.0, gamma)
    expected = voigt_profile(x, 1.0, gamma)
    return float(np.max(np.abs(found - expected) / expected))


def speed(rounds: int) -> list[list[str]]:
    """Nanoseconds of CPU per point, and ratios to SciPy's w."""
    rng = np.random.default_rng(2)
    x, y = 3 * rng.normal(size=BLOCK), np.abs(rng.normal(size=BLOCK))

    def repeated(function):  # many blocks in one call, as in a fit
        def step(shift, _):
            return shift + 1e-9, jnp.sum(function(x + shift))

        compiled = jax.jit(lambda: jax.lax.scan(step, 0.0, None, length=REPEATS)[1])
        return lambda: jax.block_until_ready(compiled())

    def products(at):
        value, columns = value_and_derivatives(lambda theta: VoigtModel()(at, *theta), jnp.array(THETA))
        both = jnp.concatenate([value[None], columns])
        return both @ both.T

    with float64_on_cpu():
        runs = {
            "scipy.special.wofz": lambda: [wofz(x + 1j * y) for _ in range(REPEATS)],
            "Re w": repeated(lambda at: faddeeva(at, jnp.asarray(y))[0]),
            "Voigt, 4 derivatives, products": repeated(products),
        }
        spent = interleaved(runs, rounds)
    rows = []
    for name in runs:
        middle, low, high = ratio(spent[name], spent["scipy.special.wofz"])
        each = 1e9 * float(np.median(spent[name])) / (BLOCK * REPEATS)
        rows.append([name, f"{each:.0f}", f"{middle:.2f} ({low:.2f}-{high:.2f})"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    rows = [[name, *(f"{e:.1e}" for e in errors(z))] for name, z in grids(asked.points).items()]
    table(["largest relative error", "Re w", "w", "w'"], rows)
    print(f"VoigtModel, gamma/sigma 1e-6 to 1e6: {profile_error(asked.points):.1e}")
    table(["speed", "ns/point", "/ wofz"], speed(asked.rounds))


if __name__ == "__main__":
    main()
