"""A program written for nlsq's hybrid streaming gives its answers here, with its import line changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from dfit import (
    HybridStreamingConfig,
    curve_fit,
    curve_fit_large,
    get_defense_telemetry,
    reset_defense_telemetry,
)

TRUTH = np.array([5.0, 0.5, 1.0])
START = np.array([4.0, 0.4, 0.8])
NEAR = TRUTH * np.array([1.01, 0.99, 1.005])
POPT = np.array([4.98595755, 0.49962326, 1.00657897])
STDERR = np.array([0.00988365, 0.00213743, 0.00433106])
RNG = np.random.RandomState(42)
X = np.linspace(0, 10, 2000)
LAYERS = (
    "enable_warm_start_detection",
    "enable_adaptive_warmup_lr",
    "enable_cost_guard",
    "enable_step_clipping",
)


def decay(x, a, b, c):
    return a * jnp.exp(-b * x) + c


Y = TRUTH[0] * np.exp(-TRUTH[1] * X) + TRUTH[2] + RNG.normal(0, 0.1, X.size)


def assert_same(popt: np.ndarray, pcov: np.ndarray) -> None:
    np.testing.assert_allclose(popt, POPT, rtol=2e-8)
    np.testing.assert_allclose(np.sqrt(np.diag(pcov)), STDERR, rtol=5e-6)


@pytest.fixture(autouse=True)
def telemetry() -> Iterator[Any]:
    reset_defense_telemetry()
    yield get_defense_telemetry()
    reset_defense_telemetry()


def hybrid(p0: np.ndarray = START, **options: Any) -> Any:
    return curve_fit(decay, X, Y, p0=p0, method="hybrid_streaming", **options)


def test_the_fit_prints_the_sum_of_squares(capsys: pytest.CaptureFixture[str]) -> None:
    assert_same(*hybrid(verbose=1))
    assert "sum of squares 19.50971" in capsys.readouterr().out


def test_the_fit_is_the_same_within_bounds() -> None:
    assert_same(*hybrid(bounds=([0, 0, 0], [10, 2, 5]), verbose=0))


def test_a_larger_array_is_fitted() -> None:
    x = np.linspace(0, 10, 10000)
    y = np.asarray(decay(x, *TRUTH)) + np.random.default_rng(7).normal(0, 0.1, x.size)
    popt, _ = curve_fit_large(decay, x, y, p0=START, method="hybrid_streaming", verbose=0)
    np.testing.assert_allclose(popt, TRUTH, atol=0.02)


def test_fields_of_the_config_may_be_keywords_and_the_result_has_its_keys() -> None:
    result = hybrid(verbose=0, warmup_iterations=300, normalization_strategy="p0", phase2_max_iterations=100)
    assert_same(result["x"], result["pcov"])
    np.testing.assert_allclose(result["perr"], STDERR, rtol=5e-6)
    assert result["success"] is True and result["message"].startswith("converged")
    assert {"x", "success", "message", "fun", "pcov", "perr", "streaming_diagnostics"} <= set(result.keys())
    assert float(np.sum(result["fun"] ** 2)) == pytest.approx(19.50971, abs=5e-6)
    expected = {
        "phase_timings": {"phase0_normalization", "phase1_warmup", "phase2_gauss_newton", "phase3_finalize"},
        "phase_iterations": {"phase1", "phase2"},
        "warmup_diagnostics": {"best_loss", "final_loss", "switch_reason"},
        "gauss_newton_diagnostics": {"best_cost", "final_cost", "gradient_norm", "convergence_reason"},
    }
    found = result["streaming_diagnostics"]
    assert {name: keys & set(found[name]) for name, keys in expected.items()} == expected
    assert {"total_time", "phase_history"} <= set(found)


def test_a_near_start_skips_the_warm_up(telemetry: Any) -> None:
    assert_same(*hybrid(NEAR, verbose=0))
    assert telemetry.get_trigger_rates()["layer1_warm_start_rate"] == 100.0
    assert telemetry.get_summary() == {
        "total_warmup_calls": 1,
        "layer1_warm_start_triggers": 1,
        "layer2_lr_mode_counts": {"refinement": 0, "careful": 0, "exploration": 0},
        "layer3_cost_guard_triggers": 0,
        "layer4_clip_triggers": 0,
        "lbfgs_history_fill": 0,
        "lbfgs_line_search_failures": 0,
    }


@pytest.mark.parametrize(
    ("preset", "on", "skipped"),
    [
        ("defense_strict", True, 1),
        ("defense_relaxed", True, 0),
        ("defense_disabled", False, 0),
        ("scientific_default", True, 1),
    ],
)
def test_a_preset_sets_its_layers_and_gives_the_answer(
    preset: str, on: bool, skipped: int, telemetry: Any
) -> None:
    config = getattr(HybridStreamingConfig, preset)()
    assert [getattr(config, layer) for layer in LAYERS] == [on] * 4
    assert_same(*hybrid(NEAR, config=config, verbose=0))
    assert telemetry.counts.layer1_triggers == skipped


def test_thresholds_of_a_custom_config_give_the_answer(telemetry: Any) -> None:
    config = HybridStreamingConfig(
        enable_warm_start_detection=True,
        warm_start_threshold=0.005,
        enable_adaptive_warmup_lr=True,
        warmup_lr_refinement=1e-7,
        warmup_lr_careful=1e-6,
        enable_cost_guard=True,
        cost_increase_tolerance=0.02,
        enable_step_clipping=True,
        max_warmup_step_size=0.05,
    )
    assert_same(*hybrid(config=config, verbose=0))
    counts = telemetry.counts
    assert (counts.layer1_triggers, counts.layer2_refinement, counts.layer4_triggers) == (0, 1, 1)


def test_nine_counters_are_exported(telemetry: Any) -> None:
    rng = np.random.default_rng(11)
    for _ in range(3):
        hybrid(TRUTH * (1 + rng.uniform(-0.01, 0.01, 3)), verbose=0)
    assert all(0 <= rate <= 100 for rate in telemetry.get_trigger_rates().values())
    three = {"dfit_defense_warmup_calls_total": 3, "dfit_defense_layer1_triggers_total": 3}
    none = (
        "layer2_refinement layer2_careful layer2_exploration layer3_triggers layer4_triggers "
        "lbfgs_history_fill lbfgs_line_search_failures"
    )
    zero = {f"dfit_defense_{name}_total": 0 for name in none.split()}
    assert telemetry.export_metrics() == three | zero
