"""Covariance of the parameters from the equations at the solution.

With J D^-1 = U S V^T for columns scaled to norm 1, (J^T J)^-1 = D^-1 V S^-2 V^T D^-1: no
matrix is inverted, so that standard deviations keep as many digits as J has.  Singular
values at rounding level span what the data cannot see; a parameter with a share in that
span has no finite standard deviation, and the others have theirs from the rest
(estimable functions: Searle 1971, "Linear Models", sec. 5.4).  A parameter pressed
against a bound is no longer estimated: the others are conditional on its value.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dfit.core.bounds import pressed
from dfit.core.equations import Equations
from dfit.core.subproblem import NULL

# A parameter is lost with a larger share than this in the span that is not seen; noise reaches NULL / S.
SHARE = 1e-7
NO_SUMS = "no standard errors: the sums that they come from are not finite"
NO_MINIMUM = "the second derivative of the robust cost is not positive here: this is no minimum"


class Covariance(NamedTuple):
    """How well the p varying parameters are determined.

    Attributes
    ----------
    matrix : (p, p)
        NaN in the rows of parameters at an active bound; infinite variances, and NaN beside
        them, where the data cannot see a parameter.
    stderr : (p,)
        Square roots of the diagonal.
    rank : int
        Of the free columns.
    undetermined, at_lower, at_upper : (p,) bool
        What the data cannot see; what is pressed against a bound.
    nfree : int
        Degrees of freedom, count - rank.
    redchi : float
        2 cost / nfree; NaN without degrees of freedom.
    condition : float
        Of the free columns scaled to norm 1; infinite where one of them is zero.
    note : str
        Why numbers are NaN, infinite or conditional; empty if they are not.
    """

    matrix: np.ndarray
    stderr: np.ndarray
    rank: int
    undetermined: np.ndarray
    at_lower: np.ndarray
    at_upper: np.ndarray
    nfree: int
    redchi: float
    condition: float
    note: str


def covariance(
    equations: Equations,
    theta: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    *,
    absolute_sigma: bool,
    bread: np.ndarray | None = None,
    meat: np.ndarray | None = None,
    half: np.ndarray | None = None,
) -> Covariance:
    """Covariance of the varying parameters at theta.

    Parameters
    ----------
    equations : Equations
        At theta.
    theta, lower, upper : (p,)
        Parameters and bounds, which may be infinite.
    absolute_sigma : bool
        Whether the weights are 1/sigma^2 in the unit of the data; otherwise the matrix is
        multiplied by redchi.  A sandwich does not depend on it.
    bread : (p, p), optional
        The matrix A in place of J^T J: the exact second derivative of a robust cost.
    meat : (p, p), optional
        The covariance B of the gradient: gives the sandwich A^-1 B A^-1 (Huber 1967).
    half : (p, any), optional
        The covariance is half half^T, whatever the noise, where the data see a parameter.

    Where `bread`, `meat` or `half` is not finite the matrix is NaN.
    """
    if not (equations.finite and np.isfinite(equations.root).all()):
        return _unknown(np.asarray(theta).size)
    at_lower, at_upper, scale, seen, unseen, s = _frame(equations, theta, lower, upper)
    free = ~(at_lower | at_upper)
    overflow = any(given is not None and not np.isfinite(given).all() for given in (bread, meat))
    if overflow:
        bread, meat, half = None, None, np.full((free.size, 1), np.nan)
    nfree = round(float(equations.count)) - seen.shape[1]
    redchi = 2 * float(equations.cost) / nfree if nfree > 0 else np.nan
    whole = meat is not None or half is not None
    negative = False
    if half is None:
        half, negative = _half_inverse(seen, s, *(_scaled(given, free, scale) for given in (bread, meat)))
    else:
        half = np.asarray(half)[free] * scale[:, None]
    zero = not absolute_sigma and equations.scale2 == 0
    factor = np.nan if zero else 1.0 if absolute_sigma or whole else redchi
    lost = np.linalg.norm(unseen, axis=1) > max(SHARE, NULL / min(s, default=1.0))
    matrix = _embed(half @ half.T * factor / np.outer(scale, scale), free, lost)
    condition = np.inf if unseen.shape[1] else max(s, default=1.0) / min(s, default=1.0)
    note = _note(free, lost, negative, np.isnan(factor), overflow, zero)
    undetermined = np.isinf(np.diagonal(matrix))
    stderr = np.sqrt(np.diagonal(matrix))
    return Covariance(
        matrix, stderr, seen.shape[1], undetermined, at_lower, at_upper, nfree, redchi, float(condition), note
    )


def orthonormal(equations: Equations, theta: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> np.ndarray:
    """A basis B (p, rank) of what the data see of the free parameters: J B has orthonormal columns."""
    at_lower, at_upper, scale, seen, _, s = _frame(equations, theta, lower, upper)
    basis = np.zeros((at_lower.size, s.size))
    basis[~(at_lower | at_upper)] = seen / s / scale[:, None]
    return basis


class _Frame(NamedTuple):
    at_lower: np.ndarray
    at_upper: np.ndarray
    scale: np.ndarray  # norms of the free columns
    seen: np.ndarray
    unseen: np.ndarray
    s: np.ndarray


def _frame(equations: Equations, theta: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> _Frame:
    """What is free, and what the data see of it."""
    root = np.asarray(equations.root, np.float64)
    point, low, high = (np.asarray(values, np.float64) for values in (theta, lower, upper))
    jacobian, residual = root[:, :-1], root[:, -1]
    at_lower, at_upper = pressed(point, jacobian.T @ residual, low, high)
    free = ~(at_lower | at_upper)
    norms = np.linalg.norm(jacobian, axis=0)[free]
    scale = np.where(norms > 0, norms, 1.0)
    return _Frame(at_lower, at_upper, scale, *_split(jacobian[:, free] / scale))


def _split(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bases (m, rank) and (m, m - rank) of what J sees and does not see, and the singular values it sees."""
    m = scaled.shape[1]
    _, s, vt = np.linalg.svd(scaled, full_matrices=False)
    kept = s > NULL * m * max(s, default=0.0)
    return vt[kept].T, vt[~kept].T, s[kept]


def _scaled(given: np.ndarray | None, free: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    return None if given is None else np.asarray(given)[np.ix_(free, free)] / np.outer(scale, scale)


def _half_inverse(
    seen: np.ndarray, s: np.ndarray, bread: np.ndarray | None, meat: np.ndarray | None
) -> tuple[np.ndarray, bool]:
    """An H with H H^T the covariance in scaled parameters, and whether the bread has no inverse.

    Within what is seen A = V^T bread V; H = V A^-1/2 on its own, V A^-1 B^1/2 for a sandwich.
    """
    if bread is None:
        values, vectors = s**2, np.eye(s.size)
    else:
        values, vectors = np.linalg.eigh(seen.T @ bread @ seen)
    if min(values, default=1.0) <= 0:
        return np.full_like(seen, np.nan), True
    if meat is None:
        return seen @ vectors / np.sqrt(values), False
    weights, directions = np.linalg.eigh(seen.T @ meat @ seen)
    inverse = (vectors / values) @ vectors.T
    return seen @ inverse @ directions * np.sqrt(np.maximum(weights, 0.0)), False


def _embed(block: np.ndarray, free: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """The matrix of all parameters: NaN where not free, infinite variance where lost."""
    block[lost, :] = np.nan
    block[:, lost] = np.nan
    block[lost, lost] = np.inf
    matrix = np.full((free.size, free.size), np.nan)
    matrix[np.ix_(free, free)] = block
    return matrix


def _note(
    free: np.ndarray, lost: np.ndarray, negative: bool, no_noise: bool, overflow: bool, zero: bool
) -> str:
    reasons = (
        (not free.all(), "no standard deviation at an active bound, and the others hold for that bound"),
        (bool(lost.any()), "an infinite standard deviation where the data do not determine a parameter"),
        (negative, NO_MINIMUM),
        (overflow, NO_SUMS),
        (zero, "the data are zero at every point, which says nothing of their noise"),
        (no_noise and not zero, "no degrees of freedom are left from which to estimate the noise"),
    )
    return "; ".join(words for holds, words in reasons if holds)


def _unknown(p: int) -> Covariance:
    nan, no = np.full(p, np.nan), np.zeros(p, bool)
    note = "the model or its derivatives are not finite"
    return Covariance(np.full((p, p), np.nan), nan, 0, no, no, no, 0, np.nan, np.nan, note)
