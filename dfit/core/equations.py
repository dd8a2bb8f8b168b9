"""Equations: what one pass over some points leaves behind for the solver."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dfit.core.bounds import pressed


class Equations(NamedTuple):
    """Least-squares equations of all points at one theta, for p varying parameters.

    Attributes
    ----------
    root : (p + 1, p + 1)
        A square root B of the augmented normal matrix: B^T B = A^T A with
        A = sqrt(W) [J r], J = df/dtheta and r = y - f.  Not necessarily triangular.
    cost : ()
        Half the sum of rho; half the weighted sum of squares for the linear loss.
    psi2 : ()
        Sum of the squared influence, 2 * cost for the linear loss.
    scale2 : ()
        Sum of w |y|^2: the size of the data, from which rounding is judged.
    count : ()
        Number of real residuals.
    finite : () bool
        Whether the model and its derivatives are finite at every point of positive weight.
    """

    root: Any  # JAX arrays inside a compiled loop, NumPy's on the host
    cost: Any
    psi2: Any
    scale2: Any
    count: Any
    finite: Any


def gradient_norm(at: Equations, theta: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """Largest cosine between the residual and a column of J whose parameter no bound stops; 0 for none.

    What MINPACK's gtol is compared with. NumPy arrays; theta, lower, upper (p,).
    """
    jacobian, residual = at.root[:, :-1], at.root[:, -1]
    downhill = jacobian.T @ residual
    at_lower, at_upper = pressed(theta, downhill, lower, upper)
    lengths = np.linalg.norm(jacobian, axis=0) * np.linalg.norm(residual)
    cosines = np.abs(downhill) / np.where(lengths > 0, lengths, 1.0)
    return float(np.max(np.where(at_lower | at_upper, 0.0, cosines), initial=0.0))
