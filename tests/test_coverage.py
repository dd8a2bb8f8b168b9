"""Intervals hold the truth as often as they say; the full study is tests/benchmarks/coverage_simulation.py."""

from __future__ import annotations

import pytest

from tests.benchmarks.coverage_simulation import CASES, coverage

SIMULATIONS = 1000
SAMPLING = 2.1  # per cent: three standard deviations of a coverage of 95 % in so many data sets


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_intervals_hold_the_truth_as_often_as_they_say(name: str) -> None:
    case = CASES[name]
    found = coverage(case, SIMULATIONS, through=5, seed=1)
    allowed = max(case.room, SAMPLING)
    assert found == pytest.approx(dict.fromkeys(case.names, 95.0), abs=allowed)
