"""Layer 1: starts that are good already are recognised, and skipping the warm-up costs at most a pass.

python -m tests.benchmarks.warmup_layer1 [--starts 100] [--points 100000]

A decay with noise of 0.1 and 0.5, warmed up on a tenth of the points and on all of them.  Starts lie within
one standard error of the answer, each parameter uniformly within its own, and beyond ten of them.  Standard
errors are the sample's: the layer sees no other.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import dask
import numpy as np

import dfit
from dfit.warm_settings import Warmup
from tests.benchmarks.measure import table
from tests.benchmarks.warmup import Fit, decay, decaying, observed

NOISE = (0.1, 0.5)
PARTS = (10, 1)  # of how many points one is in the sample
START = [4, 0.4, 0.8]
FAR = (10, 30)  # standard errors; from further away the growing exponential is within reach
LEAST = 95  # of 100 near starts


class Group(NamedTuple):
    """Starts of one kind, each fitted with layer 1 and without it."""

    noise: float
    part: int
    near: bool
    on: list[Fit]
    off: list[Fit]

    def fired(self, rule: str) -> int:
        """How often the layer skipped the warm-up because of "the loss" or "a step"."""
        skipped = [fit.warmup.skipped for fit in self.on if fit.warmup is not None]
        return sum(why is not None and why.startswith(rule) for why in skipped)

    @property
    def dearest(self) -> float:
        """Most passes to the optimum more than without the layer."""
        pairs = zip(self.on, self.off, strict=True)
        return max(on.optimum - off.optimum for on, off in pairs if np.isfinite(off.optimum))


def starts(rng: np.random.Generator, count: int, near: bool) -> np.ndarray:
    """Distances (count, 3) from the answer in standard errors."""
    if near:
        return rng.uniform(-1, 1, (count, 3))
    return rng.uniform(*FAR, (count, 3)) * rng.choice([-1, 1], (count, 3))


def measure(points: int, count: int, noise: float, part: int) -> list[Group]:
    """Near starts and far ones on one set of data."""
    y = decaying(points, noise).compute()
    fit = partial(dfit.fit, decay, y, "x")
    answer = fit(p0=START, warmup=False)
    errors = np.asarray(answer.covariance.stderr) * np.sqrt(part)
    on = Warmup(sample_points=points // part)
    off = replace(on, warm_start_threshold=None)
    groups = []
    for near in (True, False):
        rng = np.random.default_rng((int(10 * noise), part, near))
        p0s = answer.theta + starts(rng, count, near) * errors
        arms = ([observed(partial(fit, p0=p0), warmup=arm) for p0 in p0s] for arm in (on, off))
        groups.append(Group(noise, part, near, *arms))
    return groups


def show(group: Group) -> tuple[str | int | float, ...]:
    """A line of the table."""
    return (
        f"{'within 1' if group.near else 'beyond 10'}",
        group.noise,
        "all points" if group.part == 1 else f"1 of {group.part}",
        len(group.on),
        group.fired("the loss"),
        group.fired("a step"),
        float(np.mean([fit.optimum for fit in group.on])),
        float(np.mean([fit.optimum for fit in group.off])),
        float(np.mean([fit.passes for fit in group.on])),
        float(np.mean([fit.passes for fit in group.off])),
        group.dearest,
    )


HEAD = (
    *("standard errors", "noise", "sample", "starts", "loss rule", "step rule", "to optimum", "layer off"),
    *("whole fit", "layer off", "most passes more"),
)


def totals(groups: list[Group]) -> str:
    """What the benchmark claims."""
    near, far = ([group for group in groups if group.near is kind] for kind in (True, False))
    least = min((g.fired("the loss") + g.fired("a step")) / len(g.on) for g in near)
    return (
        f"layer 1 fires in at least {least:.0%} of the near starts (limit {LEAST} %), its step rule in "
        f"{sum(g.fired('a step') for g in far)} far ones (limit 0); skipping costs at most "
        f"{max(g.dearest for g in groups):g} passes more (limit 1); not successful: "
        f"{sum(not fit.success for g in groups for fit in (*g.on, *g.off))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--points", type=int, default=10**5)
    asked = parser.parse_args()
    warnings.simplefilter("ignore", dfit.DfitWarning)
    with dask.config.set(scheduler="synchronous"):
        groups = [
            group
            for noise in NOISE
            for part in PARTS
            for group in measure(asked.points, asked.starts, noise, part)
        ]
    table(HEAD, [show(group) for group in groups])
    print(totals(groups))


if __name__ == "__main__":
    main()
