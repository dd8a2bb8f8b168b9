"""Fits that are stopped again and again and go on from their checkpoint, and what of them must be the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import dfit

ENOUGH = 200  # more stops than a fit here can have


class Stop(Exception):
    """What a user's observer may raise."""


def bits(found: dfit.FitResult) -> dict[str, Any]:
    """All that a stop must not change."""
    history = [
        tuple(
            np.float64(value).tobytes() for name, value in sorted(vars(event).items()) if name not in LEFT_OUT
        )
        + tuple(np.float64(value).tobytes() for value in event.params.values())
        for event in found.history
    ]
    stderr = np.array([found.params[name].stderr for name in found.params])
    return {
        "theta": found.theta.tobytes(),
        "stderr": stderr.tobytes(),
        "covar": found.covar.tobytes(),
        "cost": np.float64(found.cost).tobytes(),
        "history": history,
        "words": (found.message, found.success, found.ndata, found.npasses, found.run.form, found.partial),
    }


LEFT_OUT = ("elapsed_s", "params")


def differences(found: dfit.FitResult, expected: dfit.FitResult) -> list[str]:
    """Names of what is not the same to the bit."""
    ours, theirs = bits(found), bits(expected)
    return [name for name in ours if ours[name] != theirs[name]]


def stop_and_go(
    run: Callable[..., dfit.FitResult], folder: Path, after: int = 1, at: str = "on_partition"
) -> tuple[dfit.FitResult, int]:
    """A fit that is stopped after every so many partitions or passes, each time by a process that is to end.

    Parameters
    ----------
    run : the fit, given its checkpoint and an observer.
    after : how many partitions or passes each process may do.
    at : name of the observer.

    Returns
    -------
    The result of the process that was left in peace by the end of the data, and how many were stopped.
    """
    for stops in range(ENOUGH):
        seen: list[Any] = []
        why = (KeyboardInterrupt, Stop)[stops % 2]

        def observe(event: Any, seen: list[Any] = seen, why: type[BaseException] = why) -> None:
            seen.append(event)
            if len(seen) == after:
                raise why

        found = None
        with contextlib.suppress(KeyboardInterrupt, Stop):
            found = run(checkpoint=dfit.Checkpoint(folder, every_s=1e9), **{at: observe})
        if found is not None and len(seen) < after:
            return found, stops
    raise AssertionError(f"not finished by {ENOUGH} processes")


def stop_after(partitions: int) -> Callable[[Any], None]:
    """An observer of partitions that presses Ctrl-C."""
    seen: list[Any] = []

    def observe(event: Any) -> None:
        seen.append(event)
        if len(seen) == partitions:
            raise KeyboardInterrupt

    return observe
