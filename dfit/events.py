"""What observers of a fit are told: one record per pass, one per partition as it ends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PassDone:
    """State of a fit after a full pass over the data; what a `callback` receives.

    Attributes
    ----------
    npasses : full passes of the solver so far.
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
class PartitionDone:
    """A partition of the running pass has ended; what `on_partition` receives.

    Attributes
    ----------
    npass : number of the pass, from 1; the pass of a robust covariance counts, too.
    done, partitions : how many have ended in this pass, of how many.
    partition : which one, as in `FitResult.partitions`.
    worker : node and process that summed it.
    failure : why it is left out, None where it is summed.
    points, cost : that were summed, at the parameters that the pass tries; half the weighted sum of squares.
    seconds, bytes_read, retries : what this pass has spent on it; retries are reads that were tried again.
    missing : points without a value (NaN), counted by the first pass.
    """

    npass: int
    done: int
    partitions: int
    partition: int
    worker: str
    failure: str | None
    points: int
    cost: float
    seconds: float
    bytes_read: int
    retries: int
    missing: int


class StoppedByObserver(Exception):
    """`on_partition` has told the fit to stop."""
