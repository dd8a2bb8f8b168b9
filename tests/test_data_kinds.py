"""The same points in any kind, type, order, chunking and number of dimensions give the same fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit

RNG = np.random.default_rng(7)
T = np.linspace(0, 6, 90)
PLACE = np.linspace(-1, 1, 7)
P0 = {"amplitude": 1.0, "tau": 1.0, "slope": 0.0}
TRUE = 4 * np.exp(-T[:, None] / 1.7) + 0.5 * PLACE[None]
VALUES = TRUE + RNG.normal(0, 0.1, TRUE.shape)
SIGMA = RNG.uniform(0.05, 0.2, VALUES.shape)


def decay(time, place, amplitude, tau, slope):
    return amplitude * jnp.exp(-time / tau) + slope * place


def array(values: Any = VALUES, **chunks: Any) -> xr.DataArray:
    y = xr.DataArray(values, dims=("time", "place"), coords={"time": T, "place": PLACE}, name="signal")
    return y.chunk(chunks) if chunks else y


def fit(y: Any = None, **options: Any) -> dfit.FitResult:
    y = array(time=20, place=3) if y is None else y
    return dfit.fit(decay, y, options.pop("coords", ("time", "place")), p0=P0, **options)


def same(found: dfit.FitResult, expected: dfit.FitResult) -> None:
    """Within promise 1: 1e-10 relative or 1e-6 standard errors, whichever is larger."""
    for name, value in expected.best_values.items():
        room = max(1e-10 * abs(value), 1e-6 * expected.params[name].stderr)
        assert abs(found.best_values[name] - value) <= room, name
        assert found.params[name].stderr == pytest.approx(expected.params[name].stderr, rel=1e-6)
    assert found.chisqr == pytest.approx(expected.chisqr, rel=1e-9)
    assert found.ndata == expected.ndata
    assert found.success and expected.success


@pytest.fixture(scope="module")
def plain() -> dfit.FitResult:
    return fit(array())


@pytest.fixture(scope="module")
def weighted() -> dfit.FitResult:
    return fit(array(), sigma=SIGMA)


def test_answer_is_the_true_one(plain: dfit.FitResult) -> None:
    for name, true in {"amplitude": 4, "tau": 1.7, "slope": 0.5}.items():
        assert abs(plain.best_values[name] - true) < 4 * plain.params[name].stderr


@pytest.mark.parametrize(
    "chunks",
    [
        {"time": 90, "place": 7},
        {"time": 1, "place": 7},
        {"time": 90, "place": 1},
        {"time": (1, 88, 1), "place": (2, 5)},
        {"time": (13, 30, 47), "place": (7,)},
    ],
)
def test_chunking_changes_nothing(plain: dfit.FitResult, chunks: dict[str, Any]) -> None:
    same(fit(array(**chunks)), plain)


def test_chunks_without_points_change_nothing(plain: dfit.FitResult) -> None:
    lazy = da.from_array(VALUES, chunks=((0, 40, 0, 50), (7, 0)))
    assert 0 in lazy.chunks[0]
    same(fit(array(lazy)), plain)


def test_numpy_dask_and_xarray_are_the_same(plain: dfit.FitResult) -> None:
    grid = np.broadcast_to(T[:, None], VALUES.shape)
    same(fit(VALUES, coords={"time": T, "place": PLACE}), plain)
    same(fit(VALUES, coords=[T, PLACE]), plain)
    same(fit(da.from_array(VALUES, chunks=(33, 2)), coords={"time": T, "place": PLACE}), plain)
    same(fit(VALUES, coords={"time": grid, "place": PLACE}), plain)
    full = da.from_array(grid, chunks=(7, 7))
    same(fit(da.from_array(VALUES, chunks=(33, 2)), coords={"time": full, "place": PLACE}), plain)
    same(fit(VALUES, coords={"time": full, "place": PLACE}), plain)


def test_order_of_dimensions_and_points_changes_nothing(plain: dfit.FitResult) -> None:
    same(fit(array().transpose("place", "time").chunk(place=2, time=31)), plain)
    shuffled = array().isel(time=RNG.permutation(T.size), place=RNG.permutation(PLACE.size))
    same(fit(shuffled.chunk(time=17)), plain)
    same(fit(array().stack(point=("place", "time")).reset_index("point").chunk(point=50)), plain)


def test_dimensions_of_length_one_change_nothing(plain: dfit.FitResult) -> None:
    same(fit(array(time=20).expand_dims(run=1, axis=1).expand_dims(last=1, axis=-1)), plain)


def test_points_left_out_are_as_if_they_were_not_there() -> None:
    keep = RNG.uniform(size=VALUES.shape) > 0.2
    expected = fit(VALUES[keep], coords=[np.broadcast_to(c, VALUES.shape)[keep] for c in (T[:, None], PLACE)])
    same(fit(where=keep), expected)
    same(fit(where=array(keep, time=31)), expected)
    same(fit(sigma=np.where(keep, 1.0, np.inf)), expected)
    with pytest.warns(dfit.DfitWarning, match=f"{(~keep).sum()} points were left out"):
        holes = fit(array(np.where(keep, VALUES, np.nan), time=20))
    same(holes, expected)
    assert holes.tallies.dropped == {"y is NaN": (~keep).sum()}


def test_masked_blocks_of_a_dask_array_are_missing() -> None:
    keep = RNG.uniform(size=VALUES.shape) > 0.2
    masked = da.ma.masked_array(da.from_array(VALUES, chunks=(20, 7)), ~da.from_array(keep, chunks=(20, 7)))
    expected = fit(where=keep)
    with pytest.warns(dfit.DfitWarning, match="y is NaN"):
        same(fit(masked, coords={"time": T, "place": PLACE}), expected)


@pytest.mark.parametrize("place", ["sigma", "coordinate", "where"])
def test_sigma_coordinate_and_mask_need_not_be_chunked_like_y(place: str, weighted: dfit.FitResult) -> None:
    lazy = {"time": (44, 46), "place": (1, 6)}
    time = array(np.broadcast_to(T[:, None], VALUES.shape), **lazy)
    changed = {
        "sigma": {"sigma": array(SIGMA, **lazy)},
        "coordinate": {"sigma": SIGMA, "coords": {"time": time, "place": PLACE}},
        "where": {"sigma": SIGMA, "where": array(np.ones(VALUES.shape, bool), **lazy)},
    }
    same(fit(**changed[place]), weighted)


def test_sigma_and_mask_may_lie_along_fewer_dimensions() -> None:
    sigma, late = np.linspace(0.05, 0.3, 7), T > 0.5
    expected = fit(
        array(),
        sigma=np.broadcast_to(sigma, VALUES.shape),
        where=np.broadcast_to(late[:, None], VALUES.shape),
    )
    along = {"sigma": xr.DataArray(sigma, dims="place"), "where": xr.DataArray(late, dims="time")}
    same(fit(**along), expected)
    same(fit(**{name: a.chunk({a.dims[0]: 4}) for name, a in along.items()}), expected)


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">f8", "f2", "longdouble", "i2", ">i4", "u1", "?"])
def test_every_type_of_real_number_is_summed_in_float64(kind: str) -> None:
    # Every number is true as a bool, and a constant has no best tau.
    values = VALUES > 1.5 if kind == "?" else np.abs(VALUES * 10).astype(kind)
    expected = fit(array(values.astype(float)))
    same(fit(array(values, time=20)), expected)
    same(fit(array(values)), expected)


@pytest.mark.parametrize("kind", ["<c8", ">c8", ">c16", "clongdouble"])
def test_complex_numbers_of_any_width(kind: str) -> None:
    def wave(time, amplitude, k):
        return amplitude * jnp.exp(1j * k * time)

    noise = RNG.normal(size=(2, T.size))
    values = (3 * np.exp(1.3j * T) + 0.1 * (noise[0] + 1j * noise[1])).astype(kind)
    expected = dfit.fit(wave, values.astype(complex), [T], p0=[2, 1.2])
    found = dfit.fit(wave, da.from_array(values, chunks=20), [T], p0=[2, 1.2])
    assert found.best_values == pytest.approx(expected.best_values, rel=1e-10)
    assert found.best_values == pytest.approx({"amplitude": 3, "k": 1.3}, rel=0.02)
    assert found.ndata == 2 * T.size


@pytest.mark.parametrize("kind", ["f4", ">f8", "i8"])
def test_coordinates_of_any_type(kind: str) -> None:
    time = (T * 10).astype(kind)
    y = array().assign_coords(time=time.astype(float))
    expected = fit(y)
    same(fit(array(time=20).assign_coords(time=time)), expected)
    lazy = xr.DataArray(
        da.from_array(np.broadcast_to(time[:, None], VALUES.shape), chunks=(50, 5)), dims=y.dims
    )
    same(fit(coords={"time": lazy, "place": PLACE}), expected)


@pytest.mark.parametrize("wide", [SIGMA, SIGMA * 1e-25])
def test_narrow_sigma_weighs_in_float64(wide: np.ndarray) -> None:
    narrow = wide.astype("f4")
    expected = fit(array(), sigma=narrow.astype(float))
    same(fit(sigma=narrow), expected)


def test_times_reach_the_model_as_offsets() -> None:
    start = np.datetime64("2000-01-01", "ns")
    nanoseconds = np.round(T * 1e9).astype("m8[ns]")
    expected = fit(array().assign_coords(time=np.round(T * 1e9) / 1e9))
    for times in (start + nanoseconds, nanoseconds):
        same(fit(array(time=20).assign_coords(time=times)), expected)
        full = np.broadcast_to(times[:, None], VALUES.shape)
        lazy = xr.DataArray(da.from_array(full, chunks=(50, 5)), dims=("time", "place"))
        same(fit(coords={"time": lazy, "place": PLACE}), expected)


def test_file_is_read_as_it_lies(tmp_path: Path, plain: dfit.FitResult) -> None:
    for i, part in enumerate((array()[:40], array()[40:])):
        part.to_netcdf(tmp_path / f"{i}.nc", engine="h5netcdf")
    with xr.open_mfdataset(str(tmp_path / "*.nc"), engine="h5netcdf", chunks={"time": 17}) as stored:
        same(fit(stored.signal), plain)


@pytest.mark.parametrize("kept", [True, False])
def test_three_dimensions_with_coordinates_along_one_read_only_y(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def box(x, y, z, a, b, c):
        return a * jnp.exp(-x * b) + c * y * z

    if not kept:
        monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 0.0)
    axes = {"x": np.linspace(0, 1, 20), "y": np.linspace(1, 2, 30), "z": np.linspace(0, 3, 24)}
    values = 2 * np.exp(-axes["x"] * 1.5)[:, None, None] + 0.7 * np.multiply.outer(axes["y"], axes["z"])
    values = values + RNG.normal(0, 0.1, values.shape)
    data = xr.DataArray(values.astype("f4"), dims=list(axes), coords=axes).chunk(x=7, y=11, z=24)
    found = dfit.fit(box, data, ("x", "y", "z"), p0=[1, 1, 1])
    passes = 1 if kept else found.npasses
    assert found.run.bytes_per_pass == 4 * data.size
    assert found.run.bytes_read == 4 * data.size * passes
    assert found.best_values == pytest.approx({"a": 2, "b": 1.5, "c": 0.7}, rel=0.01)
