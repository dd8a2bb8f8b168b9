"""The door of nlsq's hybrid streaming: its answer, its result, and what it refuses."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest

import dfit

T = np.linspace(0, 10, 500)
Y = 5 * np.exp(-0.5 * T) + 1 + 0.1 * np.random.default_rng(3).normal(size=T.size)
START = (4.0, 0.4, 0.8)
HYBRID = "hybrid_streaming"
KEYS = [
    "x",
    "parameters",
    "success",
    "message",
    "nfev",
    "fun",
    "cost",
    "pcov",
    "perr",
    "model",
    "strategy",
    "streaming_diagnostics",
]


def decay(t, a, b, c):
    return a * jnp.exp(-b * t) + c


def fit(**options: Any) -> Any:
    return dfit.curve_fit(decay, T, Y, START, method=HYBRID, **options)


@pytest.fixture(scope="module")
def plain() -> Any:
    return dfit.curve_fit(decay, T, Y, START)


@pytest.fixture(scope="module")
def hybrid() -> Any:
    return fit()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"method": HYBRID, "chunk_size": 100}, dfit.InputError, "chunk_size=: leave it out"),
        ({"method": HYBRID, "warmup_iteration": 3}, TypeError, "did you mean 'warmup_iterations'"),
        ({"method": HYBRID, "config": "strict"}, dfit.InputError, "config is str; expected dfit.Hybrid"),
        ({"method": HYBRID, "warmup": True}, dfit.InputError, "say the same: type config="),
        ({"config": dfit.HybridStreamingConfig()}, dfit.InputError, "config= belongs to hybrid streaming"),
        ({"method": "trf", "seed": 3}, dfit.InputError, "seed= belongs to hybrid streaming"),
        ({"method": HYBRID, "normalization_strategy": "bounds"}, dfit.InputError, "two finite bounds"),
        ({"method": HYBRID, "sample_points": 501}, dfit.InputError, "the data have 500 points"),
    ],
)
def test_what_the_door_does_not_take_is_refused(options: dict, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        dfit.curve_fit(decay, T, Y, START, **options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "name", ["memory_limit_gb", "auto_size_detection", "size_threshold", "show_progress"]
)
def test_memory_hints_are_refused_with_what_to_do_instead(name: str) -> None:
    with pytest.raises(dfit.InputError, match=f"curve_fit_large does not take {name}=: "):
        dfit.curve_fit_large(decay, T, Y, START, **{name: 1})


def test_the_answer_is_curve_fit_s(plain: Any, hybrid: Any) -> None:
    stderr = np.sqrt(np.diag(plain.pcov))
    popt, pcov = hybrid
    assert (np.abs(popt - plain.popt) < 1e-6 * stderr).all()
    np.testing.assert_allclose(pcov, plain.pcov, rtol=1e-6)


def test_limits_given_to_curve_fit_large_hold() -> None:
    limit = dfit.curve_fit_large(decay, T, Y, START, memory_fraction=0.5).result.plan.limit
    assert (limit.fraction, limit.fraction_source) == (0.5, "memory_fraction")


def test_curve_fit_large_is_this_door_by_default(hybrid: Any) -> None:
    large = dfit.curve_fit_large(decay, T, Y, START)
    np.testing.assert_array_equal(large["x"], hybrid["x"])
    assert type(dfit.curve_fit_large(decay, T, Y, START, method="trf")) is type(
        dfit.curve_fit(decay, T, Y, START)
    )


def test_the_result_is_a_mapping_of_its_keys(hybrid: Any) -> None:
    assert list(hybrid.keys()) == KEYS == list(dict(hybrid.items()))
    assert set(dict(hybrid)) == set(KEYS)
    popt, pcov = hybrid
    np.testing.assert_array_equal(hybrid["x"], popt)
    np.testing.assert_array_equal(hybrid["parameters"], popt)
    np.testing.assert_array_equal(hybrid["pcov"], pcov)
    np.testing.assert_array_equal(hybrid["perr"], np.sqrt(np.diag(pcov)))
    assert hybrid["success"] is True and hybrid["message"] == hybrid.result.message
    assert hybrid["model"] is decay and hybrid["strategy"] == HYBRID
    assert hybrid["nfev"] == hybrid.result.nfev
    assert ("x" in hybrid, "y" in hybrid, hybrid.get("y", 3), len(hybrid)) == (True, False, 3, 2)
    with pytest.raises(KeyError, match="the keys are x, "):
        print(hybrid["y"])


def test_keys_are_attributes_too(hybrid: Any) -> None:
    assert (hybrid.success, hybrid.cost) == (True, hybrid.result.cost)
    with pytest.raises(AttributeError, match="no 'y'"):
        print(hybrid.y)


def test_a_copy_has_the_same_values(hybrid: Any) -> None:
    again = copy.copy(hybrid)
    assert again["cost"] == hybrid["cost"] and again["model"] is decay


def test_residuals_are_computed_when_they_are_asked_for(hybrid: Any) -> None:
    expected = np.asarray(decay(T, *hybrid["x"]), float) - Y
    np.testing.assert_allclose(hybrid["fun"], expected, atol=1e-6)
    assert hybrid["fun"] is not hybrid["fun"]
    assert not any(value.size >= T.size for value in vars(hybrid).values() if isinstance(value, np.ndarray))


def test_residuals_of_chunked_data_are_lazy() -> None:
    y = da.from_array(Y, chunks=200)
    sigma = np.full(T.size, 0.1)
    found = dfit.curve_fit(decay, T, y, START, sigma, method=HYBRID)
    assert isinstance(found["fun"], da.Array)
    chisqr = float((found["fun"] ** 2).sum())
    assert chisqr == pytest.approx(2 * found["cost"], rel=1e-6)


def test_each_phase_tells_its_seconds_iterations_and_reason(hybrid: Any) -> None:
    found, result = hybrid["streaming_diagnostics"], hybrid.result
    names = ["normalization", "warmup", "gauss_newton", "covariance"]
    history = found["phase_history"]
    assert [phase["name"] for phase in history] == names
    assert [phase["phase"] for phase in history] == [0, 1, 2, 3]
    assert list(found["phase_timings"].values()) == [phase["seconds"] for phase in history]
    assert sum(found["phase_timings"].values()) <= found["total_time"] * 1.001
    assert found["phase_iterations"] == {"phase1": history[1]["iterations"], "phase2": result.npasses}
    assert found["phase_iterations"]["phase1"] + 1 + result.npasses == hybrid["nfev"]
    assert found["total_time"] == result.run.elapsed_s
    assert found["telemetry"] == result.telemetry
    assert found["telemetry"]["warmup_calls"] == 1


def test_sums_of_squares_are_whole_in_the_diagnostics(hybrid: Any) -> None:
    found = hybrid["streaming_diagnostics"]
    total = float(np.sum((np.asarray(decay(T, *hybrid["x"]), float) - Y) ** 2))
    at_start = float(np.sum((np.asarray(decay(T, *START), float) - Y) ** 2))
    passes, warmup = found["gauss_newton_diagnostics"], found["warmup_diagnostics"]
    assert passes["final_cost"] == pytest.approx(total, rel=1e-6)
    assert passes["residual_variance"] == pytest.approx(total / (T.size - 3), rel=1e-6)
    assert warmup["initial_loss"] == pytest.approx(at_start, rel=1e-6)
    assert warmup["final_loss"] == pytest.approx(total, rel=1e-4)
    assert hybrid["cost"] == passes["final_cost"] / 2
    assert passes["gradient_norm"] < 1e-8 and passes["trust_radius"] > 0
    assert passes["convergence_reason"] == hybrid["message"]
    assert warmup["switch_reason"] == found["phase_history"][1]["reason"]


def test_a_fit_that_fails_is_told_and_does_not_raise() -> None:
    with pytest.warns(dfit.DfitWarning, match=r"max_passes=1 reached.*p0=\{'a'"):
        found = fit(phase2_max_iterations=1, warmup_iterations=1)
    popt, pcov = found
    assert found["success"] is False and "max_passes=1 reached" in found["message"]
    np.testing.assert_array_equal(popt, list(found.result.best_values.values()))
    assert pcov.shape == (3, 3)


def test_no_pass_at_all_gives_the_sample_s_answer() -> None:
    with pytest.warns(dfit.DfitWarning, match="sample's answer"):
        found = fit(phase2_max_iterations=0, warmup_tolerance=1e-6)
    assert found["success"] is False and found["streaming_diagnostics"]["phase_iterations"]["phase2"] == 0
    np.testing.assert_allclose(found["x"], [5, 0.5, 1], atol=0.1)
    assert np.isnan(found["streaming_diagnostics"]["gauss_newton_diagnostics"]["gradient_norm"])


def test_the_callback_stops_the_door_without_an_error() -> None:
    seen: list[float] = []

    def callback(done: Any) -> bool:
        seen.append(done.cost)
        return False

    with pytest.warns(dfit.DfitWarning, match="stopped by the callback"):
        found = fit(callback=callback, warmup_iterations=1)
    assert found["success"] is False and [found["cost"]] == seen


def test_a_looser_tolerance_ends_earlier(hybrid: Any) -> None:
    loose = fit(gauss_newton_tol=0.1)
    assert loose.result.relative_offset > 1e-8 >= hybrid.result.relative_offset
    assert "0.1 of its standard error" in loose["message"]


def test_keywords_of_curve_fit_win_over_the_config() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dfit.DfitWarning)
        config = dfit.HybridStreamingConfig(phase2_max_iterations=9, gauss_newton_tol=1e-12)
        found = fit(config=config, maxfev=1, tol=1e-3, warmup_iterations=1)
    assert found.result.npasses == 1
    assert fit(config=config, tol=1e-3)["message"].endswith("0.001 of its standard error")


def test_fields_given_as_keywords_replace_those_of_the_config() -> None:
    config = dfit.HybridStreamingConfig(normalization_strategy="p0", warmup_iterations=50)
    report = fit(config=config, warmup_iterations=2).result.warmup
    assert report.normalization == "p0" and "iterations=2 reached" in report.reason


def test_bounds_sigma_loss_and_where_are_those_of_curve_fit() -> None:
    sigma = 0.05 + 0.01 * T
    where = T > 0.5
    options = {"bounds": ([0, 0, 0], [4.5, 2, 5]), "loss": "soft_l1", "f_scale": 2.0, "where": where}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = dfit.curve_fit(decay, T, Y, START, sigma, method=HYBRID, **options)
        plain = dfit.curve_fit(decay, T, Y, START, sigma, **options)
    np.testing.assert_allclose(ours["x"], plain.popt, rtol=1e-7)
    np.testing.assert_allclose(ours["pcov"], plain.pcov, rtol=1e-5)


def test_the_whole_sum_of_squares_is_printed_and_nothing_without_verbose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = fit(verbose=1)
    out, err = capsys.readouterr()
    total = found.result.chisqr
    assert f"sum of squares {total:.7g}, residual variance {total / 497:.7g}" in out
    passes = [line for line in out.splitlines() if line.startswith("pass ")]
    assert len(passes) == found.result.npasses
    for word in ("sum of squares", "gradient", "reduction", "trust radius", " s; a = "):
        assert all(word in line for line in passes)
    at_start = 2 * found.result.warmup.cost_at_start
    assert f"sum of squares {at_start:.7g} to {2 * found.result.warmup.cost:.7g} in float64" in out
    for word in ("sample: all 500 points", "warm-up: ", "normalization: ", "gauss_newton: ", "+/-"):
        assert word in out
    assert err == ""
    fit(verbose=0)
    assert capsys.readouterr() == ("", "")


def test_a_second_fit_calls_the_model_once_to_see_whether_it_has_changed(hybrid: Any) -> None:
    calls = []

    def counted(t, a, b, c):
        calls.append(1)
        return decay(t, a, b, c)

    dfit.curve_fit(counted, T, Y, START, method=HYBRID)
    calls.clear()
    again = dfit.curve_fit(counted, T, Y, START, method=HYBRID)
    assert len(calls) == 1
    np.testing.assert_array_equal(again["x"], hybrid["x"])


def test_a_sample_of_part_of_the_data_leads_to_the_same_answer(plain: Any) -> None:
    found = fit(sample_points=200, seed=5)
    assert found.result.warmup.points == 200 and not found.result.warmup.complete
    assert (np.abs(found["x"] - plain.popt) < 1e-6 * np.sqrt(np.diag(plain.pcov))).all()
    other = fit(sample_points=200, seed=6)
    assert other.result.warmup.cost != found.result.warmup.cost


def test_a_model_of_plain_numpy_takes_the_same_stages(plain: Any, hybrid: Any) -> None:
    def numpy_decay(t, a, b, c):
        return a * np.exp(-b * np.asarray(t)) + c

    with pytest.warns(dfit.DfitWarning, match="finite differences"):
        found = dfit.curve_fit(numpy_decay, T, Y, START, method=HYBRID)
    assert (np.abs(found["x"] - plain.popt) < 1e-5 * np.sqrt(np.diag(plain.pcov))).all()
    stages = [
        [phase["name"] for phase in one["streaming_diagnostics"]["phase_history"]] for one in (found, hybrid)
    ]
    assert stages[0] == stages[1]
    assert found.result.telemetry == hybrid.result.telemetry
