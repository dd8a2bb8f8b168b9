"""Recovery: what is done where a fit meets a place it cannot go on from, and the log of what was done.

A trial at which the model is not finite shrinks the step, a warm-up that stalls begins again nearby, a task
that runs out of memory is cut: all of that needs no word from the user.  A user's own strategies are asked,
each once and in their order, where a fit would end: they name another start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dfit.core.state import State, Status
from dfit.core.validation import bad_step
from dfit.errors import FitFailed, InputError
from dfit.parameters import Parameters
from dfit.reduce.evaluators import PassEvaluator

NOT_FINITE, STALLED = "not finite at the start", "stalled"
# What dfit does by itself: every other name in the log is of a user's strategy.
BUILT_IN = ("reduce step", "perturb start", "fewer leaves per task", "partition left out")
# Costs that differ by less are of one minimum, and rounding decides which is lower.
SAME_COST = 1e-9

Bounds = tuple[np.ndarray, np.ndarray]


class Event(NamedTuple):
    """Why a fit would end where it is; what a strategy is told.

    Attributes
    ----------
    kind : "not finite at the start", or "stalled": no step decreases the cost any more.
    iteration : full passes so far.
    cost : at theta; infinite where the model is not finite.
    place : where it is not finite, in words; None otherwise.
    """

    kind: str
    iteration: int
    cost: float
    place: str | None


Strategy = Callable[[np.ndarray, Bounds, Event, np.random.Generator], Any]


class Recovery:
    """The strategies of a user that are left, and the log.

    Parameters
    ----------
    strategies : functions (theta, bounds, event, rng) -> theta, of the varying parameters (p,).
    evaluator : its log tells which of them an earlier process has asked.
    seed : of the random numbers that they are given.
    """

    def __init__(
        self, strategies: Sequence[Strategy], parameters: Parameters, evaluator: PassEvaluator, seed: int
    ) -> None:
        self._strategies = strategies
        self._parameters = parameters
        self._evaluator = evaluator
        self._seed = seed
        varying = list(parameters.varying)
        self._bounds = parameters.lower[varying], parameters.upper[varying]

    def start(self, kind: str, theta: np.ndarray, cost: float, place: str | None) -> np.ndarray | None:
        """Where the next strategy begins again, (p,) inside the bounds; None where none is left.

        Raises
        ------
        InputError
            If it gives something else than p finite numbers.
        """
        log, passes = self._evaluator.recovery, self._evaluator.account.passes
        asked = sum(entry["strategy"] not in BUILT_IN for entry in log)
        if asked >= len(self._strategies):
            return None
        strategy = self._strategies[asked]
        name = getattr(strategy, "__name__", type(strategy).__name__)
        rng = np.random.default_rng([self._seed, passes])
        low, high = self._bounds
        event = Event(kind, passes, cost, place)
        given = strategy(np.array(theta), (low.copy(), high.copy()), event, rng)
        found = np.clip(_checked(name, given, np.size(theta)), low, high)
        why = f"{kind} {place}" if place else f"{kind} at cost {cost:.6g}"
        words = self._parameters.in_words
        self._evaluator.recovered(
            name, f"{why}, with {words(theta)}; goes on from {words(found)}", iteration=passes
        )
        return found

    def reduced(self, before: State, after: State, place: str | None) -> None:
        """Log a step that was refused because the model is not finite ``place``; None: it was not."""
        if place is None or before.evaluations == 0:
            return
        at = self._parameters.in_words(before.trial)
        detail = f"not finite {place}, with {at}: the trust radius shrinks from {before.radius:.3g} to {after.radius:.3g}"
        self._evaluator.recovered("reduce step", detail, iteration=self._evaluator.account.passes)

    def perturbed(self, theta0: np.ndarray, start: np.ndarray | None) -> None:
        """Log that the warm-up from p0 has stalled, and that another start (p,) has not; None: it has not."""
        if start is not None:
            words = self._parameters.in_words
            detail = f"the warm-up stalls from {words(theta0)}, and goes on from {words(start)}"
            self._evaluator.recovered("perturb start", detail, iteration=self._evaluator.account.passes)


def _checked(name: str, given: Any, count: int) -> np.ndarray:
    """Parameters that a strategy gave."""
    try:
        theta = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"recovery: {name} gave {given!r}; expected {count} numbers") from error
    if theta.shape != (count,) or not np.isfinite(theta).all():
        raise InputError(
            f"recovery: {name} gave {given!r}; expected {count} finite numbers, the varying parameters in their "
            "order. Type: return theta for no change"
        )
    return theta


def better(new: State, old: State | None) -> State:
    """The state of lower cost; the new one where they are as low."""
    if old is None or (new.equations.finite and new.equations.cost <= old.equations.cost * (1 + SAME_COST)):
        return new
    return old


def require_step(state: State, lower: np.ndarray, upper: np.ndarray, parameters: Parameters) -> None:
    """Refuse to spend a pass on a step that is none; ``lower``, ``upper`` (p,).

    Raises
    ------
    FitFailed
    """
    if state.status != Status.RUNNING:
        return
    problem = bad_step(state, lower, upper, [parameters.names[k] for k in parameters.varying])
    if problem is not None:
        raise FitFailed(
            f"there is no next step from {parameters.in_words(state.theta)}: {problem}. Type: data, sigma and "
            "parameters in units in which they are neither as large nor as small"
        )
