"""The table that a task of a map leaves behind: one row of numbers for each pixel.

One array of float64 instead of many arrays: dask cuts the variables of a map out of it, so that a task runs
once for all of them.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dfit.derivative import derivative
from dfit.parameters import Parameters
from dfit.pixel_status import SUCCESS
from dfit.precision import float64_on_cpu
from dfit.probe import NUMPY_ERRORS
from dfit.reduce.pixel_answers import Answers, Starts

STATISTICS = ("nfev", "ndata", "nfree", "chisqr", "redchi", "aic", "bic", "rsquared")


def table_columns(parameters: int) -> dict[str, slice]:
    """Where each variable stands in a row."""
    widths = {"coefficients": parameters, "stderr": parameters, "covariance": parameters**2, "status": 1}
    ends = np.cumsum([*widths.values(), *(1 for _ in STATISTICS)]).tolist()
    names = (*widths, *STATISTICS)
    return {name: slice(a, b) for name, a, b in zip(names, [0, *ends], ends, strict=False)}


def table_of(parameters: Parameters, starts: Starts, answers: Answers) -> np.ndarray:
    """Rows (N, columns) of answers; NaN for the parameters of fits that failed."""
    values, gradient = _all_parameters(parameters, starts, answers)
    failed = ~np.isin(answers.status, list(SUCCESS))
    matrix = _covariance(gradient, answers.matrix)
    values[failed], matrix[failed] = np.nan, np.nan
    count, nvarys = answers.ndata, answers.theta.shape[1]
    fitted = np.isfinite(answers.cost) & (answers.nfev > 0)
    chisqr = np.where(fitted, 2 * answers.cost, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        redchi = np.where(answers.nfree > 0, chisqr / answers.nfree, np.nan)
        # lmfit's formulas, see `dfit.statistics.information_criteria`
        deviance = count * np.log(np.maximum(chisqr / count, 1e-250))
        rsquared = np.where(answers.tss > 0, 1 - chisqr / answers.tss, np.nan)
        criteria = deviance + 2 * nvarys, deviance + np.log(np.maximum(count, 1)) * nvarys
        stderr = np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))
    statistics = (
        answers.nfev,
        count,
        np.where(fitted, answers.nfree, 0),
        chisqr,
        redchi,
        *criteria,
        rsquared,
    )
    return np.concatenate(
        [values, stderr, matrix.reshape(len(values), -1), np.stack([answers.status, *statistics], axis=1)],
        axis=1,
    )


def _all_parameters(p: Parameters, starts: Starts, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Values (N, P) of all parameters and their derivatives by the varying ones, (N, P, p) or (P, p)."""
    if not p.ties:
        values = np.empty((len(answers.theta), len(p.names)))
        values[:, list(p.varying)], values[:, list(p.fixed)] = answers.theta, starts.held
        return values, np.eye(len(p.names))[:, list(p.varying)]

    def expand(theta: jax.Array, held: jax.Array) -> jax.Array:
        return jnp.stack([jnp.asarray(value, jnp.float64) for value in p.expand(theta, held)])

    with float64_on_cpu():
        try:
            both = jax.vmap(lambda t, h: (expand(t, h), jax.jacfwd(expand)(t, h)))(answers.theta, starts.held)
            return np.array(both[0]), np.array(both[1])
        except NUMPY_ERRORS:
            pairs = list(zip(answers.theta, starts.held, strict=True))
            values = np.array([[float(v) for v in p.expand(t, h)] for t, h in pairs])
            return values, np.stack([derivative(partial(p.expand, fixed=h), t) for t, h in pairs])


def _covariance(gradient: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """G C G^T (N, P, P): NaN or infinite where it depends on what is; see `dfit.face.ending.full_covariance`."""
    unknown = ~np.isfinite(inner)
    transposed = np.swapaxes(gradient, -1, -2)
    matrix = gradient @ np.where(unknown, 0.0, inner) @ transposed
    depends = (gradient != 0).astype(float)
    matrix[depends @ unknown @ np.swapaxes(depends, -1, -2) > 0] = np.nan
    spread = np.diagonal(inner, axis1=1, axis2=2)
    # A variance that is infinite stays so, unless one that is not known has a part in it.
    infinite = (depends @ np.isinf(spread)[..., None])[..., 0] > 0
    missing = (depends @ np.isnan(spread)[..., None])[..., 0] > 0
    diagonal = np.arange(matrix.shape[1])
    variances = np.where(infinite & ~missing, np.inf, matrix[:, diagonal, diagonal])
    matrix[:, diagonal, diagonal] = variances
    return matrix
