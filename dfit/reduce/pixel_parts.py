"""What the tasks of a pass over many pixels do, where no task can hold all points of a pixel.

A pass asks every part of the fitted dimensions for the sums of its points (`sums_of`), adds them in pairs (`added`),
and takes one step of all pixels (`advanced`).  The engines, and when a pixel changes from one to the other, are
those of `dfit.core.lanes.solve`: by sums of squares, and by triangles where these are too rough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cloudpickle
import jax
import numpy as np

from dfit import fingerprint
from dfit.core.lanes import LEFT_AT, verdict
from dfit.core.pixels import ROUGH, Facts
from dfit.core.state import State, Status
from dfit.core.sums import merge_moments
from dfit.precision import float64_on_cpu, one_blas_thread
from dfit.reduce.evaluators import TRIANGLE_ABOVE
from dfit.reduce.kernels import Box
from dfit.reduce.map_job import MapJob
from dfit.reduce.pixel_answers import (
    EXACT_LANES,
    FEW,
    LANES,
    Solved,
    Starts,
    answers_of,
    at,
    begin,
    begin_again,
    box_of,
    in_lanes,
    problem_of,
    quick_enough,
    refused_of,
    some_of,
    without_noise,
)
from dfit.reduce.pixel_kernels import judge, judge_exactly
from dfit.reduce.pixel_points import PixelPoints
from dfit.reduce.pixel_stack import Stack
from dfit.reduce.pixel_starts import starts_of
from dfit.reduce.pixel_table import table_of

ENDED, QUICK, EXACT = range(3)
OF_THE_SOLVER = ("matrix", "cost", "psi2")
Found = dict[str, Any]  # by form: fields (k, ...) of `leaf_kernel`, matrices of a sandwich, or `Facts`


@dataclass(frozen=True, eq=False)
class Course:
    """Where the fits of N pixels of a chunk stand between two passes.

    Attributes
    ----------
    pixels : (N,) their places in the chunk.
    starts, states : of them.
    facts : None before the first pass.
    refused : (N,) as of `refused_of`.
    engine : (N,) QUICK, EXACT, or ENDED.
    well : (N,) bool, where sums of squares have been enough.
    """

    pixels: np.ndarray
    starts: Starts
    states: State
    facts: Facts | None
    refused: np.ndarray
    engine: np.ndarray
    well: np.ndarray


class Asked(NamedTuple):
    """Pixels (k,) whose sums are wanted at theta (k, p).

    ``held`` (k, .) are their fixed parameters; ``box`` (k, p), where derivatives may be differences, as of `box_of`.
    """

    pixels: np.ndarray
    theta: Any
    held: np.ndarray
    box: Box | None = None


def begun(job: MapJob, shape: Sequence[int], first: int, stop: int, given: Sequence[np.ndarray]) -> Course:
    """The pixels from ``first`` to ``stop`` of a chunk whose kept dimensions have this shape."""
    parameters = cloudpickle.loads(job.pixels.recipe.parameters)
    all_starts = starts_of(job, parameters, shape, given)
    pixels = np.arange(first, stop)
    starts = some_of(all_starts, pixels)
    quick = quick_enough(job.pixels, starts, pixels.size)
    return Course(
        pixels,
        starts,
        begin(starts.theta),
        None,
        np.full(pixels.size, -1),
        np.full(pixels.size, QUICK if quick else EXACT),
        np.full(pixels.size, quick),
    )


def question(course: Course) -> dict[str, Asked]:
    """What the next pass asks of every part, by form."""
    asked = {"sums": _asked(course, QUICK), "triangle": _asked(course, EXACT)}
    if course.facts is None:
        asked["facts"] = Asked(course.pixels, course.states.trial, course.starts.held)
    return asked


def last_question(course: Course) -> dict[str, Asked]:
    """What a robust covariance asks of every part once all solves have ended."""
    theta, starts = np.asarray(course.states.theta), course.starts
    return {"sandwich": Asked(course.pixels, theta, starts.held, box_of(starts))}


def _asked(course: Course, engine: int) -> Asked:
    which = course.engine == engine
    starts = some_of(course.starts, which)
    box = box_of(starts) if engine == EXACT else None
    return Asked(course.pixels[which], course.states.trial[which], starts.held, box)


def unfinished(course: Course) -> int:
    """How many pixels need another pass."""
    return int((course.engine != ENDED).sum())


def sums_of(
    job: MapJob,
    room: int,
    constants: Mapping[str, np.ndarray],
    asked: Mapping[str, Asked],
    chunks: Sequence[Sequence[np.ndarray]],
) -> Found:
    """Sums of the points of one part: the arrays of some chunks, one after the other along the fitted dimensions.

    ``room`` : points of a pixel in the largest part.
    """
    points = PixelPoints(job.pixels, constants, Stack(job.columns, chunks, job.fitted), room)
    with one_blas_thread(), float64_on_cpu(), fingerprint.fresh(job.pixels.recipe.fingerprint):
        return {form: _BY_FORM[form](points, these) for form, these in asked.items() if these.pixels.size}


def _facts(points: PixelPoints, asked: Asked) -> Facts:
    lanes = points.lanes(LANES if asked.pixels.size > FEW else EXACT_LANES)
    facts: Facts = in_lanes(
        lambda these: points.survey(asked.pixels[these], lanes)[0], lanes, asked.pixels.size
    )
    return facts


def _squares(points: PixelPoints, asked: Asked) -> Found:
    lanes = points.lanes(LANES)

    def some(these: np.ndarray) -> Found:
        _, ready = points.survey(asked.pixels[these], lanes)
        return _of_the_solver(points.sums(asked.theta[these], ready, asked.held[these]))

    fields: Found = in_lanes(some, lanes, asked.pixels.size)
    return fields


def _triangles(points: PixelPoints, asked: Asked) -> Found:
    def some(these: np.ndarray) -> Found:
        rows = points.rows(asked.pixels[these])
        return _of_the_solver(
            points.triangles(asked.theta[these], rows, asked.held[these], at(asked.box, these))
        )

    fields: Found = in_lanes(some, points.lanes(EXACT_LANES), asked.pixels.size)
    return fields


def _sandwich(points: PixelPoints, asked: Asked) -> np.ndarray:
    return points.sandwich(asked.pixels, asked.theta, asked.held, asked.box)


_BY_FORM = {"facts": _facts, "sums": _squares, "triangle": _triangles, "sandwich": _sandwich}


def _of_the_solver(fields: Mapping[str, Any]) -> Found:
    return {name: fields[name] for name in OF_THE_SOLVER}


def added(parts: Sequence[Found]) -> Found:
    """Sums of parts, in their order."""
    total = dict(parts[0])
    for part in parts[1:]:
        for form, fields in part.items():
            total[form] = _added(form, total[form], fields)
    return total


def _added(form: str, a: Any, b: Any) -> Any:
    if form == "facts":
        return Facts(a.count + b.count, a.counts + b.counts, merge_moments(a.moments, b.moments))
    if form != "triangle":
        return jax.tree.map(np.add, a, b)
    both = np.concatenate([a["matrix"], b["matrix"]], axis=1)
    return {name: a[name] + b[name] for name in ("cost", "psi2")} | {"matrix": np.linalg.qr(both, mode="r")}


def advanced(job: MapJob, course: Course, found: Found) -> Course:
    """The course after one step of every pixel that was asked for."""
    facts, refused = course.facts, course.refused
    if facts is None:
        facts = found["facts"]
        refused = refused_of(job.pixels, facts, course.starts)
    # The course before may be asked for again.
    states = jax.tree.map(np.array, course.states)
    engine, well = course.engine.copy(), course.well.copy()
    after = replace(course, states=states, facts=facts, refused=refused, engine=engine, well=well)
    with one_blas_thread(), float64_on_cpu():
        for number, form in ((QUICK, "sums"), (EXACT, "triangle")):
            which = np.flatnonzero(course.engine == number)
            if which.size:
                wanted = refused[which] < 0
                _step(job, after, number, which[wanted], at(found[form], wanted))
    engine[refused >= 0] = ENDED
    if (engine == QUICK).sum() <= LEFT_AT * LANES:
        well[engine == QUICK] = False
        engine[engine == QUICK] = EXACT
    return after


def _step(job: MapJob, course: Course, number: int, which: np.ndarray, fields: Found) -> None:
    """Take one step of some pixels of one engine."""
    if not which.size:
        return
    pixels, states, facts = job.pixels, course.states, course.facts
    assert facts is not None
    problem = problem_of(course.starts, facts)
    if number == EXACT:
        typical = box_of(some_of(course.starts, which))[0]
        fields = without_noise(pixels, fields, states.trial[which], facts.moments[which, 4], typical)
    step, lanes, roughest = (
        (judge, LANES, (ROUGH, TRIANGLE_ABOVE))
        if number == QUICK
        else (judge_exactly, EXACT_LANES, (np.inf,) * 2)
    )

    def some(these: np.ndarray) -> Any:
        one = which[these]
        return step(at(states, one), at(fields, these), at(problem, one), pixels.tolerances)

    new, condition = in_lanes(some, lanes, which.size)
    for whole, part in zip(jax.tree.leaves(states), jax.tree.leaves(new), strict=True):
        whole[which] = part
    over, rough = verdict(new, condition, roughest, pixels.limit)
    course.engine[which[over]] = ENDED
    course.engine[which[rough]] = EXACT
    course.well[which[rough]] = False
    begin_again(states, which[rough & (new.status != Status.RUNNING)])


def ended(job: MapJob, course: Course, found: Found) -> np.ndarray:
    """Rows (N, columns) of the table of pixels whose solves have ended, by the sums of `last_question`."""
    assert course.facts is not None
    solved = Solved(course.states, course.starts, course.facts, course.refused, course.well)
    with one_blas_thread(), float64_on_cpu():
        answers = answers_of(job.pixels, solved, found.get("sandwich"))
    return table_of(cloudpickle.loads(job.pixels.recipe.parameters), course.starts, answers)
