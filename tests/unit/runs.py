"""Records of past fits, and files that hold what no ledger wrote."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from dfit.store.ledger import Ledger
from dfit.store.row import Record, encode

NUMBERS = {
    "pass_s": 2.5,
    "point_ns": 20.0,
    "byte_ns": 0.5,
    "wait": 0.25,
    "task_ms": 1.5,
    "spread": 0.1,
    "peak_bytes": None,
}


def record(model: str = "a", **changed: Any) -> Record:
    parts = {"about": {}, "versions": {"jax": "0.8.0"}, "settings": {"read_ahead": True}}
    own = {"workload": {"model": model, "p": 3}, "hardware": {"cpu": "any", "cores": 2}, **parts}
    return Record(**{**own, "predicted": NUMBERS, "predicted_by": "static", "measured": NUMBERS, **changed})


def loaded(folder: Path) -> list[str]:
    """Ids, of a history that has nothing to tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [one.id for one in Ledger(folder).load()]


def put(folder: Path, content: bytes, name: str = "run-" + "0" * 32 + ".jsonl") -> Path:
    """A file that no ledger wrote."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    return path


def use(history: Ledger) -> list[Record]:
    """What a fit does, twice over: load, and keep a record; gives what was loaded first."""
    found = history.load()
    history.add(record("b"))
    history.load()
    history.add(record("c"))
    return found


def changed(**values: Any) -> bytes:
    """A line of JSON that is a record but for some values, whichever part of it they stand in."""
    row = json.loads(encode(record()))
    for name, value in values.items():
        (row if name == "dfit_history" else row["of"] if name in row["of"] else row["run"])[name] = value
    return json.dumps(row, separators=(",", ":")).encode()
