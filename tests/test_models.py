"""The model library: each formula is lmfit's, and a model is a value that can be added, named and sent."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import cloudpickle
import jax
import jax.numpy as jnp
import lmfit
import numpy as np
import pytest
from lmfit import lineshapes

import dfit
from dfit import models
from dfit.core.drive import QUICK
from dfit.fingerprint import fingerprint
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.precision import float64_on_cpu
from tests.benchmarks import voigt

X = np.linspace(-3.1, 9.7, 401)
POSITIVE = np.linspace(0.05, 9.7, 401)

# Model, coordinates, parameters, and lmfit's function of the same.
SAME = {
    "constant": (models.ConstantModel(), (X,), [1.5], lambda x, c: np.full(x.shape, c)),
    "linear": (models.LinearModel(), (X,), [2.0, -1.0], lineshapes.linear),
    "quadratic": (models.QuadraticModel(), (X,), [2.0, -1.0, 0.3], lineshapes.parabolic),
    "polynomial": (
        models.PolynomialModel(3),
        (X,),
        [2.0, -1.0, 0.3, 0.1],
        lambda x, *c: np.polyval(c[::-1], x),
    ),
    "exponential": (models.ExponentialModel(), (X,), [2.0, 1.7], lineshapes.exponential),
    "growth": (models.ExponentialModel(), (X,), [2.0, -1.7], lineshapes.exponential),
    "power law": (models.PowerLawModel(), (POSITIVE,), [2.0, -1.7], lineshapes.powerlaw),
    "gaussian": (models.GaussianModel(), (X,), [2.0, 3.0, 0.7], lineshapes.gaussian),
    "lorentzian": (models.LorentzianModel(), (X,), [2.0, 3.0, 0.7], lineshapes.lorentzian),
    "voigt": (models.VoigtModel(), (X,), [2.0, 3.0, 0.7, 0.4], lineshapes.voigt),
    "pseudo-voigt": (models.PseudoVoigtModel(), (X,), [2.0, 3.0, 0.7, 0.4], lineshapes.pvoigt),
    "moffat": (models.MoffatModel(), (X,), [2.0, 3.0, 0.7, 1.4], lineshapes.moffat),
    "lognormal": (models.LognormalModel(), (POSITIVE,), [2.0, 1.0, 0.7], lineshapes.lognormal),
    "damped oscillator": (
        models.DampedOscillatorModel(),
        (X,),
        [2.0, 3.0, 0.1],
        lineshapes.damped_oscillator,
    ),
    "sine": (models.SineModel(), (X,), [2.0, 3.0, 0.7], lineshapes.sine),
    "damped sine": (models.DampedSineModel(), (X,), [2.0, 3.0, 0.7, 0.2], lineshapes.expsine),
    "gaussian2d": (
        models.Gaussian2dModel(),
        (X, POSITIVE),
        [2.0, 3.0, 4.0, 0.7, 1.4],
        lineshapes.gaussian2d,
    ),
}
# These end in a difference from 1 in lmfit, which leaves 1e-16 of the whole.
SAME_TO_THE_HEIGHT = {
    "skewed gaussian": (models.SkewedGaussianModel(), [2.0, 3.0, 0.7, -2.0], lineshapes.skewed_gaussian),
    **{
        f"{form} step of width {width}": (
            models.StepModel(form),
            [2.0, 3.0, width],
            lambda x, *theta, form=form: lineshapes.step(x, *theta, form=form),
        )
        for form in ("linear", "arctan", "atan", "erf", "logistic")
        for width in (0.7, -0.7)
    },
}


@pytest.mark.parametrize("name", SAME)
def test_a_model_is_the_function_of_its_namesake_in_lmfit(name):
    model, coords, theta, same = SAME[name]
    np.testing.assert_allclose(model(*coords, *theta), same(*map(np.copy, coords), *theta), rtol=1e-12)


@pytest.mark.parametrize("name", SAME_TO_THE_HEIGHT)
def test_a_step_or_skewed_peak_is_the_function_of_its_namesake_in_lmfit(name):
    model, theta, same = SAME_TO_THE_HEIGHT[name]
    expected = same(X, *theta)
    np.testing.assert_allclose(model(X, *theta), expected, rtol=1e-12, atol=1e-15 * np.abs(expected).max())


def test_a_stretched_exponential_is_its_formula():
    expected = 2 * np.exp(-((POSITIVE / 1.7) ** 0.6))
    np.testing.assert_allclose(
        models.StretchedExponentialModel()(POSITIVE, 2, 1.7, 0.6), expected, rtol=1e-12
    )


def public_models() -> list[type[models.LibraryModel]]:
    abstract = (models.LibraryModel, models.CompositeModel)
    return [found for found in (getattr(models, name) for name in models.__all__) if found not in abstract]


@pytest.mark.parametrize("kind", public_models(), ids=lambda kind: kind.__name__)
def test_parameters_and_bounds_are_those_of_the_namesake_in_lmfit(kind):
    theirs = getattr(lmfit.models, kind.__name__, None)
    ours = kind(prefix="g1_")
    assert ours.coords + ours.param_names == tuple(inspect.signature(ours).parameters)
    if theirs is None:
        assert kind.__name__ in ("DampedSineModel", "StretchedExponentialModel")
        return
    same = theirs(prefix="g1_")
    names = {
        *same.param_names,
        *({"g1_gamma"} if kind is models.VoigtModel else ()),
    }  # there it follows sigma
    assert set(ours.param_names) == names
    hints = {f"g1_{name}": hint for name, hint in same.param_hints.items() if {"min", "max"} & set(hint)}
    expected = {name: (hint.get("min", -np.inf), hint.get("max", np.inf)) for name, hint in hints.items()}
    if kind is models.VoigtModel:
        expected["g1_gamma"] = (0, np.inf)
    assert set(ours.bounds) == set(expected)
    for name, pair in ours.bounds.items():
        assert pair == pytest.approx(expected[name])


@pytest.mark.parametrize("kind", public_models(), ids=lambda kind: kind.__name__)
def test_values_and_derivatives_are_finite_where_a_width_is_0(kind):
    model = kind()
    theta = [
        0.0 if name.startswith(("sigma", "decay", "gamma", "beta")) else 1.0 for name in model.param_names
    ]
    coords = [np.array([0.3, 2.0, 5.0])] * len(model.coords)
    with float64_on_cpu():
        pushed = jax.jit(
            lambda t: jax.jvp(lambda *v: model(*map(jnp.asarray, coords), *v), t, [1.0] * len(theta)),
            compiler_options=QUICK,
        )
        value, slope = pushed(theta)
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()


def test_a_voigt_profile_without_a_gaussian_is_the_lorentzian():
    model = models.VoigtModel()
    for sigma in (0.0, 1e-9):
        np.testing.assert_allclose(
            model(X, 2.0, 3.0, sigma, 0.4), lineshapes.lorentzian(X, 2.0, 3.0, 0.4), rtol=1e-12
        )


@pytest.mark.parametrize("name", voigt.grids(1))
def test_the_faddeeva_function_is_that_of_scipy(name):
    real, whole, slope = voigt.errors(voigt.grids(20_000)[name])
    assert real < 2e-13
    assert whole < 1e-13
    assert slope < 3e-11  # what the reference loses by cancellation


def test_the_voigt_profile_is_that_of_scipy_over_twelve_decades_of_its_widths():
    assert voigt.profile_error(20_000) < 2e-13


def test_derivatives_of_a_voigt_profile_are_its_differences():
    model, theta, step = models.VoigtModel(), np.array([2.0, 3.0, 0.7, 0.4]), 1e-5
    with float64_on_cpu():
        by_theta = jax.jacfwd(lambda t: model(jnp.asarray(X), *t))
        exact = jax.jit(by_theta, compiler_options=QUICK)(jnp.asarray(theta))
    for k, unit in enumerate(np.eye(4)):
        by_steps = (model(X, *(theta + step * unit)) - model(X, *(theta - step * unit))) / (2 * step)
        np.testing.assert_allclose(exact[:, k], by_steps, atol=1e-8)


def test_a_sum_and_a_product_have_the_parameters_of_both():
    peak, line = models.GaussianModel(prefix="g_"), models.LinearModel()
    peak_theta, line_theta = [2.0, 3.0, 0.7], [0.5, 1.0]
    for joined, expected in (
        (peak + line, peak(X, *peak_theta) + line(X, *line_theta)),
        (peak - line, peak(X, *peak_theta) - line(X, *line_theta)),
        (peak * line, peak(X, *peak_theta) * line(X, *line_theta)),
        (peak / line, peak(X, *peak_theta) / line(X, *line_theta)),
    ):
        assert joined.param_names == ("g_amplitude", "g_center", "g_sigma", "slope", "intercept")
        assert joined.bounds == {"g_sigma": (0, np.inf)}
        np.testing.assert_allclose(joined(X, *peak_theta, *line_theta), expected, rtol=1e-12)


def test_coordinates_of_one_name_are_one_coordinate():
    joined = models.LinearModel() + models.Gaussian2dModel(prefix="g_")
    assert joined.coords == ("x", "y")
    expected = 2 * X + 1 + lineshapes.gaussian2d(X, POSITIVE, 2.0, 3.0, 4.0, 0.7, 1.4)
    np.testing.assert_allclose(joined(X, POSITIVE, 2, 1, 2.0, 3.0, 4.0, 0.7, 1.4), expected, rtol=1e-12)


def test_one_name_for_two_parameters_is_refused_with_the_line_to_type():
    with pytest.raises(dfit.InputError, match=r'type LorentzianModel\(prefix="b_"\)'):
        models.GaussianModel() + models.LorentzianModel()
    with pytest.raises(dfit.InputError, match="expected a whole number from 0 to 7"):
        models.PolynomialModel(8)
    with pytest.raises(dfit.InputError, match=r'type GaussianModel\(prefix="g1_"\)'):
        models.GaussianModel(prefix="1 ")
    with pytest.raises(dfit.InputError, match="'linear', 'atan', 'arctan', 'erf', 'logistic'"):
        models.StepModel("tanh")
    with pytest.raises(TypeError, match="unsupported operand"):
        models.GaussianModel() + 1


def test_models_of_one_content_are_equal_and_survive_pickling():
    def build():
        return models.GaussianModel(prefix="g_") + models.PolynomialModel(2) * models.StepModel("erf")

    model = build()
    assert model == build()
    assert hash(model) == hash(build())
    assert model != models.GaussianModel(prefix="h_") + models.PolynomialModel(2) * models.StepModel("erf")
    for restored in (pickle.loads(pickle.dumps(model)), cloudpickle.loads(cloudpickle.dumps(model))):
        assert restored == model
        assert inspect.signature(restored) == inspect.signature(model)


KEY = """
from dfit import models
from dfit.core.drive import QUICK
from dfit.fingerprint import fingerprint
from dfit.model import Model
from dfit.parameters import Parameters
def key(of):
    model = Model.from_callable(of, "time")
    return fingerprint(model, Parameters.resolve(model, [1.0] * len(of.param_names)), True)
print(key(models.VoigtModel(prefix="v_") + models.LinearModel()), key(models.StepModel("erf")))
"""


def test_the_fingerprint_of_a_model_is_the_same_in_another_process(source_environment):
    def key(of):
        model = Model.from_callable(of, "time")
        return fingerprint(model, Parameters.resolve(model, [1.0] * len(of.param_names)), True)

    done = subprocess.run(
        [sys.executable, "-c", KEY],
        env=source_environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    ours = key(models.VoigtModel(prefix="v_") + models.LinearModel()), key(models.StepModel("erf"))
    assert tuple(done.stdout.split()) == ours
    assert key(models.StepModel("erf")) != key(models.StepModel("logistic"))


def test_a_models_bounds_hold_where_the_user_gives_none():
    model = Model.from_callable(models.VoigtModel(), "x")
    start = [1.0, 0.0, 1.0, 1.0]
    assert Parameters.resolve(model, start).lower.tolist() == [-np.inf, -np.inf, 0, 0]
    own = Parameters.resolve(model, start, {"sigma": (0.5, None), "center": (-1, 1)})
    assert own.lower.tolist() == [-np.inf, -1, 0.5, 0]
    assert Parameters.resolve(model, start, (-np.inf, np.inf)).lower.tolist() == [-np.inf] * 4
    typed = {"amplitude": 1.0, "center": 0.0, "sigma": 1.0}
    tied = Parameters.resolve(model, typed, None, None, {"gamma": lambda p: p["sigma"]})
    assert tied.lower.tolist() == [-np.inf, -np.inf, 0, -np.inf]
