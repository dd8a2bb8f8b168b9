"""Random starts: the warm-up ends no higher than a fit without it.

python -m tests.benchmarks.warmup_starts [--starts 1000] [--points 5000] [NAME ...]

Starts are drawn log-uniformly around the certified values of NIST's problems, by up to a factor of 3 each
way.  The sample is a tenth of the points, so that it is a part of them.  A minimum counts as the same
where every parameter agrees within a standard error; every start that ends elsewhere is listed.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import dask
import numpy as np

import dfit
from dfit.warm_settings import Warmup
from tests.benchmarks.measure import table
from tests.benchmarks.nist import PROBLEMS, coordinates, model
from tests.benchmarks.warmup import Fit, above, layers, observed, replicated

FACTOR = 3.0
MAX_PASSES = 200


class Pair(NamedTuple):
    """A start, and where it ends with a warm-up and without."""

    problem: str
    number: int
    warmed: Fit
    plain: Fit

    @property
    def same_minimum(self) -> bool:
        """Whether both ended within a standard error of each other, the smaller of both."""
        one, other = self.warmed, self.plain
        if not (one.theta.size and other.theta.size):
            return False
        return bool((np.abs(one.theta - other.theta) <= np.minimum(one.stderr, other.stderr)).all())

    @property
    def worse(self) -> bool:
        return above(self.warmed, self.plain)

    @property
    def better(self) -> bool:
        return above(self.plain, self.warmed)


def pairs(names: list[str], starts: int, points: int, seed: int = 0) -> Iterator[Pair]:
    """So many starts in all, spread over the problems; each fitted with a warm-up and without."""
    for number, name in enumerate(names):
        y = replicated(name, points).compute()
        fit = partial(dfit.fit, model(name), y, tuple(coordinates(name)), max_passes=MAX_PASSES)
        rng = np.random.default_rng((seed, list(PROBLEMS).index(name)))
        certified = np.array(PROBLEMS[name]["certified"])
        for k in range(number, starts, len(names)):
            p0 = certified * FACTOR ** rng.uniform(-1, 1, certified.size)
            arms = (Warmup(sample_points=points // 10), False)
            yield Pair(name, k, *(observed(partial(fit, p0=p0), warmup=arm) for arm in arms))


def show(pair: Pair) -> tuple[str | int | float, ...]:
    """A line of the list."""
    one, other = pair.warmed, pair.plain
    return (
        pair.problem,
        pair.number,
        "worse" if pair.worse else "better",
        "same" if pair.same_minimum else "other",
        one.cost / other.cost - 1,
        f"{one.passes}{'' if one.success else ' failed'}",
        f"{other.passes}{'' if other.success else ' failed'}",
        layers(one.warmup),
    )


HEAD = ("problem", "start", "with it", "minimum", "relative cost", "passes", "without", "layers")


def totals(found: list[Pair]) -> str:
    """What the benchmark claims."""
    same = [pair for pair in found if pair.same_minimum]
    return (
        f"{len(found)} starts: the same minimum {len(same)}, of these higher with a warm-up "
        f"{sum(pair.worse for pair in same)} (limit 0); in all worse {sum(pair.worse for pair in found)}, "
        f"better {sum(pair.better for pair in found)}; "
        f"not successful with {sum(not pair.warmed.success for pair in found)}, "
        f"without {sum(not pair.plain.success for pair in found)}; passes with a warm-up "
        f"{sum(pair.warmed.passes for pair in found)}, without {sum(pair.plain.passes for pair in found)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="problems (default: all)")
    parser.add_argument("--starts", type=int, default=1000)
    parser.add_argument("--points", type=int, default=5000)
    asked = parser.parse_args()
    warnings.simplefilter("ignore", dfit.DfitWarning)
    with dask.config.set(scheduler="synchronous"):
        found = []
        for pair in pairs(asked.names or list(PROBLEMS), asked.starts, asked.points):
            found.append(pair)
            if pair.worse or pair.better:
                print(*show(pair), sep=" | ", file=sys.stderr, flush=True)
    apart = [pair for pair in found if pair.worse or pair.better]
    table(HEAD, [show(pair) for pair in apart])
    print(totals(found))
    for pair in found:
        if not pair.warmed.success and pair.plain.success:
            print(f"{pair.problem} {pair.number}: {pair.warmed.message}")


if __name__ == "__main__":
    main()
