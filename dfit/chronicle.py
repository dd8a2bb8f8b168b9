"""Chronicle: what happened during a fit, as its result tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import xarray as xr

from dfit.events import PassDone
from dfit.partitions import Faults, LeftOut, Shares
from dfit.plans import Plan
from dfit.statistics import Phase
from dfit.telemetry import counts_of
from dfit.warm_report import WarmupReport


@dataclass(frozen=True, eq=False, kw_only=True)
class Chronicle:
    """The part of a result that says nothing of the parameters.

    Attributes
    ----------
    warmup : what the warm-up on a sample did, None without one and for a result read from a file.
    phases : the stages, their seconds and passes; empty for a result read from a file.
    history : the passes of the solver, those before a resume among them; empty for a result read from a file.
    faults : what went wrong on the way, and what is left out.
    shares : what each partition gave; None for a result read from a file.
    plan : how it ran, with what was predicted; None for a result read from a file.
    recovery_actions : what was done about faults, in order: "partition" or "iteration" (full passes before
        it), "strategy", "detail"; empty for a result read from a file.
    """

    warmup: WarmupReport | None = None
    phases: tuple[Phase, ...] = ()
    history: tuple[PassDone, ...] = ()
    faults: Faults = field(default_factory=Faults)
    shares: Shares | None = None
    plan: Plan | None = None
    recovery_actions: tuple[dict[str, Any], ...] = ()

    @property
    def telemetry(self) -> dict[str, int]:
        """What the defence layers of the warm-up did, see `dfit.telemetry.Counts`; empty without one."""
        return {} if self.warmup is None else counts_of(self.warmup)._asdict()

    @cached_property
    def partitions(self) -> xr.Dataset | None:
        """What each partition gave and cost, over `partition`, with the ranges of dimensions and coordinates.

        None for a result read from a file; ``result.partitions.to_zarr(path)`` keeps it.
        """
        return None if self.shares is None else self.shares.dataset()

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Partitions that could not be read and are no part of the answer."""
        return self.faults.left_out

    @property
    def partial(self) -> bool:
        """Whether partitions are left out."""
        return bool(self.left_out)

    @property
    def streaming_diagnostics(self) -> dict[str, Any]:
        """Tasks, failures and retries under the names that guides to streaming fits use."""
        return self.faults.diagnostics()
