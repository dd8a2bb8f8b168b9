"""What a pass over data costs: the few numbers that a plan follows from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum


class Origin(StrEnum):
    """Where numbers come from: records of past runs, a short try on the data at hand, or a rule."""

    HISTORY = "history"
    DRY_RUN = "dry run"
    STATIC = "static"


@dataclass(frozen=True)
class Terms:
    """Cost of a pass by its parts.

    Attributes
    ----------
    point_ns : computing one point on one thread, in ns.
    byte_ns : reading one byte, counted as decoded, in one thread, in ns; 0 for data in memory.
    wait : share of a read (0 to 1) that waits for the store; the rest decodes, which is a core's work.
    task_ms : what a task costs beside its own work, in ms.
    spread : coefficient of variation of the seconds a point, over the tasks of a pass.
    origin : where these numbers come from.
    """

    point_ns: float
    byte_ns: float
    wait: float
    task_ms: float
    spread: float
    origin: Origin


# Those that are numbers: what a record of a fit keeps.
NAMES = tuple(field.name for field in fields(Terms) if field.name != "origin")
