"""What no fit can use is refused: before the first read where that can be told, else with its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.errors import DataError, InputError, ModelError

pytestmark = pytest.mark.filterwarnings("ignore::dfit.DfitWarning")

N = 400
X = np.arange(float(N))
Y = 2 * X + 1 + np.random.default_rng(0).normal(size=N)


class Counted:
    """An array on "disk" that counts how often it is read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.reads = values, 0
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        self.reads += 1
        return self.values[key]


def stored(values: np.ndarray = Y, chunks: int = 10) -> tuple[xr.DataArray, Counted]:
    source = Counted(values)
    lazy = da.from_array(source, chunks=chunks, asarray=False, meta=np.empty(0, values.dtype))
    return xr.DataArray(lazy, dims="x", coords={"x": X}, name="y"), source


def line(x, a, b):
    return a * x + b


def lazy(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(da.from_array(values, chunks=7), dims="x")


def at(index: int, value: float, base: np.ndarray) -> np.ndarray:
    out = np.array(base, float)
    out[index] = value
    return out


def raising(x, a, b):
    raise LookupError("my own words")


def short(x, a, b):
    return (a * x + b)[:-1]


def column(x, a, b):
    return (a * x + b)[:, None]


def turning(x, a, b):
    return a * jnp.exp(1j * x) + b


Call = Callable[[xr.DataArray], Any]
BEFORE: dict[str, tuple[type[Exception], str, Call]] = {
    "unknown coordinate": (InputError, "unknown coordinate 'q'", lambda y: dfit.fit(line, y, "q")),
    "unknown parameter in p0": (InputError, "'zz'", lambda y: dfit.fit(line, y, "x", p0={"zz": 1})),
    "unknown parameter in bounds": (
        InputError,
        "'zz'",
        lambda y: dfit.fit(line, y, "x", bounds={"zz": (0, 1)}),
    ),
    "unknown parameter in fixed": (InputError, "'zz'", lambda y: dfit.fit(line, y, "x", fixed={"zz": 1})),
    "unknown parameter in tie": (
        InputError,
        "'zz'",
        lambda y: dfit.fit(line, y, "x", tie={"zz": lambda p: 1}),
    ),
    "p0 outside its bounds": (
        InputError,
        "outside its bounds",
        lambda y: dfit.fit(line, y, "x", p0={"a": 5}, bounds={"a": (0, 1)}),
    ),
    "p0 not finite": (
        InputError,
        "expected a finite number",
        lambda y: dfit.fit(line, y, "x", p0=[np.nan, 1]),
    ),
    "crossed bounds": (
        InputError,
        r"bounds=\{'a': \(0.0, 1.0\)\}",
        lambda y: dfit.fit(line, y, "x", bounds={"a": (1, 0)}),
    ),
    "sigma of another shape": (
        InputError,
        r"sigma has shape \(399,\)",
        lambda y: dfit.fit(line, y, "x", sigma=np.ones(N - 1)),
    ),
    "mask of another shape": (
        InputError,
        r"where has shape \(399,\)",
        lambda y: dfit.fit(line, y, "x", where=np.ones(N - 1, bool)),
    ),
    "coordinate of another shape": (
        InputError,
        "xr.DataArray",
        lambda y: dfit.fit(line, y, {"x": np.ones(N - 1)}),
    ),
    "sigma along another dimension": (
        InputError,
        r".isel\(q=0\)",
        lambda y: dfit.fit(line, y, "x", sigma=xr.DataArray(np.ones((N, 2)), dims=("x", "q"))),
    ),
    "sigma at other coordinates": (
        InputError,
        "xr.align",
        lambda y: dfit.fit(line, y, "x", sigma=xr.DataArray(np.ones(N), dims="x", coords={"x": X + 0.5})),
    ),
    "fewer points than parameters": (InputError, "fixed=", lambda y: dfit.fit(line, y[:1], "x")),
    "all points masked": (
        InputError,
        "where is False everywhere",
        lambda y: dfit.fit(line, y, "x", where=np.zeros(N, bool)),
    ),
    "absolute_sigma without sigma": (
        InputError,
        "type sigma=",
        lambda y: dfit.fit(line, y, "x", absolute_sigma=True),
    ),
    "zero sigma": (
        InputError,
        "where=sigma > 0",
        lambda y: dfit.fit(line, y, "x", sigma=at(3, 0, np.ones(N))),
    ),
    "negative sigma": (InputError, "sigma is -1", lambda y: dfit.fit(line, y, "x", sigma=-1)),
    "object dtype": (InputError, r"y.astype\(float\)", lambda y: dfit.fit(line, y.astype(object), "x")),
    "text": (InputError, r"y.astype\(float\)", lambda y: dfit.fit(line, y.astype(str), "x")),
    "a model that raises": (
        ModelError,
        "(?s)my own words.*raise LookupError",
        lambda y: dfit.fit(raising, y, "x"),
    ),
    "a model that drops a point": (ModelError, "one number per point", lambda y: dfit.fit(short, y, "x")),
    "a model that gives a column": (ModelError, "one number per point", lambda y: dfit.fit(column, y, "x")),
    "a complex model for real data": (ModelError, "jnp.real", lambda y: dfit.fit(turning, y, "x")),
    "the same coordinate twice": (
        InputError,
        "stands twice",
        lambda y: dfit.fit(lambda x, z, a: a * x * z, y, ("x", "x")),
    ),
    "the same parameter twice": (
        InputError,
        "occurs twice",
        lambda y: dfit.fit(lambda x, *p: p[0] * x + p[1], y, "x", param_names=["a", "a"]),
    ),
    "a coordinate of text": (
        InputError,
        "no numeric meaning",
        lambda y: dfit.fit(line, y.assign_coords(x=X.astype(str)), "x"),
    ),
    "a complex coordinate": (
        InputError,
        "z.real",
        lambda y: dfit.fit(line, y.assign_coords(z=("x", X * 1j)), "z"),
    ),
    "weights": (InputError, "sigma=1/weights", lambda y: dfit.fit(line, y, "x", weights=np.ones(N))),
    "an unknown covariance": (InputError, "hc0", lambda y: dfit.fit(line, y, "x", cov="hc9")),
    "unknown groups": (
        InputError,
        "unknown groups 'day'",
        lambda y: dfit.fit(line, y, "x", cov={"groups": "day"}),
    ),
    "an unknown loss": (InputError, "soft_l1", lambda y: dfit.fit(line, y, "x", loss="hubber")),
    "f_scale of zero": (InputError, "positive", lambda y: dfit.fit(line, y, "x", f_scale=0)),
    "tol of None": (InputError, "tol is None", lambda y: dfit.fit(line, y, "x", tol=None)),
    "tol of text": (InputError, "tol is '1e-8'", lambda y: dfit.fit(line, y, "x", tol="1e-8")),
    "max_passes of zero": (
        InputError,
        "max_passes is 0",
        lambda y: dfit.fit(line, y, "x", max_passes=0, warmup=False),
    ),
    "a mask of integers": (
        InputError,
        "astype",
        lambda y: dfit.fit(line, y, "x", where=np.ones(N, int)),
    ),
    "a model that is no callable": (InputError, "not a callable", lambda y: dfit.fit(y, line, "x")),
    "unknown chunk sizes": (
        InputError,
        "compute_chunk_sizes",
        lambda y: dfit.fit(line, y.data[y.data > 0], {"x": X}),
    ),
    "a group that is NaN": (
        InputError,
        "fillna",
        lambda y: dfit.fit(line, y, "x", cov={"groups": y.x.where(y.x > y.x[3])}),
    ),
    "a time origin without times": (
        InputError,
        "leave it out",
        lambda y: dfit.fit(line, y, "x", time_origin="2000-01-01"),
    ),
}


@pytest.mark.parametrize("what", BEFORE)
def test_refused_before_anything_is_read(what: str) -> None:
    kind, words, call = BEFORE[what]
    y, source = stored()
    with pytest.raises(kind, match=words):
        call(y)
    assert source.reads == 0


BAD = 257  # in partition 2 of 4 x 100 points
FOUND: dict[str, tuple[str, Call]] = {
    "y is infinite": (
        "where=np.isfinite",
        lambda y: dfit.fit(line, stored(at(BAD, np.inf, Y), 100)[0], "x"),
    ),
    "a coordinate is infinite": (
        "where=np.isfinite",
        lambda y: dfit.fit(line, y, {"x": lazy(at(BAD, -np.inf, X))}),
    ),
    "sigma is zero or negative": (
        "where=sigma > 0",
        lambda y: dfit.fit(line, y, "x", sigma=lazy(at(BAD, 0.0, np.ones(N)))),
    ),
    "y is NaN": (
        "skipna=True",
        lambda y: dfit.fit(line, stored(at(BAD, np.nan, Y), 100)[0], "x", skipna=False),
    ),
    "sigma is NaN": (
        "skipna=True",
        lambda y: dfit.fit(line, y, "x", sigma=lazy(at(BAD, np.nan, np.ones(N))), skipna=False),
    ),
    "the model or its derivative is not finite": (
        "Type a p0",
        lambda y: dfit.fit(lambda x, a, b: a * jnp.sqrt(b - x), y, "x", p0={"a": 1, "b": 299.5}),
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_only_values_tell_names_its_place(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 100)
    words, call = FOUND[what]
    y, _ = stored(chunks=100)
    small = {"dfit.partition-bytes": 100, "scheduler": "synchronous"}
    with dask.config.set(small), pytest.raises(DataError, match=what) as caught:
        call(y)
    first = 300 if "model" in what else 200
    assert f"x[{first}:{first + 100}] = {first}.0 to {first + 99}.0" in str(caught.value)
    assert f"partition {first // 100} " in str(caught.value)
    assert words in str(caught.value)


def test_small_chunks_of_a_leaf_are_named_as_far_as_they_reach() -> None:
    y, _ = stored(at(BAD, np.inf, Y))
    with pytest.raises(DataError, match=r"partition 0 \(x\[0:400\] = 0.0 to 399.0\)"):
        dfit.fit(line, y, "x")


def test_a_bare_array_names_the_range_of_its_coordinate() -> None:
    values = at(BAD, np.inf, Y)
    with pytest.raises(DataError, match=r"dim_0\[0:400\], x = 5.0 to 404.0"):
        dfit.fit(line, values, {"x": X + 5})


def test_a_value_that_stops_the_first_pass_stops_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 10)
    y, source = stored(at(15, np.inf, Y))
    small = {"dfit.partition-bytes": 80, "scheduler": "synchronous"}
    with dask.config.set(small), pytest.raises(DataError, match="partition 1 "):
        dfit.fit(line, y, "x")
    assert source.reads < 40


def test_where_excludes_what_is_infinite() -> None:
    clean = dfit.fit(line, at(BAD, np.nan, Y), {"x": X})
    y, _ = stored(at(BAD, np.inf, Y))
    found = dfit.fit(line, y, "x", where=X != BAD)
    assert found.best_values == pytest.approx(clean.best_values, rel=1e-10)
    assert found.ndata == clean.ndata == N - 1


@pytest.mark.parametrize(("left", "words"), [(0, "no point is left"), (1, "1 points are left")])
def test_a_lazy_mask_that_leaves_too_few_points_costs_one_pass(left: int, words: str) -> None:
    y, source = stored()
    with dask.config.set(scheduler="synchronous"), pytest.raises(DataError, match=words) as caught:
        dfit.fit(line, y, "x", where=lazy(left > X))
    assert f"outside where: {N - left}" in str(caught.value)
    assert source.reads == 40


def test_all_values_missing_is_refused() -> None:
    with pytest.raises(DataError, match="y is NaN: 400"):
        dfit.fit(line, stored(np.full(N, np.nan))[0], "x")
