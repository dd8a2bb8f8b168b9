"""Maps of known truth to fit pixel by pixel, and what an answer is judged by.

Truths are uniform about their mean by the stated part; every fit starts from the same point, which knows
nothing of the data: the mean truth with each parameter moved by 3 to 50 %.  The noise is such that each
pixel has one well-defined optimum near its truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.optimize import least_squares

X = np.linspace(0, 10, 100)
BLOCK = 10_000


def decay(exp: Callable[[Any], Any]) -> Callable[..., Any]:
    """Exponential with offset, in NumPy or JAX by their ``exp``."""

    def model(x, amplitude, tau, offset):
        return amplitude * exp(-x / tau) + offset

    return model


def decay_jacobian(x, amplitude, tau, offset):
    """Derivatives (..., n, 3) of the exponential with offset."""
    e = np.exp(-x / tau)
    return np.stack(np.broadcast_arrays(e, amplitude * e * x / tau**2, 1.0), axis=-1)


def peak(exp: Callable[[Any], Any]) -> Callable[..., Any]:
    """Gaussian of a height on a line, in NumPy or JAX by their ``exp``."""

    def model(x, height, center, sigma, slope, intercept):
        return height * exp(-(((x - center) / sigma) ** 2) / 2) + slope * x + intercept

    return model


def peak_jacobian(x, height, center, sigma, slope, intercept):
    """Derivatives (..., n, 5) of the gaussian with line."""
    z = (x - center) / sigma
    e = np.exp(-(z**2) / 2)
    inner = height * e * z / sigma
    return np.stack(np.broadcast_arrays(e, inner, inner * z, x, 1.0), axis=-1)


@dataclass(frozen=True)
class Problem:
    """One kind of pixel: the formula in NumPy and in JAX, its derivatives, truths, start, noise."""

    title: str
    plain: Callable[..., Any]
    traced: Callable[..., Any]
    jacobian: Callable[..., np.ndarray]
    mean: Mapping[str, float]
    spread: Mapping[str, float]
    p0: Mapping[str, float]
    noise: float
    even: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return list(self.mean)

    def canonical(self, params: np.ndarray) -> np.ndarray:
        """Parameters (N, p), those whose sign the formula does not see made positive."""
        return np.where([name in self.even for name in self.names], np.abs(params), params)


PROBLEMS = {
    "exponential": Problem(
        title="exponential with offset",
        plain=decay(np.exp),
        traced=decay(jnp.exp),
        jacobian=decay_jacobian,
        mean={"amplitude": 5.0, "tau": 2.0, "offset": 1.0},
        spread={"amplitude": 0.3, "tau": 0.3, "offset": 0.3},
        p0={"amplitude": 4.0, "tau": 2.5, "offset": 0.5},
        noise=0.1,
    ),
    "gaussian": Problem(
        title="gaussian with line",
        plain=peak(np.exp),
        traced=peak(jnp.exp),
        jacobian=peak_jacobian,
        mean={"height": 10.0, "center": 5.0, "sigma": 0.8, "slope": 0.3, "intercept": 2.0},
        spread={"height": 0.3, "center": 0.2, "sigma": 0.3, "slope": 0.3, "intercept": 0.3},
        p0={"height": 8.0, "center": 5.15, "sigma": 1.0, "slope": 0.2, "intercept": 1.5},
        noise=0.3,
        even=("sigma",),
    ),
}


def make(problem: Problem, pixels: int, seed: int = 5) -> tuple[xr.DataArray, np.ndarray]:
    """Noisy data (pixel, x) in memory and their true parameters (pixel, p)."""
    rng = np.random.default_rng(seed)
    mean, spread = (np.array(list(v.values())) for v in (problem.mean, problem.spread))
    truth = mean * (1 + spread * rng.uniform(-1, 1, (pixels, mean.size)))
    y = problem.plain(X, *truth.T[:, :, None]) + problem.noise * rng.standard_normal((pixels, X.size))
    return xr.DataArray(y, {"x": X}, ("pixel", "x")), truth


class Judged(NamedTuple):
    """At given parameters: chi-square (N,), standard errors (N, p), the Gauss-Newton step from there (N, p)."""

    chisqr: np.ndarray
    stderr: np.ndarray
    step: np.ndarray

    @property
    def left(self) -> np.ndarray:
        """What the step would move, in standard errors (N,)."""
        return np.abs(self.step / self.stderr).max(axis=1)


def judge(problem: Problem, y: np.ndarray, params: np.ndarray) -> Judged:
    """How good parameters (N, p) are for y (N, n), without asking who found them; NaN stays NaN."""
    found = [_judge_block(problem, y[k : k + BLOCK], params[k : k + BLOCK]) for k in range(0, len(y), BLOCK)]
    return Judged(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _judge_block(problem: Problem, y: np.ndarray, params: np.ndarray) -> Judged:
    columns = params.T[:, :, None]
    residual = y - problem.plain(X, *columns)
    chisqr = (residual**2).sum(axis=1)
    q, r = np.linalg.qr(problem.jacobian(X, *columns))
    r[(np.diagonal(r, axis1=1, axis2=2) == 0).any(axis=1)] = np.nan  # at such parameters some have no effect
    inverse = np.linalg.solve(r, np.eye(params.shape[1]))
    variance = chisqr / (X.size - params.shape[1])
    stderr = np.sqrt(variance[:, None] * (inverse**2).sum(axis=2))
    return Judged(chisqr, stderr, np.einsum("kij,knj,kn->ki", inverse, q, residual, optimize=True))


def reference(problem: Problem, y: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The optimum (N, p) of each pixel, from its truth, by SciPy's MINPACK as far as it goes and some steps more.

    MINPACK compares costs, so it ends some 1e-7 standard errors away, where costs differ by rounding;
    Gauss-Newton steps go on from there.
    """

    def one(values: np.ndarray, start: np.ndarray) -> np.ndarray:
        return least_squares(
            lambda p: problem.plain(X, *p) - values,
            start,
            jac=lambda p: problem.jacobian(X, *p),
            method="lm",
            ftol=1e-15,
            xtol=1e-15,
            gtol=1e-15,
        ).x

    found = np.array([one(*pair) for pair in zip(y, truth, strict=True)])
    for _ in range(4):
        found = found + judge(problem, y, found).step
    return problem.canonical(found)
