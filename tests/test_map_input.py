"""What a map takes: kinds of data, labels and coordinates, each against a loop of single fits; and how lazy it is."""

from __future__ import annotations

from pathlib import Path

import dask.array
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dfit

TIME = np.linspace(0, 4, 20)
START = {"amplitude": 1.0, "tau": 1.0}
TRUTH = np.array([[2, 1], [3, 2], [4, 1.5]])


def decay(time, amplitude, tau):
    return amplitude * jnp.exp(-time / tau)


def wave(time, amplitude, tau):
    return amplitude * jnp.exp((2j - 1 / tau) * time)


@pytest.fixture
def signal() -> xr.DataArray:
    noise = 0.01 * np.random.default_rng(0).normal(size=(3, TIME.size))
    values = TRUTH[:, :1] * np.exp(-TIME / TRUTH[:, 1:]) + noise
    return xr.DataArray(values, {"x": [10, 20, 30], "time": TIME}, ("x", "time"), "counts", {"units": "V"})


def one_by_one(data: xr.DataArray, coord: str = "time", model=decay, **options) -> np.ndarray:
    """Coefficients (3, 2) of a loop of single fits."""
    return np.stack(
        [
            data.isel(x=k).fit(coord, model, ..., p0=START, **options).curvefit_coefficients.values
            for k in range(data.sizes["x"])
        ]
    )


def assert_fitted(found: xr.Dataset, expected: np.ndarray) -> None:
    """Within 1e-6 standard errors of the single fits."""
    gap = abs(found.curvefit_coefficients - expected) / found.curvefit_stderr
    assert float(gap.max()) < 1e-6
    assert bool(found.curvefit_success.all())


@pytest.mark.parametrize("kind", ["i4", "u2", "f4", ">f8", ">i2", "longdouble", "bool"])
def test_any_kind_of_number_is_fitted_as_it_is_alone(signal: xr.DataArray, kind: str) -> None:
    data = (signal.clip(0) * (1 if kind == "bool" else 20)).round().astype(kind)
    assert_fitted(data.fit("time", decay, p0=START), one_by_one(data.astype(float)))


def test_complex_data_are_fitted_as_alone(signal: xr.DataArray) -> None:
    data = signal * np.exp(2j * signal.time)
    assert_fitted(data.fit("time", wave, p0=START), one_by_one(data, model=wave))


@pytest.mark.parametrize("chunks", [{"x": 1}, {"time": 7}, {"x": 2, "time": 6}], ids=str)
def test_chunks_change_nothing(signal: xr.DataArray, chunks) -> None:
    whole = signal.fit("time", decay, p0=START)
    found = signal.chunk(chunks).fit("time", decay, p0=START)
    assert found.curvefit_coefficients.chunksizes["x"] == signal.chunk(chunks).chunksizes.get("x", (3,))
    xr.testing.assert_allclose(found.compute().drop_attrs(), whole.drop_attrs(), rtol=1e-9, atol=1e-12)


def test_the_layout_of_memory_changes_nothing(signal: xr.DataArray) -> None:
    expected = signal.fit("time", decay, p0=START).curvefit_coefficients
    frozen = signal.copy(data=signal.values.copy())
    frozen.values.setflags(write=False)
    layouts = {
        "Fortran": signal.copy(data=np.asfortranarray(signal.values)),
        "transposed": signal.T,
        "strided": signal.copy(data=np.repeat(signal.values, 2, axis=1)[:, ::2]),
        "read-only": frozen,
    }
    for name, data in layouts.items():
        found = data.fit("time", decay, p0=START).curvefit_coefficients
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=name)
    backwards = signal.isel(time=slice(None, None, -1)).fit("time", decay, p0=START).curvefit_coefficients
    np.testing.assert_allclose(backwards, expected, rtol=1e-9)


def test_masked_points_of_chunks_are_missing(signal: xr.DataArray) -> None:
    low = signal.values < 0.5
    spoilt = dask.array.from_array(np.where(low, 1e3, signal.values), chunks=(2, 7))
    masked = signal.copy(data=dask.array.ma.masked_array(spoilt, dask.array.from_array(low, chunks=(2, 7))))
    with pytest.warns(dfit.DfitWarning, match="left out"):
        expected = one_by_one(signal.where(~low))
    assert_fitted(masked.fit("time", decay, p0=START).compute(), expected)


def test_a_map_keeps_the_coordinates_of_its_dimensions(signal: xr.DataArray) -> None:
    pairs = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["site", "shot"])
    plain = signal.drop_vars("x")
    labelled = {
        "no labels": plain,
        "dates": plain.assign_coords(x=pd.date_range("2020-01-01", periods=3)),
        "months": plain.assign_coords(x=pd.period_range("2020-01", periods=3, freq="M")),
        "words": plain.assign_coords(x=["u", "v", "w"]),
        "pairs": plain.assign_coords(xr.Coordinates.from_pandas_multiindex(pairs, "x")),
        "the same": plain.assign_coords(x=[1, 1, 1]),
        "others": plain.assign_coords(depth=("x", [5.0, 6.0, 7.0]), run=7, clock=("time", TIME)),
    }
    expected = one_by_one(signal)
    for name, data in labelled.items():
        found = xr.Dataset({"near": data, "far": 2 * data}).fit("time", decay, p0=START)
        np.testing.assert_allclose(found.near_curvefit_coefficients, expected, rtol=1e-9, err_msg=name)
        left = {key: c for key, c in data.coords.items() if "time" not in c.dims}
        assert set(found.coords) == {*left, "param", "cov_i", "cov_j"}, name
        for key, coord in left.items():
            assert found[key].variable.equals(coord.variable), name
    assert found.near_curvefit_coefficients.attrs == {"units": "V"}


def test_a_dataset_may_hold_a_map_and_one_fit(signal: xr.DataArray) -> None:
    both = xr.Dataset({"image": signal.chunk(x=1), "point": signal.isel(x=1, drop=True)})
    found = both.fit("time", decay, p0=START)
    assert found.image_curvefit_coefficients.dims == ("x", "param")
    assert found.point_curvefit_coefficients.dims == ("param",)
    np.testing.assert_allclose(
        found.image_curvefit_coefficients[1], found.point_curvefit_coefficients, rtol=1e-9
    )


@pytest.mark.parametrize("form", ["numbers", "chunked", "dates", "chunked dates", "durations"])
def test_coordinates_by_pixel_are_those_of_each_pixel(signal: xr.DataArray, form: str) -> None:
    delay = TIME * np.array([[1.0], [1.5], [0.5]])
    expected = one_by_one(signal.assign_coords(delay=(("x", "time"), delay)), "delay")
    durations = np.round(delay * 3.6e12).astype("m8[ns]")
    values = {"n": delay, "c": delay, "d": np.datetime64("2020-01-01", "ns") + durations}.get(form[0])
    values = {"durations": durations, "chunked dates": np.datetime64("2020-01-01") + durations}.get(
        form, values
    )
    along = xr.DataArray(values, dims=("x", "time"))
    data = signal.assign_coords(delay=along.chunk(x=1, time=5) if "chunked" in form else along)
    data = data.chunk(x=2) if "chunked" in form else data
    origin = {"time_origin": "2020-01-01"} if "dates" in form else {}
    found = data.fit("delay", decay, reduce_dims="time", p0=START, time_unit="h", **origin).compute()
    np.testing.assert_allclose(found.curvefit_coefficients, expected, rtol=1e-8)


def counted(values: np.ndarray, chunks, reads: list[int]) -> dask.array.Array:
    """A chunked array that keeps a list of its reads."""

    def read(block: np.ndarray) -> np.ndarray:
        reads.append(block.size)
        return block

    return dask.array.from_array(values, chunks=chunks).map_blocks(
        read, dtype=float, meta=np.empty((0,) * values.ndim)
    )


def test_nothing_is_read_before_compute_and_then_once(signal: xr.DataArray) -> None:
    reads: list[int] = []
    starts: list[int] = []
    data = signal.copy(data=counted(signal.values, (1, 10), reads))
    p0 = {"amplitude": 1.0, "tau": xr.DataArray(counted(np.ones(3), 1, starts), dims="x")}
    found = data.fit("time", decay, p0=p0)
    assert (reads, starts) == ([], [])
    one = found.isel(x=1).compute()
    assert (reads, starts) == ([10, 10], [1])
    np.testing.assert_allclose(one.curvefit_coefficients, one_by_one(signal)[1], rtol=1e-9)
    found.compute()
    assert (len(reads), len(starts)) == (2 + 6, 1 + 3)


def test_a_lazy_map_goes_into_a_store_with_one_fit_per_chunk(signal: xr.DataArray, tmp_path: Path) -> None:
    reads: list[int] = []
    data = signal.copy(data=counted(signal.values, (1, 20), reads))
    found = data.fit("time", decay, p0=START)
    found.to_zarr(tmp_path / "map.zarr")
    assert reads == [20, 20, 20]
    with xr.open_zarr(tmp_path / "map.zarr") as back:
        assert_fitted(back, one_by_one(signal))
        attrs = back.curvefit_status.attrs
        assert attrs["flag_meanings"].split()[1] == "converged"
        assert found.curvefit_status.attrs["flag_values"].dtype == found.curvefit_status.dtype


def test_data_in_memory_are_fitted_at_the_call(signal: xr.DataArray) -> None:
    found = signal.fit("time", decay, p0=START)
    assert all(variable.chunks is None for variable in found.variables.values())
