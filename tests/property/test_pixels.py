"""Pixel k of a map is the fit of pixel k, whatever the chunks, the order of dimensions and what is missing."""

from __future__ import annotations

import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

import dfit
from dfit.pixel_status import PixelStatus

T = np.linspace(0, 8, 24)
ROWS, COLUMNS = 4, 75  # more than are fitted by triangles alone
RNG = np.random.default_rng(21)
TRUTH = RNG.uniform([3, 1.3, 0.5], [7, 2.7, 1.5], (ROWS, COLUMNS, 3)).transpose(2, 0, 1)
CLEAN = TRUTH[0] * np.exp(-T[:, None, None] / TRUTH[1]) + TRUTH[2]
Y = CLEAN + 0.1 * RNG.standard_normal(CLEAN.shape)
P0 = {"a": 4.0, "tau": 2.0, "c": 0.5}
# Where steps are taken in another order the sums differ by rounding, and the ends by the tolerance at most.
TOL = 1e-10
FLAT = {int(PixelStatus.STALLED), int(PixelStatus.CONVERGED_BUT_UNDETERMINED)}


def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def cube(values: np.ndarray = Y) -> xr.DataArray:
    return xr.DataArray(values, {"t": T}, ("t", "y", "x"))


def fitted(data: xr.DataArray, **options) -> xr.Dataset:
    found = data.fit("t", decay, p0=P0, tol=TOL, errors="ignore", **options).compute()
    return found.transpose("y", "x", "param", "cov_i", "cov_j")


@pytest.fixture(scope="module")
def whole() -> xr.Dataset:
    with dask.config.set(scheduler="synchronous"):
        return fitted(cube())


def lengths(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Lengths of some chunks that make up a size."""
    cuts = sorted(draw(st.sets(st.integers(1, size - 1), max_size=2)))
    return tuple(np.diff([0, *cuts, size]).tolist())


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """An order of the dimensions, and chunks along each of them."""
    order = tuple(draw(st.permutations(("t", "y", "x"))))
    return order, {dim: lengths(draw, size) for dim, size in cube().sizes.items()}


def assert_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    off = (found.curvefit_coefficients - expected.curvefit_coefficients) / expected.curvefit_stderr
    assert float(np.abs(off).max()) < 1e-8
    np.testing.assert_allclose(found.curvefit_covariance, expected.curvefit_covariance, rtol=1e-7)
    for name in ("success", "ndata", "nfree"):
        np.testing.assert_array_equal(found[f"curvefit_{name}"], expected[f"curvefit_{name}"])
    for name in ("chisqr", "redchi", "aic", "bic", "rsquared"):
        np.testing.assert_allclose(found[f"curvefit_{name}"], expected[f"curvefit_{name}"], rtol=1e-9)


@settings(max_examples=6, deadline=None)
@given(layouts())
def test_any_chunks_and_order_of_dimensions_give_the_same_map(whole, layout):
    order, chunks = layout
    assert_same(fitted(cube().transpose(*order).chunk(chunks)), whole)


@settings(max_examples=4, deadline=None)
@given(st.permutations(range(COLUMNS)))
def test_neighbours_do_not_matter_to_a_pixel(whole, order):
    assert_same(fitted(cube().isel(x=order)), whole.isel(x=order))


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    missing=st.sampled_from([0.0, 0.3, 0.9]),
    absolute=st.booleans(),
    bounded=st.booleans(),
)
@example(seed=2000, missing=0.9, absolute=False, bounded=False)  # one of three points, flat
def test_a_pixel_is_the_fit_of_its_own_data(seed, missing, absolute, bounded):
    rng = np.random.default_rng(seed)
    data = cube(np.where(rng.random(Y.shape) < missing, np.nan, Y))
    sigma = cube(np.where(rng.random(Y.shape) < 0.05, np.inf, rng.uniform(0.05, 0.2, Y.shape)))
    options = {
        "absolute_sigma": absolute,
        "bounds": {"tau": (1.5, 2.4), "c": (0.0, 1.0)} if bounded else None,
        "max_passes": 200,
    }
    found = fitted(data, sigma=sigma, **options)
    points = (np.isfinite(data) & np.isfinite(sigma)).sum("t")
    np.testing.assert_array_equal(found.curvefit_ndata, points)
    for y, x in rng.integers(0, [ROWS, COLUMNS], (4, 2)):
        pixel, mine = {"y": y, "x": x}, found.isel(y=y, x=x)
        if points[pixel] < len(P0):
            assert int(mine.curvefit_status) in (PixelStatus.NO_DATA, PixelStatus.TOO_FEW_POINTS)
            assert np.isnan(mine.curvefit_coefficients).all() and not mine.curvefit_success
            continue
        one = dfit.fit(decay, data[pixel], "t", p0=P0, tol=TOL, sigma=sigma[pixel], warmup=False, **options)
        compare(mine, one)


def compare(mine: xr.Dataset, one: dfit.FitResult) -> None:
    """A pixel and the fit of its data: the same minimum, told alike; few points may leave it flat."""
    assert int(mine.curvefit_nfree) == one.nfree
    if {int(mine.curvefit_status), int(one.status)} == FLAT:
        # Rounding decides whether a step along what the data leave open still seems to gain anything.
        np.testing.assert_allclose(mine.curvefit_chisqr, one.chisqr, rtol=1e-9)
        return
    assert bool(mine.curvefit_success) == one.success
    if not one.success:
        return
    np.testing.assert_allclose(mine.curvefit_chisqr, one.chisqr, rtol=1e-9, atol=1e-20)
    errors = np.array([parameter.stderr for parameter in one.params.values()])
    values = np.array([parameter.value for parameter in one.params.values()])
    np.testing.assert_array_equal(np.isnan(mine.curvefit_stderr), np.isnan(errors))
    if one.nfree > 0 and np.isfinite(errors).all():
        np.testing.assert_allclose(mine.curvefit_stderr, errors, rtol=1e-5)
        assert (np.abs(mine.curvefit_coefficients.values - values) < 1e-6 * errors).all()
