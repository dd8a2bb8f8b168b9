"""Covariance for noise that groups of points share: the jackknife over groups, known as CR3.

Legend: G groups; group g has rows J_g (n_g, p), scores s_g = J_g^T psi_g (p,), and H_g = J_g^T c J_g (p, p),
all weighted, psi the influence of a residual and c its curvature (r and 1 for the linear loss); A the sum of
the H_g.  At the minimum the s_g sum to zero, so that a Newton step of the fit without group g is

    theta_(g) - theta = -d_g,   d_g = (A - H_g)^-1 s_g,   covariance (G - 1) / G  sum_g d_g d_g^T,

exactly the fit without that group for a linear model.  It is the sandwich of corrected scores,

    d_g = A^-1 (I - H_g A^-1)^-1 s_g = A^-1 J_g^T (I - J_g A^-1 J_g^T)^-1 r_g   (linear loss),

whose residuals are freed of the group's pull on its own fit; nothing of the size of a group is formed.  The
plain sum of s_g s_g^T (Liang & Zeger 1986) takes them as they are, which is too small where few groups
determine a parameter.  Source: Bell & McCaffrey 2002; MacKinnon, Nielsen & Webb 2023 (their CV3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dfit.core.covariance import SHARE

# The rest of the groups must keep more than this part of the information on every direction.
LEFT = 1e-8


class Jackknife(NamedTuple):
    """What leaving out one group at a time does to p parameters.

    Attributes
    ----------
    half : (p, G)
        Columns sqrt((G - 1) / G) d_g, so that half half^T is the covariance.  NaN for `alone`, and
        throughout where A is not positive definite.
    alone : (p,) bool
        Parameters that the other groups do not determine when one of them is left out.
    minimum : bool
        Whether A is positive definite.
    """

    half: np.ndarray
    alone: np.ndarray
    minimum: bool


def table_columns(p: int) -> int:
    """Numbers that `group_table` holds of a group."""
    return p + p * (p + 1) // 2


def group_table(
    jacobian: np.ndarray, psi: np.ndarray, curvature: np.ndarray, place: np.ndarray, groups: int
) -> np.ndarray:
    """Sums of n points by group: s_g, then the upper triangle of H_g by rows, (groups, `table_columns`).

    Parameters
    ----------
    jacobian : (p, n)
    psi, curvature : (n,)
    place : (n,) int
        Group of each point, from 0.
    """
    # Column by column: all products at once would be p times the size of the Jacobian. A product of
    # matrices per group is faster for few groups, fifty times slower for one group a point.
    p = len(jacobian)
    table = np.empty((groups, table_columns(p)))
    for i, row in enumerate(jacobian):
        table[:, i] = np.bincount(place, row * psi, groups)
    weighted = (row * curvature for row in jacobian)
    pairs = (w * other for i, w in enumerate(weighted) for other in jacobian[i:])
    for column, product in enumerate(pairs, p):
        table[:, column] = np.bincount(place, product, groups)
    return table


def jackknife(table: np.ndarray, basis: np.ndarray) -> Jackknife:
    """The jackknife of parameters ``basis @ u`` (p,) from the table (G, columns) of the coordinates u (q,).

    ``basis`` (p, q) should make the columns of J orthonormal: the H_g then keep the digits that
    ill-conditioned columns would lose.
    """
    groups, (p, q) = len(table), basis.shape
    scores, curvatures = table[:, :q], _symmetric(table[:, q:], q)
    values, vectors = np.linalg.eigh(curvatures.sum(axis=0))
    if min(values, default=1.0) <= 0:
        return Jackknife(np.full((p, groups), np.nan), np.zeros(p, bool), False)
    # In coordinates where A is the identity, the eigenvalues of I - H_g are the parts that the others keep.
    whiten = vectors / np.sqrt(values)
    basis = basis @ whiten
    left, axes = np.linalg.eigh(np.eye(q) - whiten.T @ curvatures @ whiten)
    kept = left > LEFT
    along = np.einsum("gij,gi->gj", axes, scores @ whiten)
    # A lost direction is absent from the other groups' scores, so from s_g too: what it does not touch stays.
    along = np.where(kept, along / np.where(kept, left, 1.0), 0.0)
    changes = basis @ np.einsum("gij,gj->ig", axes, along)
    lost = axes.transpose(0, 2, 1)[~kept]  # (any number, q)
    alone = (np.abs(lost @ basis.T) > SHARE * np.linalg.norm(basis, axis=1)).any(axis=0)
    half = np.sqrt((groups - 1) / groups) * changes
    half[alone] = np.nan
    return Jackknife(half, alone, True)


def _symmetric(packed: np.ndarray, q: int) -> np.ndarray:
    """(G, q, q) from upper triangles by rows."""
    i, j = np.triu_indices(q)
    full = np.empty((len(packed), q, q))
    full[:, i, j] = full[:, j, i] = packed
    return full
