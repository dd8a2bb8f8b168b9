"""Starts of the model library: from any data finite and inside the bounds, from good data close enough to fit."""

from __future__ import annotations

import itertools
import logging

import dask
import dask.array as da
import jax
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit import models
from dfit.core.drive import QUICK
from dfit.data import glance
from dfit.precision import float64_on_cpu

SIZE = 120
X = np.linspace(0.3, 10, SIZE)

# A model and the parameters that the data have.
TRUTHS = {
    "constant": (models.ConstantModel(), [1.5]),
    "linear": (models.LinearModel(), [2.0, -1.0]),
    "quadratic": (models.QuadraticModel(), [0.3, -1.0, 2.0]),
    "polynomial": (models.PolynomialModel(3), [2.0, -1.0, 0.3, 0.1]),
    "exponential": (models.ExponentialModel(), [5.0, 2.0]),
    "exponential and offset": (models.ExponentialModel() + models.ConstantModel(), [5.0, 2.0, 1.0]),
    "power law": (models.PowerLawModel(), [3.0, -1.3]),
    "stretched exponential": (models.StretchedExponentialModel(), [5.0, 2.0, 0.7]),
    "gaussian": (models.GaussianModel(), [5.0, 4.0, 0.6]),
    "dip and line": (models.GaussianModel() + models.LinearModel(), [-5.0, 4.0, 0.6, 0.3, 1.0]),
    "lorentzian": (models.LorentzianModel(), [5.0, 4.0, 0.6]),
    "voigt": (models.VoigtModel(), [5.0, 4.0, 0.6, 0.3]),
    "pseudo-voigt": (models.PseudoVoigtModel(), [5.0, 4.0, 0.6, 0.3]),
    "moffat": (models.MoffatModel(), [5.0, 4.0, 0.9, 2.0]),
    "skewed gaussian": (models.SkewedGaussianModel(), [5.0, 3.0, 1.2, 3.0]),
    "lognormal": (models.LognormalModel(), [5.0, 1.0, 0.4]),
    "damped oscillator": (models.DampedOscillatorModel(), [1.0, 4.0, 0.1]),
    "sine and offset": (models.SineModel() + models.ConstantModel(), [2.0, 7.3, 1.0, 3.0]),
    "damped sine": (models.DampedSineModel(), [3.0, 5.0, 1.0, 0.3]),
    "rising step": (models.StepModel("erf"), [3.0, 4.3, 0.5]),
    "falling step": (models.StepModel("logistic"), [3.0, 4.3, -0.5]),
    "gaussian2d": (models.Gaussian2dModel(), [20.0, 4.0, 5.0, 0.9, 0.7]),
}


def coordinates(model: models.LibraryModel) -> list[np.ndarray]:
    """Points of the model's coordinates, in no order."""
    rng = np.random.default_rng(4)
    if model.coords == ("x",):
        return [rng.permutation(X)]
    return [rng.uniform(2, 7, SIZE) for _ in model.coords]


# Each compiles a fit of its own: others of the family stand for these.
LONG = {
    *(
        "constant",
        "linear",
        "quadratic",
        "polynomial",
        "exponential",
        "exponential and offset",
        "dip and line",
    ),
    *(
        "gaussian",
        "lorentzian",
        "pseudo-voigt",
        "moffat",
        "lognormal",
        "falling step",
        "sine and offset",
        "damped oscillator",
        "power law",
        "voigt",
        "damped sine",
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.long) if n in LONG else n for n in TRUTHS]
)
def test_a_fit_from_its_own_start_finds_the_truth(name):
    model, truth = TRUTHS[name]
    coords = coordinates(model)
    exact = model(*coords, *truth)
    noise = 0.02 * np.ptp(exact) + 0.01
    y = exact + np.random.default_rng(5).normal(0, noise, SIZE)
    used = np.arange(SIZE) % 17 > 0
    y[~used] = 1e9
    found = dfit.fit(
        model, y, dict(zip(model.coords, coords, strict=True)), p0="guess", sigma=noise, where=used
    )
    assert found.success
    spread = np.array([estimate.stderr for estimate in found.params.values()])
    assert np.all(np.abs(np.array(list(found.best_values.values())) - truth) < 5 * spread)


COORDINATES = {
    "ordered": X,
    "below 0": X - 12,
    "dates in seconds": 1.7e9 + X,
    "all the same": np.full(SIZE, 3.0),
    "tiny": 1e-200 * X,
    "huge": 1e150 * (X - 5),
}
VALUES = {
    "noise": np.random.default_rng(6).normal(size=SIZE),
    "zeros": np.zeros(SIZE),
    "constant": np.full(SIZE, -3.0),
    "strain": 1e-21 * np.random.default_rng(7).normal(size=SIZE),
    "one spike": np.eye(SIZE)[7],
    "largest number": np.full(SIZE, 1.7e308),
    "smallest number": np.full(SIZE, 5e-324),
}
VALID = {
    "all": np.ones(SIZE, bool),
    "none": np.zeros(SIZE, bool),
    "one": np.arange(SIZE) == 4,
    "two": np.arange(SIZE) % 64 == 4,
    "every second": np.arange(SIZE) % 2 == 0,
}
HOSTILE = list(itertools.product(COORDINATES, VALUES, VALID))


@pytest.mark.parametrize(
    "name", sorted(set(TRUTHS) - {"exponential", "gaussian", "lorentzian", "quadratic", "falling step"})
)
def test_a_start_is_finite_and_inside_the_bounds_and_sees_no_missing_point(name):
    model = TRUTHS[name][0]
    x, y, valid = (
        np.array(rows)
        for rows in zip(*((COORDINATES[a], VALUES[b], VALID[c]) for a, b, c in HOSTILE), strict=True)
    )
    with float64_on_cpu():
        start = jax.jit(jax.vmap(model.start), compiler_options=QUICK)
        theta = np.asarray(start(y, valid, *[x] * len(model.coords)))
        other = np.asarray(
            start(np.where(valid, y, 1e300), valid, *[np.where(valid, x, -7e9)] * len(model.coords))
        )
    pairs = [model.bounds.get(parameter, (-np.inf, np.inf)) for parameter in model.param_names]
    lower, upper = np.array(pairs).T
    right = np.all(np.isfinite(theta) & (theta >= lower) & (theta <= upper), axis=1)
    assert [case for case, is_right in zip(HOSTILE, right, strict=True) if not is_right] == []
    np.testing.assert_array_equal(theta, other)


def test_a_start_is_the_same_alone_and_among_pixels():
    model, truth = TRUTHS["dip and line"]
    y = model(X, *truth) + np.random.default_rng(8).normal(0, 0.1, (5, SIZE))
    valid = np.ones(y.shape, bool)
    with float64_on_cpu():
        together = jax.jit(jax.vmap(model.start, (0, 0, None)), compiler_options=QUICK)(y, valid, X)
        alone = jax.jit(lambda *given: model.start(*given), compiler_options=QUICK)(y[3], valid[3], X)
    np.testing.assert_allclose(together[3], alone, rtol=1e-10)


def test_guess_takes_arrays_and_data_arrays_and_leaves_missing_values_out():
    model = models.LinearModel(prefix="b_")
    time = np.arange(8.0)
    y = xr.DataArray(np.tile(2 * time + 1, (3, 1)), {"time": time}, ("pixel", "time"))
    y[1, 2:5] = np.nan
    for found in (
        model.guess(y, "time"),
        model.guess(y, x="time"),
        model.guess(y.chunk(time=3), "time"),
        model.guess(y.values, x=np.broadcast_to(time, y.shape)),
    ):
        assert found == pytest.approx({"b_slope": 2, "b_intercept": 1})
    with pytest.raises(dfit.InputError, match=r"type guess\(data, x=\.\.\.\)"):
        model.guess(y, time="time")
    with pytest.raises(dfit.DataError, match="none of the 8 points"):
        model.guess(np.full(8, np.nan), time)
    with pytest.raises(dfit.InputError, match="the data are complex"):
        model.guess(1j * time, time)


def test_a_guess_reads_few_points_of_few_chunks():
    read = []

    def block(info):
        (place,) = info[None]["array-location"][:1]
        read.append(place[0])
        return np.exp(-np.linspace(*place, 1000, endpoint=False) / 3e5)

    y = da.map_blocks(lambda block_info=None: block(block_info), chunks=((1000,) * 1000,), dtype=float)
    with dask.config.set(scheduler="synchronous"):
        found = models.ExponentialModel().guess(y, np.arange(1e6))
    assert len(set(read)) <= glance.CHUNKS
    assert max(read) > 9e5
    assert found["decay"] == pytest.approx(4e5, rel=0.05)  # the nearest of those that are tried


def test_a_global_fit_guesses_from_chunked_data_and_tells_its_start(caplog):
    time = np.linspace(0, 8, 400)
    for name in ("dip and line", "exponential and offset"):
        model, truth = TRUTHS[name]
        y = model(time, *truth) + np.random.default_rng(9).normal(0, 0.1, (60, 400))
        pixels = xr.DataArray(y, {"time": time}, ("pixel", "time")).chunk(pixel=20, time=100)
        with caplog.at_level(logging.INFO, "dfit"):
            found = pixels.fit("time", model, reduce_dims=..., p0="guess")
        assert f"p0 from the data: {model.param_names[0]} = " in caplog.text
        np.testing.assert_allclose(found.curvefit_coefficients, truth, atol=0.03)
        caplog.clear()


def test_a_guess_is_moved_into_the_users_bounds():
    model, truth = TRUTHS["linear"]
    found = dfit.fit(model, model(X, *truth), {"x": X}, p0="guess", bounds={"slope": (None, 1.5)})
    assert found.best_values["slope"] == 1.5


def test_what_has_no_start_is_refused_with_p0_to_type():
    peak = models.GaussianModel()
    for model in (peak + models.GaussianModel(prefix="b_"), peak * models.LinearModel()):
        with pytest.raises(
            dfit.InputError, match=r"no start of its own.*Type p0=\{'amplitude': 1.0, 'center': 1.0, "
        ):
            dfit.fit(model, X, {"x": X}, p0="guess")
    with pytest.raises(dfit.InputError, match=r"<lambda> has none: type p0=\{'a': 1.0\}"):
        dfit.fit(lambda x, a: a * x, X, {"x": X}, p0="guess")
    with pytest.raises(dfit.InputError, match="takes its parameters under other names"):
        dfit.fit(models.LinearModel(), X, {"x": X}, p0="guess", param_names=["a", "b"])
