"""The books of a fit: what its passes have cost, and what each partition gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dfit.reduce.draw import DrawReport
from dfit.reduce.task import Report

# Numbers of each partition that its pieces add up to.
ADDED = {
    "leaves": np.int64,
    "points": np.int64,
    "cost": np.float64,
    "seconds": np.float64,
    "bytes_read": np.int64,
    "retries": np.int64,
    "missing": np.int64,
    "content": np.uint64,
}
SPENT = ("seconds", "bytes_read", "retries")  # of all passes; the others are of one
TOLD = ("points", "cost", *SPENT, "missing")  # to observers


@dataclass
class Account:
    """What the passes of a fit have cost so far.

    ``read_s``, ``wait_s``, ``compute_s`` and ``compile_s`` are seconds of all tasks, see `Report`; the first
    also counts draws of a sample.
    """

    passes: int = 0
    tasks: int = 0
    points: int = 0
    bytes_read: int = 0
    first_bytes: int = 0
    read_s: float = 0.0
    wait_s: float = 0.0
    compute_s: float = 0.0
    compile_s: float = 0.0
    elapsed_s: float = 0.0  # of earlier processes, before a resume
    compilations: int = 0
    retries: int = 0
    peak_bytes: dict[str, int] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, report: Report) -> None:
        self.add_read(report)
        self.points += report.points
        self.wait_s += report.wait_s
        self.compute_s += report.compute_s
        self.compile_s += report.compile_s
        self.compilations += report.compilations
        known = self.peak_bytes.get(report.process, 0)
        self.peak_bytes[report.process] = max(known, report.peak_bytes)

    def add_read(self, report: Report | DrawReport) -> None:
        """Count a task and what it has read."""
        self.tasks += 1
        self.bytes_read += report.bytes_read
        self.read_s += report.read_s
        self.retries += report.retries
        if report.failure is not None:
            self.errors[report.failure.error] += 1

    def numbers(self) -> dict[str, float]:
        """All of it as flat numbers, for a checkpoint; of the memory only the largest."""
        flat = {name: value for name, value in vars(self).items() if not isinstance(value, dict)}
        flat["peak_bytes"] = max(self.peak_bytes.values(), default=0)
        return flat | {f"errors_{name}": count for name, count in self.errors.items()}

    @classmethod
    def of_numbers(cls, numbers: Mapping[str, float]) -> Account:
        """What `numbers` were of."""
        given: dict[str, Any] = {name: n for name, n in numbers.items() if not name.startswith("errors_")}
        given["peak_bytes"] = {"before": int(given.get("peak_bytes", 0))}
        errors = {n.removeprefix("errors_"): int(k) for n, k in numbers.items() if n.startswith("errors_")}
        return cls(**given, errors=Counter(errors))


class Table:
    """What each partition gave in one pass: an array (partitions,) for each of ``ADDED``, and its worker.

    When the pass is complete, ``SPENT`` is of all passes so far.
    """

    def __init__(self, partitions: int) -> None:
        self.columns: dict[str, np.ndarray] = {n: np.zeros(partitions, kind) for n, kind in ADDED.items()}
        self.workers = [""] * partitions

    def add(self, report: Report) -> None:
        """Numbers of a finished piece."""
        at = report.partition
        seconds = report.wait_s + report.compute_s
        with np.errstate(over="ignore"):  # the sum of contents is modulo 2^64
            for name, column in self.columns.items():
                value = seconds if name == "seconds" else getattr(report, name)
                column[at] += column.dtype.type(value)
        if report.leaves:
            self.workers[at] = report.process

    def add_read(self, report: DrawReport) -> None:
        """Count what was read of a partition besides the passes."""
        spent = {"seconds": report.read_s, "bytes_read": report.bytes_read, "retries": report.retries}
        for name, value in spent.items():
            self.columns[name][report.partition] += value

    @property
    def leaves(self) -> int:
        """Leaves that were summed."""
        return int(self.columns["leaves"].sum())

    @property
    def bytes_read(self) -> int:
        """Bytes of all partitions."""
        return int(self.columns["bytes_read"].sum())

    def row(self, partition: int) -> dict[str, Any]:
        """Numbers of a partition, of those that observers are told."""
        return {name: self.columns[name][partition].item() for name in TOLD}

    def carry(self, before: Table, surveyed: bool, has_cost: bool) -> None:
        """Add what the passes before have spent, and take over what only they have found."""
        known = {"missing": not surveyed, "cost": not has_cost}
        for name in SPENT:
            self.columns[name] += before.columns[name]
        for name in (name for name, only_before in known.items() if only_before):
            self.columns[name][:] = before.columns[name]

    def tree(self) -> dict[str, Any]:
        """Arrays and text, for a checkpoint."""
        columns = {n: c.view(np.int64) if n == "content" else c for n, c in self.columns.items()}
        return {**columns, "workers": "\n".join(self.workers)}

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any]) -> Table:
        """What `tree` was of.

        Raises
        ------
        ValueError
            If the columns are of different lengths.
        """
        workers = tree["workers"].split("\n") if tree["leaves"].size else []
        table = cls(len(workers))
        for name, column in table.columns.items():
            column[:] = tree[name].view(column.dtype)
        table.workers = workers
        return table
