"""What the user gave is understood by name, or refused with the line to type instead."""

from __future__ import annotations

from types import SimpleNamespace

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dfit.data.domain import build_domain, coordinate_names
from dfit.errors import InputError
from dfit.model import Model


def line(time, slope, offset):
    return slope * time + offset


def plane(x, time, a, b):
    return a * x + b * time


@pytest.fixture(name="y")
def _y():
    coords = {"time": pd.date_range("2000-01-01", periods=3, freq="12h"), "x": [1.0, 2.0, 3.0, 4.0]}
    coords["site"] = ("x", list("abcd"))
    return xr.DataArray(np.arange(12.0).reshape(3, 4), dims=("time", "x"), coords=coords, name="signal")


def domain_of(data, coords, func=line, **options):
    model = SimpleNamespace(coords=coordinate_names(func, coords))
    return build_domain(model, data, coords, **options)


def never(*_):
    raise AssertionError("this array must not be computed")


def unread(like, chunks=2):
    return da.map_blocks(
        never, da.zeros(like.shape, chunks=chunks), dtype=like.dtype, meta=np.empty((0,), like.dtype)
    )


@pytest.mark.parametrize(
    ("coords", "names"),
    [
        ("time", ("time",)),
        (("time", "x"), ("time", "x")),
        (np.arange(3), ("x",)),
        ([np.arange(3), np.arange(4)], ("x", "time")),
        ([0.0, 1.0], ("x",)),
        ({"time": 0, "x": 1}, ("x", "time")),
        ({"depth": 0, "x": 1}, ("depth", "x")),
        (xr.DataArray([1.0], dims="q", name="height"), ("height",)),
    ],
)
def test_coordinates_are_named_by_themselves_or_by_the_model(coords, names):
    assert coordinate_names(plane, coords) == names


def test_bare_coordinates_of_a_packed_model_are_numbered():
    names = coordinate_names(lambda xy, *p: xy[0], [np.arange(3), np.arange(3)], ["a", "b"])
    assert names == ("x0", "x1")


def test_coordinate_given_twice_is_refused():
    with pytest.raises(InputError, match="stands twice"):
        coordinate_names(plane, ("x", "x"))


def test_missing_coordinates_are_refused():
    with pytest.raises(InputError, match='coords="time"'):
        coordinate_names(plane, None)


def test_coordinates_stay_along_their_own_dimension(y):
    domain = domain_of(y, ("time", "x"))
    assert domain.coords["time"].dims == ("time",)
    assert domain.coords["time"].values.tolist() == [0.0, 43200.0, 86400.0]
    assert domain.time["time"].origin == "2000-01-01T00:00:00"
    assert domain.coords["x"].values.tolist() == [1, 2, 3, 4]
    assert list(domain.time) == ["time"]


def test_time_unit_and_origin_are_used(y):
    domain = domain_of(y, "time", time_unit="h", time_origin="1999-12-31")
    assert domain.coords["time"].values.tolist() == [24.0, 36.0, 48.0]
    assert domain.numeric("time", np.array(["1999-12-31T01"], dtype="M8[ns]")).tolist() == [1.0]


def test_argument_may_have_another_name_than_its_coordinate(y):
    domain = domain_of(y, {"t": "time", "depth": "x"}, func=lambda t, depth, a: a)
    assert list(domain.coords) == ["t", "depth"]
    assert list(domain.time) == ["t"]


def test_chunked_times_stay_lazy_and_are_converted_piece_by_piece():
    dates = np.array("2000-01-01T06", dtype="M8[ns]") + np.arange(4).astype("m8[h]")
    domain = domain_of(da.zeros(4, chunks=2), {"time": da.from_array(dates, chunks=2)}, time_unit="h")
    assert domain.coords["time"].chunks == ((2, 2),)
    assert domain.numeric("time", dates[2:]).tolist() == [2.0, 3.0]


def test_nothing_chunked_is_computed(y):
    lazy = xr.DataArray(unread(np.zeros(4)), dims="dim_0")
    options = {"sigma": unread(np.zeros(4)), "where": unread(np.zeros(4, bool))}
    dates = unread(np.zeros(4, "M8[ns]"))
    domain = domain_of(lazy, {"time": dates}, time_origin="2000-01-01", **options)
    assert domain.sigma.chunks == domain.where.chunks == ((2, 2),)


def test_transposed_arrays_are_put_in_the_order_of_y(y):
    domain = domain_of(y, "time", sigma=(y + 1).T, where=(y > 3).T)
    assert domain.sigma.dims == domain.where.dims == ("time", "x")


def test_sigma_may_lie_along_some_dimensions(y):
    sigma = xr.DataArray([1.0, 2.0, 3.0, 4.0], dims="x")
    assert domain_of(y, "time", sigma=sigma).sigma.dims == ("x",)
    assert domain_of(y, "time", sigma=2).sigma == 2.0


def test_bare_arrays_find_their_dimension_by_length():
    domain = domain_of(np.zeros((4, 5)), [np.arange(5), np.arange(4)], func=plane)
    assert [c.dims for c in domain.coords.values()] == [("dim_1",), ("dim_0",)]
    whole = domain_of(np.zeros((4, 5)), [np.ones((4, 5)), np.arange(5)], func=plane)
    assert whole.coords["x"].dims == ("dim_0", "dim_1")


def test_masked_array_has_nan_where_it_is_masked():
    masked = np.ma.masked_array([1.0, 2.0, 3.0], [False, True, False])
    assert np.isnan(domain_of(masked, np.arange(3)).data.values).tolist() == [False, True, False]


SQUARE = np.zeros((5, 5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"coords": "tme"}, "Did you mean 'time'"),
        ({"coords": "site"}, r"no numeric meaning.*np\.arange"),
        ({"coords": {"time": np.arange(7)}}, r"shape \(7,\)"),
        ({"coords": xr.DataArray(np.arange(3), dims="z", name="z")}, "dimension 'z'"),
        ({"coords": xr.DataArray(np.arange(5), dims="x", name="x")}, "5 values along 'x'"),
        (
            {"coords": xr.DataArray([1] * 4, dims="x", coords={"x": [0, 1, 2, 9]}, name="q")},
            "different values of 'x'",
        ),
        ({"coords": 3 + 0j}, "coords is a builtins.complex"),
        ({"coords": {"z": np.arange(4) * 1j}}, "real coordinates"),
        ({"sigma": 0}, "sigma is 0"),
        ({"sigma": float("nan")}, "sigma is nan"),
        ({"sigma": float("inf")}, "no point is left"),
        ({"sigma": "big"}, "sigma has dtype"),
        ({"sigma": np.arange(12.0).reshape(3, 4)}, r"sigma is 0\.0 at time=0, x=0 \(1 in all\)"),
        ({"sigma": np.ones(7)}, r"sigma has shape \(7,\)"),
        ({"where": np.ones((3, 4))}, r"mask\.astype\(bool\)"),
        ({"where": np.zeros((3, 4), bool)}, "all points masked"),
        ({"data": None}, "object"),
        ({"data": SQUARE, "coords": [np.arange(5)]}, "fits more than one dimension"),
        ({"data": SQUARE.astype("m8[s]")}, "np.timedelta64"),
        ({"data": SQUARE.astype("M8[s]")}, "np.datetime64"),
        ({"data": np.array(["a"])}, r"astype\(float\)"),
        ({"data": np.zeros((0, 3))}, "no points"),
        ({"data": xr.Dataset({"q": ("x", [1.0])})}, r"dfit\.fit\(model, ds\['q'\]"),
        ({"coords": "x", "time_origin": "2000-01-01"}, "no coordinate among"),
        ({"time_unit": "month"}, "fixed length"),
        ({"time_origin": "soon"}, "is not a date"),
    ],
)
def test_bad_input_is_refused_in_words(y, change, words):
    arguments = {"data": y, "coords": "time"} | change
    with pytest.raises(InputError, match=words):
        domain_of(**arguments)


def test_open_file_as_data_is_refused_with_the_line_to_type(tmp_path):
    import h5py

    with h5py.File(tmp_path / "f.h5", "w") as file:
        stored = file.create_dataset("y", data=np.zeros(4), chunks=(2,))
        with pytest.raises(InputError, match="phony_dims"):
            domain_of(stored, np.arange(4))


def test_large_variable_of_a_file_opened_without_chunks_is_not_loaded_whole(tmp_path) -> None:
    values = np.arange(6_000_000.0).reshape(6000, 1000)
    xr.Dataset({"y": (("a", "b"), values), "s": (("a", "b"), values + 1)}).to_netcdf(
        tmp_path / "large.nc", engine="h5netcdf"
    )
    with xr.open_dataset(tmp_path / "large.nc", engine="h5netcdf") as stored:
        model = Model.from_callable(lambda a, slope: slope * a, "a")
        domain = build_domain(model, stored.y, np.arange(6000.0), sigma=stored.s)
        assert domain.data.chunks is not None and len(domain.data.chunks[0]) > 1
        assert domain.sigma.chunks is not None
        np.testing.assert_array_equal(domain.data[:3].values, values[:3])
