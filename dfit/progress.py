"""Progress on standard output, for ``verbose=1``."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from dfit.events import PartitionDone, PassDone

if TYPE_CHECKING:
    from dfit.result import FitResult

EVERY_S = 2.0

logger = logging.getLogger("dfit")


class Printer:
    """Prints one line a pass, in a long pass one every two seconds, and the report at the end."""

    def __init__(self, verbose: int, loss: str = "linear") -> None:
        self._on = verbose > 0
        self._sum = "sum of squares" if loss == "linear" else "sum of rho"
        self._last = time.monotonic()

    def begin(self, plan: str) -> None:
        self.say(plan)

    def notice(self, text: str) -> None:
        """Say what a user must know even where nothing else is printed."""
        if self._on:
            self.say(text)
        else:
            logger.warning("%s", text)

    def tell(self, text: str) -> None:
        """Say what belongs to the log where nothing is printed."""
        if self._on:
            self.say(text)
        else:
            logger.info("%s", text)

    def task(self, event: PartitionDone) -> None:
        if event.failure is not None:
            self.say(f"partition {event.partition} is left out: {event.failure}")
        if self._on and event.done < event.partitions and time.monotonic() - self._last > EVERY_S:
            self.say(f"pass {event.npass}: {event.done} of {event.partitions} partitions")

    def passed(self, event: PassDone) -> None:
        values = ", ".join(f"{name} = {value:.8g}" for name, value in list(event.params.items())[:6])
        self.say(
            f"pass {event.npasses}: {self._sum} {2 * event.cost:.7g}, gradient {event.gradient_norm:.2g}, "
            f"reduction {2 * event.reduction:.3g}, trust radius {event.trust_radius:.3g}, "
            f"{event.elapsed_s:.2f} s; {values}{', ...' if len(event.params) > 6 else ''}"
            f"{'' if event.accepted else ' (step rejected)'}"
        )

    def end(self, result: FitResult) -> None:
        for phase in result.phases:
            self.say(
                f"{phase.name}: {phase.seconds:.3f} s, {phase.iterations} evaluations, {phase.passes} passes"
            )
        self.say(
            f"{result.message}\n{self._sum} {result.chisqr:.7g}, residual variance {result.redchi:.7g}\n"
            f"{result.fit_report()}"
        )

    def say(self, text: str) -> None:
        """Print a line, if anything is printed."""
        if self._on:
            print(text, file=sys.stdout, flush=True)
            self._last = time.monotonic()
