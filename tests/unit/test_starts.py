"""More than one start on a sample: which are tried, which is chosen, and when dfit asks for them itself."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from dfit.core.state import Status
from dfit.core.trust_region import Tolerances
from dfit.core.warm import begin
from dfit.errors import InputError
from dfit.reduce.sampled import EVERYTHING
from dfit.starts import AUTOMATIC, DECADES, more_starts, needs_more, region
from dfit.statistics import Clock
from dfit.warm_settings import Warmup
from dfit.warmup import look_at, warm_up
from tests.unit.nist import PROBLEMS, WORDS
from tests.unit.solvers import guards_of, solver_of

X = np.linspace(0, 10, 400)
NOISE = np.random.default_rng(0).normal(0, 0.05, X.size)
WAVE = 2 * np.sin(3 * X + 0.5) + NOISE
WAVE_BOX = ([0, 0.5, -3.2], [5, 8, 3.2])
TWO = 3 * np.exp(-X / 0.5) + 2 * np.exp(-X / 5) + NOISE


def wave(x, a, w, phi):
    return a * jnp.sin(w * x + phi)


def numpy_wave(x, a, w, phi):
    return a * np.sin(w * x + phi)


def two(x, a, s, b, t):
    return a * jnp.exp(-x / s) + b * jnp.exp(-x / t)


def first_of(solver, parameters, **guards):
    """Where the solver ends from p0."""
    guards = guards_of(parameters, **guards)
    return solver.solve(begin(parameters.init), EVERYTHING, guards, Tolerances(0.01), 1000)


def search(func, y, p0, bounds=None, traceable=True, **settings):
    """(first, best, starts)"""
    solver, parameters = solver_of(func, [X], y, p0, bounds, traceable)
    first = first_of(solver, parameters)
    return first, *more_starts(solver, parameters, Warmup(**settings), guards_of(parameters), first)


@pytest.mark.parametrize("method", [None, "cmaes"])
def test_several_starts_find_the_minimum_that_p0_misses(method):
    first, best, _ = search(wave, WAVE, [1.0, 1.2, 0.0], WAVE_BOX, multistart=16, global_search=method)
    assert first.state.status == Status.OFFSET
    assert first.state.equations.cost > 100 * best.state.equations.cost
    np.testing.assert_allclose(best.state.theta, [2, 3, 0.5], atol=0.02)


@pytest.mark.parametrize(
    ("p0", "bounds", "method"),
    [
        ([1.0, 100.0, 1.0, 100.0], None, None),
        ([1.0, 900.0, 1.0, 900.0], ([0, 0.01, 0, 0.01], [10, 1000, 10, 1000]), None),
        ([1.0, 900.0, 1.0, 900.0], ([0, 0.01, 0, 0.01], [10, 1000, 10, 1000]), "cmaes"),
    ],
)
def test_starts_around_p0_and_in_wide_bounds_find_two_exponentials(p0, bounds, method):
    first, best, _ = search(two, TWO, p0, bounds, multistart=16, global_search=method)
    assert first.state.equations.cost > 10 * best.state.equations.cost
    assert sorted(best.state.theta[[1, 3]]) == pytest.approx([0.5, 5], rel=0.1)


def test_the_list_has_every_start_with_its_costs_and_the_chosen_one():
    first, best, starts = search(wave, WAVE, [1.0, 1.2, 0.0], WAVE_BOX, multistart=16)
    assert [start.origin for start in starts] == ["p0, warm-up", "p0", *["Sobol sequence"] * 15]
    (chosen,) = (start for start in starts if start.chosen)
    assert chosen.cost == best.state.equations.cost == min(start.cost for start in starts)
    assert starts[0].cost == first.state.equations.cost
    for start in starts:
        theta = np.array([start.values[name] for name in ("a", "w", "phi")])
        assert start.cost_at_start == pytest.approx(0.5 * np.sum((WAVE - numpy_wave(X, *theta)) ** 2))
        assert start.cost <= start.cost_at_start
        assert (theta >= WAVE_BOX[0]).all() and (theta <= WAVE_BOX[1]).all()
    assert chosen.reason == "a minimum"


def test_p0_is_preferred_where_others_are_only_as_good():
    first, best, starts = search(wave, WAVE, [1.9, 3.0, 0.4], multistart=16)
    assert starts[0].chosen
    assert best is first
    assert min(start.cost for start in starts) == pytest.approx(starts[0].cost, rel=1e-6)


def test_starts_at_which_the_model_is_not_finite_are_listed_as_dropped():
    def root(x, a, b):
        return a * jnp.sqrt(b - x)

    y = 2 * np.sqrt(12 - X) + NOISE
    _, best, starts = search(root, y, [1.0, 11.0], ([0, 1], [5, 100]), multistart=16)
    dropped = [start for start in starts if start.values["b"] < 10]
    assert dropped
    assert all(start.reason.startswith("dropped: the model is not finite") for start in dropped)
    assert all(np.isinf(start.cost) and not start.chosen for start in dropped)
    np.testing.assert_allclose(best.state.theta, [2, 12], rtol=0.01)


def test_layers_do_not_keep_further_starts_from_a_minimum():
    """From this start every clipped step leads away, to where the model no longer depends on parameters."""
    solver, parameters, unit = mgh09("start1")
    first = first_of(solver, parameters, unit=unit, max_step=0.1)
    best, starts = more_starts(solver, parameters, Warmup(multistart=16), guards_of(parameters, unit), first)
    assert starts[1].chosen
    assert best.state.equations.cost < 0.6 * first.state.equations.cost
    np.testing.assert_allclose(best.state.theta, [0.193, 0.191, 0.123, 0.136], rtol=0.1)


def mgh09(start):
    problem = PROBLEMS["MGH09"]
    x = np.resize(np.array(problem["x"])[:, 0], 2000)
    names = ", ".join(f"b{k + 1}" for k in range(4))
    model = eval(f"lambda x, {names}: {problem['python']}", dict(WORDS))
    curve = np.asarray(model(x, 0.19280693, 0.19128232, 0.12305650, 0.13606233))
    y = curve + np.random.default_rng(0).normal(0, float(problem["rsd"]), x.size)
    solver, parameters = solver_of(model, [x], y, problem[start])
    return solver, parameters, np.abs(parameters.init)


@pytest.mark.parametrize(("start", "asked"), [("start1", True), ("start2", False)])
def test_more_are_asked_for_where_a_hard_start_ends_badly_and_not_elsewhere(start, asked):
    solver, parameters, unit = mgh09(start)
    at_start = solver.solve(begin(parameters.init), EVERYTHING, guards_of(parameters), Tolerances(), 1)
    first = first_of(solver, parameters, unit=unit, max_step=0.1)
    why = needs_more(guards_of(parameters), at_start, first, False)
    assert (why is not None) == asked
    if asked:
        assert "p0 is ill-conditioned" in why
        assert "does not determine the parameters" in why
    else:
        assert needs_more(guards_of(parameters), at_start, first, True) is None


@pytest.mark.parametrize(
    ("status", "aborted", "words"),
    [
        (Status.OFFSET, False, None),
        (Status.OFFSET, True, "given up"),
        (Status.RUNNING, False, "ceiling"),
        (Status.STALLED, False, "no step"),
    ],
)
def test_wide_bounds_ask_for_more_only_after_a_bad_end(status, aborted, words):
    wide = [0, 0.01, -3], [9, 100, 3]
    solver, parameters = solver_of(wave, [X], WAVE, [1.9, 3.0, 0.4], wide)
    first = first_of(solver, parameters)
    first = first._replace(state=first.state._replace(status=np.int32(status)))
    why = needs_more(guards_of(parameters), first, first, aborted)
    assert why is None if words is None else "bounds span" in why and words in why
    narrow = guards_of(parameters)._replace(lower=np.array([0, 0.2, -3]))
    anyway = status == Status.STALLED  # a point that no step leaves is a bad end wherever it began
    assert (needs_more(narrow, first, first, aborted) is not None) == anyway


@pytest.mark.parametrize("method", [None, "cmaes"])
def test_a_seed_gives_the_same_bits_and_another_seed_other_starts(method):
    def found(seed):
        _, best, starts = search(
            wave, WAVE, [1.0, 1.2, 0.0], WAVE_BOX, multistart=16, global_search=method, seed=seed
        )
        return best.state.theta.tobytes(), starts

    assert found(3) == found(3)
    assert found(3)[1][2].values != found(4)[1][2].values


def test_a_model_that_cannot_be_traced_is_searched_from_the_host():
    p0, options = [1.0, 1.2, 0.0], {"bounds": WAVE_BOX, "multistart": 16}
    _, traced, _ = search(wave, WAVE, p0, **options)
    _, hosted, starts = search(numpy_wave, WAVE, p0, traceable=False, **options)
    np.testing.assert_allclose(hosted.state.theta, traced.state.theta, rtol=1e-4)
    assert len(starts) == 17


def test_a_region_has_the_bounds_or_surrounds_p0_with_its_sign():
    inf, ten = np.inf, 10.0**DECADES
    theta0 = np.array([4.0, 0.5, -3.0, 0.0, 5.0, 1.0])
    solver_guards = guards_of(solver_of(wave, [X], WAVE, [1, 1, 1])[1])
    guards = solver_guards._replace(
        lower=np.array([0, 1e-3, -inf, -inf, 2, -inf]),
        upper=np.array([9, 1e3, inf, inf, inf, 1]),
        unit=np.full(6, 0.1),
    )
    place = region(theta0, guards)
    ends = place.theta(np.array([np.zeros(6), np.ones(6)]))
    np.testing.assert_allclose(ends[0], [0, 1e-3, -3 / ten, 0.1 / ten, 2 + 3 / ten, 1 - 0.1 / ten])
    np.testing.assert_allclose(ends[1], [9, 1e3, -3 * ten, 0.1 * ten, 2 + 3 * ten, 1 - 0.1 * ten])
    np.testing.assert_allclose(place.theta(np.full(6, 0.5)), [4.5, 1, -3, 0.1, 5, 0.9])
    np.testing.assert_allclose(place.cube(theta0), [4 / 9, np.log(500) / np.log(1e6), 0.5, 0.5, 0.5, 0.5])


def test_a_warm_up_that_ends_badly_goes_on_with_the_best_of_more_starts():
    solver, parameters, _ = mgh09("start1")
    warmed = warm_up(solver, parameters, Warmup(), look_at(solver, parameters), 1e-8, Clock())
    np.testing.assert_allclose(warmed.state.theta, [0.193, 0.191, 0.123, 0.136], rtol=0.1)
    assert warmed.report.cost == pytest.approx(min(start.cost for start in warmed.report.starts), rel=1e-6)
    assert "16 starts tried (p0 is ill-conditioned" in warmed.report.reason
    alone = warm_up(solver, parameters, Warmup(multistart=1), look_at(solver, parameters), 1e-8, Clock())
    assert alone.report.starts == ()
    assert alone.report.cost > 2 * warmed.report.cost


def test_a_good_p0_does_not_keep_from_starts_that_are_asked_for():
    solver, parameters = solver_of(wave, [X], WAVE, [2.0, 3.0, 0.5])
    assert (
        warm_up(solver, parameters, Warmup(), look_at(solver, parameters), 1e-8, Clock()).report.skipped
        is not None
    )
    asked = warm_up(
        solver, parameters, Warmup(multistart=16), look_at(solver, parameters), 1e-8, Clock()
    ).report
    assert (asked.skipped, len(asked.starts)) == (None, 17)


def test_dfit_itself_asks_for_a_constant_number_of_starts():
    _, _, starts = search(wave, WAVE, [1.0, 1.2, 0.0], WAVE_BOX)
    assert len(starts) == AUTOMATIC + 1
    _, _, fewer = search(wave, WAVE, [1.0, 1.2, 0.0], WAVE_BOX, multistart=3)
    assert len(fewer) == 4


def test_without_cmaes_the_line_to_install_it_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(InputError, match=r'global_search="cmaes" needs .* pip install "dfit\[search\]"'):
        search(wave, WAVE, [1.0, 1.2, 0.0], WAVE_BOX, global_search="cmaes")
