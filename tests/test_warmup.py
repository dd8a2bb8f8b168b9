"""A fit that begins on a sample: its answer, its passes, and that it can do what others can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dfit
from tests.warmed import CHUNK, P0, SAMPLE, N, Reads, T, Y, apart, decay, numpy_decay

pytestmark = pytest.mark.usefixtures("small_leaves")


@pytest.fixture(scope="module")
def plain() -> Any:
    return dfit.fit(decay, Y, {"t": T}, p0=P0, warmup=False)


def test_a_fit_from_a_sample_ends_where_the_fit_without_ends_in_fewer_passes(plain: Any) -> None:
    found = dfit.fit(decay, Reads().array(), "t", p0=P0, warmup=SAMPLE)
    assert found.success
    assert apart(found, plain) < 1e-6
    np.testing.assert_allclose(found.covar, plain.covar, rtol=1e-7)
    assert found.npasses < plain.npasses / 2
    assert "the sample is like the data" in found.warmup.hand_over
    assert found.ndata == N


def test_evaluations_are_passes_and_looks_at_the_sample() -> None:
    found = dfit.fit(decay, Y, {"t": T}, p0=P0, warmup=SAMPLE)
    assert found.nfev == found.npasses + found.warmup.evaluations
    phases = {phase.name: phase for phase in found.phases}
    assert phases["gauss_newton"].passes == found.npasses
    assert phases["warmup"].iterations + 1 == found.warmup.evaluations


# The sample's own answer.


@pytest.mark.usefixtures("rereading")
def test_no_pass_at_all_gives_the_sample_s_answer_and_says_so(plain: Any) -> None:
    found = dfit.fit(decay, reads := Reads().array(), "t", p0=P0, warmup=SAMPLE, max_passes=0)
    assert (found.success, found.npasses) == (False, 0)
    assert "max_passes=0: this is the sample's answer" in found.message
    assert 0.1 < apart(found, plain) < 30
    assert found.ndata == 1000
    assert found.params["tau"].stderr == pytest.approx(
        plain.params["tau"].stderr * np.sqrt(N / 1000), rel=0.1
    )
    assert reads.size == N


@pytest.mark.usefixtures("rereading")
def test_only_the_chunks_of_the_sample_are_read_for_its_answer() -> None:
    array = (reads := Reads()).array(chunk=100)
    found = dfit.fit(decay, array, "t", p0=P0, warmup=SAMPLE, max_passes=0)
    assert sorted(reads) == sorted(set(reads)) and len(reads) == found.warmup.chunks_read == 64
    assert found.warmup.chunks == 200


@pytest.mark.parametrize("sample", [SAMPLE, dfit.Warmup()])
def test_values_that_no_fit_can_use_are_refused_without_a_pass_too(sample: dfit.Warmup) -> None:
    every = np.arange(N) % 50 == 0
    options = {"p0": P0, "warmup": sample, "max_passes": 0}
    with pytest.raises(dfit.DataError, match=r"y is infinite at \d+ .* type: where=np.isfinite\(y\)"):
        dfit.fit(decay, Reads().array(np.where(every, np.inf, Y)), "t", **options)
    sigma = da.from_array(np.where(every, 0.0, 1.0), chunks=CHUNK)
    with pytest.raises(dfit.DataError, match=r"sigma is zero or negative at \d+ .* type: where=sigma > 0"):
        dfit.fit(decay, Reads().array(), "t", sigma=sigma, **options)


# Groups.


@pytest.mark.parametrize("sample", [dfit.Warmup(groups="h"), dfit.Warmup(groups="h", sample_points=1000)])
def test_groups_of_a_sample_are_not_those_of_a_covariance(sample: dfit.Warmup) -> None:
    y = Reads().array().assign_coords(g=("i", np.arange(N) // 1000), h=("i", np.arange(N) // 5000))
    options = {"p0": P0, "max_passes": 0, "cov": {"groups": "g"}}
    found = dfit.fit(decay, y, "t", warmup=sample, **options)
    assert found.groups == 20
    whole = dfit.Warmup(sample_points=sample.sample_points)
    expected = dfit.fit(decay, y, "t", warmup=whole, **options)
    np.testing.assert_array_equal(found.covar, expected.covar)


# Collected by the first pass.


@pytest.mark.usefixtures("rereading")
def test_the_first_pass_collects_the_sample_and_is_a_pass_at_p0(plain: Any) -> None:
    array, told = (reads := Reads()).array(), []
    found = dfit.fit(decay, array, "t", p0=P0, warmup=SAMPLE, callback=told.append)
    assert found.success and apart(found, plain) < 1e-6
    assert "collected during the first pass" in found.warmup.sample
    assert len(reads) == 10 * found.npasses
    assert [event.npasses for event in told] == list(range(1, found.npasses + 1))
    assert list(told[0].params.values()) == P0
    assert told[1].cost < 1.1 * found.cost < told[0].cost
    assert found.npasses < plain.npasses


@pytest.mark.usefixtures("rereading")
@pytest.mark.parametrize("passes", [0, 1])
def test_a_single_pass_is_spent_at_the_sample_s_answer(passes: int, plain: Any) -> None:
    found = dfit.fit(decay, Reads().array(), "t", p0=P0, warmup=SAMPLE, max_passes=passes)
    assert found.npasses == passes and not found.success
    assert apart(found, plain) < 30


@pytest.mark.usefixtures("rereading")
def test_a_first_pass_that_ends_the_fit_needs_no_sample(plain: Any) -> None:
    found = dfit.fit(decay, Reads().array(), "t", p0=plain.best_values, warmup=SAMPLE)
    assert (found.success, found.npasses, found.warmup) == (True, 1, None)


@pytest.mark.usefixtures("rereading")
def test_a_good_p0_goes_on_from_the_pass_that_collected(plain: Any) -> None:
    p0 = {name: p.value + 0.5 * p.stderr for name, p in plain.params.items()}
    told: list[Any] = []
    found = dfit.fit(decay, Reads().array(), "t", p0=p0, warmup=SAMPLE, callback=told.append)
    without = dfit.fit(decay, Reads().array(), "t", p0=p0, warmup=False)
    assert "of the sample's standard errors" in found.warmup.skipped
    assert found.npasses <= without.npasses and apart(found, plain) < 1e-6
    assert [event.npasses for event in told] == list(range(1, found.npasses + 1))


# Few points.


@pytest.mark.parametrize("keep", [0.4, 1e-9])
@pytest.mark.parametrize("first", [0, 2000])
def test_one_point_of_a_hundred_is_enough(keep: float, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.planning.KEEP_FRACTION", keep)
    wanted = np.zeros(N, bool)
    wanted[first : first + 20_000 : 100] = True
    where = da.from_array(wanted, chunks=CHUNK)
    expected = dfit.fit(decay, Y, {"t": T}, p0=P0, where=wanted, warmup=False)
    found = dfit.fit(decay, Reads().array(), "t", p0=P0, where=where, warmup=SAMPLE)
    assert found.success and found.ndata == wanted.sum() == found.warmup.points
    assert apart(found, expected) < 1e-6


@pytest.mark.parametrize("passes", [0, 100])
@pytest.mark.parametrize("sample", [SAMPLE, dfit.Warmup()])
def test_no_point_at_all_is_refused(passes: int, sample: dfit.Warmup) -> None:
    where = da.zeros(N, dtype=bool, chunks=CHUNK)
    with pytest.raises(dfit.DataError, match="no point is left to fit"):
        dfit.fit(decay, Reads().array(), "t", p0=P0, where=where, warmup=sample, max_passes=passes)


def test_a_sample_without_enough_points_is_not_used(plain: Any) -> None:
    found = dfit.fit(decay, Reads().array(), "t", p0=P0, warmup=dfit.Warmup(sample_points=3))
    assert found.success and apart(found, plain) < 1e-6
    assert found.warmup.skipped == "only 3 points of the sample can be used"


# Everything that a fit without a warm-up can do.


@pytest.mark.parametrize("warmup", [True, SAMPLE])
def test_a_model_of_plain_numpy_is_warmed_up_alike(warmup: Any, plain: Any) -> None:
    with pytest.warns(dfit.DfitWarning, match="JAX"):
        found = dfit.fit(numpy_decay, Reads().array(), "t", p0=P0, warmup=warmup)
    traced = dfit.fit(decay, Reads().array(), "t", p0=P0, warmup=warmup)
    assert found.success and apart(found, plain) < 1e-5
    assert (found.warmup.mode, found.warmup.complete) == (traced.warmup.mode, traced.warmup.complete)
    assert found.warmup.cost == pytest.approx(traced.warmup.cost, rel=1e-6)


@pytest.mark.parametrize("warmup", [True, SAMPLE])
def test_a_callback_stops_after_the_first_pass_with_the_sample_s_answer(warmup: Any, plain: Any) -> None:
    found = dfit.fit(decay, Y, {"t": T}, p0=P0, warmup=warmup, tol=1e-14, callback=lambda event: False)
    assert found.npasses == 1
    assert apart(found, plain) < 30


def test_a_time_limit_stops_after_the_first_pass(plain: Any) -> None:
    found = dfit.fit(decay, Reads().array(), "t", p0=P0, warmup=SAMPLE, time_limit=1e-9)
    assert (found.npasses, found.success) == (1, False)
    assert "time_limit=1e-09 s reached" in found.message
    assert apart(found, plain) < 30


def test_ctrl_c_in_a_pass_keeps_the_best_point_and_in_the_warm_up_ends_the_fit(
    monkeypatch: pytest.MonkeyPatch, plain: Any
) -> None:
    def interrupt(event: Any) -> None:
        raise KeyboardInterrupt

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    found = dfit.fit(decay, Reads().array(), "t", p0=P0, warmup=SAMPLE, callback=interrupt)
    assert "interrupted" in found.message and apart(found, plain) < 30
    monkeypatch.setattr("dfit.passes.warm_up", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dfit.fit(decay, Reads().array(), "t", p0=P0, warmup=SAMPLE)


def test_each_stage_is_printed_and_nothing_where_it_is_not_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dfit.fit(decay, Reads().array(), "t", p0=P0, warmup=SAMPLE)
    assert capsys.readouterr().out == ""
    found = dfit.fit(decay, Reads().array(), "t", p0=P0, warmup=SAMPLE, verbose=1)
    printed = capsys.readouterr().out
    for said in (found.warmup.sample, found.warmup.sentence, found.warmup.hand_over):
        assert said in printed
    assert printed.index("sample:") < printed.index("exploration") < printed.index("all data ask")


def test_all_parameters_at_their_bounds_are_warmed_up() -> None:
    box = {"a": (0, 2), "tau": (0.1, 1), "c": (-1, 0.5)}
    expected = dfit.fit(decay, Y, {"t": T}, p0=P0, bounds=box, warmup=False)
    found = dfit.fit(decay, Y, {"t": T}, p0=P0, bounds=box, warmup=SAMPLE)
    assert found.success is expected.success
    np.testing.assert_allclose(found.theta, expected.theta, rtol=1e-7)


# The same bits, and one compilation.

RUNS = [
    {"scheduler": "threads", "num_workers": 3},
    {"scheduler": "synchronous", "dfit.partition-bytes": "1 B"},
    {"scheduler": "threads", "num_workers": 2, "dfit.partition-bytes": "40 kiB"},
]


@pytest.mark.parametrize("chosen", RUNS)
@pytest.mark.parametrize("keep", [0.4, 1e-9])
def test_threads_and_partitions_change_no_bit(
    chosen: dict[str, Any], keep: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.planning.KEEP_FRACTION", keep)
    expected = dfit.fit(decay, Reads().array(), "t", p0=P0, warmup=SAMPLE)
    with dask.config.set(chosen):
        found = dfit.fit(decay, Reads().array(), "t", p0=P0, warmup=SAMPLE)
    assert found.theta.tobytes() == expected.theta.tobytes()
    assert found.covar.tobytes() == expected.covar.tobytes()
    assert found.npasses == expected.npasses


@pytest.mark.parametrize("warmup", [True, SAMPLE])
def test_a_second_fit_compiles_nothing(warmup: Any) -> None:
    def new(t, a, tau, c):
        return a * jnp.exp(-t / tau) + c * (1 + warmup.sample_points if warmup is SAMPLE else 3)

    def fit(p0: Any) -> None:
        dfit.fit(new, Y, {"t": T}, p0=p0, warmup=warmup)

    assert count_compilations(lambda: fit(P0)) > 0
    assert count_compilations(lambda: fit([2.0, 1.5, 0.2])) == 0


def count_compilations(call: Callable[[], Any]) -> int:
    """How many programs JAX compiles meanwhile."""
    seen: list[str] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if "backend_compile" in event:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        call()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return len(seen)
