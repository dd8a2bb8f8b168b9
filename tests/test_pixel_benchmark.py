"""Short form of the per-pixel benchmark: that its arms fit the same thing and its judge sees what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.pixel_data import PROBLEMS, judge, make, reference
from tests.benchmarks.pixels import break_even
from tests.benchmarks.rivals import ARMS

OPTIONAL = {"xarray-lmfit": "xarray_lmfit", "astropy": "astropy"}
RIVALS = [name for name in ARMS if name != "dfit"]


@pytest.mark.parametrize("arm", RIVALS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_rival_of_the_benchmark_finds_the_optimum_of_every_pixel(name, arm):
    if arm in OPTIONAL:
        pytest.importorskip(OPTIONAL[arm])
    problem = PROBLEMS[name]
    data, truth = make(problem, 12)
    wanted = reference(problem, data.values, truth)
    params, cost = ARMS[arm](problem)(data, problem.p0)
    best = judge(problem, data.values, wanted)
    assert np.abs((problem.canonical(params) - wanted) / best.stderr).max() < 1e-3
    assert cost.shape == (12,)
    told = np.isfinite(cost)
    np.testing.assert_allclose(2 * cost[told], best.chisqr[told], rtol=1e-9)


@pytest.mark.parametrize("name", PROBLEMS)
def test_judge_of_the_benchmark_sees_a_parameter_off_by_a_standard_error(name):
    problem = PROBLEMS[name]
    data, truth = make(problem, 50)
    wanted = reference(problem, data.values, truth)
    best = judge(problem, data.values, wanted)
    assert best.left.max() < 1e-7
    assert np.abs((wanted - truth) / best.stderr).max() < 5
    moved = wanted.copy()
    moved[7, 0] += best.stderr[7, 0]
    there = judge(problem, data.values, moved)
    assert np.argmax(there.chisqr / best.chisqr) == np.argmax(there.left) == 7
    # one standard error off raises chi-square by the variance of a point, and by more where parameters correlate
    assert there.chisqr[7] - best.chisqr[7] >= 0.99 * best.chisqr[7] / (data.sizes["x"] - wanted.shape[1])
    assert there.left[7] == pytest.approx(1, rel=0.1)


def test_derivatives_of_the_benchmark_are_those_of_its_formulas():
    for problem in PROBLEMS.values():
        x, params = np.linspace(0, 10, 7), np.array(list(problem.p0.values()))
        exact = problem.jacobian(x, *params)
        for k, step in enumerate(1e-6 * np.eye(params.size)):
            slope = (problem.plain(x, *(params + step)) - problem.plain(x, *(params - step))) / 2e-6
            np.testing.assert_allclose(exact[:, k], slope, rtol=1e-6, atol=1e-8)


def test_break_even_counts_compilation_and_what_each_pixel_costs():
    # 2 s for 1,000 pixels of 100 us are 1.9 s of compilation; a rival at 1,100 us loses 1 ms a pixel
    assert break_even(2.0, 1000, 100.0, 1100.0) == pytest.approx(1900)
    assert break_even(2.0, 1000, 100.0, 50.0) == np.inf
