"""From a fit to its snapshot, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from dfit.course import Course, Stage
from dfit.events import PassDone
from dfit.identity import LIMITS, Identity, environment
from dfit.passes import Passes
from dfit.prepare import Prepared
from dfit.reduce.books import Account, Table
from dfit.reduce.knowledge import Memory, RunningPass
from dfit.settings import Settings
from dfit.starts import Start
from dfit.store.snapshot import Running, Snapshot
from dfit.warm_report import WarmupReport


def snapshot_of(
    prepared: Prepared,
    passes: Passes,
    settings: Settings,
    identity: Identity,
    history: Sequence[PassDone],
    elapsed_s: float,
    stopped: str,
) -> Snapshot:
    """All of a fit as it stands now."""
    p, course, memory = prepared.parameters, passes.course, passes.evaluator.memory()
    values = p.init.copy()
    values[list(p.varying)] = np.asarray(passes.best.theta)
    running = memory.running
    return Snapshot(
        version=environment()["dfit"],
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment(),
        model=identity.model,
        data=identity.data,
        settings=identity.settings,
        limits={name: getattr(settings, name) for name in LIMITS},
        call=dict(settings.call),
        seeds=identity.seeds,
        plan={"partition_points": prepared.plan.partition_points or 0},
        names=identity.names,
        p0=identity.values["p0"],
        values=values,
        lower=identity.values["lower bounds"],
        upper=identity.values["upper bounds"],
        fixed=identity.values["fixed parameters"],
        stage=str(course.stage),
        state=course.state,
        form=memory.form,
        table=memory.table.tree(),
        lost=np.array(sorted(memory.lost), np.int64).reshape(-1, 3),
        stopped=stopped,
        retract=course.retract,
        in_memory=passes.evaluator is not prepared.evaluator,
        at_p0=course.at_p0,
        sample=course.sample,
        report=_report_words(course.report),
        rough=memory.rough,
        running=None if running is None else _kept(running),
        survey=memory.survey,
        last=memory.last,
        account=memory.account.numbers() | {"elapsed_s": elapsed_s},
        history=tuple(_row(event) for event in history),
        recovery=tuple(memory.recovery),
    )


def memory_of(found: Snapshot) -> Memory:
    """What the evaluator knew."""
    running = found.running
    return Memory(
        found.survey,
        found.last,
        found.form,
        found.rough,
        Account.of_numbers(found.account),
        Table.of_tree(found.table),
        frozenset((int(k), int(a), int(b)) for k, a, b in found.lost),
        None if running is None else _running(running),
        list(found.recovery),
    )


def _kept(running: RunningPass) -> Running:
    table = running.table.tree()
    place = running.not_finite or ""
    return Running(
        running.theta, running.form, running.forest, table, running.validate, place, running.complete
    )


def _running(found: Running) -> RunningPass:
    table = Table.of_tree(found.table)
    place = found.not_finite or None
    return RunningPass(
        found.theta, found.form, dict(found.forest), table, found.validate, place, found.complete
    )


def course_of(found: Snapshot) -> Course:
    """Where the fit stood."""
    return Course(
        Stage(found.stage), found.state, found.retract, found.at_p0, found.sample, _report(found.report)
    )


def history_of(found: Snapshot) -> list[PassDone]:
    """The passes that were complete."""
    return [_event(row) for row in found.history]


def _report_words(report: WarmupReport | None) -> dict[str, Any]:
    if report is None:
        return {}
    words = asdict(report) | {"unit": report.unit.tolist()}
    return words | {"starts": [asdict(one) for one in report.starts]}


def _report(words: Mapping[str, Any]) -> WarmupReport | None:
    if not words:
        return None
    starts = tuple(Start(**one) for one in words["starts"])
    return WarmupReport(**{**words, "unit": np.array(words["unit"]), "starts": starts})


PREFIX = "params."


def _row(event: PassDone) -> dict[str, float]:
    row = {name: value for name, value in vars(event).items() if name != "params"}
    return row | {PREFIX + name: value for name, value in event.params.items()}


def _event(row: Mapping[str, Any]) -> PassDone:
    params = {name.removeprefix(PREFIX): value for name, value in row.items() if name.startswith(PREFIX)}
    rest = {name: value for name, value in row.items() if not name.startswith(PREFIX)}
    return PassDone(**rest, params=params)
