"""A sample that misleads: what a fit makes of it, and what layer 3 saves."""

from __future__ import annotations

from typing import Any

import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from tests.conftest import ROOT
from tests.warmed import P0, SAMPLE, N, Reads, T, Y, apart, decay, edge

pytestmark = pytest.mark.usefixtures("small_leaves")


CHOSEN = 100  # points of a chunk, of which there are 200 and 64 give points


@pytest.fixture(scope="module")
def chosen() -> np.ndarray:
    """Points of the chunks from which a sample is taken."""
    reads = Reads()
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr("dfit.planning.KEEP_FRACTION", 1e-9)
        dfit.fit(decay, reads.array(chunk=CHOSEN), "t", p0=P0, warmup=SAMPLE, max_passes=0)
    return np.isin(np.arange(N) // CHOSEN, reads)


def test_a_sample_unlike_the_data_costs_no_pass_more(chosen: np.ndarray) -> None:
    y = np.where(chosen, Y, Y + 0.25 * np.exp(-T / 4))
    found = dfit.fit(decay, Reads().array(y, chunk=CHOSEN), "t", p0=P0, warmup=SAMPLE)
    without = dfit.fit(decay, y, {"t": T}, p0=P0, warmup=False)
    assert "the sample is not like the data" in found.warmup.hand_over
    assert found.success and apart(found, without) < 1e-6
    assert found.npasses <= without.npasses + 1


@pytest.mark.parametrize("p0", [[2.9, 1.9, 1.1], [30.0, 1.9, 11.0]])
def test_a_sample_far_worse_than_p0_costs_at_most_a_pass_more(chosen: np.ndarray, p0: list[float]) -> None:
    y = np.where(chosen, Y, 10 * Y)
    found = dfit.fit(decay, Reads().array(y, chunk=CHOSEN), "t", p0=p0, warmup=SAMPLE)
    without = dfit.fit(decay, y, {"t": T}, p0=p0, warmup=False)
    assert "p0 is tried" in found.warmup.hand_over
    assert found.success and apart(found, without) < 1e-6
    assert found.npasses <= without.npasses + 1


def test_a_parameter_that_the_sample_does_not_see_is_found_by_the_passes() -> None:
    def shifted(t, station, a, tau, c, d):
        return a * jnp.exp(-t / tau) + c + d * station

    station = np.zeros(N)
    station[[7, 5011, 9013, 14_111, 17_777]] = 1
    columns = {"t": ("i", T), "station": ("i", station)}
    y = xr.DataArray(Y + 0.5 * station, dims="i", coords=columns).chunk(i=2000)
    found, without = (
        dfit.fit(shifted, y, ("t", "station"), p0=[1, 1, 0, 0], warmup=warmup)
        for warmup in (dfit.Warmup(sample_points=300), False)
    )
    assert found.success and apart(found, without) < 1e-6
    assert found.npasses <= without.npasses


@pytest.mark.parametrize("points", [2, 4])
def test_a_sample_of_too_few_points_costs_no_pass(points: int) -> None:
    found = dfit.fit(decay, Y, {"t": T}, p0=P0, warmup=dfit.Warmup(sample_points=points))
    without = dfit.fit(decay, Y, {"t": T}, p0=P0, warmup=False)
    assert found.success and apart(found, without) < 1e-6
    assert found.npasses <= without.npasses + 1


BIG = 200_000
LONG = np.linspace(0, 10, BIG)


@pytest.mark.parametrize("keep", [pytest.param(0.4, marks=pytest.mark.long), 1e-9])
def test_an_answer_at_which_the_model_is_not_finite_elsewhere_sends_the_fit_back(
    keep: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.planning.KEEP_FRACTION", keep)
    y = 2 * np.sqrt(9.97 - np.minimum(LONG, 9.96)) + np.random.default_rng(1).normal(0, 0.02, BIG)
    array = Reads().array(y, LONG, 1000)
    told: list[Any] = []
    options = {"p0": [1.0, 11.0], "max_passes": 12}
    sample = dfit.Warmup(sample_points=3000)
    found = dfit.fit(edge, array, "t", warmup=sample, callback=told.append, **options)
    without = dfit.fit(edge, array, "t", warmup=False, **(options | {"max_passes": 11}))
    assert "not finite at the sample's answer: p0 is tried" in found.warmup.hand_over
    assert told[0].cost == np.inf and np.isfinite(told[1].cost)
    assert found.cost <= without.cost * (1 + 1e-9)
    assert found.best_values["b"] >= 10


def test_where_neither_the_answer_nor_p0_will_do_the_place_is_named() -> None:
    y = 2 * np.sqrt(9.97 - np.minimum(LONG, 9.96)) + np.random.default_rng(1).normal(0, 0.02, BIG)
    with pytest.raises(dfit.DataError, match=r"not finite at the start in .*i\[\d+:200000\]"):
        dfit.fit(
            edge, Reads().array(y, LONG, 1000), "t", p0=[1, 9.9999], warmup=dfit.Warmup(sample_points=3000)
        )


def test_a_model_that_is_not_finite_at_p0_is_refused_with_how_many_points_and_where() -> None:
    with pytest.raises(dfit.DataError, match=r"not finite at the start at 100 of 1000 points .*t = 9\.0"):
        dfit.fit(edge, Reads().array(), "t", p0=[1, 9.0], warmup=SAMPLE)


@pytest.mark.usefixtures("rereading")
@pytest.mark.parametrize("passes", [0, 100])
def test_it_is_refused_where_the_first_pass_collects_too(passes: int) -> None:
    with pytest.raises(dfit.DataError, match="not finite at the start"):
        dfit.fit(edge, Reads().array(), "t", p0=[1, 9.0], warmup=SAMPLE, max_passes=passes)


def season(time, latitude, T0, dlat, trend, amp, tmax, period):
    daily = amp * jnp.cos(2 * jnp.pi * (time - tmax) / period)
    return T0 + dlat * (latitude - 54) + trend * (time / 744 - 0.5) + daily


# On 60 hours of a month of weather a season fits what is no season; where p0 is, how often its sample is
# drawn from which hours, decides whether the guard helps. Here it does.
@pytest.mark.parametrize(
    ("p0", "seed"),
    [([280, 0, 0, 1, 14, 24.4], 4), ([280, 0, 0, 1, 14, 24.0], 4), ([270, 0, 0, 0.1, 10, 24.1], 1)],
)
def test_giving_up_on_a_sample_of_weather_saves_passes(p0: list[float], seed: int) -> None:
    y = xr.open_dataset(ROOT / "examples/data/era5_t2m_uk_2019-03.nc").t2m[:, :, 24].load()
    y = y.assign_coords(time=np.arange(744.0)).chunk(time=6)
    fits = [
        dfit.fit(
            season,
            y,
            ("time", "latitude"),
            p0=p0,
            warmup=dfit.Warmup(sample_points=60, seed=seed, cost_increase_tolerance=tolerance),
        )
        for tolerance in (0.05, None)
    ]
    guarded, free = fits
    assert (guarded.warmup.guarded, free.warmup.guarded) == (True, False)
    assert guarded.success and free.success
    assert guarded.cost == pytest.approx(free.cost, rel=1e-9)
    assert guarded.npasses < free.npasses - 5
    assert guarded.warmup.evaluations < free.warmup.evaluations
