"""Wall seconds measured in interleaved rounds of random order, and the ratios that they allow to claim.

A round runs every arm once.  The ratio of two arms is the median over the rounds of the pairs' ratios, with the
interval that holds 90 % of the medians of rounds drawn again with replacement (percentile bootstrap; Efron &
Tibshirani 1993, sec. 13.3).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 2000
SHARE = 0.9
# In which share of the rounds how many settings are still in question: most of a grid is far from the best.
STAGES = ((0.2, 4), (0.3, 2), (0.5, 1))


class Ratio(NamedTuple):
    """A ratio and its 90 % interval."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.3f} ({self.low:.3f}-{self.high:.3f})"


def interleaved(
    arms: Mapping[str, Callable[[], float]], rounds: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Seconds (rounds,) that each arm gives of itself, every round in another order."""
    names = list(arms)
    found: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    for _ in range(rounds):
        for name in rng.permutation(names):
            found[name].append(arms[name]())
    return {name: np.array(seconds) for name, seconds in found.items()}


def fastest(arms: Mapping[str, Callable[[], float]], rounds: int, rng: np.random.Generator) -> str:
    """The arm of the least median, the slow ones given up on the way."""
    left = dict(arms)
    seconds: dict[str, np.ndarray] = {name: np.empty(0) for name in arms}
    for share, keep in STAGES:
        for name, more in interleaved(left, max(1, round(share * rounds)), rng).items():
            seconds[name] = np.append(seconds[name], more)
        best = sorted(left, key=lambda name: float(np.median(seconds[name])))
        left = {name: left[name] for name in best[:keep]}
    return next(iter(left))


def ratio(numerator: np.ndarray, denominator: np.ndarray, rng: np.random.Generator) -> Ratio:
    """Median of the pairs' ratios, with its interval."""
    return over_all([numerator], [denominator], rng)


def over_all(
    numerators: Sequence[np.ndarray], denominators: Sequence[np.ndarray], rng: np.random.Generator
) -> Ratio:
    """Geometric mean over several workloads of the medians of pairs' ratios, with its interval."""
    logs = [np.log(above / below) for above, below in zip(numerators, denominators, strict=True)]
    drawn = [np.median(one[rng.integers(one.size, size=(DRAWS, one.size))], axis=1) for one in logs]
    middle = np.mean([np.median(one) for one in logs])
    low, high = np.quantile(np.mean(drawn, axis=0), [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Ratio(*(float(np.exp(value)) for value in (middle, low, high)))
