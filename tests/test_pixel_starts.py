"""Where the pixels of a map begin: guesses from their points, what is given by pixel, answers of neighbours."""

from __future__ import annotations

from typing import Any

import dask
import jax
import jax.numpy as jnp
import lmfit
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.core.pixels import Points
from dfit.errors import DfitWarning, FitFailed, InputError, ModelError
from dfit.model import Model
from dfit.models import ConstantModel, ExponentialModel
from dfit.pixel_status import PixelStatus
from dfit.precision import float64_on_cpu
from dfit.reduce.neighbours import neighbours_of
from dfit.reduce.pixel_starts import by_model

X = np.linspace(0, 10, 40)
LIBRARY = ExponentialModel() + ConstantModel()
TRUTH = {"amplitude": 5.0, "decay": 1.0, "c": 1.0}


def decay(x: Any, amplitude: Any, decay: Any, c: Any) -> Any:
    return amplitude * jnp.exp(-x / decay) + c


def wave(x: Any, a: Any, f: Any, shift: Any) -> Any:
    return a * jnp.sin(f * x + shift)


def cube(values: Any) -> xr.DataArray:
    labels = {"b": [f"b{k}" for k in range(np.shape(values)[1])], "x": X}
    return xr.DataArray(values, dims=("a", "b", "x"), coords=labels)


@pytest.fixture(scope="module")
def decays() -> xr.DataArray:
    """Decay times of two decades, a pixel without data and missing points."""
    rng = np.random.default_rng(0)
    tau = np.geomspace(0.1, 10, 12).reshape(4, 3)
    y = 5 * np.exp(-X / tau[..., None]) + 1 + rng.normal(0, 1e-3, (4, 3, X.size))
    y[rng.random(y.shape) < 0.1] = np.nan
    y[2, 1] = np.nan
    return cube(y).assign_coords(tau=(("a", "b"), tau))


@pytest.fixture(scope="module")
def from_truth(decays: xr.DataArray) -> xr.Dataset:
    return decays.fit("x", LIBRARY, p0=TRUTH | {"decay": decays.tau})


@pytest.fixture(scope="module")
def waves() -> xr.DataArray:
    rng = np.random.default_rng(0)
    f = rng.uniform(2.8, 3.2, (6, 5, 1))
    return cube(2 * np.sin(f * X + 0.3) + rng.normal(0, 0.05, (6, 5, X.size)))


def same(found: xr.Dataset, expected: xr.Dataset) -> None:
    off = (found.curvefit_coefficients - expected.curvefit_coefficients) / expected.curvefit_stderr
    assert float(abs(off).max()) < 1e-5
    np.testing.assert_array_equal(found.curvefit_success, expected.curvefit_success)


def test_guess_starts_every_pixel_from_its_own_points(decays: xr.DataArray, from_truth: xr.Dataset) -> None:
    with pytest.raises(FitFailed):  # one start for all will not do
        decays.fit("x", LIBRARY, p0=TRUTH | {"decay": 300.0}, max_passes=12)
    found = decays.chunk(x=15, a=2).fit("x", LIBRARY, p0="guess", max_passes=12).compute()
    same(found, from_truth)
    assert found.curvefit_status[2, 1] == PixelStatus.NO_DATA
    assert found.curvefit_success.sum() == 11


@pytest.mark.long
def test_guess_is_the_models_own_start_of_each_pixel() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 10, (40, 5)), rng.normal(0, 1, (40, 5))
    valid = rng.random((40, 5)) < 0.7
    valid[:, 1:4] = valid[:, 1:2]
    valid[:, 3] = False
    points = Points(np.where(valid, y, np.nan), None, (x,))
    model = Model.from_callable(LIBRARY, ["x"])
    alike = Points(points.y[:, 1:4], None, (x[:, 1:4],))
    with float64_on_cpu():
        apart, found = (by_model(model.to_blob(), some, 2) for some in (points, alike))
        start = jax.jit(LIBRARY.start)
        one = np.array([start(y[:, k], valid[:, k], x[:, k]) for k in range(5)])
    np.testing.assert_allclose(apart, one, rtol=1e-9)
    np.testing.assert_allclose(found[:2], one[1:3], rtol=1e-9)  # of points that all have


def test_guess_stays_within_bounds_and_leaves_fixed_values(decays: xr.DataArray) -> None:
    lowest = decays.tau.where(decays.a < 3, 12.0)  # above what is found there
    given = {"bounds": {"decay": (lowest, None)}, "fixed": {"c": xr.ones_like(decays.tau)}}
    found = decays.fit("x", LIBRARY, p0="guess", **given)
    values = found.curvefit_coefficients
    there = decays.tau.notnull() & found.curvefit_success
    assert there.sum() == 11
    assert (values.sel(param="decay") >= lowest).where(there, True).all()
    np.testing.assert_array_equal(values.sel(param="decay").values[3], 12.0)
    np.testing.assert_array_equal(values.sel(param="c").values[there.values], 1.0)


def test_guess_may_be_of_some_parameters(decays: xr.DataArray, from_truth: xr.Dataset) -> None:
    same(decays.fit("x", LIBRARY, p0={"amplitude": 4.0, "decay": "guess", "c": 0.9}), from_truth)
    with pytest.raises(InputError, match="did you mean 'decay'"):
        decays.fit("x", LIBRARY, p0={"amplitude": 4.0, "decoy": "guess", "c": 0.9})


def test_guess_may_be_of_some_parameters_of_one_fit(decays: xr.DataArray) -> None:
    one = decays[1, 2].dropna("x")
    found = dfit.fit(LIBRARY, one, "x", p0={"amplitude": 4.0, "decay": "guess", "c": 0.9})
    assert found.best_values["decay"] == pytest.approx(float(decays.tau[1, 2]), rel=5e-3)
    with pytest.raises(InputError, match="did you mean 'decay'"):
        dfit.fit(LIBRARY, one, "x", p0={"amplitude": 4.0, "decoy": "guess", "c": 0.9})


def test_a_model_that_has_no_start_is_refused_at_the_call(decays: xr.DataArray) -> None:
    lazy = decays.chunk(a=1)
    with pytest.raises(InputError, match=r"decay has none: type p0=\{'amplitude': 1.0"):
        lazy.fit("x", decay, p0="guess")
    with pytest.raises(InputError, match=r"no sum.*Type p0="):
        lazy.fit("x", ExponentialModel() * ConstantModel(), p0="guess")
    with pytest.raises(InputError, match=r"complex.*type p0="):
        (lazy * (1 + 1j)).fit("x", LIBRARY, p0="guess")
    with pytest.raises(InputError, match="'c' is fixed, but at no value"):
        lazy.fit("x", LIBRARY, p0="guess", fixed=["c"])


def test_a_function_starts_each_pixel_from_its_valid_points(
    decays: xr.DataArray, from_truth: xr.Dataset
) -> None:
    asked = []

    def start(y: np.ndarray, x: np.ndarray) -> dict[str, float]:
        asked.append(y.size)
        assert y.shape == x.shape and np.isfinite(y).all()
        tau = (y - 1).clip(0).sum() * (x[1] - x[0]) / 5
        return {"amplitude": y[0] - y[-1], "decay": tau, "c": y[-1]}

    with dask.config.set(scheduler="synchronous"):
        found = decays.chunk(x=15, a=2).fit("x", LIBRARY, p0=start).compute()
    same(found, from_truth)
    counts = decays.count("x").values.ravel()
    assert sorted(asked) == sorted(counts[counts > 0])


def test_a_function_that_finds_no_start_in_a_pixel_is_named_or_flagged(decays: xr.DataArray) -> None:
    def start(y: np.ndarray, x: np.ndarray) -> list[float]:
        if y.size == y_there:
            raise ValueError("no peak")
        return [np.nan if y.size == y_other else 5.0, 1.0, 1.0]

    few = decays.isel(a=slice(0, 1)).copy()
    few[0, 1, :11], few[0, 2, :20] = np.nan, np.nan
    y_there, y_other = few.count("x").values[0, 1:]
    with pytest.raises(ModelError, match=r"start, raised ValueError: no peak at a=0, b=b1.*errors="):
        few.fit("x", LIBRARY, p0=start)
    found = few.fit("x", LIBRARY, p0=start, errors="ignore")
    np.testing.assert_array_equal(found.curvefit_status[0], [1, PixelStatus.BAD_START, PixelStatus.BAD_START])
    np.testing.assert_array_equal(found.curvefit_coefficients.isnull().all("param")[0], [False, True, True])


def test_a_function_that_is_wrong_raises_whatever_errors_says(decays: xr.DataArray) -> None:
    few = decays.isel(a=[0])
    with pytest.raises(
        ModelError, match="returned 'amplitude', 'tau', expected a value for each of amplitude"
    ):
        few.fit("x", LIBRARY, p0=lambda y, x: {"amplitude": 1, "tau": 2}, errors="ignore")
    with pytest.raises(ModelError, match=r"returned \[1.0\], expected"):
        few.fit("x", LIBRARY, p0=lambda y, x: [1.0], errors="ignore")
    with pytest.raises(ModelError, match=r"returned \(1\+2j\) for 'decay', expected one real number"):
        few.fit("x", LIBRARY, p0=lambda y, x: [1.0, 1 + 2j, 1.0], errors="ignore")
    with pytest.raises(TypeError):
        few.fit("x", LIBRARY, p0=lambda y: [1.0, 1.0, 1.0], errors="ignore")
    with pytest.raises(InputError, match="p0 is the function start, which a map calls"):

        def start(y: np.ndarray, x: np.ndarray) -> list[float]:
            return [1.0, 1.0, 1.0]

        few.fit("x", LIBRARY, reduce_dims=..., p0=start)


def test_an_earlier_map_starts_another_one(decays: xr.DataArray, from_truth: xr.Dataset) -> None:
    coefficients = from_truth.curvefit_coefficients.chunk(a=1)
    p0 = {str(name): coefficients.sel(param=name) for name in coefficients.param.values}
    filled = decays.fillna(2.0).chunk(a=2)
    found = filled.fit("x", LIBRARY, p0=p0, errors="ignore")
    assert found.curvefit_coefficients.chunks is not None
    status = found.curvefit_status.compute()
    assert status[2, 1] == PixelStatus.BAD_START  # where the earlier one has NaN
    assert (status != PixelStatus.BAD_START).sum() == 11
    other = {name: values.assign_coords(b=["b2", "b1", "b0"]) for name, values in p0.items()}
    with pytest.raises(InputError, match=r"different values of 'b'.*xr.align"):
        filled.fit("x", LIBRARY, p0=other)


def test_the_model_is_tried_where_a_pixel_begins() -> None:
    def narrow(x: Any, amplitude: Any, tau: Any) -> Any:
        if not 2e-9 <= tau < 1e-8:
            raise ValueError("no such tau")
        return amplitude * np.exp(-x / tau)

    start = xr.DataArray([[np.nan, 3e-9]], dims=("a", "b"), coords={"b": ["b0", "b1"]})
    y = cube([np.exp(-X / 3.0)] * 2 * np.ones((1, 2, 1))).assign_coords(x=X * 1e-9)
    with pytest.warns(DfitWarning, match="jnp"):
        found = y.fit("x", narrow, p0={"amplitude": 1.01, "tau": start}, errors="ignore")
    np.testing.assert_allclose(found.curvefit_coefficients.sel(param="tau"), [[np.nan, 3e-9]], rtol=1e-9)


def test_parameters_of_lmfit_start_a_map_with_their_bounds(decays: xr.DataArray) -> None:
    p0 = lmfit.Parameters()
    p0.add("amplitude", 5.0)
    p0.add("decay", 1.0, min=0.9)
    p0.add("c", 1.0, vary=False)
    found = decays.isel(a=[0]).fit("x", LIBRARY, p0=p0)
    np.testing.assert_array_equal(found.curvefit_coefficients.sel(param="c"), 1.0)
    np.testing.assert_array_equal(found.curvefit_coefficients.sel(param="decay"), 0.9)


@pytest.mark.parametrize("given", ["guess", "numbers"])
def test_a_plain_model_is_differentiated_by_the_sizes_of_each_pixel(given: str) -> None:
    def plain(x: Any, amplitude: Any, tau: Any) -> Any:
        return amplitude * np.exp(-x / tau)

    rng = np.random.default_rng(0)
    tau = np.array([[1.0, 2.0, 3.0]])
    y = 1e-6 * cube(np.exp(-X / tau[..., None]) + rng.normal(0, 1e-3, (1, 3, X.size)))
    nanoseconds = y.assign_coords(x=X * 1e-9)
    size = xr.ones_like(y[..., 0])
    numbers = {"amplitude": 5e-7 * size, "tau": 1.5e-9 * size}
    with pytest.warns(DfitWarning, match="jnp"):
        found = nanoseconds.fit("x", plain, p0=numbers if given == "numbers" else lambda y, x: [5e-7, 1.5e-9])
    estimate, error = (
        found[f"curvefit_{name}"].sel(param="tau").values for name in ("coefficients", "stderr")
    )
    assert found.curvefit_success.all()
    assert (np.abs(estimate - 1e-9 * tau) < 5 * error).all()
    assert (error < 1e-11).all()


WAVE = {"a": 1.0, "f": 2.6, "shift": 0.0}


def test_neighbours_repair_pixels_in_wrong_minima(waves: xr.DataArray) -> None:
    alone = waves.fit("x", wave, p0=WAVE, errors="ignore").curvefit_chisqr
    repaired = waves.chunk(a=6).fit("x", wave, p0=WAVE, neighbours=True).compute()
    assert (alone > 10).sum() > 15 and (alone < 1).sum() > 5  # most are wrong, and converged there
    assert (repaired.curvefit_chisqr < 1).all()
    assert (repaired.curvefit_chisqr <= alone * (1 + 1e-9)).all()
    # within a chunk only
    apart = waves.chunk(a=1, b=1).fit("x", wave, p0=WAVE, errors="ignore", neighbours=True)
    np.testing.assert_array_equal(apart.curvefit_chisqr, alone)


def test_neighbours_repair_pixels_that_could_not_start_but_not_those_without_data(
    waves: xr.DataArray,
) -> None:
    few = waves.isel(a=[0, 1]).copy()
    few[1, 2] = np.nan
    start = xr.full_like(few[..., 0], 3.0)
    start[0, 1:4] = np.nan
    bounds = {"f": (xr.where(few.b == "b4", 4.0, 2.0), 5.0), "a": (0, None)}
    p0 = {"a": 1.0, "f": start.where(few.b != "b4", 4.5), "shift": 0.0}
    found = few.fit("x", wave, p0=p0, bounds=bounds, errors="ignore", neighbours=True)
    good = found.curvefit_chisqr < 1
    np.testing.assert_array_equal(good, [[True] * 4 + [False], [True, True, False, True, False]])
    assert found.curvefit_status[1, 2] == PixelStatus.NO_DATA
    assert (found.curvefit_coefficients.sel(param="f", b="b4") >= 4.0).all()


@pytest.mark.long
def test_neighbours_start_a_model_that_jax_cannot_trace(waves: xr.DataArray) -> None:
    def plain(x: Any, a: Any, f: Any, shift: Any) -> Any:
        return a * np.sin(f * x + shift)

    few = waves.isel(a=[0], b=slice(1, 4))
    with pytest.warns(DfitWarning, match="jnp"):
        found = few.fit("x", plain, p0=WAVE, neighbours=True, errors="ignore")
    assert (found.curvefit_chisqr < 1).all()


def test_neighbours_are_of_maps_only(waves: xr.DataArray) -> None:
    with pytest.raises(InputError, match="neighbours= is for maps"):
        waves.fit("x", wave, reduce_dims=..., p0=WAVE, neighbours=True)
    with pytest.raises(InputError, match="neighbours is 'b'; expected True or False"):
        waves.fit("x", wave, p0=WAVE, neighbours="b")


def test_neighbours_lie_before_and_after_along_each_dimension() -> None:
    expected = [[-1, -1, -1, 0, 1, 2], [3, 4, 5, -1, -1, -1], [-1, 0, 1, -1, 3, 4], [1, 2, -1, 4, 5, -1]]
    np.testing.assert_array_equal(neighbours_of((2, 3)), expected)
