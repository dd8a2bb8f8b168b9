"""Any chunking, order and padding of the same points gives the same answer."""

from __future__ import annotations

import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import dfit

SHAPE = (24, 9, 5)
RNG = np.random.default_rng(2)
X, V, W = np.linspace(0, 6, SHAPE[0]), np.linspace(-1, 1, SHAPE[1]), np.linspace(1, 2, SHAPE[2])
VALUES = 4 * np.exp(-X / 1.7)[:, None, None] + 0.5 * V[:, None] * W + RNG.normal(0, 0.2, SHAPE)
SIGMA = RNG.uniform(0.1, 0.4, SHAPE)
KEEP = RNG.uniform(size=SHAPE) > 0.1


def model(x, v, w, a, tau, b):
    return a * jnp.exp(-x / tau) + b * v * w


def array(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, dims=("x", "v", "w"), coords={"x": X, "v": V, "w": W})


def fit(y: xr.DataArray, **options: object) -> dfit.FitResult:
    return dfit.fit(model, y, ("x", "v", "w"), p0=[1, 1, 0], **options)


@pytest.fixture(scope="module")
def expected() -> dfit.FitResult:
    return fit(array(VALUES), sigma=array(SIGMA), where=array(KEEP))


def lengths(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Chunk lengths that add up to size, empty ones among them."""
    cuts = st.lists(st.integers(0, size), max_size=5).map(sorted)
    return cuts.map(lambda c: tuple(np.diff([0, *c, size]).tolist()))


grids = st.tuples(*(lengths(n) for n in SHAPE))


@settings(max_examples=15, deadline=None)
@given(
    grids,
    grids,
    st.permutations(["x", "v", "w"]),
    st.sampled_from([64, 256, 1 << 18]),
    st.sampled_from(["1 B", "2 kB", "1 GB"]),
    st.integers(0, 2**32 - 1),
)
def test_any_cut_of_the_same_points_gives_the_same_answer(
    expected: dfit.FitResult,
    grid: tuple[tuple[int, ...], ...],
    other: tuple[tuple[int, ...], ...],
    order: list[str],
    leaf: int,
    partition: str,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    shuffle = {dim: rng.permutation(n) for dim, n in zip("xvw", SHAPE, strict=True)}

    def cut(values: np.ndarray, chunks: tuple[tuple[int, ...], ...]) -> xr.DataArray:
        named = dict(zip("xvw", chunks, strict=True))
        return array(values).isel(shuffle).transpose(*order).chunk(named)

    with pytest.MonkeyPatch.context() as patch, dask.config.set({"dfit.partition-bytes": partition}):
        patch.setattr("dfit.data.plan.LEAF_POINTS", leaf)
        found = fit(cut(VALUES, grid), sigma=cut(SIGMA, other), where=cut(KEEP, other))
    assert found.success
    assert found.ndata == expected.ndata
    for name, value in expected.best_values.items():
        room = max(1e-10 * abs(value), 1e-6 * expected.params[name].stderr)
        assert abs(found.best_values[name] - value) <= room
        assert found.params[name].stderr == pytest.approx(expected.params[name].stderr, rel=1e-6)


@settings(max_examples=6, deadline=None)
@given(grids, st.sampled_from([64, 256]))
def test_a_tight_offset_gives_ten_digits_under_any_cut(grid: tuple[tuple[int, ...], ...], leaf: int) -> None:
    expected = fit(array(VALUES), tol=1e-12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfit.data.plan.LEAF_POINTS", leaf)
        found = fit(array(VALUES).chunk(dict(zip("xvw", grid, strict=True))), tol=1e-12)
    assert found.best_values == pytest.approx(expected.best_values, rel=1e-10)
