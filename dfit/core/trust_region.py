"""The solver: one step of a trust-region method for nonlinear least squares.

With r = y - f and J = df/dtheta, J^T r is minus the gradient of the cost and the model of
the cost at theta + s is 1/2 |r - J s|^2.  `step` judges the trial that was just evaluated
and proposes the next one,

    minimise |r - J s|  subject to  |D s| <= radius,  lower <= theta + s <= upper,

so that each evaluation (a pass over the data) is one step.  D is the running maximum of
the column norms of J (More 1978, "The Levenberg-Marquardt algorithm: implementation and
theory"), and the subproblem is solved through the singular values of J D^-1.

Converged is a *relative offset* below its tolerance (Bates & Watts 1981, "A relative
offset orthogonality convergence criterion for nonlinear least squares"): r is split into
the part t tangential to the columns of J and the rest, and

    offset = |t| / sqrt(rank)  over  sqrt(sum psi^2 - |t|^2) / sqrt(count - rank),

the size of a full further step in standard errors.  Where the cost is too rounded to
judge a step, `step` *polishes*: full Gauss-Newton steps, judged by |t| instead.

Nothing here has an absolute size: data and parameters in other units give the same path.
Functions are pure, of static shapes, and expect 64-bit JAX (`jax.enable_x64`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dfit.core.bounds import BoxStep, box_step
from dfit.core.curvature import corrected
from dfit.core.equations import Equations
from dfit.core.geometry import Geometry, geometry, halves
from dfit.core.state import State, Status, Tolerances, start
from dfit.core.subproblem import (
    BY_SVD,
    EPS,
    Algebra,
    choose,
    inner,
    norm,
    one_if_zero,
    times,
    transposed_times,
)

__all__ = ["State", "Status", "Tolerances", "reopen", "start", "step"]

# A model's own rounding, in units of EPS * |y|: arguments of exp near 20 cost as many units.
ROUGHNESS = 16 * EPS
# The same for the sum of n terms; generous, because polishing too early costs nothing.
SUMMING = 64 * EPS
ACCEPT, SHRINK, GROW = 1e-4, 0.1, 0.75  # gain ratios
TOO_SMALL = 256.0  # a first radius that needs more than eight doublings to reach the residual
# Where the curvature that Gauss-Newton leaves out is large, full steps diverge and a part of one converges: with an
# eigenvalue of -3.5, a quarter does.
POLISH_FAILURES = 5  # down to a sixteenth


def step(
    state: State,
    at_trial: Equations,
    lower: jax.Array,
    upper: jax.Array,
    tolerances: Tolerances,
    algebra: Algebra = BY_SVD,
) -> State:
    """Judge the trial by its equations and propose the next.

    Parameters
    ----------
    state : State
    at_trial : Equations
        At `state.trial`.
    lower, upper : (p,)
        Bounds, may be infinite; `state.trial` lies within them.
    tolerances : Tolerances
    algebra : Algebra
        How the subproblem is solved: exactly, or for many small ones at once (`dfit.core.cholesky`), which
        are the last axis of all arrays then.
    """
    before = geometry(state.equations, state.theta, lower, upper, algebra)
    return advance(state, before, at_trial, lower, upper, tolerances, algebra)[0]


def advance(
    state: State,
    before: Geometry,
    at_trial: Equations,
    lower: jax.Array,
    upper: jax.Array,
    tolerances: Tolerances,
    algebra: Algebra,
) -> tuple[State, Geometry]:
    """As `step`, where the geometry at theta is known from the step before; gives that of the new state, too."""
    at_trial = _finite_or_zero(at_trial)
    after = geometry(at_trial, state.trial, lower, upper, algebra)
    accepted = _accepted(state, at_trial, before, after)
    here = choose(accepted, after, before)
    moved = _move(state, at_trial, accepted, here)
    status = _verdict(state, moved, accepted, here, tolerances)
    return _finish(_propose(state, moved, accepted, here, lower, upper, algebra), status, here), here


def reopen(state: State, lower: jax.Array, upper: jax.Array, tolerances: Tolerances) -> State:
    """A state that has ended, under other tolerances: with its next trial, if its offset does not meet them."""
    here = geometry(state.equations, state.theta, lower, upper)
    met = here.offset <= tolerances.offset
    status = jnp.where(met, Status.OFFSET, Status.RUNNING).astype(state.status.dtype)
    yes = jnp.asarray(True)
    return _finish(_propose(state, state, yes, here, lower, upper), status, here)


def _finite_or_zero(at: Equations) -> Equations:
    """The same equations, zero and marked where anything in them is not finite: no NaN enters the algebra."""
    finite = (
        at.finite
        & jnp.isfinite(at.cost)
        & jnp.isfinite(at.psi2)
        & jnp.all(jnp.isfinite(at.root), axis=(0, 1))
    )
    return choose(finite, at, jax.tree.map(jnp.zeros_like, at))._replace(finite=finite)


def _noise(equations: Equations) -> jax.Array:
    """By how much rounding may change the cost: that of the sum, and of y and f times sum psi."""
    data = jnp.sqrt(equations.psi2 * (equations.scale2 / one_if_zero(equations.count)))
    return SUMMING * equations.cost + ROUGHNESS * data


def _worst_noise(equations: Equations) -> jax.Array:
    """The same where the points' roundings do not average out: few different coordinates, many points."""
    return SUMMING * equations.cost + ROUGHNESS * jnp.sqrt(equations.psi2 * equations.scale2)


def _at_floor(equations: Equations, theta: jax.Array, here: Geometry) -> jax.Array:
    """Whether |t| is what the rounding of y, f and of theta itself leaves."""
    data = ROUGHNESS * jnp.sqrt(equations.scale2)
    grid = 2 * EPS * norm(here.norms * theta)
    return (here.rank > 0) & (here.tangential <= data + grid)


def _accepted(state: State, at: Equations, before: Geometry, after: Geometry) -> jax.Array:
    # A product, not a ratio: the predicted decrease may be zero.
    fallen = state.equations.cost - at.cost > ACCEPT * state.predicted
    no_higher = at.cost <= state.equations.cost + _worst_noise(state.equations)
    polished = no_higher & (after.tangential < before.tangential)
    first = state.evaluations == 0
    return at.finite & (first | jnp.where(state.polishing, polished, fallen))


def _move(state: State, at: Equations, accepted: jax.Array, here: Geometry) -> State:
    """The state at the better of theta and trial, the trust radius following the gain."""
    theta, equations = choose(accepted, (state.trial, at), (state.theta, state.equations))
    first = state.evaluations == 0
    begin = state.radius * _first_radius(equations, theta, here)
    radius = jnp.where(first, begin, _radius(state, at, accepted))
    failed = state.polishing & ~accepted
    second = state.second
    if second is not None:  # a step that was refused has been misled by it
        second = second._replace(m=jnp.where(accepted, second.m, 0.0))
    return state._replace(
        theta=theta,
        equations=equations,
        radius=radius,
        scaling=jnp.maximum(state.scaling, here.norms),
        damping=jnp.where(failed, state.damping / 2, state.damping),
        failures=jnp.where(accepted, 0, state.failures + failed).astype(state.failures.dtype),
        offset=here.offset,
        evaluations=state.evaluations + 1,
        second=second,
    )


def _first_radius(equations: Equations, theta: jax.Array, here: Geometry) -> jax.Array:
    """The size of theta; that of the residual, of the same unit, where theta says nothing of it.

    A start at zero has no size.  One far smaller than the residual, as where a large constant term
    starts at 0, would double for many passes, and let other parameters take the constant's part.
    """
    size, all_of_it = norm(here.norms * theta), norm(equations.root[:, -1])
    return jnp.where(all_of_it > TOO_SMALL * size, all_of_it, size)


def _radius(state: State, at: Equations, accepted: jax.Array) -> jax.Array:
    """Shrink to the minimum of a parabola through what was found, double on success (More 1978, sec. 5).

    More shrinks to a tenth, and below a gain ratio of 1/4: curved valleys then take a third more steps.
    """
    length = norm(state.scaling * (state.trial - state.theta))
    actual = state.equations.cost - at.cost
    share = state.slope / one_if_zero(2 * (state.slope - actual))
    shrunk = jnp.minimum(state.radius, length) * jnp.where(at.finite, jnp.clip(share, 0.25, 0.5), 0.25)
    grown = jnp.where(actual > GROW * state.predicted, jnp.maximum(state.radius, 2 * length), state.radius)
    judged = jnp.where(at.finite & (actual > SHRINK * state.predicted), grown, shrunk)
    polished = jnp.where(accepted, jnp.maximum(state.radius, length), state.radius)
    return jnp.where(state.polishing, polished, judged)


def _verdict(
    state: State, moved: State, accepted: jax.Array, here: Geometry, tolerances: Tolerances
) -> jax.Array:
    """The status at moved.theta, as far as it does not depend on the next step."""
    later = accepted & (state.evaluations > 0)
    actual = state.equations.cost - moved.equations.cost
    small = tolerances.ftol * state.equations.cost
    ftol = (actual <= small) & (state.predicted <= small) & (actual <= 2 * state.predicted)
    length = norm(moved.scaling * (state.trial - state.theta))
    xtol = state.full & (length <= tolerances.xtol * norm(moved.scaling * moved.theta))
    jacobian, residual = halves(moved.equations)
    cosines = jnp.abs(transposed_times(jacobian, residual)) / one_if_zero(here.norms * norm(residual))
    gtol = jnp.max(jnp.where(here.free, cosines, 0.0), axis=0) <= tolerances.gtol
    rounding = moved.equations.psi2 <= ROUGHNESS**2 * moved.equations.scale2
    reasons = (
        (Status.NOT_FINITE, ~moved.equations.finite),
        (Status.OFFSET, here.offset <= tolerances.offset),
        (Status.ROUNDING, rounding),
        (Status.FTOL, later & (tolerances.ftol > 0) & ftol),
        (Status.XTOL, later & (tolerances.xtol > 0) & xtol),
        (Status.GTOL, (tolerances.gtol > 0) & (here.rank > 0) & gtol),
    )
    codes = [jnp.asarray(code, state.status.dtype) for code, _ in reasons]
    return jnp.select([met for _, met in reasons], codes, jnp.asarray(Status.RUNNING, state.status.dtype))


def _propose(
    state: State,
    moved: State,
    accepted: jax.Array,
    here: Geometry,
    lower: jax.Array,
    upper: jax.Array,
    algebra: Algebra = BY_SVD,
) -> State:
    """The next trial, and what the quadratic model says of it."""
    noise = _noise(moved.equations)
    polishing = here.tangential**2 / 2 <= noise
    polishing |= ~accepted & (state.polishing | (state.predicted <= _worst_noise(moved.equations)))
    radius = jnp.where(polishing, jnp.inf, moved.radius)
    jacobian, residual = halves(moved.equations)
    if moved.second is not None:
        jacobian, residual = corrected(jacobian, residual, moved.second, moved.equations.count)
    weights = one_if_zero(moved.scaling)

    def solve(held: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
        return algebra.restricted_step(jacobian, residual, weights, radius, held, shift)

    def gain(s: jax.Array) -> jax.Array:
        change = times(jacobian, s)
        return inner(change, residual - change / 2)

    box: BoxStep = box_step(solve, gain, moved.theta, lower, upper, here.free)
    damped = moved.theta + moved.damping * (box.trial - moved.theta)
    trial = jnp.where(polishing & (moved.damping < 1), damped, box.trial)
    s = trial - moved.theta
    return moved._replace(
        trial=trial,
        slope=inner(residual, times(jacobian, s)),
        predicted=gain(s),
        full=box.full,
        polishing=polishing,
    )


def _finish(state: State, status: jax.Array, here: Geometry) -> State:
    """The state with its status; a solve that is over asks for nothing new."""
    still = jnp.all(state.trial == state.theta, axis=0)
    floor = _at_floor(state.equations, state.theta, here)
    exhausted = still | (state.failures >= POLISH_FAILURES) | ((state.failures > 0) & floor)
    last = jnp.where(floor, Status.ROUNDING, Status.STALLED).astype(status.dtype)
    status = jnp.where((status == Status.RUNNING) & exhausted, last, status)
    return state._replace(status=status, trial=jnp.where(status == Status.RUNNING, state.trial, state.theta))
