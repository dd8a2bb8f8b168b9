"""Pass after pass: what observers are told, and when a fit stops."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np

from dfit.core.equations import gradient_norm
from dfit.core.state import State, Status
from dfit.events import PassDone
from dfit.interrupted import BY_INTERRUPT
from dfit.parameters import Parameters
from dfit.passes import Passes
from dfit.prepare import Prepared
from dfit.settings import Settings

logger = logging.getLogger("dfit")

BY_CALLBACK = "stopped by the callback"


def follow(
    passes: Passes,
    prepared: Prepared,
    settings: Settings,
    history: list[PassDone],
    began: float,
    observe: Callable[[PassDone], None],
) -> tuple[State, str | None]:
    """Until the solver ends, or something else does: the last state, and what it was.

    Parameters
    ----------
    history : the passes of an earlier process; those of this one are added.
    began : when this process began, by `time.monotonic`.
    observe : told of every pass, before the user's callback.
    """
    p, evaluator = prepared.parameters, prepared.evaluator
    state = passes.course.state
    before = evaluator.account.elapsed_s
    try:
        for state in passes.states():
            if settings.max_passes == 0:
                return state, "max_passes=0: this is the sample's answer"
            elapsed_s = time.monotonic() - began
            cost = history[-1].cost if history else np.inf
            event = _pass_done(evaluator.account.passes, p, state, cost, before + elapsed_s)
            history.append(event)
            logger.info(
                "pass %d: cost %.10g, relative offset %.2g", event.npasses, event.cost, event.relative_offset
            )
            observe(event)
            stopped = _told_to_stop(settings, event, elapsed_s)
            if state.status != Status.RUNNING:  # converged or failed, whatever the callback said
                return state, None
            if stopped is not None:
                return state, stopped
    except KeyboardInterrupt:
        if not history:  # before the end of the first pass there is nothing to return
            raise
        return state, BY_INTERRUPT
    return state, None


def _pass_done(npasses: int, p: Parameters, state: State, before: float, elapsed_s: float) -> PassDone:
    """What observers are told of a state; ``before`` is the cost of the state before it."""
    varying = list(p.varying)
    cost = float(state.equations.cost)
    return PassDone(
        npasses,
        p.by_name(state.theta),
        cost,
        float(state.offset),
        cost < before,
        elapsed_s,
        gradient_norm(state.equations, np.asarray(state.theta), p.lower[varying], p.upper[varying]),
        before - cost if np.isfinite(before) else float("nan"),
        float(state.radius),
    )


def _told_to_stop(settings: Settings, event: PassDone, elapsed_s: float) -> str | None:
    """Why no further pass may follow, or None."""
    if settings.callback is not None:
        try:
            if settings.callback(event) is False:
                return BY_CALLBACK
        except StopIteration:
            return BY_CALLBACK
    if event.npasses >= settings.max_passes:
        return f"max_passes={settings.max_passes} reached"
    if settings.time_limit is not None and elapsed_s >= settings.time_limit:
        return f"time_limit={settings.time_limit} s reached"
    return None
