"""Finite differences for a model that JAX cannot trace.

Central differences with the step eps^(1/3) max(|theta_j|, typical_j) have an error of some 1e-10 of the
derivative's scale (Nocedal & Wright 2006, sec. 8.1).  At a bound the step turns inward and two more
points keep the order: (-3 f(0) + 4 f(h) - f(2h)) / 2h.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEP = float(np.finfo(float).eps) ** (1 / 3)


def differences(
    predict: Callable[[np.ndarray], np.ndarray],
    theta: np.ndarray,
    typical: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Model value (n,) and derivatives (p, n) of ``predict(theta)`` by differences within the bounds."""
    f = predict(theta)
    rows = []
    for j, value in enumerate(theta):
        h = STEP * max(abs(value), typical[j])
        h = (value + h) - value  # a step that the floating point holds exactly
        if value - h < lower[j] or value + h > upper[j]:
            inward = h if value + 2 * h <= upper[j] else -h
            near, far = predict(_moved(theta, j, inward)), predict(_moved(theta, j, 2 * inward))
            rows.append((4 * near - 3 * f - far) / (2 * inward))
        else:
            rows.append((predict(_moved(theta, j, h)) - predict(_moved(theta, j, -h))) / (2 * h))
    return f, np.stack(rows)


def _moved(theta: np.ndarray, j: int, h: float) -> np.ndarray:
    out = theta.copy()
    out[j] += h
    return out
