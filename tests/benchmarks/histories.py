"""Histories to plan from: those that real fits leave, and those that mislead."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import dask

from dfit.store.ledger import Ledger
from dfit.store.row import Record

# What is a time, by its name in a record.
TIMES = ("pass_s", "first_pass_s", "low_s", "high_s", "point_ns", "byte_ns", "task_ms")
TENFOLD = 10.0


def filled(fit: Callable[[], object], folder: Path, runs: Sequence[int]) -> dict[int, Path]:
    """Folders with the records of so many fits, by that number."""
    growing = folder / "growing"
    found = {}
    for done in range(1, max(runs) + 1):
        with dask.config.set({"dfit.history": str(growing)}):
            fit()
        if done in runs:
            found[done] = Path(shutil.copytree(growing, folder / f"after {done}"))
    return found


def slower(record: Record, factor: float) -> Record:
    """The record with all times so many times as long, those predicted, too: it looks trustworthy."""

    def scaled(numbers: Mapping[str, float | None]) -> dict[str, float | None]:
        return {n: factor * v if n in TIMES and v is not None else v for n, v in numbers.items()}

    return replace(record, predicted=scaled(record.predicted), measured=scaled(record.measured))


def elsewhere(record: Record) -> Record:
    """The record as of another machine, ten times as slow."""
    return replace(slower(record, TENFOLD), hardware={**record.hardware, "cpu": "of another machine"})


def poisoned(source: Path, folder: Path) -> dict[str, Path]:
    """Folders with the records of another one made misleading, by what is wrong with them."""
    changes: dict[str, Callable[[Record], Record]] = {
        "another machine": elsewhere,
        "ten times too long": lambda record: slower(record, TENFOLD),
        "ten times too short": lambda record: slower(record, 1 / TENFOLD),
    }
    records = Ledger(source).load()
    for name, change in changes.items():
        for record in records:
            Ledger(folder / name).add(change(record))
    cut = folder / "cut files"
    cut.mkdir(parents=True)
    for path in source.iterdir():
        (cut / path.name).write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return {name: folder / name for name in (*changes, cut.name)}


def covered(folders: Iterable[Path]) -> tuple[int, int]:
    """Passes that took what the 80 % interval of their prediction said, and all that had one."""
    inside = total = 0
    for folder in folders:
        for record in Ledger(folder).load():
            low, high = (record.predicted.get(name) for name in ("low_s", "high_s"))
            took = record.measured.get("pass_s")
            if low is not None and high is not None and took is not None:
                inside, total = inside + (low <= took <= high), total + 1
    return inside, total
