"""The kernel of many small problems: one theta for each pixel, all pixels at once.

A pixel is a leaf of its own.  Its sums are taken one point after the other, all of them scalars, so that
`jax.vmap` over pixels gives loops whose innermost index is the pixel: no small matrix is multiplied, and
nothing larger than one number a pixel is kept beside the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dfit.core.cholesky import BY_CHOLESKY, root_of
from dfit.core.equations import Equations
from dfit.core.geometry import Geometry, geometry
from dfit.core.kernel import (
    Evaluate,
    Layout,
    Leaf,
    Masks,
    Scalars,
    linearised,
    masks_of,
    root_weight_of,
    rows_of,
    wide,
)
from dfit.core.moments import column_moments
from dfit.core.state import State, Status, Tolerances
from dfit.core.subproblem import BY_SVD, choose
from dfit.core.trust_region import advance, step

# Squares of derivatives lose digits of a step with the square of the condition: enough is left to go on.
ROUGH = 1e6


class Facts(NamedTuple):
    """What depends on the data of a pixel alone, see `Sums`."""

    count: Any  # () real residuals
    counts: Any  # (DROPS + FAULTS,)
    moments: Any  # (5,)


class Points(NamedTuple):
    """The points of a pixel, ready for the loop: float64 or complex128."""

    y: Any  # (n,) NaN where excluded
    root_weight: Any  # (n,) 1 / sigma, None where that is one number; any finite one where excluded
    coords: tuple[Any, ...]  # (n,) each


class Problem(NamedTuple):
    """Operands of a pixel's solve beside its points."""

    lower: Any  # (p,)
    upper: Any  # (p,)
    count: Any  # () as of `Equations`
    scale2: Any  # () as of `Equations`


def survey(layout: Layout) -> Callable[[Leaf, Scalars], tuple[jax.Array, jax.Array, Points]]:
    """Function (pixels, scalars) -> count and moments of `Facts` by pixel, and the points for `sums`.

    Arrays have points along the first axis and pixels along the second, but for those that all pixels share.  Not
    mapped over pixels by `jax.vmap`, which would turn every one of them round and back.
    """

    def kernel(pixels: Leaf, scalars: Scalars) -> tuple[jax.Array, jax.Array, Points]:
        columns = _columns(pixels)
        valid = _masks(columns).valid
        root_weight = root_weight_of(columns, valid, scalars)
        weight = jnp.where(valid, root_weight**2, 0.0)
        y = wide(columns.y)
        count = jnp.sum(valid, axis=0, dtype=jnp.float64) * (2 if layout.is_complex else 1)
        # The model is called there, too, though nothing comes of it.
        coords = tuple(jnp.where(jnp.isfinite(wide(c)), wide(c), 0.0) for c in pixels.coords)
        # One array less to be read in every step.
        own = None if columns.sigma is None else jnp.broadcast_to(root_weight, valid.shape)
        points = Points(jnp.where(valid, y, jnp.nan), own, coords)
        return count, column_moments(jnp.where(valid, y, 0.0), weight), points

    return kernel


def reasons(pixels: Leaf) -> jax.Array:
    """How many points of each pixel do not count, by reason (pixels, DROPS + FAULTS); arrays as of `survey`."""
    columns = _columns(pixels)
    masks = _masks(columns)
    found = (jnp.broadcast_to(reason, columns.y.shape) for reason in (*masks.drops, *masks.faults))
    return jnp.stack([jnp.sum(reason, axis=0, dtype=jnp.float64) for reason in found], axis=1)


def _columns(pixels: Leaf) -> Leaf:
    """What all pixels share as one column."""
    return jax.tree.map(lambda a: a[:, None] if a.ndim == 1 else a, pixels._replace(n=None))._replace(
        n=pixels.n
    )


def _masks(columns: Leaf) -> Masks:
    return masks_of(columns, jnp.arange(columns.y.shape[0])[:, None])


def sums(evaluate: Evaluate, layout: Layout) -> Callable[[jax.Array, Points, Scalars], dict[str, jax.Array]]:
    """Function (theta, points, scalars) -> the upper triangle of A A^T by rows, cost and psi2, as in `Sums`.

    Pixels are the last axis of everything.  The model alone is mapped over them by `jax.vmap`: its one point is
    a scalar, and so are its parameters, as it was written for.
    """

    def kernel(theta: jax.Array, points: Points, scalars: Scalars) -> dict[str, jax.Array]:
        p, lanes = theta.shape
        varying = tuple(0 if c.ndim == 2 else None for c in points.coords)

        def point(theta: jax.Array, coords: tuple[jax.Array, ...], context: Any) -> tuple[jax.Array, ...]:
            f, jacobian = evaluate(theta, [c[None] for c in coords], (), context)
            return (f[0], *(jacobian[k][0] for k in range(p)))

        model = jax.vmap(point, in_axes=(1, varying, (1, None)))

        def add(carry: tuple[jax.Array, ...], these: Points) -> tuple[Any, None]:
            f, *jacobian = model(theta, these.coords, scalars.context)
            new = _sums_of(layout, these, these.y - f, jacobian, scalars)
            return tuple(a + b for a, b in zip(carry, new, strict=True)), None

        pairs = (p + 1) * (p + 2) // 2
        nothing = (jnp.zeros(lanes),) * (pairs if layout.loss == "linear" else pairs + 2)
        found, _ = lax.scan(add, nothing, points)
        psi2 = found[pairs - 1] if layout.loss == "linear" else found[-2]
        cost = 0.5 * (psi2 if layout.loss == "linear" else scalars.f_scale**2 * found[-1])
        return {"matrix": jnp.stack(found[:pairs]), "cost": cost, "psi2": psi2}

    return kernel


def _sums_of(
    layout: Layout, points: Points, residual: jax.Array, jacobian: Sequence[jax.Array], scalars: Scalars
) -> list[jax.Array]:
    """The upper triangle of A A^T of a point of every pixel, by rows; of a robust loss also its psi^2 and rho."""
    valid = ~jnp.isnan(points.y)
    root_weight = 1 / scalars.sigma if points.root_weight is None else points.root_weight
    # Arrays of their own: taken out of one, every product would read them from there.
    weighted = [a * root_weight for a in (*jacobian, residual)]
    real = layout._replace(is_complex=False)
    total: list[jax.Array] = []
    for half in ("real", "imag") if layout.is_complex else ("real",):
        *columns, r = [getattr(a, half) for a in weighted]
        rows = rows_of(real, r, columns, valid, scalars.f_scale)
        r, columns = linearised(real, rows)
        # or every one of the products would compute its two factors anew
        parts = lax.optimization_barrier((*columns, r))
        new = [a * b for i, a in enumerate(parts) for b in parts[i:]]
        if layout.loss != "linear":
            new += [(rows.r * rows.rho[1]) ** 2, rows.rho[0]]
        total = [a + b for a, b in zip(total, new, strict=True)] if total else new
    return total


class Lane(NamedTuple):
    """A solve by sums of squares, and the geometry at its theta; problems are the last axis of all arrays."""

    state: State
    here: Geometry


def begun(state: State, problem: Problem) -> Lane:
    """Lanes of states that may stand anywhere."""
    return Lane(state, geometry(state.equations, state.theta, problem.lower, problem.upper, BY_CHOLESKY))


def judged(lane: Lane, fields: dict[str, jax.Array], problem: Problem, tolerances: Tolerances) -> Lane:
    """The next state by sums of squares; an ended one stays as it is, and at a start nothing is known."""
    p = problem.lower.shape[0]
    nothing = jax.tree.map(jnp.zeros_like, lane.here)._replace(free=jnp.ones_like(lane.here.free))
    here = choose(lane.state.evaluations == 0, nothing, lane.here)
    pairs = [fields["matrix"][k] for k in range((p + 1) * (p + 2) // 2)]
    equations = _equations(root_of(pairs, p + 1), fields, problem)
    after = advance(lane.state, here, equations, problem.lower, problem.upper, tolerances, BY_CHOLESKY)
    return choose(lane.state.status == Status.RUNNING, Lane(*after), lane)


def judged_exactly(
    state: State, fields: dict[str, jax.Array], problem: Problem, tolerances: Tolerances
) -> tuple[State, jax.Array]:
    """The same by triangles, of one problem, for which no condition is too high: 1."""
    equations = _equations(fields["matrix"], fields, problem)
    after = step(state, equations, problem.lower, problem.upper, tolerances, BY_SVD)
    return choose(state.status == Status.RUNNING, after, state), jnp.ones(())


def _equations(root: jax.Array, fields: dict[str, jax.Array], problem: Problem) -> Equations:
    finite = jnp.isfinite(fields["cost"])  # and the root, which the solver looks at
    return Equations(root, fields["cost"], fields["psi2"], problem.scale2, problem.count, finite)
