"""Sums: what one leaf, or any run of leaves, leaves behind; combined in pairs, in a fixed order.

``combine`` is associative to rounding and has the zero that a leaf without points gives.  The matrix is
A A^T ("normal"), the triangle R ("triangle", compared as R^T R), the pair of sandwich matrices, or a
table of scores and curvatures of groups of points ("groups", see `dfit.core.jackknife`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dfit.core.equations import Equations

# Why a point is left out; the order is that of the kernel's counts.
DROPS = ("outside where", "y is NaN", "a coordinate is NaN", "sigma is NaN", "sigma is infinite")
MISSING = tuple(reason for reason in DROPS if reason.endswith("NaN"))
# What must not occur at a point that counts.
FAULTS = ("y is infinite", "a coordinate is infinite", "sigma is zero or negative")
SMALLEST = np.finfo(np.float64).tiny / np.finfo(np.float64).eps  # of numbers that have all their digits
FORMS = ("normal", "triangle", "sandwich", "groups")


class Sums(NamedTuple):
    """Sums over some points, float64.

    Attributes
    ----------
    matrix : (p + 1, p + 1), or (2, p, p) for a sandwich, or a row for every group
    cost, psi2, count : float
        As in `Equations`.
    lag : (2,)
        Products of neighbouring residuals and squares, of the first block of every leaf.
    counts : (DROPS + FAULTS,)
        Points left out by reason, then faults. Zero where the pass was no survey.
    moments : (5,)
        Weight sum, mean of y (real, imaginary), weighted squares about the mean and about zero.
    groups : (groups,) int64
        Which group each row of a table belongs to, ascending; empty otherwise.
    """

    matrix: np.ndarray
    cost: float
    psi2: float
    count: Any  # a plain float would hide tuple.count
    lag: np.ndarray
    counts: np.ndarray
    moments: np.ndarray
    groups: np.ndarray = np.empty(0, np.int64)


def faults(counts: np.ndarray, skipna: bool) -> dict[str, int]:
    """What no fit can use, of `Sums.counts`: how many points of each kind; NaN too unless it is skipped."""
    found = dict(zip(DROPS + FAULTS, counts, strict=True))
    return {name: int(found[name]) for name in (FAULTS if skipna else (*MISSING, *FAULTS)) if found[name]}


def missing(counts: np.ndarray) -> int:
    """How many points `Sums.counts` says were left out for a NaN."""
    return int(sum(n for reason, n in zip(DROPS, counts, strict=False) if reason in MISSING))


def combine(a: Sums, b: Sums, form: str) -> Sums:
    """Sums of the points of ``a`` followed by those of ``b``."""
    groups = a.groups
    matrix: np.ndarray
    if form == "triangle":
        matrix = np.asarray(np.linalg.qr(np.concatenate([a.matrix, b.matrix]), mode="r"))
    elif form == "groups":
        groups, place = np.unique(np.concatenate([a.groups, b.groups]), return_inverse=True)
        matrix = np.zeros((groups.size, a.matrix.shape[1]))
        np.add.at(matrix, place, np.concatenate([a.matrix, b.matrix]))
    else:
        matrix = a.matrix + b.matrix
    return Sums(
        matrix,
        a.cost + b.cost,
        a.psi2 + b.psi2,
        a.count + b.count,
        a.lag + b.lag,
        a.counts + b.counts,
        merge_moments(a.moments, b.moments),
        groups,
    )


def merge_moments(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Moments (..., 5) of the points of ``a`` and ``b``."""
    # Chan, Golub & LeVeque 1983
    weight = a[..., 0] + b[..., 0]
    part = b[..., 0] / np.where(weight > 0, weight, 1.0)
    gap = b[..., 1:3] - a[..., 1:3]
    mean = a[..., 1:3] + gap * part[..., None]
    about_mean = a[..., 3] + b[..., 3] + (gap**2).sum(axis=-1) * a[..., 0] * part
    return np.stack([weight, mean[..., 0], mean[..., 1], about_mean, a[..., 4] + b[..., 4]], axis=-1)


def equations(sums: Sums, form: str, scale2: float) -> Equations:
    """Equations for the solver from the sums of a whole pass.

    ``scale2`` comes from the surveying pass, since later ones do not sum it again.
    """
    finite = bool(np.isfinite(sums.matrix).all() and np.isfinite(sums.cost))
    root = sums.matrix
    if form == "normal" and finite:
        root = square_root(sums.matrix)
    return Equations(
        root,
        np.float64(sums.cost),
        np.float64(sums.psi2),
        np.float64(scale2),
        np.float64(sums.count),
        np.bool_(finite),
    )


def square_root(normal: np.ndarray) -> np.ndarray:
    """B with B^T B = normal (q, q), by the eigenvectors of the column-scaled matrix.

    Cholesky would fail where rounding leaves a rank-deficient matrix slightly indefinite.
    """
    scale = np.sqrt(np.diag(normal))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(normal / scale[:, None] / scale)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T * scale


def underflows(moments: np.ndarray) -> np.ndarray:
    """Whether the squares of which these are the moments (..., 5) are so small that float64 has lost digits of them.

    Of data of 1e-160 the cost is zero at any start, and any start would look right.
    """
    weight, real, imaginary, _, about_zero = np.moveaxis(moments, -1, 0)
    found: np.ndarray = (weight < SMALLEST) | ((about_zero < SMALLEST) & ((real != 0) | (imaginary != 0)))
    return found


def condition(root: np.ndarray) -> float:
    """Condition number of the column-scaled Jacobian part of a root (p + 1, p + 1)."""
    jacobian = root[:, :-1]
    norms = np.linalg.norm(jacobian, axis=0)
    singular = np.linalg.svd(jacobian / np.where(norms > 0, norms, 1.0), compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else float("inf")


def as_sums(fields: dict[str, np.ndarray]) -> Sums:
    """`Sums` from what a leaf kernel returned."""
    return Sums(
        fields["matrix"],
        float(fields["cost"]),
        float(fields["psi2"]),
        float(fields["count"]),
        fields["lag"],
        fields["counts"],
        fields["moments"],
    )
