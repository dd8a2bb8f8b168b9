"""How a fit leaves a door: what SciPy's users are given, and how a fit that did not converge is told."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfit.core.state import Status
from dfit.errors import FitFailed, warn
from dfit.following import stopped_by_user
from dfit.result import FitResult

# MINPACK's numbers: 1 to 4 mean that a solution was found, 5 too many calls, 7 that nothing helps any more.
IER = {
    Status.FTOL: 1,
    Status.ROUNDING: 1,
    Status.XTOL: 2,
    Status.OFFSET: 4,
    Status.GTOL: 4,
    Status.RUNNING: 5,
    Status.STALLED: 7,
}


class CurveFit(tuple[Any, ...]):
    """``popt, pcov`` (with `full_output` also ``infodict, mesg, ier``), and `result` with everything else.

    Attributes
    ----------
    popt : (p,), pcov : (p, p)
    result : FitResult
    """

    result: FitResult

    @property
    def popt(self) -> np.ndarray:
        """Values of the parameters (p,)."""
        return np.asarray(self[0])

    @property
    def pcov(self) -> np.ndarray:
        """Their covariance (p, p)."""
        return np.asarray(self[1])


def require_success(result: FitResult) -> None:
    """Raise FitFailed for a fit that failed; warn of one that the user stopped."""
    if result.success or stopped_by_user(result):
        warn_failed(result)
    else:
        raise FitFailed(f"Optimal parameters not found: {_to_go_on(result)}")


def warn_failed(result: FitResult) -> None:
    """Warn of a fit that did not converge."""
    if not result.success:
        warn(_to_go_on(result))


def _to_go_on(result: FitResult) -> str:
    """Why a fit ended, with its best values, so that it need not start again from its beginning."""
    values = {name: float(value) for name, value in result.best_values.items()}
    return result.message.replace("p0=result.best_values", f"p0={values}")


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


def pcov_of(result: FitResult) -> np.ndarray:
    """Covariance as SciPy gives it: all infinite where the data do not determine it, with its warning."""
    pcov, found = full_covariance(result), result.covariance
    bounded = found.at_lower | found.at_upper
    known = ~bounded & np.isfinite(found.stderr)
    if not (known | bounded).all():
        pcov = np.full_like(pcov, np.inf)
    if not known.all():
        names = ", ".join(name for name, good in zip(result.var_names, known, strict=True) if not good)
        text = f"Covariance of the parameters could not be estimated: {found.note} (concerns {names})"
        from scipy.optimize import OptimizeWarning  # a third of a second, which a good fit does not need

        warn(text, OptimizeWarning)
    return pcov


def residual_of(result: FitResult, whiten: np.ndarray | None) -> Any:
    """(f - y) / sigma, lazy for chunked data; points left out are not in it if in memory."""
    sigma = result.domain.sigma if result.domain is not None else None
    residual = -result.residual() / (1.0 if sigma is None else sigma)
    fvec = residual.data if whiten is None else whiten @ residual.data
    return fvec[np.isfinite(fvec)] if isinstance(fvec, np.ndarray) else fvec


def ier_of(result: FitResult) -> int:
    """MINPACK's number of why the fit ended; -2, as in SciPy, where the user stopped it."""
    return -2 if stopped_by_user(result) else IER[result.status]
