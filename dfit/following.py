"""Pass after pass: what observers are told, and when a fit stops."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dfit.core.equations import gradient_norm
from dfit.core.state import State, Status
from dfit.errors import DfitError, FitFailed
from dfit.events import PartitionDone, PassDone, StoppedByObserver
from dfit.interrupted import BY_INTERRUPT, BY_OBSERVER
from dfit.parameters import Parameters
from dfit.passes import Passes
from dfit.prepare import Prepared
from dfit.result import FitResult
from dfit.settings import Settings

logger = logging.getLogger("dfit")

BY_CALLBACK = "stopped by the callback"
NOTHING_YET = (
    "on_partition stopped the fit before a pass over the data was complete, so there is nothing to return. With "
    "checkpoint=path what is summed so far is kept, and the same call goes on from there"
)


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

    Raises
    ------
    FitFailed
        If `on_partition` stops it before there is anything to return.
    DfitError
        With ``best_values``, if there is something to go on from.
    """
    p, evaluator = prepared.parameters, prepared.evaluator
    state = passes.best
    before = evaluator.account.elapsed_s
    if (
        _can_return(passes, history)
        and history[-1].npasses >= settings.max_passes
        and state.status == Status.RUNNING
    ):
        return state, _enough(settings)
    try:
        for state in passes.states():
            if settings.max_passes == 0:
                return state, "max_passes=0: this is the sample's answer"
            elapsed_s = time.monotonic() - began
            # After a loss the cost is one of other data, as after the first pass, and not compared.
            first = passes.evaluator is evaluator and evaluator.survey is evaluator.last
            cost = history[-1].cost if history and not first else np.inf
            event = _pass_done(len(history) + 1, p, state, cost, before + elapsed_s)
            history.append(event)
            evaluator.settled = True
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
        if not _can_return(passes, history):
            raise
        return state, BY_INTERRUPT
    except StoppedByObserver as stop:
        if not _can_return(passes, history):
            failed = FitFailed(NOTHING_YET)
            _add_best(failed, history)
            raise failed from stop
        return state, BY_OBSERVER
    except DfitError as error:
        _add_best(error, history)
        raise
    return state, None


def _add_best(error: DfitError, history: list[PassDone]) -> None:
    """Give an error the values of the last complete pass."""
    if history:
        error.best_values = history[-1].params
        error.add_note(f"To go on from the best values so far type: p0={error.best_values}")


def _can_return(passes: Passes, history: list[PassDone]) -> bool:
    """Whether there are sums of a complete pass that the result can be of; not after a loss of partitions."""
    return bool(history) and passes.evaluator.survey is not None


def watching(settings: Settings, show: Callable[[PartitionDone], None]) -> Callable[[PartitionDone], None]:
    """Observer of partitions that shows each, and asks the user's `on_partition` whether to go on."""

    def told(event: PartitionDone) -> None:
        show(event)
        if _says_stop(settings.on_partition, event):
            raise StoppedByObserver

    return told


def _says_stop(callback: Callable[[Any], Any] | None, event: PassDone | PartitionDone) -> bool:
    if callback is None:
        return False
    try:
        answer = callback(event)
    except StopIteration:
        return True
    return isinstance(answer, (bool, np.bool_)) and not answer  # and not None, or 0


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


def _enough(settings: Settings) -> str:
    return f"max_passes={settings.max_passes} reached"


def _told_to_stop(settings: Settings, event: PassDone, elapsed_s: float) -> str | None:
    """Why no further pass may follow, or None."""
    if _says_stop(settings.callback, event):
        return BY_CALLBACK
    if event.npasses >= settings.max_passes:
        return _enough(settings)
    if settings.time_limit is not None and elapsed_s >= settings.time_limit:
        return f"time_limit={settings.time_limit} s reached"
    return None


def stopped_by_user(result: FitResult) -> bool:
    """Whether a callback or Ctrl-C ended the fit, so that its best point so far is what the user wants."""
    by_user = (BY_CALLBACK, BY_OBSERVER, BY_INTERRUPT)
    return not result.success and any(words in result.message for words in by_user)
