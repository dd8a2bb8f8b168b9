"""Least squares with correlated noise: the covariance matrix C of y instead of standard deviations.

With the Cholesky factor C = L L^T the residual L^-1 (y - f) has independent components of variance
1 (generalised least squares: Aitken 1936).  Each component mixes all points, so the data stay in
memory: the fit runs over the index of the component, and its model sees all points as constants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg

from dfit.data.domain import build_domain
from dfit.data.inputs import as_data
from dfit.errors import InputError
from dfit.face.scipy_input import Points, in_memory
from dfit.fitting import fit
from dfit.model import Model
from dfit.result import FitResult

MAX_POINTS = 10_000  # L^-1 holds 0.8 GB there
INVERSE, POINTS = "_inverse_factor", "_points"


@dataclass(frozen=True)
class Whitened:
    """Components of L^-1 g at their index, with g a function of all points."""

    of_points: Callable[..., Any]

    def __call__(self, index: Any, *theta: Any, **constants: Any) -> Any:
        """Values (B,) or rows (B, p)."""
        inverse, points = constants.pop(INVERSE), constants.pop(POINTS)
        values = self.of_points(theta, list(points), constants)
        shape = (points.shape[1], *np.shape(values)[1:])
        return inverse[index.astype(int)] @ (values + np.zeros(shape))


def fit_whitened(
    model: Model, points: Points, ydata: Any, sigma: Any, options: dict[str, Any]
) -> tuple[FitResult, np.ndarray]:
    """Result of a fit with the covariance matrix sigma (M, M), and L^-1.

    Raises
    ------
    InputError
        For chunked or complex data, more than 10,000 points, another shape than (M, M), and a matrix
        that is not positive definite.
    """
    _require_small(points, ydata, sigma)
    y = as_data(ydata)
    values, matrix = y.values, np.asarray(sigma, float)
    x = np.array([np.broadcast_to(np.asarray(a, float), y.shape) for a in points.arrays])
    where = options.pop("where", None)
    keep = np.ones(y.size, bool) if where is None else np.asarray(where, bool)
    if options.pop("skipna"):
        keep = keep & ~np.isnan(values) & ~np.isnan(x).any(axis=0)
    y, x, matrix = y[keep], x[:, keep], matrix[np.ix_(keep, keep)]
    inverse = _inverse_factor(matrix)
    bare = replace(model, constants={})
    whitened = Model.from_callable(
        Whitened(bare),
        "index",
        model.param_names,
        {**model.constants, INVERSE: inverse, POINTS: x},
        None if model.jac is None else Whitened(bare.jacobian),
    )
    whitened = replace(whitened, defaults=model.defaults)
    data = y.copy(data=inverse @ y.values)
    result = fit(whitened, data, {"index": np.arange(y.size)}, sigma=1.0, skipna=False, **options)
    domain = build_domain(model, y, dict(zip(points.names, x, strict=True)), skipna=False)
    return replace(result, model=model, domain=domain), inverse


def _inverse_factor(matrix: np.ndarray) -> np.ndarray:
    """L^-1 of a covariance matrix C = L L^T."""
    try:
        factor = scipy.linalg.cholesky(matrix, lower=True)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise InputError(
            f"`sigma` must be positive definite, a covariance matrix of ydata: {error}"
        ) from error
    inverse, _ = scipy.linalg.lapack.dtrtri(factor, lower=True)
    return np.ascontiguousarray(inverse)


def _require_small(points: Points, y: Any, sigma: Any) -> None:
    if not all(in_memory(array) for array in (*points.arrays, y, sigma)):
        raise InputError(
            "a covariance matrix as sigma mixes all points, so it cannot be applied chunk by chunk: for data that fit "
            "in memory type xdata.compute(), ydata.compute(); else give standard deviations (M,), or "
            "cov={'groups': name} in dfit.fit for noise that is shared by groups of points"
        )
    if y.size > MAX_POINTS:
        raise InputError(
            f"a covariance matrix as sigma is taken up to {MAX_POINTS:,} points, not {y.size:,} (its factor alone "
            "would hold more than 0.8 GB): give standard deviations (M,), or cov={'groups': name} in dfit.fit"
        )
    if sigma.shape != (y.size, y.size):
        raise InputError(
            f"`sigma` has incorrect shape {sigma.shape}: expected ({y.size},) standard deviations or "
            f"({y.size}, {y.size}) covariances"
        )
    if y.dtype.kind == "c":
        raise InputError("a covariance matrix as sigma takes real data: fit ydata.real and ydata.imag")
