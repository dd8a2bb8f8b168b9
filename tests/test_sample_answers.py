"""What a sample must not lose: neighbours, bad values, a user's derivative, the answer of further starts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dfit

T = np.linspace(0.0, 10.0, 2000)
RNG = np.random.default_rng(3)


def decay(t, a, tau):
    return a * jnp.exp(-t / tau)


def correlated(size):
    noise = RNG.normal(0, 0.1, size)
    for k in range(1, size):
        noise[k] += 0.9 * noise[k - 1]
    return noise


Y = 5 * np.exp(-T / 2) + correlated(T.size)
P0 = {"a": 3.0, "tau": 3.0}
PART = dfit.Warmup(sample_points=500)


def test_neighbouring_residuals_are_those_of_the_data_where_the_sample_is_all_of_them():
    plain, warmed = (dfit.fit(decay, Y, {"t": T}, p0=P0, warmup=warmup) for warmup in (False, True))
    assert plain.tallies.lag1 > 0.8
    assert warmed.tallies.lag1 == pytest.approx(plain.tallies.lag1, abs=0.01)
    assert "neighbouring residuals are correlated" in warmed.fit_report()


def test_points_of_a_part_of_the_data_have_no_neighbours():
    found = dfit.fit(decay, Y, {"t": T}, p0=P0, warmup=PART, max_passes=0)
    assert np.isnan(found.tallies.lag1)


def test_missing_values_of_a_sample_are_refused_where_they_are_not_skipped():
    y = Y.copy()
    y[::2] = np.nan
    with pytest.raises(dfit.DataError, match="y is NaN"):
        dfit.fit(decay, y, {"t": T}, p0=P0, warmup=PART, max_passes=0, skipna=False)


def test_a_derivative_of_the_users_own_is_enough_for_a_sample():
    @jax.custom_vjp  # has no forward derivative
    def own(t, a, tau):
        return a * jnp.exp(-t / tau)

    own.defvjp(lambda t, a, tau: (own(t, a, tau), None), lambda _, g: (g, g, g))

    def jac(t, a, tau):
        e = jnp.exp(-t / tau)
        return jnp.stack([e, a * e * t / tau**2], axis=1)

    def model(t, a, tau):
        return own(t, a, tau)

    found = dfit.fit(model, Y, {"t": T}, p0=P0, jac=jac, warmup=PART)
    plain = dfit.fit(decay, Y, {"t": T}, p0=P0, warmup=False)
    assert found.success
    np.testing.assert_allclose(found.theta, plain.theta, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_answer_of_further_starts_is_an_answer(seed):
    warmup = dfit.Warmup(sample_points=500, multistart=4, iterations=3, seed=seed)
    found = dfit.fit(decay, Y, {"t": T}, p0=P0, warmup=warmup, max_passes=0)
    assert found.ndata == 500
    assert np.isfinite(found.covariance.stderr).all()


def test_more_groups_than_points_of_a_sample_are_refused():
    import xarray as xr

    y = xr.DataArray(Y, dims="t", coords={"t": T})
    with pytest.raises(dfit.InputError, match=r"500 points cannot have points of each of 2000 groups"):
        dfit.fit(decay, y, "t", p0=P0, warmup=dfit.Warmup(sample_points=500, groups="t"))


@pytest.mark.parametrize("stop", [0, 1])
def test_a_stage_that_was_not_reached_took_no_time(stop):
    found = dfit.fit(decay, Y, {"t": T}, p0=P0, warmup=True, max_passes=stop)
    names = [phase.name for phase in found.phases]
    assert names == ["preparation", "sample", "normalization", "warmup", "gauss_newton", "covariance"]
    assert (found.phases[4].passes > 0) == (stop > 0)
