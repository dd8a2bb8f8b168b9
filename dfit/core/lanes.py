"""The loop over many small problems: a fixed number of lanes, each with one problem until it has ended.

Most pixels converge in a few steps and some take a hundred.  So a lane whose problem has ended takes the next
one that waits, and nobody pays for the slowest.  The shapes never change: one compilation serves every map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dfit.core.state import State, Status

# Lanes that have ended go on idly until so many of them wait: a change costs as much as some idle steps.
CHANGED_AT = 1 / 16
# With fewer running ones than this part of the lanes, and none waiting, the rest is left to narrower lanes.
LEFT_AT = 1 / 64


class Engine(NamedTuple):
    """How lanes advance.

    Attributes
    ----------
    lanes : how many.
    load : (data or None, lanes (k,), pixels (k,)) -> data of all lanes, these lanes with these pixels.
    advance : (state, data, pixels) -> (state, condition (lanes,)), one evaluation and one step.
    roughest : condition of a running problem, and of one that has ended, beyond which its pixel is left.
    leaves : whether a few that are left over may be left to another engine.
    """

    lanes: int
    load: Callable[[Any, np.ndarray, np.ndarray], Any]
    advance: Callable[[State, Any, np.ndarray], tuple[State, np.ndarray]]
    roughest: tuple[float, float]
    leaves: bool


def solve(engine: Engine, states: State, pixels: Sequence[int] | np.ndarray, limit: int) -> np.ndarray:
    """Run the solves of some pixels to their ends; gives the pixels that are left for another engine.

    Parameters
    ----------
    states : of all N pixels, arrays (N, ...); those of the pixels that ran are written.
    pixels : which of them to run.
    limit : evaluations of a pixel.
    """
    waiting = list(np.asarray(pixels)[::-1])
    left: list[int] = []
    if not waiting:
        return np.array(left, int)
    held = np.array([waiting.pop() for _ in range(min(engine.lanes, len(waiting)))])
    running = np.arange(engine.lanes) < held.size
    held = np.resize(held, engine.lanes)  # a lane without a problem repeats another one's
    state = jax.tree.map(lambda a: a[held], states)
    data = engine.load(None, np.arange(engine.lanes), held)
    while running.any():
        state, condition = engine.advance(state, data, held)
        over, rough = verdict(state, condition, engine.roughest, limit)
        ended = running & (over | rough)
        if not waiting and engine.leaves and (running & ~ended).sum() <= LEFT_AT * engine.lanes:
            ended = running
        left += held[ended & (rough | ~over)].tolist()
        # At once, because an idle lane goes on: past its limit, say.
        _keep(states, held[ended], state, ended)
        running = running & ~ended
        lanes = np.flatnonzero(~running)
        if waiting and (lanes.size >= CHANGED_AT * engine.lanes or not running.any()):
            lanes = lanes[: len(waiting)]
            held[lanes] = [waiting.pop() for _ in range(lanes.size)]
            running[lanes] = True
            new = jax.tree.map(lambda whole, which=held[lanes]: whole[which], states)
            state = jax.tree.map(lambda now, one, at=lanes: _changed(now, at, one), state, new)
            data = engine.load(data, lanes, held[lanes])
    return np.array(left, int)


def verdict(
    state: State, condition: np.ndarray, roughest: tuple[float, float], limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which solves are over, and which are beyond the condition that their engine can bear, see `Engine`."""
    ended = np.asarray(state.status != Status.RUNNING)
    spent = ~ended & np.asarray(state.evaluations >= limit)  # another engine would go beyond the limit
    return ended | spent, (condition > np.where(ended, *roughest[::-1])) & ~spent


def _changed(values: np.ndarray, lanes: np.ndarray, new: np.ndarray) -> np.ndarray:
    out = np.array(values)
    out[lanes] = new
    return out


def _keep(states: State, pixels: np.ndarray, state: State, ended: np.ndarray) -> None:
    """Write where some lanes have ended."""
    if pixels.size:
        for whole, part in zip(jax.tree.leaves(states), jax.tree.leaves(state), strict=True):
            whole[pixels] = part[ended]
