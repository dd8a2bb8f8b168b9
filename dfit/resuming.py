"""Resuming: how a fit goes on from what an earlier process has kept of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from dfit.core.drive import reopened
from dfit.core.state import Status
from dfit.course import Course
from dfit.events import PassDone
from dfit.identity import TOLERANCES, environment
from dfit.parameters import Parameters
from dfit.prepare import Prepared
from dfit.reduce.evaluators import Memory
from dfit.settings import Settings
from dfit.snapshots import course_of, history_of, memory_of
from dfit.store.snapshot import Snapshot, as_number
from dfit.warm_settings import Warmup


@dataclass(frozen=True)
class Begun:
    """A fit that was begun before.

    Attributes
    ----------
    course : where it stood.
    memory : what the evaluator knew.
    history : its passes.
    finished : whether nothing is left to do.
    stopped : why it is finished, where the solver has not ended.
    sentence : all of it in words.
    """

    course: Course
    memory: Memory
    history: list[PassDone]
    finished: bool
    stopped: str | None
    sentence: str


def begun(found: Snapshot, prepared: Prepared, settings: Settings) -> Begun | None:
    """Where a fit stands that goes on from a snapshot, under settings that may go further than before.

    None where it begins again, with the sample that is kept: its passes were over that alone.
    """
    course, history, stopped = course_of(found), history_of(found), None
    same = all(found.limits[name] == getattr(settings, name) for name in TOLERANCES)
    limited = found.stopped.startswith("max_passes=")  # with 0 the sample's solve may have ended
    if limited or course.state.status == Status.RUNNING:
        passes = history[-1].npasses if history else 0
        finished = limited and passes >= settings.max_passes
        stopped = found.stopped if finished else None
        judged = course.state.evaluations > 0 and not found.in_memory  # not a start that asks for triangles
        if not same and judged and course.state.offset <= settings.tol:
            met: Any = np.int32(Status.OFFSET)
            ended = course.state._replace(status=met, trial=course.state.theta)
            course, finished, stopped = course._replace(state=ended), True, None
    elif not same and not found.in_memory:
        p = prepared.parameters
        varying = list(p.varying)
        state = reopened(course.state, p.lower[varying], p.upper[varying], settings.tolerances)
        course, finished = course._replace(state=state), bool(state.status != Status.RUNNING)
    else:
        finished = same
    if found.in_memory and not finished:
        return None
    if settings.robust:  # its covariance takes a pass of its own
        finished = finished and found.running is not None and found.running.complete
    sentence = _finished(found) if finished else _going_on(found, len(prepared.partitions))
    return Begun(course, memory_of(found), history, finished, stopped, sentence)


def remembered(arguments: Mapping[str, Any], parameters: Parameters) -> dict[str, Any]:
    """What a resume need not be told again of the arguments of `fit`, as JSON; "given" names the others."""
    p, tied = parameters, {k for k, _ in parameters.ties}
    free = [k for k in range(len(p.names)) if k not in tied]
    told: dict[str, Any] = {
        "p0": {p.names[k]: float(p.init[k]) for k in free},
        "bounds": {p.names[k]: [float(p.lower[k]), float(p.upper[k])] for k in free},
        "fixed": {p.names[k]: float(p.init[k]) for k in p.fixed},
        "given": [],
    }
    for name, value in arguments.items():
        if name in told or value is None:
            continue
        plain = asdict(value) if isinstance(value, Warmup) else value
        try:
            json.dumps(plain, default=as_number)
            told[name] = plain
        except TypeError:
            told["given"].append(name)
    return told


def _saved(found: Snapshot) -> str:
    when = datetime.fromisoformat(found.written)
    today = datetime.now(when.tzinfo).date() == when.date()
    return f"saved {when:%H:%M} UTC" if today else f"saved {when:%Y-%m-%d %H:%M} UTC"


def _finished(found: Snapshot) -> str:
    return (
        f"resuming: the fit was finished after {len(found.history)} passes, {_saved(found)}; nothing is read"
    )


def _going_on(found: Snapshot, partitions: int) -> str:
    running, now = found.running, environment()
    done = 0 if running is None or running.complete else int(np.count_nonzero(running.table["leaves"]))
    told = f"resuming: pass {len(found.history) + 1}, {done} of {partitions} partitions, {_saved(found)}"
    before = found.environment
    other = [f"{name} {before.get(name)}, now {now[name]}" for name in now if now[name] != before.get(name)]
    if other:
        told += f". The last bits are no longer promised, 1e-10 is: {'; '.join(other)}"
    return told
