"""The kernel: one leaf of points -> its sums, block by block inside one compiled function.

Legend: y (n,) data, x coordinates, theta (p,) varying parameters, f = model(x, theta), J = df/dtheta
(p, n), r = y - f, sigma standard deviations.  With A = [J; r] / sigma the leaf leaves behind A A^T
("normal"), its triangle R from the QR factorisation of A^T ("triangle"), or, at the accepted point,
the two matrices of a sandwich covariance ("sandwich").

A block is small enough that A stays in the second-level cache: no n x p array exists.  The number of
blocks follows from n at run time, so one compiled function serves every leaf up to its size and
padding costs no arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dfit.core.derivatives import value_and_derivatives
from dfit.core.loss import LOSSES, gauss_newton_weight
from dfit.core.moments import moments_of
from dfit.core.sums import DROPS, FAULTS

# theta (p,), coordinates of a block, given (f, J) or (), context -> f (B,), J (p, B)
Evaluate = Callable[[jax.Array, Sequence[jax.Array], tuple[jax.Array, ...], Any], tuple[jax.Array, jax.Array]]

L2_BYTES = 1 << 20


class Layout(NamedTuple):
    """What is fixed when a kernel is compiled."""

    form: str
    loss: str
    block: int
    is_complex: bool


class Leaf(NamedTuple):
    """Operands of one leaf, each padded to the leaf size S; ``n`` points of it count.

    ``given`` is () or the (f (S,), J (p, S)) of a model that JAX cannot trace.
    """

    y: Any
    coords: tuple[Any, ...]
    sigma: Any  # (S,) or None
    where: Any  # (S,) bool or None
    given: tuple[Any, ...]
    n: Any


def block_points(p: int) -> int:
    """Points per block: the power of two nearest to (L2 / 8) / (p x 8 bytes), 256 to 32,768.

    A fixed rule, because another block size gives other bits.
    """
    wanted = L2_BYTES / 8 / (max(p, 1) * 8)
    return 1 << max(8, min(15, round(math.log2(wanted))))


def forward(predict: Callable[..., jax.Array]) -> Evaluate:
    """Value and forward derivative of ``predict(theta, coords, context)``; theta is indexed only."""

    def evaluate(
        theta: jax.Array, coords: Sequence[jax.Array], given: tuple[jax.Array, ...], context: Any
    ) -> tuple[jax.Array, jax.Array]:
        return value_and_derivatives(lambda values: predict(values, coords, context), theta)

    return evaluate


def as_given(
    theta: jax.Array, coords: Sequence[jax.Array], given: tuple[jax.Array, ...], context: Any
) -> tuple[jax.Array, jax.Array]:
    """Model value and derivatives that were computed outside."""
    f, jacobian = given
    return f, jacobian


def wide(values: jax.Array) -> jax.Array:
    kind = jnp.complex128 if jnp.issubdtype(values.dtype, jnp.complexfloating) else jnp.float64
    return values.astype(kind)


def _real(values: jax.Array) -> jax.Array:
    """Real and imaginary parts side by side along the last axis."""
    return jnp.concatenate([values.real, values.imag], axis=-1)


class Masks(NamedTuple):
    valid: jax.Array
    drops: tuple[jax.Array, ...]  # in the order of DROPS
    faults: tuple[jax.Array, ...]  # in the order of FAULTS


def masks_of(leaf: Leaf, index: jax.Array) -> Masks:
    """Which points of a block count, and why the others do not. The first reason wins."""
    rest = index < leaf.n
    drops = []

    def drop(reason: jax.Array) -> None:
        nonlocal rest
        drops.append(rest & reason)
        rest = rest & ~reason

    never = jnp.zeros_like(rest)
    drop(never if leaf.where is None else ~leaf.where)
    drop(jnp.isnan(leaf.y))
    x_nan, x_inf = never, never
    for c in leaf.coords:
        x_nan, x_inf = x_nan | jnp.isnan(c), x_inf | jnp.isinf(c)
    drop(x_nan)
    drop(never if leaf.sigma is None else jnp.isnan(leaf.sigma))
    drop(never if leaf.sigma is None else leaf.sigma == jnp.inf)
    faults = (
        rest & jnp.isinf(leaf.y),
        rest & x_inf,
        rest & (never if leaf.sigma is None else leaf.sigma <= 0),
    )
    valid = rest
    for fault in faults:
        valid = valid & ~fault
    return Masks(valid, tuple(drops), faults)


class Scalars(NamedTuple):
    """Operands that are the same for all leaves of a pass.

    ``survey`` (bool) asks for what depends on the data alone, needed once: counts of dropped points by
    reason and the moments of y.  ``context`` is handed to the model (fixed values, constants).
    """

    sigma: Any
    f_scale: Any
    survey: Any
    context: Any


class Rows(NamedTuple):
    """Points of a block as real residuals, zero where excluded: complex ones stand twice."""

    valid: jax.Array
    r: jax.Array  # (B,) weighted residual
    jacobian: Any  # (p, B) weighted, as it was given
    rho: tuple[jax.Array, jax.Array, jax.Array]
    z: jax.Array


def rows_of(layout: Layout, residual: jax.Array, jacobian: Any, valid: jax.Array, f_scale: Any) -> Rows:
    """Rows of weighted residuals (B,) and derivatives (p, B), or p of (B,) where they are real."""
    if layout.is_complex:
        residual, jacobian, valid = _real(residual), _real(jacobian), jnp.concatenate([valid, valid])
    r, jacobian = jax.tree.map(lambda a: jnp.where(valid, a, 0.0), (residual, jacobian))
    z = (r / f_scale) ** 2
    return Rows(valid, r, jacobian, LOSSES[layout.loss](z), z)


class _Points(NamedTuple):
    masks: Masks
    y: jax.Array
    weight: jax.Array  # 1 / sigma^2, zero where excluded
    rows: Rows


def _points(
    evaluate: Evaluate, layout: Layout, theta: jax.Array, leaf: Leaf, index: jax.Array, scalars: Scalars
) -> _Points:
    masks = masks_of(leaf, index)
    valid = masks.valid
    y = jnp.where(valid, wide(leaf.y), 0.0)
    # An excluded point must not reach the model as NaN: 0 x NaN is NaN, in derivatives too.
    # The last valid point: XLA's argmax is a scalar loop.
    stand_in = jnp.max(jnp.where(valid, jnp.arange(valid.size, dtype=jnp.int32), 0))
    coords = [jnp.where(valid, wide(c), wide(c)[stand_in]) for c in leaf.coords]
    f, jacobian = evaluate(theta, coords, leaf.given, scalars.context)
    root_weight = root_weight_of(leaf, valid, scalars)
    rows = rows_of(layout, (y - f) * root_weight, jacobian * root_weight, valid, scalars.f_scale)
    return _Points(masks, y, jnp.where(valid, root_weight**2, 0.0), rows)


def root_weight_of(leaf: Leaf, valid: jax.Array, scalars: Scalars) -> Any:
    """1 / sigma, any finite number where a point is excluded."""
    sigma = 1.0 if leaf.sigma is None else jnp.where(valid, wide(leaf.sigma), 1.0)
    return 1 / (scalars.sigma * sigma)


def _add_matrix(layout: Layout, rows: Rows, matrix: jax.Array) -> jax.Array:
    """Matrix of the points before, with this block's points added."""
    r, jacobian = rows.r, rows.jacobian
    if layout.form == "sandwich":
        _, rho1, rho2 = rows.rho
        bread = jacobian * (rho1 + 2 * rows.z * rho2)
        meat = jacobian * (r * rho1) ** 2
        return matrix + jnp.stack([bread @ jacobian.T, meat @ jacobian.T])
    r, jacobian = linearised(layout, rows)
    both = jnp.concatenate([jacobian, r[None]])
    if layout.form == "triangle":
        return jnp.linalg.qr(jnp.concatenate([matrix, both.T]), mode="r")
    return matrix + both @ both.T


def linearised(layout: Layout, rows: Rows) -> tuple[jax.Array, Any]:
    """r (B,) and J, as in the rows, of the least-squares problem that stands for a robust one here."""
    if layout.loss == "linear":
        return rows.r, rows.jacobian
    _, rho1, rho2 = rows.rho
    h = jnp.sqrt(gauss_newton_weight(rows.z, rho1, rho2))
    return rows.r * rho1 / h, jax.tree.map(lambda a: a * h, rows.jacobian)


def _cut(leaf: Leaf, start: jax.Array, size: int) -> Leaf:
    def cut(a: Any) -> Any:
        return None if a is None else lax.dynamic_slice_in_dim(a, start, size, axis=-1)

    return Leaf(
        cut(leaf.y),
        tuple(map(cut, leaf.coords)),
        cut(leaf.sigma),
        cut(leaf.where),
        tuple(map(cut, leaf.given)),
        leaf.n,
    )


def leaf_kernel(evaluate: Evaluate, layout: Layout) -> Callable[..., dict[str, jax.Array]]:
    """Function (theta, leaf, scalars) -> fields of `Sums` of the leaf, ready for ``jax.jit``."""

    def add_block(theta: jax.Array, leaf: Leaf, i: jax.Array, scalars: Scalars, carry: dict) -> dict:
        index = i * layout.block + jnp.arange(layout.block)
        points = _points(evaluate, layout, theta, _cut(leaf, i * layout.block, layout.block), index, scalars)
        rows = points.rows
        (value, rho1, _), r = rows.rho, rows.r

        def lag() -> jax.Array:
            return jnp.stack([jnp.sum(r[1:] * r[:-1]), jnp.sum(r[:-1] ** 2)])

        def survey() -> tuple[jax.Array, jax.Array]:
            reasons = (*points.masks.drops, *points.masks.faults)
            found = jnp.stack([jnp.sum(reason.astype(jnp.float64)) for reason in reasons])
            return carry["counts"] + found, moments_of(points.y, points.weight, carry["moments"])

        psi2 = jnp.sum((r * rho1) ** 2)
        cost = 0.5 * (psi2 if layout.loss == "linear" else scalars.f_scale**2 * jnp.sum(value))
        counts, moments = lax.cond(scalars.survey, survey, lambda: (carry["counts"], carry["moments"]))
        return {
            "matrix": _add_matrix(layout, rows, carry["matrix"]),
            "cost": carry["cost"] + cost,
            "psi2": carry["psi2"] + psi2,
            "count": carry["count"] + jnp.sum(rows.valid.astype(jnp.float64)),
            # Neighbours are compared in the first block of a leaf only: a sample that costs nothing.
            "lag": lax.cond(i == 0, lag, lambda: carry["lag"]),
            "counts": counts,
            "moments": moments,
        }

    def kernel(theta: jax.Array, leaf: Leaf, scalars: Scalars) -> dict[str, jax.Array]:
        p = theta.size
        zero = jnp.zeros(())
        carry = {
            "matrix": jnp.zeros((2, p, p) if layout.form == "sandwich" else (p + 1, p + 1)),
            "cost": zero,
            "psi2": zero,
            "count": zero,
            "lag": jnp.zeros(2),
            "counts": jnp.zeros(len(DROPS) + len(FAULTS)),
            "moments": jnp.zeros(5),
        }
        blocks = (leaf.n + layout.block - 1) // layout.block
        return lax.fori_loop(0, blocks, lambda i, c: add_block(theta, leaf, i, scalars, c), carry)

    return kernel


def row_kernel(evaluate: Evaluate, layout: Layout) -> Callable[..., dict[str, jax.Array]]:
    """Function (theta, leaf, scalars) -> weighted J (p, S), influence psi (S,) and curvature (S,) by point.

    Zero where excluded; (p, 2 S) and (2 S,) for complex data, real parts first.  The one kernel that holds p
    values per point; a covariance by groups asks for it once.
    """

    def kernel(theta: jax.Array, leaf: Leaf, scalars: Scalars) -> dict[str, jax.Array]:
        index = jnp.arange(leaf.y.shape[-1])
        rows = _points(evaluate, layout, theta, leaf, index, scalars).rows
        _, rho1, rho2 = rows.rho
        return {
            "jacobian": rows.jacobian,
            "psi": rows.r * rho1,
            "curvature": jnp.where(rows.valid, rho1 + 2 * rows.z * rho2, 0.0),
        }

    return kernel
