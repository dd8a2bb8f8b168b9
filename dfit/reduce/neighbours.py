"""Answers of neighbours as starts: where a fit failed, or where a neighbour's answer fits better than its own.

Neighbouring pixels mostly hold the same thing, and so a pixel in a wrong minimum stands out: the answer of the
pixel beside it has the lower cost there.  It is fitted again from that answer, and what it finds is offered to its
own neighbours, until no cost falls any more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfit.pixel_status import SUCCESS, PixelStatus
from dfit.reduce.pixel_answers import Answers, Starts, some_of
from dfit.reduce.pixel_fit import PixelFit
from dfit.reduce.pixel_starts import begin_at

# A cost is lower where it is so by more than two solves of one minimum may differ, ...
MARGIN = 1e-6
# ... and by more than the rounding of y, of the sum of its squares.
ROUNDING = 1e-25

HOPELESS = [PixelStatus.NO_DATA, PixelStatus.TOO_FEW_POINTS, PixelStatus.UNUSABLE_DATA]


def with_neighbours(fit: PixelFit, starts: Starts, answers: Answers, shape: Sequence[int]) -> Answers:
    """Answers of a chunk of pixels of this shape, none of them worse than those given.

    A better answer goes on to the next pixel in each round; there are as many rounds as it may need from
    one corner of the chunk to the other.
    """
    near = neighbours_of(shape)
    able = begin_at(starts, np.clip(0.0, starts.lower, starts.upper)).usable
    able &= ~np.isin(answers.status, HOPELESS)
    new = _succeeded(answers)
    for _ in range(sum(shape)):
        offered = (near >= 0) & new[near] & able
        pixels, theta = _best_offers(fit, starts, answers, near, offered)
        new = np.zeros_like(new)
        if not pixels.size:
            break
        again = fit.answers(_from(starts, pixels, theta), pixels)
        answers, won = _the_better(answers, again, pixels)
        new[won] = True
    return answers


def neighbours_of(shape: Sequence[int]) -> np.ndarray:
    """Numbers (2 per dimension, N) of the pixels before and after each one, -1 where there is none."""
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    padded = np.pad(numbers, 1, constant_values=-1)
    inner = (slice(1, -1),) * numbers.ndim
    shifted = [np.roll(padded, by, axis)[inner] for axis in range(numbers.ndim) for by in (1, -1)]
    return np.stack([values.ravel() for values in shifted])


def _succeeded(answers: Answers) -> np.ndarray:
    return np.isin(answers.status, list(SUCCESS))


def _best_offers(
    fit: PixelFit, starts: Starts, answers: Answers, near: np.ndarray, offered: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (k,) that an offer (2 per dimension, N) of their neighbours suits better, and the best (k, p) of each."""
    own = np.where(_succeeded(answers), answers.cost * (1 - MARGIN) - ROUNDING * answers.tss, np.inf)
    best, source = own, np.full(own.size, -1)
    for direction, there in zip(near, offered, strict=True):
        pixels = np.flatnonzero(there)
        if not pixels.size:
            continue
        begun = _from(starts, pixels, answers.theta[direction[pixels]])
        cost = np.full(own.size, np.inf)
        cost[pixels] = fit.costs(begun, pixels)
        better = cost < best
        best, source = np.where(better, cost, best), np.where(better, direction, source)
    pixels = np.flatnonzero(source >= 0)
    return pixels, answers.theta[source[pixels]]


def _from(starts: Starts, pixels: np.ndarray, theta: np.ndarray) -> Starts:
    """Starts of some pixels at theta (k, p), moved into their bounds."""
    some = some_of(starts, pixels)
    return begin_at(some, np.clip(theta, some.lower, some.upper))


def _the_better(answers: Answers, again: Answers, pixels: np.ndarray) -> tuple[Answers, np.ndarray]:
    """Answers with those of some pixels that are better the second time, and which these are."""
    before = np.where(_succeeded(answers), answers.cost, np.inf)[pixels]
    won = _succeeded(again) & (again.cost < before)
    spent = answers.nfev[pixels] + again.nfev
    merged = {name: values.copy() for name, values in vars(answers).items()}
    for name, values in vars(again).items():
        merged[name][pixels[won]] = values[won]
    merged["nfev"][pixels] = spent
    return Answers(**merged), pixels[won]
