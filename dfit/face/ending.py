"""How a fit that did not converge leaves a door, and the covariance that both doors hand out."""

from __future__ import annotations

import numpy as np

from dfit.errors import FitFailed, warn
from dfit.fitting import stopped_by_user
from dfit.result import FitResult


def require_success(result: FitResult) -> None:
    """Raise FitFailed for a fit that failed; warn of one that the user stopped.

    The message holds the best values, so that a failed fit need not start again from its beginning.
    """
    if result.success:
        return
    values = {name: float(value) for name, value in result.best_values.items()}
    text = result.message.replace("p0=result.best_values", f"p0={values}")
    if not stopped_by_user(result):
        raise FitFailed(f"Optimal parameters not found: {text}")
    warn(text)


def full_covariance(result: FitResult) -> np.ndarray:
    """Covariance (p, p) of all parameters, those included that are fixed (zero) or tied (delta method).

    NaN beside an infinite variance and for what depends on a parameter at its bound.
    """
    gradient, inner = result.known.gradient, result.covar
    unknown = ~np.isfinite(inner)
    matrix = gradient @ np.where(unknown, 0.0, inner) @ gradient.T
    depends = (gradient != 0).astype(float)
    matrix[depends @ unknown @ depends.T > 0] = np.nan
    np.fill_diagonal(matrix, [estimate.stderr**2 for estimate in result.params.values()])
    return matrix
