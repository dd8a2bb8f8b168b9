"""Finite differences for a model that JAX cannot trace.

Central differences with the step eps^(1/3) max(|theta_j|, typical_j) have an error of some 1e-10 of the
derivative's scale (Nocedal & Wright 2006, sec. 8.1).  At a bound the step turns inward and two more
points keep the order: (-3 f(0) + 4 f(h) - f(2h)) / 2h.

The rounding of f, eps |f| / h, is noise in every derivative.  A combination of parameters that the data do
not see gets a singular value of its size, not of zero, and the solver would follow it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EPS = float(np.finfo(float).eps)
STEP = EPS ** (1 / 3)
# By how much a model's value may be less exact than one rounding, and its third derivative larger than it.
NOISE = 8.0


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
    for j, (value, h) in enumerate(zip(theta, step_sizes(theta, typical), strict=True)):
        h = (value + h) - value  # a step that the floating point holds exactly
        if value - h < lower[j] or value + h > upper[j]:
            inward = h if value + 2 * h <= upper[j] else -h
            near, far = predict(_moved(theta, j, inward)), predict(_moved(theta, j, 2 * inward))
            ends, distance = (4 * near, 3 * f + far), 2 * inward
        else:
            ends, distance = (predict(_moved(theta, j, h)), predict(_moved(theta, j, -h))), 2 * h
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is judged with the sums
            rows.append((ends[0] - ends[1]) / distance)
    return f, np.stack(rows)


def step_sizes(theta: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Steps (p,) of the differences."""
    return STEP * np.maximum(np.abs(theta), typical)


def without_noise(jacobian: np.ndarray, theta: np.ndarray, typical: np.ndarray, scale2: float) -> np.ndarray:
    """Projector P (p, p): J P is J without what only the noise of its differences has put there.

    Parameters
    ----------
    jacobian : (m, p)
        Derivatives by differences at theta, or what a rotation has made of them.
    theta, typical : (p,)
        As in `differences`.
    scale2 : float
        Sum of w |y|^2, for the size of f.
    """
    norms = np.linalg.norm(jacobian, axis=0)
    noise = NOISE * (EPS * np.sqrt(scale2) / step_sizes(theta, typical) + STEP**2 * norms)
    seen = norms > noise
    if not (np.isfinite(norms).all() and seen.any()):
        return np.eye(theta.size)
    scale = np.where(seen, norms, 1.0)
    _, s, vt = np.linalg.svd(np.where(seen, jacobian, 0.0) / scale, full_matrices=False)
    rows = vt[s > np.max(noise[seen] / norms[seen])]
    projector: np.ndarray = (rows.T @ rows) * scale / scale[:, None]
    return projector


def _moved(theta: np.ndarray, j: int, h: float) -> np.ndarray:
    out = theta.copy()
    out[j] += h
    return out
