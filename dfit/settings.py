"""Settings: how a fit is to be done, one value from the door to the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dask
import numpy as np

from dfit.checkpoint import Checkpoint
from dfit.core.loss import LOSSES
from dfit.core.state import Tolerances
from dfit.errors import InputError
from dfit.plans import STRATEGIES, Plan, as_plan
from dfit.warm_settings import Warmup

VALIDATE = ("none", "sums", "full")


@dataclass(frozen=True)
class Settings:
    """How a fit is to be done, as `dfit.fit` documents it."""

    loss: str = "linear"
    f_scale: float = 1.0
    absolute_sigma: bool = False
    cov: Any = None
    tol: float = 1e-8
    ftol: float | None = None
    xtol: float | None = None
    gtol: float | None = None
    max_passes: int = 100
    time_limit: float | None = None
    retries: int = 3
    min_success_rate: float = 1.0
    callback: Callable[[Any], Any] | None = None
    on_partition: Callable[[Any], Any] | None = None
    verbose: int = 0
    warmup: Warmup | bool | None = None
    validate: str = "sums"
    recovery: Sequence[Callable[..., Any]] = ()
    checkpoint: Checkpoint | None = None
    resume: bool = True
    strategy: str | None = None
    memory_limit: str | float | None = None
    memory_fraction: float | None = None
    plan: Plan | str = "auto"
    call: Mapping[str, Any] = field(
        default_factory=dict
    )  # arguments that `dfit.resume` need not be told again

    @property
    def tolerances(self) -> Tolerances:
        """What counts as converged."""
        return Tolerances(self.tol, self.ftol or 0.0, self.xtol or 0.0, self.gtol or 0.0)

    def wanted_for(self, lazy: bool) -> Plan:
        """What the user has decided of the plan; a strategy configured for all fits is for chunked data alone."""
        given = self.plan if isinstance(self.plan, Plan) else Plan()
        if self.strategy is not None and given.strategy not in (None, self.strategy):
            raise InputError(
                f"strategy={self.strategy!r}, and plan= has {given.strategy!r}: type one of them, or "
                f"plan=dfit.plan(..., strategy={self.strategy!r})"
            )
        configured = dask.config.get("dfit.strategy", None)
        if configured not in (None, *STRATEGIES):
            raise InputError(
                f"dfit.strategy is {configured!r} in dask.config; expected one of "
                f"{', '.join(map(repr, STRATEGIES))}, or None to let memory decide"
            )
        return replace(given, strategy=self.strategy or given.strategy or (configured if lazy else None))

    @property
    def robust(self) -> bool:
        """Whether the covariance takes a pass of its own."""
        return self.loss != "linear" or self.cov is not None

    def check(self) -> None:
        """Refuse values that no fit can use."""
        if self.loss not in LOSSES:
            raise InputError(f"unknown loss {self.loss!r}; known: {', '.join(LOSSES)}")
        if self.validate not in VALIDATE:
            raise InputError(
                f"validate is {self.validate!r}; expected one of {', '.join(map(repr, VALIDATE))}"
            )
        as_plan(self.plan)
        Plan(self.strategy)
        if not isinstance(self.recovery, Sequence) or not all(map(callable, self.recovery)):
            raise InputError(
                f"recovery is {self.recovery!r}; expected functions (theta, bounds, event, rng) -> theta. "
                "Type: recovery=[your_function]"
            )
        for name in ("callback", "on_partition"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise InputError(f"{name} is {getattr(self, name)!r}; expected a function of one event")
        if not isinstance(self.resume, (bool, np.bool_)):
            raise InputError(f"resume is {self.resume!r}; expected True, or False to begin again")
        if not self.f_scale > 0 or not np.isfinite(self.f_scale):
            raise InputError(f"f_scale is {self.f_scale}; expected a positive number, in units of sigma")
        for name in ("tol", "ftol", "xtol", "gtol", "time_limit"):
            value = getattr(self, name)
            given = value is not None or name == "tol"  # the one test that is always made
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if given and not (number and 0 < value < np.inf):
                raise InputError(f"{name} is {value!r}; expected a positive number")
        rate = self.min_success_rate
        if not (isinstance(rate, (int, float, np.number)) and not isinstance(rate, bool) and 0 < rate <= 1):
            raise InputError(
                f"min_success_rate is {rate!r}; expected the share of partitions that must be readable, above 0 "
                "and at most 1. Type: min_success_rate=0.98"
            )
        for name, least in (("max_passes", 1 if self.warmup is False else 0), ("retries", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise InputError(f"{name} is {value!r}; expected an integer of at least {least}")
