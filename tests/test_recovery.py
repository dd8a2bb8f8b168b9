"""Where a fit cannot go on by itself: what it does, what a user's strategies may do, and what the log says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.recovery import Event

POINTS = 20_000
EVENTS: list[tuple[list[float], Event]] = []


def bell(t, b):
    return jnp.exp(-((b * t) ** 2))


def shifted_log(t, a, b):
    return a * jnp.log(t * b - 1)


def observed(model: Any, *theta: float, points: int = POINTS) -> xr.DataArray:
    t = np.linspace(0.1, 10, points)
    noise = 0.01 * np.random.default_rng(3).standard_normal(points)
    return xr.DataArray(np.asarray(model(t, *theta)) + noise, {"t": ("i", t)}, "i")


def fitted(model: Any, y: xr.DataArray, p0: list[float], **settings: Any) -> dfit.FitResult:
    return dfit.fit(model, y, "t", p0=p0, **{"warmup": False, **settings})


def moved(theta, bounds, event, rng):
    """Away from here, at random."""
    EVENTS.append((theta.tolist(), event))
    return theta + rng.uniform(0.1, 0.3, theta.size)


def to_zero(theta, bounds, event, rng):
    return np.zeros_like(theta)


def twentyfold(theta, bounds, event, rng):
    EVENTS.append((theta.tolist(), event))
    return theta * [1, 20]


@pytest.fixture(autouse=True)
def no_events() -> None:
    EVENTS.clear()


@pytest.mark.parametrize("in_memory", [False, True])
def test_fit_that_stalls_goes_on_where_a_strategy_says(small_leaves: None, in_memory: bool) -> None:
    y = observed(bell, 0.5)
    warmup = dfit.Warmup(multistart=1) if in_memory else False
    assert not fitted(bell, y, [0.0], warmup=warmup).success
    found = fitted(bell, y, [0.0], warmup=warmup, recovery=[moved])
    assert found.success
    np.testing.assert_allclose(found.theta, [0.5], rtol=1e-3)
    (theta, event), (action,) = EVENTS[0], found.recovery_actions
    assert (theta, event.kind, event.place) == ([0.0], "stalled", None)
    assert event.cost == found.history[event.iteration - 1].cost
    assert (action["iteration"], action["strategy"]) == (event.iteration, "moved")
    assert action["detail"].startswith("stalled at cost ")
    assert fitted(bell, y, [0.0], warmup=warmup, recovery=[moved]).theta.tobytes() == found.theta.tobytes()


def test_strategies_are_asked_once_each_in_their_order_and_only_where_a_fit_would_end(
    small_leaves: None,
) -> None:
    y = observed(bell, 0.5)
    found = fitted(bell, y, [0.0], recovery=[to_zero, moved, moved])
    assert [action["strategy"] for action in found.recovery_actions] == ["to_zero", "moved"]
    assert found.success
    assert fitted(bell, y, [0.3], recovery=[to_zero]).recovery_actions == ()


def test_strategy_whose_start_ends_worse_does_not_cost_the_best_point(small_leaves: None) -> None:
    y = observed(bell, 0.5)
    costs: list[float] = []
    found = fitted(bell, y, [1e3], recovery=[to_zero], callback=lambda event: costs.append(event.cost))
    alone = fitted(bell, y, [1e3])
    assert [action["strategy"] for action in found.recovery_actions] == ["to_zero"]
    assert found.npasses > alone.npasses
    assert (found.theta.tolist(), found.cost, found.message) == ([1e3], alone.cost, alone.message)
    assert not found.success
    assert set(costs) == {alone.cost}


def test_start_of_a_strategy_is_moved_into_the_bounds(small_leaves: None) -> None:
    def far(theta, bounds, event, rng):
        assert [b.tolist() for b in bounds] == [[-1.0], [0.9]]
        return theta + 100

    found = fitted(bell, observed(bell, 0.5), [0.0], bounds=([-1], [0.9]), recovery=[far])
    assert found.recovery_actions[0]["detail"].endswith("b = 0; goes on from b = 0.9")
    assert found.success


@pytest.mark.parametrize("given", [None, [1.0, 2.0], [np.nan], 0.5, "there"])
def test_start_that_is_none_is_refused(small_leaves: None, given: Any) -> None:
    def wrong(theta, bounds, event, rng):
        return given

    with pytest.raises(dfit.InputError, match=r"recovery: wrong gave .*; expected 1 (finite )?numbers"):
        fitted(bell, observed(bell, 0.5), [0.0], recovery=[wrong])


@pytest.mark.parametrize("given", [moved, [moved, "perturb"], 3])
def test_recovery_that_is_no_list_of_functions_is_refused(given: Any) -> None:
    with pytest.raises(dfit.InputError, match=r"Type: recovery=\[your_function\]"):
        fitted(bell, observed(bell, 0.5), [0.0], recovery=given)


@pytest.mark.parametrize("warmup", [False, True, dfit.Warmup(sample_points=4000)])
def test_model_not_finite_at_p0_begins_where_a_strategy_says(small_leaves: None, warmup: Any) -> None:
    y = observed(shifted_log, 2.0, 12.0)
    with pytest.raises(dfit.DataError, match="not finite at the start"):
        fitted(shifted_log, y, [1.0, 1.0], warmup=warmup)
    found = fitted(shifted_log, y, [1.0, 1.0], warmup=warmup, recovery=[twentyfold])
    (theta, event), action = EVENTS[0], found.recovery_actions[0]
    assert (theta, event.kind, event.iteration, event.cost) == (
        [1.0, 1.0],
        "not finite at the start",
        0,
        np.inf,
    )
    assert event.place is not None
    assert event.place in action["detail"]
    assert action["detail"].endswith("with a = 1, b = 1; goes on from a = 1, b = 20")
    assert found.success
    np.testing.assert_allclose(found.theta, [2, 12], rtol=1e-3)


def test_strategies_that_find_no_start_end_in_the_error_of_the_last(small_leaves: None) -> None:
    def same(theta, bounds, event, rng):
        return theta / 2

    y = observed(shifted_log, 2.0, 12.0)
    with pytest.raises(
        dfit.DataError, match=r"not finite at the start in .*, with a = 0\.5, b = 0\.5\. Type"
    ):
        fitted(shifted_log, y, [1.0, 1.0], recovery=[same])


@pytest.mark.parametrize("in_memory", [False, True])
def test_refused_step_is_logged_with_its_place_and_the_trust_radius(
    small_leaves: None, in_memory: bool
) -> None:
    y = observed(shifted_log, 2.0, 12.0)
    warmup = dfit.Warmup(iterations=1, multistart=1) if in_memory else False
    found = fitted(shifted_log, y, [1.0, 30.0], warmup=warmup)
    assert found.success
    actions = [action for action in found.recovery_actions if action["strategy"] == "reduce step"]
    assert actions
    for action in actions:
        before, after = found.history[action["iteration"] - 2], found.history[action["iteration"] - 1]
        shrunk = f"the trust radius shrinks from {before.trust_radius:.3g} to {after.trust_radius:.3g}"
        assert action["detail"].endswith(shrunk)
        assert ("points of the sample" if in_memory else "not finite in partition ") in action["detail"]
        assert after.cost == before.cost


def test_warmup_that_stalls_begins_again_within_five_percent(small_leaves: None) -> None:
    y = observed(bell, 0.5)
    found = fitted(bell, y, [0.0], warmup=dfit.Warmup(sample_points=4000))
    (action,) = found.recovery_actions
    assert (action["iteration"], action["strategy"]) == (0, "perturb start")
    start = float(action["detail"].rpartition("= ")[2])
    assert action["detail"].startswith("the warm-up stalls from b = 0, ")
    assert 0 < abs(start) <= 0.05
    assert found.success
    np.testing.assert_allclose(abs(found.theta), [0.5], rtol=1e-3)
    other = fitted(bell, y, [0.0], warmup=dfit.Warmup(sample_points=4000, seed=5))
    assert other.recovery_actions[0]["detail"] != action["detail"]


def test_warmup_that_ends_well_is_left_as_it_is(small_leaves: None, monkeypatch: pytest.MonkeyPatch) -> None:
    y = observed(bell, 0.5)
    found = fitted(bell, y, [0.3], warmup=True)
    monkeypatch.setattr("dfit.starts.NEARBY", 0.5)
    assert found.recovery_actions == ()
    assert fitted(bell, y, [0.3], warmup=True).theta.tobytes() == found.theta.tobytes()


def test_partition_that_is_left_out_is_logged(small_leaves: None, rereading: None) -> None:
    y = observed(bell, 0.5)

    def block(block_info=None) -> np.ndarray:
        ((start, stop),) = block_info[None]["array-location"]
        if start == 5000:
            raise OSError("gone")
        return y.values[start:stop]

    lazy = y.copy(data=da.map_blocks(block, chunks=((5000,) * 4,), dtype=float, meta=np.empty(0)))
    with pytest.warns(dfit.DfitWarning):
        found = fitted(bell, lazy, [0.3], retries=0, min_success_rate=0.5)
    (action,) = found.recovery_actions
    assert (action["partition"], action["strategy"]) == (1, "partition left out")
    assert "i[5000:10000]" in action["detail"]
    assert "gone" in action["detail"]


class Stop(Exception):
    """Ends the process's part of a fit."""


@pytest.mark.parametrize("after", [2, 3, 5])
def test_fit_that_a_strategy_has_moved_goes_on_with_the_same_bits(
    small_leaves: None, tmp_path: Path, after: int
) -> None:
    y = observed(bell, 0.5).chunk(i=5000)
    strategies = [to_zero, moved]
    whole = fitted(bell, y, [0.0], recovery=strategies)

    def stop(event: dfit.PassDone) -> None:
        if event.npasses == after:
            raise Stop

    checkpoint = dfit.Checkpoint(tmp_path / "fit", every_s=0)
    asked = len(EVENTS)
    with pytest.raises(Stop):
        fitted(bell, y, [0.0], recovery=strategies, checkpoint=checkpoint, callback=stop)
    found = fitted(bell, y, [0.0], recovery=strategies, checkpoint=checkpoint)
    assert len(EVENTS) == asked + 1
    assert found.recovery_actions == whole.recovery_actions
    assert found.theta.tobytes() == whole.theta.tobytes()
    assert found.cost == whole.cost
    assert found.npasses == whole.npasses


def test_fit_that_is_stopped_in_another_start_has_the_best_point_then_and_after_a_resume(
    small_leaves: None, tmp_path: Path
) -> None:
    y = observed(bell, 0.5)
    alone = fitted(bell, y, [1e3])

    def onto_the_slope(theta, bounds, event, rng):
        return theta / 1e4

    settings = {"recovery": [onto_the_slope], "max_passes": alone.npasses + 1, "checkpoint": tmp_path / "fit"}
    first, again = (fitted(bell, y, [1e3], **settings) for _ in range(2))
    assert first.recovery_actions
    assert first.recovery_actions == again.recovery_actions
    assert first.npasses == again.npasses == alone.npasses + 1
    assert (first.theta.tolist(), first.cost) == ([1e3], alone.cost)
    assert (again.theta.tolist(), again.cost) == ([1e3], alone.cost)
    further = fitted(bell, y, [1e3], **settings | {"max_passes": 100})
    assert further.success
    np.testing.assert_allclose(further.theta, [0.5], rtol=1e-3)
