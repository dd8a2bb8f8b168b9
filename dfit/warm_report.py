"""What a warm-up did, and why: a value of numbers and words that the result carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dfit.starts import Start


@dataclass(frozen=True)
class WarmupReport:
    """What the warm-up did, and why.

    Attributes
    ----------
    sample : in words: its points, what was read, and why.
    complete : whether the sample is all of the data.
    points, held_out, chunks_read, chunks, bytes_read : of the sample.
    normalization, unit : which unit each parameter had, and its size (p,).
    relative_loss : loss at p0 as a part of the variance of y.
    errors_away : largest Gauss-Newton step at p0, in the sample's standard errors.
    skipped : layer 1, why the guarded search was skipped; None where it ran.
    usable : whether the sample had points enough; nothing was done where it had not.
    mode : layer 2, "refinement", "careful" or "exploration"; None where it did not judge.
    guarded : layer 3, whether the cost of the points held out ended the warm-up.
    clips : layer 4, how many steps were clipped.
    cost_at_start, cost : on the whole sample, at p0 and at the end.
    evaluations : of the model on the sample.
    reason : why it ended.
    hand_over : what the first full pass says of the sample's answer.
    lbfgs_history_fill : how many times L-BFGS filled its memory of past steps.
    lbfgs_line_search_failures : how many of its line searches found no better point.
    starts : what came of each start, where more than p0 were tried.
    """

    sample: str
    complete: bool
    points: int
    held_out: int
    chunks_read: int
    chunks: int
    bytes_read: int
    normalization: str
    unit: np.ndarray
    relative_loss: float
    errors_away: float
    skipped: str | None
    mode: str | None
    guarded: bool
    clips: int
    cost_at_start: float
    cost: float
    evaluations: int
    reason: str
    hand_over: str | None = None
    usable: bool = True
    lbfgs_history_fill: int = 0
    lbfgs_line_search_failures: int = 0
    starts: tuple[Start, ...] = ()

    @property
    def sentence(self) -> str:
        """What came of it, in words."""
        if self.skipped is not None:
            more = f"; {self.evaluations} evaluations on the sample" if self.evaluations > 1 else ""
            return f"warm-up skipped: {self.skipped}{more}"
        mode = "" if self.mode is None else f"{self.mode}, "
        fallen = f"sum of squares {2 * self.cost_at_start:.7g} to {2 * self.cost:.7g} in float64"
        return f"warm-up: {mode}{self.evaluations} evaluations, {fallen}; {self.reason}"
