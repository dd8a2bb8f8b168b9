"""Covariances and statistics of many small problems, as `dfit.core.covariance` gives them for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dfit.core.bounds import pressed
from dfit.core.covariance import covariance
from dfit.core.equations import Equations

# Smallest eigenvalue of a bread of unit diagonal that leaves half the digits to its inverse.
CLEARLY_POSITIVE = 1e-7


class Spread(NamedTuple):
    """How well the p varying parameters of N pixels are determined.

    Attributes
    ----------
    matrix : (N, p, p)
    nfree : (N,) degrees of freedom.
    undetermined : (N,) bool, where the data do not determine some parameter.
    """

    matrix: np.ndarray
    nfree: np.ndarray
    undetermined: np.ndarray


def spreads(
    equations: Equations,
    theta: Any,
    lower: np.ndarray,
    upper: np.ndarray,
    well: np.ndarray,
    invert: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    absolute_sigma: bool,
    sandwich: np.ndarray | None = None,
    bread: bool = False,
) -> Spread:
    """Covariances at the ends of N solves.

    Parameters
    ----------
    equations : arrays (N, ...).
    theta, lower, upper : (N, p)
    well : (N,) bool, where the sums of squares have kept the digits.
    invert : roots (N, p + 1, p + 1), free (N, p) -> (N, p, p), see `dfit.core.cholesky.inverse`.
    absolute_sigma : as in `covariance`.
    sandwich : (N, 2, p, p) bread and meat of a robust covariance, if there is one.
    bread : whether its bread takes the place of J^T J.
    """
    root = equations.root
    downhill = np.einsum("nij,ni->nj", root[..., :-1], root[..., -1])
    at_lower, at_upper = pressed(theta, downhill, lower, upper)
    held: np.ndarray = at_lower | at_upper
    free = ~held
    # Where none is well nothing comes of it, and of many parameters it compiles for minutes.
    matrix = np.array(invert(root, free)) if well.any() else np.full((*free.shape, free.shape[1]), np.nan)
    # Of as many points as parameters every residual is zero, and says nothing of the noise.
    robust = np.full(len(theta), sandwich is not None) & (equations.count > free.shape[1])
    if sandwich is not None:
        matrix = np.where(robust[:, None, None], _sandwiches(matrix, sandwich, free, bread), matrix)
    nfree = np.rint(equations.count).astype(np.int64) - free.sum(axis=1)
    regular = well & (held | (np.diagonal(matrix, axis1=1, axis2=2) > 0)).all(axis=1)
    if not absolute_sigma:
        with np.errstate(divide="ignore", invalid="ignore"):
            redchi = np.where(nfree > 0, 2 * equations.cost / nfree, np.nan)
            # Data that are zero everywhere say nothing of their noise.
            factor = np.where(equations.scale2 > 0, np.where(robust, 1.0, redchi), np.nan)
            matrix *= factor[:, None, None]
    matrix[held[:, :, None] | held[:, None, :]] = np.nan
    known = equations.finite & np.isfinite(root).all(axis=(1, 2))
    matrix[~known], nfree[~known] = np.nan, 0
    undetermined = np.zeros(len(theta), bool)
    for k in np.flatnonzero(known & ~regular):
        at = Equations(*(values[k] for values in equations))
        found = covariance(
            at,
            theta[k],
            lower[k],
            upper[k],
            absolute_sigma=absolute_sigma,
            bread=sandwich[k, 0] if sandwich is not None and robust[k] and bread else None,
            meat=sandwich[k, 1] if sandwich is not None and robust[k] else None,
        )
        matrix[k], nfree[k], undetermined[k] = found.matrix, found.nfree, found.undetermined.any()
    return Spread(matrix, nfree, undetermined)


def _sandwiches(inverse: np.ndarray, sandwich: np.ndarray, free: np.ndarray, bread: bool) -> np.ndarray:
    """A^-1 B A^-1 (N, p, p) of the free parameters, NaN where A is not clearly positive.

    A is the bread, or what has ``inverse`` (N, p, p); a small or negative eigenvalue asks for the singular values.
    """
    both = np.where((free[:, :, None] & free[:, None, :])[:, None], sandwich, 0.0)
    both[~np.isfinite(both).all(axis=(1, 2, 3))] = 0.0
    if bread:
        inverse = _inverses(both[:, 0], free)
    matrix = inverse @ both[:, 1] @ inverse
    return 0.5 * (matrix + np.swapaxes(matrix, 1, 2))


def _inverses(matrices: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Inverses (N, p, p) of the free part of positive matrices, NaN where one is not, or loses half its digits."""
    variances = np.where(free, np.diagonal(matrices, axis1=1, axis2=2), 1.0)
    positive: np.ndarray = np.all(variances > 0, axis=1)
    scale = np.sqrt(np.where(positive[:, None], variances, 1.0))
    square = scale[:, :, None] * scale[:, None, :]
    unit, held = np.eye(free.shape[1]), ~free
    scaled = np.where(positive[:, None, None], matrices / square, unit) + unit * held[:, :, None]
    clear = positive & (np.linalg.eigvalsh(scaled)[:, 0] > CLEARLY_POSITIVE)
    inverse = np.linalg.inv(np.where(clear[:, None, None], scaled, unit)) / square
    inverse[~clear] = np.nan
    return inverse
