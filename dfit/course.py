"""Course: where a fit stands between two passes."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from dfit.core.equations import Equations
from dfit.core.state import State
from dfit.warm_report import WarmupReport


class Stage(StrEnum):
    """What comes next in a fit."""

    BEGIN = "begin"  # nothing but a pass that collects the sample can have been evaluated
    ANSWER = "the sample's answer"
    BACK = "p0 as well"
    SOLVE = "solve"


class Course(NamedTuple):
    """Where a fit stands between two passes; with what the evaluator knows it is all that the rest depends on.

    Attributes
    ----------
    stage : what comes next.
    state : from which it goes on.
    retract : whether the sample has a say in the steps.
    at_p0 : after a pass that collected the sample; or the best state before a strategy's other start.
    sample : equations of the sample at its answer, until the data have judged it.
    report : what the warm-up did.
    """

    stage: Stage
    state: State
    retract: bool = False
    at_p0: State | None = None
    sample: Equations | None = None
    report: WarmupReport | None = None
