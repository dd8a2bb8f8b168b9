"""The kernel of many small problems: one theta for each pixel, all pixels at once.

A pixel is a leaf of its own.  Its sums are taken one point after the other, all of them scalars, so that
`jax.vmap` over pixels gives loops whose innermost index is the pixel: no small matrix is multiplied, and
nothing larger than one number a pixel is kept beside the sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dfit.core.cholesky import BY_CHOLESKY, condition, root_of
from dfit.core.equations import Equations
from dfit.core.kernel import Evaluate, Layout, Leaf, Rows, Scalars, masks_of, moments_with, rows_of, wide
from dfit.core.loss import gauss_newton_weight
from dfit.core.state import State, Status, Tolerances
from dfit.core.subproblem import BY_SVD, choose
from dfit.core.trust_region import step

# Squares of derivatives lose digits of a step with the square of the condition: enough is left to go on.
ROUGH = 1e6


class Facts(NamedTuple):
    """What depends on the data of a pixel alone, see `Sums`."""

    count: Any  # () real residuals
    counts: Any  # (DROPS + FAULTS,)
    moments: Any  # (5,)


class Problem(NamedTuple):
    """Operands of a pixel's solve beside its points."""

    lower: Any  # (p,)
    upper: Any  # (p,)
    facts: Facts


def survey(layout: Layout) -> Callable[[Leaf, Scalars], Facts]:
    """Function (pixel, scalars) -> `Facts`."""

    def kernel(pixel: Leaf, scalars: Scalars) -> Facts:
        masks = masks_of(pixel, jnp.arange(pixel.y.shape[0]))
        reasons = [jnp.sum(reason, dtype=jnp.float64) for reason in (*masks.drops, *masks.faults)]
        sigma = 1.0 if pixel.sigma is None else jnp.where(masks.valid, wide(pixel.sigma), 1.0)
        weight = jnp.where(masks.valid, 1 / (scalars.sigma * sigma) ** 2, 0.0)
        y = jnp.where(masks.valid, wide(pixel.y), 0.0)
        count = jnp.sum(masks.valid, dtype=jnp.float64) * (2 if layout.is_complex else 1)
        return Facts(count, jnp.stack(reasons), moments_with(y, weight, jnp.zeros(5)))

    return kernel


def sums(evaluate: Evaluate, layout: Layout) -> Callable[[jax.Array, Leaf, Scalars], dict[str, jax.Array]]:
    """Function (theta, pixel, scalars) -> the upper triangle of A A^T by rows, cost and psi2, as in `Sums`."""

    def kernel(theta: jax.Array, pixel: Leaf, scalars: Scalars) -> dict[str, jax.Array]:
        def add(carry: tuple[jax.Array, ...], point: tuple[jax.Array, Leaf]) -> tuple[Any, None]:
            index, leaf = point
            rows = rows_of(evaluate, layout, theta, leaf, index, scalars)
            new = (*_products(layout, rows), jnp.sum((rows.r * rows.rho[1]) ** 2), jnp.sum(rows.rho[0]))
            return tuple(a + b for a, b in zip(carry, new, strict=True)), None

        columns = theta.size + 1
        nothing = (jnp.zeros(()),) * (columns * (columns + 1) // 2 + 2)
        found, _ = lax.scan(add, nothing, _by_point(pixel))
        *pairs, psi2, rho = found
        cost = 0.5 * (psi2 if layout.loss == "linear" else scalars.f_scale**2 * rho)
        return {"matrix": jnp.stack(pairs), "cost": cost, "psi2": psi2}

    return kernel


def _by_point(pixel: Leaf) -> tuple[jax.Array, Leaf]:
    """The points of a pixel as leaves of one point each, along the first axis."""

    def each(values: Any) -> Any:
        return None if values is None else values[:, None]

    size = pixel.y.shape[0]
    leaves = Leaf(
        each(pixel.y),
        tuple(map(each, pixel.coords)),
        each(pixel.sigma),
        each(pixel.where),
        (),
        jnp.full(size, pixel.n),
    )
    return jnp.arange(size)[:, None], leaves


def _products(layout: Layout, rows: Rows) -> list[jax.Array]:
    """The upper triangle of A A^T of a point, by rows."""
    r, jacobian = rows.r, rows.jacobian
    if layout.loss != "linear":
        _, rho1, rho2 = rows.rho
        h = jnp.sqrt(gauss_newton_weight(rows.z, rho1, rho2))
        r, jacobian = r * rho1 / h, jacobian * h
    parts = [*(jacobian[k] for k in range(jacobian.shape[0])), r]
    return [jnp.sum(a * b) for i, a in enumerate(parts) for b in parts[i:]]


def judged(
    state: State, fields: dict[str, jax.Array], problem: Problem, tolerances: Tolerances
) -> tuple[State, jax.Array]:
    """The next state by sums of squares, and the condition of its equations; an ended one stays as it is."""
    p = problem.lower.size
    pairs = [fields["matrix"][k] for k in range((p + 1) * (p + 2) // 2)]
    equations = _equations(root_of(pairs, p + 1), fields, problem.facts)
    after = step(state, equations, problem.lower, problem.upper, tolerances, BY_CHOLESKY)
    after = choose(state.status == Status.RUNNING, after, state)
    return after, condition(after.equations.root)


def judged_exactly(
    state: State, fields: dict[str, jax.Array], problem: Problem, tolerances: Tolerances
) -> tuple[State, jax.Array]:
    """The same by triangles: no condition is too high."""
    equations = _equations(fields["matrix"], fields, problem.facts)
    after = step(state, equations, problem.lower, problem.upper, tolerances, BY_SVD)
    return choose(state.status == Status.RUNNING, after, state), jnp.zeros(())


def _equations(root: jax.Array, fields: dict[str, jax.Array], facts: Facts) -> Equations:
    finite = jnp.isfinite(fields["cost"]) & jnp.all(jnp.isfinite(fields["matrix"]))
    return Equations(root, fields["cost"], fields["psi2"], facts.moments[4], facts.count, finite)
