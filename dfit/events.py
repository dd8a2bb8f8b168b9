"""What observers of a fit are told: one record per pass, one per finished task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PassDone:
    """State of a fit after a full pass over the data; what a `callback` receives.

    Attributes
    ----------
    npasses : full passes so far.
    params : best values so far by name, of all parameters.
    cost : half the weighted sum of squares (or of rho) there.
    relative_offset : size of a full further step in standard errors; infinite where undefined.
    accepted : whether the pass improved on the best values before it.
    elapsed_s : seconds since the fit began.
    gradient_norm : largest cosine between the residual and the derivatives by a parameter, of those that
        no bound stops: MINPACK's, of no unit; 0 at a minimum.
    reduction : by how much the pass lowered the cost; NaN for the first.
    trust_radius : how far the next step may go, in the unit of the residual.
    """

    npasses: int
    params: dict[str, float]
    cost: float
    relative_offset: float
    accepted: bool
    elapsed_s: float
    gradient_norm: float
    reduction: float
    trust_radius: float


@dataclass(frozen=True)
class TaskDone:
    """One partition of the running pass is summed."""

    npass: int
    done: int
    partitions: int
