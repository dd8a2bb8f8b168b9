"""History: what past fits cost, kept for the plans of later ones; here to be seen, explained and removed.

Where it is kept is ``dfit.history`` in ``dask.config``: True is the user's state folder (the default), False
nowhere, a path another folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dask.config
import platformdirs

from dfit.errors import InputError
from dfit.learning import LEAST, Reliability, reliability
from dfit.store.ledger import Ledger
from dfit.store.row import Record
from dfit.terms import Origin
from dfit.widgets import table

__all__ = ["clear", "explain", "show"]

HEAD = ("when", "workload", "hardware", "strategy", "points", "predicted", "measured", "from")
OFF = 'The history is off. Type: dask.config.set({"dfit.history": True})'


@dataclass(frozen=True)
class Report:
    """Rows of text, to be printed or shown in a notebook.

    Attributes
    ----------
    title : what they are.
    rows : cells, the first row being the heading.
    notes : what is to be said below.
    """

    title: str
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in self.rows]
        return "\n".join([self.title, *(f"    {line}" for line in lines), *self.notes])

    def _repr_html_(self) -> str:
        return table(self.title, self.rows, self.notes)


def ledger() -> Ledger | None:
    """Where ``dask.config`` says that history is kept; None where it is off.

    Raises
    ------
    InputError
        If it says neither True nor False nor a folder.
    """
    setting = dask.config.get("dfit.history", True)
    if setting is None or setting in (True, False):  # 1 and 0 are, too
        on = setting is None or bool(setting)
        folder = _state_folder() if on else None
        return None if folder is None else Ledger(folder)
    words = ("", "on", "off", "yes", "no")  # as an environment variable may say, and no folder
    if not isinstance(setting, (str, os.PathLike)) or str(setting).lower() in words or "://" in str(setting):
        raise InputError(
            f"dfit.history is {setting!r} in dask.config; expected True, False or a folder. "
            'Type: dask.config.set({"dfit.history": False})'
        )
    return Ledger(setting)


def _state_folder() -> Path | None:
    """Of this user; None for one without a home, as in some containers."""
    try:
        folder = platformdirs.user_state_path("dfit", appauthor=False) / "history"
    except RuntimeError:  # from newer platformdirs; earlier ones give "~/..."
        return None
    return folder if folder.is_absolute() else None


def show(n: int = 20) -> Report:
    """The last n fits, the newest first, with seconds per pass as predicted (80 % interval) and measured."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"n is {n!r}; expected how many fits to show. Type: dfit.history.show(20)")
    kept = ledger()
    if kept is None:
        return Report("History", notes=(OFF,))
    records = kept.load()
    rows = tuple(_line(record) for record in reversed(records[-n:]))
    return Report(f"History: {len(records)} fits in {kept.path}", (HEAD, *rows) if rows else ())


def explain(what: Any = None) -> Report:
    """Where each number of a plan came from, and how good past predictions were.

    Parameters
    ----------
    what : FitResult or Plan, optional
        By default the last fit in the history, with what was predicted of it and what it then took.
    """
    if what is None:
        return _last()
    plan = getattr(what, "plan", what)
    origins = getattr(plan, "origins", None)
    if origins is None:
        raise InputError(
            f"a {type(what).__name__} has no plan; expected a result or a plan. "
            "Type: dfit.history.explain(result), or dfit.history.explain() for the last fit"
        )
    rows = tuple((name, _text(getattr(plan, name, None)), origin) for name, origin in origins.items())
    earned = (
        "not known after fewer than five predictions of this workload, and of a plan that follows no history"
    )
    if plan.confidence is not None:
        earned = f"{plan.confidence:.0%} of past predictions of this workload came within 25 %"
    return Report("Plan", (("number", "value", "from"), *rows), (f"Confidence: {earned}",))


def clear() -> int:
    """Remove all that this user has kept in the history; gives the number of files."""
    kept = ledger()
    return 0 if kept is None else kept.clear()


def _last() -> Report:
    kept = ledger()
    records = [] if kept is None else kept.load()
    if not records:
        return Report("Last fit", notes=(OFF if kept is None else f"No fit yet in {kept.path}.",))
    last = records[-1]
    names = [*last.measured, *(name for name in last.predicted if name not in last.measured)]
    numbers = [(name, _text(last.predicted.get(name)), _text(last.measured.get(name))) for name in names]
    words = [
        (name, _text(value), "")
        for part in (last.workload, last.about, last.hardware, last.settings, last.versions)
        for name, value in part.items()
    ]
    title = f"Last fit: {_when(last)}, predicted from: {last.predicted_by}"
    return Report(title, (("", "predicted", "measured"), *numbers, *words), tuple(_earned(records, last)))


def _earned(records: list[Record], last: Record) -> Iterator[str]:
    """A sentence for each origin of predictions, on what those of this workload were worth."""
    key = (last.workload_key, last.hardware_key)
    own = [record for record in records if (record.workload_key, record.hardware_key) == key]
    for origin in Origin:
        found = reliability(own, origin)
        if found.predictions:
            yield f"Predictions of this workload from {origin}: {_worth(found)}"


def _worth(found: Reliability) -> str:
    if found.confidence is None or found.interval is None:
        return f"{found.predictions} so far; {LEAST} are needed to judge them."
    low, high = found.interval
    return (
        f"{found.confidence:.0%} of the last {found.predictions} came within 25 %; the next pass takes "
        f"{low:.2f} to {high:.2f} times what is predicted, with a probability of 80 %."
    )


def _line(record: Record) -> tuple[str, ...]:
    predicted, measured = record.predicted, record.measured
    low, high = predicted.get("low_s"), predicted.get("high_s")
    between = "" if low is None or high is None else f" ({low:.3g} to {high:.3g})"
    return (
        _when(record),
        record.workload_key[:8],
        record.hardware_key[:8],
        _text(record.workload.get("strategy")),
        _text(measured.get("points")),
        f"{_seconds(predicted.get('pass_s'))}{between}",
        _seconds(measured.get("pass_s")),
        record.predicted_by,
    )


def _when(record: Record) -> str:
    return datetime.fromtimestamp(record.when).strftime("%Y-%m-%d %H:%M")


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} s"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
