"""Points without a value or a weight, and chunks of every shape: what counts, and what it gives."""

from __future__ import annotations

from typing import Any

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.optimize import least_squares

import dfit
from dfit.errors import DataError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*points were left out:dfit.DfitWarning")

N = 400
RNG = np.random.default_rng(0)
X = np.linspace(0, 10, N)
SIGMA = RNG.uniform(0.05, 0.2, N)
Y = 5 * np.exp(-X / 2) + 1 + SIGMA * RNG.normal(size=N)
P0 = {"a": 3.0, "tau": 1.0, "c": 0.0}
PLAIN: dict[str, Any] = {}
WARM, ROBUST = {"warmup": True}, {"loss": "huber"}


def decay(x, a, tau, c):
    return a * jnp.exp(-x / tau) + c


def changed(values: np.ndarray, at: Any, value: float) -> np.ndarray:
    out = values.copy()
    out[at] = value
    return out


def fit(y: Any, x: Any, **options: Any) -> dfit.FitResult:
    return dfit.fit(decay, y, {"x": x}, p0=P0, **options)


def errors(result: dfit.FitResult) -> list[float]:
    return [estimate.stderr for estimate in result.params.values()]


def of_scipy(keep: np.ndarray, loss: str) -> tuple[np.ndarray, float]:
    """theta and chi-square of SciPy for some of the points."""

    def residual(theta: np.ndarray) -> np.ndarray:
        return (Y[keep] - theta[0] * np.exp(-X[keep] / theta[1]) - theta[2]) / SIGMA[keep]

    found = least_squares(residual, [3, 1, 0], loss=loss, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return found.x, 2 * found.cost


NAN_Y, NAN_X, NAN_SIGMA, INF_SIGMA, INF_X = [3, 250], [4, 5], [60, 399], [0, 100, 101], [7]


@pytest.mark.parametrize(("way", "chunks"), [(PLAIN, None), (PLAIN, 37), (ROBUST, 37), (WARM | ROBUST, 37)])
def test_points_without_value_or_weight_are_counted_and_left_out_as_in_scipy(
    way: dict[str, Any], chunks: int | None
) -> None:
    y, x = changed(Y, NAN_Y, np.nan), changed(changed(X, NAN_X, np.nan), INF_X, np.inf)
    sigma = changed(changed(SIGMA, NAN_SIGMA, np.nan), INF_SIGMA, np.inf)
    y[250] = np.nan
    x[250] = np.nan  # for two reasons, of which the first counts
    where = np.arange(N) != 7
    if chunks is not None:
        y, x, sigma = (da.from_array(v, chunks=c) for v, c in zip((y, x, sigma), (37, 50, 399), strict=True))
    found = fit(y, x, sigma=sigma, where=where, **way)
    keep = np.setdiff1d(np.arange(N), NAN_Y + NAN_X + NAN_SIGMA + INF_SIGMA + INF_X)
    theta, chisqr = of_scipy(keep, way.get("loss", "linear"))
    assert list(found.best_values.values()) == pytest.approx(theta, rel=1e-6)
    assert found.chisqr == pytest.approx(chisqr, rel=1e-9)
    assert (found.ndata, found.nfree) == (keep.size, keep.size - 3)
    assert found.tallies.dropped == {
        "outside where": 1,
        "y is NaN": 2,
        "a coordinate is NaN": 2,
        "sigma is NaN": 2,
        "sigma is infinite": 3,
    }
    assert found.redchi == pytest.approx(chisqr / (keep.size - 3), rel=1e-9)


@pytest.mark.parametrize("way", [PLAIN, WARM], ids=str)
def test_a_chunk_of_weight_zero_contributes_nothing(way: dict[str, Any]) -> None:
    gone = slice(100, 200)
    keep = np.setdiff1d(np.arange(N), np.arange(100, 200))
    lazy = [da.from_array(v, chunks=100) for v in (Y, X, changed(SIGMA, gone, np.inf))]
    found = fit(lazy[0], lazy[1], sigma=lazy[2], **way)
    expected = fit(Y[keep], X[keep], sigma=SIGMA[keep], **way)
    assert found.best_values == pytest.approx(expected.best_values, rel=1e-9)
    assert errors(found) == pytest.approx(errors(expected), rel=1e-7)
    assert (found.ndata, found.nfree) == (expected.ndata, expected.nfree) == (300, 297)


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_weights_that_are_zero_everywhere_are_refused(value: float, warmup: bool) -> None:
    nothing = np.full(N, value)
    with pytest.raises(InputError, match="infinite or NaN at every point"):
        fit(Y, X, sigma=nothing, warmup=warmup)
    with pytest.raises(DataError, match=r"no point is left to fit \(sigma is .*: 400\)"):
        fit(da.from_array(Y, chunks=70), X, sigma=da.from_array(nothing, chunks=70), warmup=warmup)


@pytest.mark.parametrize("value", [0.0, -np.inf])
@pytest.mark.parametrize("of_sigma", [None, 50])
@pytest.mark.parametrize("of_where", [None, 90])
def test_sigma_that_is_not_positive_may_stand_where_nothing_is_fitted(
    value: float, of_sigma: int | None, of_where: int | None
) -> None:
    at = [5, 300]
    keep = np.setdiff1d(np.arange(N), at)
    sigma, where = changed(SIGMA, at, value), np.isin(np.arange(N), keep)
    one_more = changed(where, 5, True)
    sigma = sigma if of_sigma is None else da.from_array(sigma, chunks=of_sigma)
    where, one_more = (
        m if of_where is None else da.from_array(m, chunks=of_where) for m in (where, one_more)
    )
    found, expected = fit(Y, X, sigma=sigma, where=where), fit(Y[keep], X[keep], sigma=SIGMA[keep])
    assert found.best_values == pytest.approx(expected.best_values, rel=1e-10)
    assert found.ndata == expected.ndata
    with pytest.raises((InputError, DataError), match=r"sigma is .*where=sigma > 0"):
        fit(Y, X, sigma=sigma, where=one_more)


def test_sigma_is_looked_at_where_a_mask_of_other_dimensions_lets_it_count() -> None:
    y = xr.DataArray(np.stack([Y, Y]), dims=("run", "x"), coords={"x": X})
    sigma = xr.DataArray([0.1, 0.0], dims="run")
    first = xr.DataArray([True, False], dims="run")
    found = dfit.fit(decay, y, "x", p0=P0, sigma=sigma, where=first)
    assert found.best_values == pytest.approx(fit(Y, X).best_values, rel=1e-10)
    for where in (first | (y > 3), xr.DataArray(X > 3, dims="x")):
        with pytest.raises(InputError, match=r"sigma is 0\.0 at run=1 \(1 in all\)"):
            dfit.fit(decay, y, "x", p0=P0, sigma=sigma, where=where)


CHUNKS = {
    "rows": ((1,) * 40, (10,)),
    "empty and ragged": ((0, 7, 0, 1, 30, 0, 2), (3, 0, 7)),
    "columns": ((40,), (1,) * 10),
}


@pytest.mark.parametrize(
    ("of_y", "way"),
    [("rows", PLAIN), ("empty and ragged", WARM), ("columns", ROBUST)],
)
def test_chunks_of_any_shape_under_coordinates_sigma_and_mask_of_others_are_as_one(
    way: dict[str, Any], of_y: str
) -> None:
    shape = (40, 10)
    x, y, sigma = (v.reshape(shape) for v in (X, changed(Y, NAN_Y, np.nan), SIGMA))
    where = np.arange(N).reshape(shape) % 11 > 0
    others = [name for name in CHUNKS if name != of_y]
    lazy = [
        da.from_array(v, chunks=CHUNKS[name])
        for v, name in zip((y, x, sigma, where), (of_y, *others, of_y), strict=True)
    ]
    options = {"tol": 1e-12, **way}
    found = fit(lazy[0], lazy[1], sigma=lazy[2], where=lazy[3], **options)
    one = fit(y, x, sigma=sigma, where=where, **options)
    assert found.best_values == pytest.approx(one.best_values, rel=1e-10)
    assert errors(found) == pytest.approx(errors(one), rel=1e-9)
    assert found.chisqr == pytest.approx(one.chisqr, rel=1e-11)
    assert found.tallies.dropped == one.tallies.dropped == {"outside where": 37, "y is NaN": 2}
    assert found.nfree == one.nfree == N - 39 - 3
