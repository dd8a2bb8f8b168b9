"""Plan: how a fit runs, what that is predicted to take, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from dask.utils import format_bytes

from dfit.errors import InputError
from dfit.limits import Limit
from dfit.terms import Origin, Terms
from dfit.widgets import table

STRATEGIES = ("in_memory", "cached", "streaming")
CHOICES = ("strategy", "partition_points", "in_flight", "read_ahead")


@dataclass(frozen=True)
class Plan:
    """How a fit runs, what that is predicted to take, and why.

    ``dfit.plan(...)`` gives a complete one.  ``dfit.Plan(strategy="streaming")`` decides what it names, of the first
    four, and leaves the rest to dfit.

    Attributes
    ----------
    strategy : {"in_memory", "cached", "streaming"}
        The data in this process and no dask; kept in the workers' memory after the first pass; read in every pass.
    partition_points : int
        Points of a partition, which one task reads and sums.  A task has whole leaves, so it may have more.
    in_flight : int
        Partitions at a time in one process.
    read_ahead : bool
        Whether a task reads while it computes.
    points, partitions : int
        Of the data, and how many tasks a pass has for them.
    leaf_points, block_points : int
        Pieces of a partition; fixed by chunks and model, because they decide the bits of the result.
    bytes_per_pass, kept_bytes : int
        Bytes that the first pass reads, and those of them that stay in memory, in all processes together.  All bytes
        of data count as decoded.
    workers, threads : int
        Worker processes (0 for this one alone), and partitions at a time in all of them.
    limit : dfit.limits.Limit
        Memory of one process.
    peak_bytes, client_bytes : int
        Predicted peak memory in bytes of one process that sums, and of the client, above what it takes idle.
    smallest_limit : int
        Bytes of one process with which the fit can run; a smaller ``memory_limit`` is refused.
    first_pass_s, pass_s : float
        Predicted seconds of the first pass and of each that follows, without compiling.
    interval_s : (float, float)
        Interval that holds ``pass_s`` with probability 0.8; None before five fits have been predicted.
    confidence : float
        Share of past predictions within 25 % of what then happened; None before there are five.
    sample_points : int
        Points of the warm-up before the first pass; 0 without one.
    terms : dfit.terms.Terms
        Costs that the plan follows from, and where they come from.
    flops_per_point : float
        Floating-point operations of the compiled kernel for a point; 0 where it has not been compiled.
    storage : str
        How the data are stored.
    reason : str
        Why this strategy.
    warnings : tuple of str
        What had better be changed, with the line to type.
    workload, hardware : dict
        By which the history knows fits like this one; empty where nothing is to be learned.
    asked : tuple of str
        Which of the first four the user has decided.
    """

    strategy: str | None = None
    partition_points: int | None = None
    in_flight: int | None = None
    read_ahead: bool | None = None
    points: int = 0
    partitions: int = 0
    leaf_points: int = 0
    block_points: int = 0
    bytes_per_pass: int = 0
    kept_bytes: int = 0
    workers: int = 0
    threads: int = 0
    limit: Limit | None = None
    peak_bytes: int = 0
    client_bytes: int = 0
    smallest_limit: int = 0
    first_pass_s: float = float("nan")
    pass_s: float = float("nan")
    interval_s: tuple[float, float] | None = None
    confidence: float | None = None
    sample_points: int = 0
    terms: Terms | None = None
    flops_per_point: float = 0.0
    storage: str = ""
    reason: str = ""
    warnings: tuple[str, ...] = ()
    workload: Mapping[str, str | int | float | None] = field(default_factory=dict)
    hardware: Mapping[str, str | int | float | None] = field(default_factory=dict)
    asked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.strategy is not None and self.strategy not in STRATEGIES:
            raise InputError(
                f"strategy is {self.strategy!r}; expected one of {', '.join(map(repr, STRATEGIES))}, or None to "
                "let memory decide"
            )
        for name in ("partition_points", "in_flight"):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, Integral) or value < 1
            ):
                raise InputError(f"{name} is {value!r}; expected an integer of at least 1, or None")
        if self.read_ahead not in (None, True, False):
            raise InputError(f"read_ahead is {self.read_ahead!r}; expected True, False, or None")

    @property
    def complete(self) -> bool:
        """Whether it is a whole plan, and not only wishes for one."""
        return self.points > 0

    def choices(self) -> Plan:
        """What it decides, without what is predicted of it."""
        return Plan(**{name: getattr(self, name) for name in CHOICES})

    @property
    def origins(self) -> dict[str, str]:
        """Where each number comes from: a record of past runs, a dry run, a rule, the user, or what the data are."""
        costs = str(Origin.STATIC if self.terms is None else self.terms.origin)
        return {
            **{name: "asked for" if name in self.asked else costs for name in CHOICES[1:]},
            "peak_bytes": str(Origin.STATIC if costs == Origin.STATIC else Origin.DRY_RUN),
            "first_pass_s": costs,
            "pass_s": costs,
            "interval_s": "none" if self.interval_s is None else str(Origin.HISTORY),
            "limit": "" if self.limit is None else f"{self.limit.source}, {self.limit.fraction_source}",
            "leaf_points": "chunks of the data",
            "block_points": "number of parameters",
        }

    @property
    def decision(self) -> str:
        """Strategy, points, estimate, limit and reason in one line."""
        where = f"{self.workers} worker{'s' * (self.workers != 1)}" if self.workers else "this process"
        return (
            f"{self.strategy}: {self.points} points in {self.partitions} partitions on {where}, {self.threads} at a "
            f"time; predicted peak {format_bytes(self.peak_bytes)} above an idle process, limit {self.limit}; "
            f"{self.reason}"
        )

    def rows(self) -> list[tuple[str, str]]:
        """What it says, by heading."""
        if not self.complete:
            given = {name: getattr(self, name) for name in CHOICES}
            return [(name, "to be decided" if value is None else str(value)) for name, value in given.items()]
        where = f"{self.workers} worker{'s' * (self.workers != 1)}" if self.workers else "this process"
        ahead = ", each reading ahead of its computing" if self.read_ahead else ""
        each = (
            f"about {-(-self.points // self.partitions):,} points each" if self.partitions > 1 else "one task"
        )
        return [
            ("strategy", f"{self.strategy}: {self.reason}"),
            (
                "points",
                f"{self.points:,} in leaves of {self.leaf_points:,} and blocks of {self.block_points:,}",
            ),
            ("partitions", f"{self.partitions:,}, {each}"),
            ("where", f"{where}, {self.threads} partitions at a time{ahead}"),
            ("bytes per pass", self._reads()),
            ("kept in memory", format_bytes(self.kept_bytes) if self.kept_bytes else "nothing"),
            ("peak memory", self._peak()),
            ("seconds per pass", self._seconds()),
            ("warm-up", f"on {self.sample_points:,} points first" if self.sample_points else "none"),
            ("costs", self._costs()),
        ]

    def _reads(self) -> str:
        if not self.bytes_per_pass:
            return "none, data in memory"
        later = "" if self.strategy == "streaming" else ", by the first pass alone"
        return f"{format_bytes(self.bytes_per_pass)} ({self.storage}){later}"

    def _peak(self) -> str:
        client = f", client {format_bytes(self.client_bytes)}" if self.workers else ""
        return f"{format_bytes(self.peak_bytes)} above an idle process{client}; limit {self.limit}"

    def _seconds(self) -> str:
        between = ""
        if self.interval_s is not None:
            between = f", 80 % between {self.interval_s[0]:.3g} and {self.interval_s[1]:.3g}"
        earned = "" if self.confidence is None else f", {self.confidence:.0%} of past predictions within 25 %"
        return f"{self.pass_s:.3g} (the first {self.first_pass_s:.3g}){between}{earned}"

    def _costs(self) -> str:
        t = self.terms
        if t is None:
            return "unknown"
        reading = f"{t.byte_ns:.3g} ns a byte read ({t.wait:.0%} of it waiting), " if t.byte_ns else ""
        return f"{t.point_ns:.3g} ns a point, {reading}{t.task_ms:.3g} ms a task: {t.origin}"

    def __repr__(self) -> str:
        rows = self.rows()
        width = max(len(heading) for heading, _ in rows)
        lines = [f"    {heading:{width}} = {text}" for heading, text in rows]
        return "\n".join(["Plan", *lines, *(f"    warning: {text}" for text in self.warnings)])

    def _repr_html_(self) -> str:
        return table("Plan", self.rows(), self.warnings)


def as_plan(plan: Any) -> Plan | str:
    """ "auto", "static" or a `Plan`."""
    if isinstance(plan, Plan) or (isinstance(plan, str) and plan in ("auto", "static")):
        return plan
    instead = f". Type: strategy={plan!r}" if isinstance(plan, str) and plan in STRATEGIES else ""
    raise InputError(
        f"plan is {plan!r}; expected 'auto', 'static', or a dfit.Plan such as dfit.plan(...) gives{instead}"
    )
