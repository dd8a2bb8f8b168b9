"""Covariances and statistics of many small problems, as `dfit.core.covariance` gives them for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dfit.core.bounds import pressed
from dfit.core.covariance import covariance
from dfit.core.equations import Equations


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
    free = ~(at_lower | at_upper)
    matrix = np.array(invert(root, free))
    nfree = np.rint(equations.count).astype(np.int64) - free.sum(axis=1)
    one_by_one = ~well | (matrix[:, range(free.shape[1]), range(free.shape[1])] <= 0).any(1) & free.any(1)
    if sandwich is None and not absolute_sigma:
        with np.errstate(divide="ignore", invalid="ignore"):
            matrix *= np.where(nfree > 0, 2 * equations.cost / nfree, np.nan)[:, None, None]
    if sandwich is not None:
        one_by_one[:] = True
    held = ~free
    matrix[held[:, :, None] | held[:, None, :]] = np.nan
    undetermined = np.zeros(len(theta), bool)
    for k in np.flatnonzero(one_by_one):
        at = Equations(*(values[k] for values in equations))
        found = covariance(
            at,
            theta[k],
            lower[k],
            upper[k],
            absolute_sigma=absolute_sigma,
            bread=None if sandwich is None or not bread else sandwich[k, 0],
            meat=None if sandwich is None else sandwich[k, 1],
        )
        matrix[k], nfree[k], undetermined[k] = found.matrix, found.nfree, found.undetermined.any()
    return Spread(matrix, nfree, undetermined)
