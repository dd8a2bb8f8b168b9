"""Short form of the per-pixel benchmark: that its arms fit the same thing and its judge sees what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tests.benchmarks import pixels_out_of_core as out_of_core
from tests.benchmarks.pixel_data import PROBLEMS, judge, make, reference
from tests.benchmarks.pixels import break_even
from tests.benchmarks.rivals import ARMS

# The extra "bench", which .ci/run installs for the long tests.
OPTIONAL = ("xarray-lmfit", "astropy")
OTHERS = [pytest.param(n, marks=pytest.mark.long) if n in OPTIONAL else n for n in ARMS if n != "dfit"]


@pytest.mark.parametrize("arm", OTHERS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_rival_of_the_benchmark_finds_the_optimum_of_every_pixel(name, arm):
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
    assert best.left.max() < 1e-11
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


def test_stored_cube_of_the_benchmark_is_the_same_in_either_chunks(tmp_path):
    shape, found = (130, 210), {}
    for layout, points in out_of_core.LAYOUTS.items():
        (tmp_path / layout).mkdir()
        cube = out_of_core.open_data(out_of_core.write(tmp_path / layout, shape, points))
        assert cube.chunks == ((points,) * (64 // points), (125, 5), (200, 10))
        assert cube.dtype == "f4"
        found[layout] = cube.values
    np.testing.assert_array_equal(found["whole"], found["chunked"])
    amplitude, tau, offset = out_of_core.truth_at(np.arange(130.0), np.arange(210.0))
    times = out_of_core.TIMES[:, None, None]
    residual = found["whole"] - (amplitude * np.exp(-times / tau) + offset)
    assert residual.std() == pytest.approx(out_of_core.NOISE, rel=0.01)
    assert not np.array_equal(residual[:, :5, :10], residual[:, 125:, 200:])


def test_distances_of_a_map_count_failed_pixels_and_find_the_furthest():
    shape = (130, 210)
    truth = out_of_core.truth_at(np.arange(130.0), np.arange(210.0))
    distance = np.random.default_rng(2).standard_normal((3, *shape))
    distance[1, 128, 205] = -9
    values = truth + 0.01 * distance
    values[:, 3, 4] = np.nan
    dims = ("param", "y", "x")
    found = xr.Dataset(
        {"curvefit_coefficients": (dims, values), "curvefit_stderr": (dims, np.full(values.shape, 0.01))}
    )
    failed, typical, furthest = out_of_core.distances(found)
    assert failed == 1
    assert typical == pytest.approx(1, abs=0.02)
    assert furthest == pytest.approx(9)
