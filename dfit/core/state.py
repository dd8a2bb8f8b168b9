"""What a solve knows between two evaluations, and why it ended."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import jax
import numpy as np

from dfit.core.equations import Equations


class Status(IntEnum):
    """Why a solve ended; RUNNING where it has not."""

    RUNNING = 0
    OFFSET = 1  # the relative offset is within its tolerance
    FTOL = 2  # relative reduction of the cost, predicted and found
    XTOL = 3  # relative length of a full step
    GTOL = 4  # cosine between the residual and every column of J
    ROUNDING = 5  # the residual, or its tangential part, is the rounding of data and parameters
    STALLED = 6  # no step decreases the cost any more, but none of the above holds
    NOT_FINITE = 7  # model or derivatives are not finite at the start


class Tolerances(NamedTuple):
    """What counts as converged; 0 is never.  ftol, xtol, gtol have MINPACK's meaning."""

    offset: float = 1e-8
    ftol: float = 0.0
    xtol: float = 0.0
    gtol: float = 0.0


class State(NamedTuple):
    """Everything a solve knows between two evaluations.

    Attributes
    ----------
    theta : (p,)
        The best parameters so far.
    equations : Equations
        The equations at theta.
    trial : (p,)
        Where the equations are wanted next; theta once the solve has ended.
    radius : ()
        Trust radius, in the unit of the residual; before the first evaluation the part of the
        solver's own first radius to begin with.
    scaling : (p,)
        Largest column norms of J so far; 0 for a column that has been zero up to now.
    slope, predicted : ()
        Of the model of the cost along theta -> trial: its decrease to first order, its decrease.
    full : () bool
        Whether the trust radius left the proposed step as it was.
    polishing : () bool
        Whether the trial is judged by the tangential part of the residual.
    damping : ()
        Share of the Gauss-Newton step that polishing takes.
    failures : () int
        Polishing steps in a row that did not help.
    offset : ()
        Relative offset at theta; infinite where it is not defined.
    evaluations : () int
        How many equations have been judged.
    status : () int
        A `Status`.
    second : Curvature, optional
        What Gauss-Newton leaves out of the Hessian, known from a sample; see `dfit.core.curvature`.
    """

    theta: jax.Array
    equations: Equations
    trial: jax.Array
    radius: jax.Array
    scaling: jax.Array
    slope: jax.Array
    predicted: jax.Array
    full: jax.Array
    polishing: jax.Array
    damping: jax.Array
    failures: jax.Array
    offset: jax.Array
    evaluations: jax.Array
    status: jax.Array
    second: Any = None


def start(theta0: Any, share: float = 1.0) -> State:
    """The State whose trial is theta0, of shape (p,); nothing has been evaluated.

    ``share`` of the solver's own first trust radius is where it begins.
    """
    theta: Any = theta0 if isinstance(theta0, jax.Array) else np.array(theta0, np.float64)
    p = theta.shape[-1]
    root: Any = np.zeros((p + 1, p + 1))
    scaling: Any = np.zeros(p)
    zero: Any = np.float64(0)
    inf: Any = np.float64(np.inf)
    no: Any = np.bool_(False)
    none: Any = np.int32(0)
    return State(
        theta=theta,
        equations=Equations(root, cost=inf, psi2=inf, scale2=zero, count=zero, finite=no),
        trial=theta,
        radius=zero + share,
        scaling=scaling,
        slope=zero,
        predicted=zero,
        full=no,
        polishing=no,
        damping=zero + 1,
        failures=none,
        offset=inf,
        evaluations=none,
        status=none,
    )
