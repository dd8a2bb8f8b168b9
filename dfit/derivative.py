"""Derivatives of functions of parameters: JAX's where they can be traced, else central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dfit.precision import float64_on_cpu
from dfit.probe import NUMPY_ERRORS

EPS = float(np.finfo(np.float64).eps)


def derivative(func: Callable[[Any], Any], at: np.ndarray, stderr: np.ndarray | None = None) -> np.ndarray:
    """Jacobian (..., p) of a function of p numbers.

    Parameters
    ----------
    func : takes an array-like (p,), gives a number, an array or a sequence of numbers.
    at : (p,)
    stderr : (p,), optional
        Standard errors; a hundredth of them is the step of a difference, as in lmfit.
    """
    with float64_on_cpu():
        try:
            return np.asarray(jax.jacfwd(lambda x: jnp.asarray(func(x)))(jnp.asarray(at)))
        except NUMPY_ERRORS:
            # Tracing may be the reason; if not, the plain calls raise again.
            steps = difference_steps(at, stderr)
            return np.stack([_slope(func, at, index, step) for index, step in enumerate(steps)], axis=-1)


def difference_steps(at: np.ndarray, stderr: np.ndarray | None = None) -> np.ndarray:
    """Steps (p,) of central differences: small beside the standard error, large beside rounding."""
    plain = np.cbrt(EPS) * np.where(at == 0, 1.0, np.abs(at))
    if stderr is None:
        return plain
    known = np.isfinite(stderr) & (stderr > 0)
    return np.where(known, np.maximum(0.01 * stderr, np.sqrt(EPS) * np.abs(at)), plain)


def _slope(func: Callable[[Any], Any], at: np.ndarray, index: int, step: float) -> np.ndarray:
    ahead, behind = at.copy(), at.copy()
    ahead[index] += step
    behind[index] -= step
    return (np.asarray(func(ahead)) - np.asarray(func(behind))) / (ahead[index] - behind[index])
