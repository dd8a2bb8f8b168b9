"""A model is tried before the fit: traceable or not, one value per point, no look at other points."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from scipy.interpolate import CubicSpline, interp1d

from dfit.advice import jax_form
from dfit.errors import DfitWarning, ModelError
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.probe import check, traced

X = np.linspace(0.1, 3.0, 200)
SPLINE = CubicSpline([0.0, 1.0, 9.0], [1.0, 2.0, 3.0])
LINEAR = interp1d([0.0, 9.0], [1.0, 2.0])
SINGLE = jnp.asarray([1.0, 2.0])


def of(func: Callable, p0: Sequence[float] = (1.0,), **kwargs) -> tuple[Model, Parameters]:
    model = Model.from_callable(func, "x", **kwargs)
    return model, Parameters.resolve(model, p0)


def zeroed(x, a):
    y = a * x
    y[y < 1] = 0
    return y


def chosen(x, a):
    if a > 0:
        return a * x
    return -x


def integrated(x, a):
    return np.array([math.erf(a * v) for v in x])


def exponential(x, a):
    return np.exp(-x / a)


@jax.custom_vjp
def reverse_only(x):
    return 2 * x


reverse_only.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))

TRACED: dict[str, Callable] = {
    "jnp": lambda x, a: jnp.exp(-x / a),
    "operators": lambda x, a: a * x**2,
    "constant": lambda x, a: a,
    "jitted": jax.jit(lambda x, a: jnp.sin(a * x)),
    "NumPy that hands over": lambda x, a: np.ndim(x) * a * x,
}
UNTRACED: dict[str, Callable] = {
    "numpy": exponential,
    "ufunc of scipy": lambda x, a: scipy.special.wofz(a * x).real,
    "np.interp": lambda x, a: np.interp(a * x, [0, 9], [1, 2]),
    "spline": lambda x, a: SPLINE(a * x),
    "interp1d": lambda x, a: LINEAR(a * x),
    "math of a parameter": lambda x, a: math.exp(a) * x,
    "math of points": integrated,
    "choice": chosen,
    "assignment": zeroed,
    "mask": lambda x, a: np.where(x > 1, x, a),
    "vectorize": np.vectorize(lambda x, a: a * x if x > 1 else 0.0),
    "reverse mode only": lambda x, a: reverse_only(a * x),
    "ufunc": np.arctan2,
}


@pytest.mark.parametrize("name", TRACED)
def test_model_that_jax_traces_is_accepted_without_a_word(name: str) -> None:
    model, parameters = of(TRACED[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert traced(model, parameters) is not None
        assert check(model, parameters, [X], True) is None


@pytest.mark.parametrize("name", UNTRACED)
def test_model_of_plain_numpy_is_accepted_with_one_warning(name: str) -> None:
    model, parameters = of(UNTRACED[name])
    with pytest.warns(
        DfitWarning, match=r"finite differences.* 3 evaluations of the model per pass"
    ) as caught:
        assert traced(model, parameters) is None
    assert len(caught) == 1
    assert check(model, parameters, [X], False) is None


def test_warning_names_the_line_and_its_jnp_form() -> None:
    with pytest.warns(DfitWarning) as caught:
        traced(*of(exponential))
    text = str(caught[0].message)
    number = exponential.__code__.co_firstlineno + 1
    assert f"{__file__}:{number}: return np.exp(-x / a)" in text
    assert "Write `return jnp.exp(-x / a)`." in text


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("y = a * np.exp(-x) + math.sqrt(b)", "Write `y = a * jnp.exp(-x) + jnp.sqrt(b)`."),
        ("return numpy.where(x > 0, jnp.exp(x), 0)", "Write `return jnp.where(x > 0, jnp.exp(x), 0)`."),
        ("return scipy.special.erf(x)", "Write `return jax.scipy.special.erf(x)`."),
        ("return scipy.special.voigt_profile(x)", "Write it with jax.numpy functions of whole arrays."),
    ],
)
def test_numpy_lines_are_rewritten_where_jax_has_the_function(line: str, form: str) -> None:
    assert jax_form(line) == form


def test_choice_by_value_is_rewritten_as_where() -> None:
    with pytest.warns(DfitWarning, match=r"if a > 0:.*jnp.where\(condition, a, b\)"):
        assert traced(*of(chosen)) is None


def test_tie_that_jax_cannot_trace_is_named() -> None:
    model = Model.from_callable(lambda x, a, b: a * x + b, "x")
    parameters = Parameters.resolve(model, {"a": 1.0}, tie={"b": lambda p: math.exp(p["a"])})
    with pytest.warns(DfitWarning, match=r"math.exp\(p\[\"a\"\]\)"):
        assert traced(model, parameters) is None


def fails(x, a):
    return a * undefined(x)


def undefined(x):
    raise KeyError("table")


def test_exception_of_the_model_is_shown_with_its_own_lines_only() -> None:
    with pytest.raises(ModelError, match="fails raised KeyError: 'table'") as caught:
        traced(*of(fails))
    text = str(caught.value)
    assert "return a * undefined(x)" in text
    assert 'raise KeyError("table")' in text
    assert "site-packages" not in text
    assert "dfit/probe.py" not in text
    assert isinstance(caught.value.__cause__, KeyError)


def test_type_error_of_the_model_is_not_taken_for_numpy() -> None:
    with pytest.raises(ModelError, match="raised"):
        traced(*of(lambda x, a: a * x + "unit"))


def test_exception_on_the_sample_is_shown() -> None:
    model, parameters = of(lambda x, a: LINEAR(a * x), [100.0])
    with pytest.raises(ModelError, match=r"raised ValueError: .*above the interpolation range"):
        check(model, parameters, [X], False)


WRONG: dict[str, tuple[Callable, str]] = {
    "nothing": (lambda x, a: None, "returned None"),
    "one value in an array": (lambda x, a: (a * x)[:1], r"shape \(1,\) for"),
    "a column": (lambda x, a: a * x[:, None], r"shape \(\d+, 1\) for"),
    "a matrix": (lambda x, a: jnp.stack([x, a * x]), r"shape \(2, \d+\) for"),
    "a list of tracers": (lambda x, a: [a * v for v in x], r"list, expected an array: type return jnp.stack"),
    "complex": (lambda x, a: jnp.exp(1j * a * x), r"complex values.*x = \[0.1, .*jnp.abs"),
    "text": (lambda x, a: np.full(np.shape(x), "a"), "dtype <U1"),
    "integers": (lambda x, a: (x > a).astype(int), "dtype int.*return 1.0"),
    "bools": (lambda x, a: np.asarray(x) > a, "dtype bool.*return 1.0"),
    "integers by the first of them": (
        np.vectorize(lambda x, a: a * x if x > 1 else 0),
        "leave out what rounds",
    ),
    "a masked array": (lambda x, a: np.ma.masked_less(a * np.asarray(x), 1), r"masked array.*\.filled\("),
}


@pytest.mark.filterwarnings("ignore:JAX cannot compile")
@pytest.mark.parametrize("name", WRONG)
def test_wrong_result_is_refused(name: str) -> None:
    func, message = WRONG[name]
    model, parameters = of(func)
    with pytest.raises(ModelError, match=message):
        check(model, parameters, [X], traced(model, parameters) is not None)


def test_complex_prediction_is_accepted_for_complex_data() -> None:
    model, parameters = of(lambda x, a: jnp.exp(1j * a * x))
    assert traced(model, parameters) is not None
    assert check(model, parameters, [X], True, complex_data=True) is None


MIXING: dict[str, Callable] = {
    "maximum": lambda x, a: a * x / x.max(),
    "minimum": lambda x, a: a * (x - x.min()),
    "mean": lambda x, a: a * (x - x.mean()),
    "sum": lambda x, a: jnp.sum(a * x),
    "cumulative sum": lambda x, a: a * jnp.cumsum(x),
    "length": lambda x, a: a * x / len(x),
    "first point": lambda x, a: a * (x - x[0]),
    "neighbours": lambda x, a: a * jnp.gradient(x**2),
    "order": lambda x, a: a * x[::-1],
    "maximum in the middle": lambda x, a: a * jnp.sin(x) / jnp.sin(x).max(),
}


@pytest.mark.parametrize("name", MIXING)
def test_model_that_looks_at_other_points_is_refused(name: str) -> None:
    model, parameters = of(MIXING[name])
    for compiled in (True, False):
        with pytest.raises(ModelError, match=r"evaluates it in blocks.*constants=\{'name': value\}"):
            check(model, parameters, [X], compiled)


@pytest.mark.parametrize("points", [np.full(100, 2.0), X[:1], X[:2], X[:3]])
def test_equal_or_few_points_are_no_mixing(points: np.ndarray) -> None:
    model, parameters = of(lambda x, a: jnp.exp(-a * x))
    assert check(model, parameters, [points], True) is None


def test_rounding_of_a_huge_phase_is_no_mixing() -> None:
    rng = np.random.default_rng(1)

    def wave(x, a):  # stands for two programs that round the phase differently
        return np.sin(a * 6e2 * x * (1 + 2e-16 * rng.standard_normal(len(x))))

    model, parameters = of(wave)
    assert check(model, parameters, [1.7e9 + X], False) is None


def test_missing_values_of_the_model_are_no_mixing() -> None:
    model, parameters = of(lambda x, a: a * jnp.log(x - 1))
    assert check(model, parameters, [X], True) is None


def test_jac_must_have_one_column_per_parameter() -> None:
    right = of(
        lambda x, a, b: a + b * x, [1, 1], jac=lambda x, a, b: jnp.stack([jnp.ones_like(x), x], axis=-1)
    )
    assert check(*right, [X], True) is None
    wrong = of(lambda x, a, b: a + b * x, [1, 1], jac=lambda x, a, b: jnp.stack([jnp.ones_like(x), x]))
    with pytest.raises(ModelError, match=r"shape \(2, 48\) for 48 points, expected \(48, 2\).*axis=-1"):
        check(*wrong, [X], True)


def reads_single(x, a):
    return SINGLE[0] * a * x


def closes_over(table):
    return lambda x, a: table[0] * a * x


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (reads_single, "SINGLE"),
        (lambda x, a: reads_single(x, a), "SINGLE"),
        (lambda x, a, table=SINGLE: a * x, "default 0"),
        (closes_over(SINGLE), "table"),
    ],
)
def test_captured_float32_array_is_warned_about_by_name(func: Callable, name: str) -> None:
    with pytest.warns(DfitWarning, match=f"float32 JAX array '{name}'"):
        traced(*of(func, param_names=["a"]))


def test_float64_and_numpy_arrays_are_not_warned_about() -> None:
    with jax.enable_x64(True):
        double = jnp.asarray([1.0])
    single = np.ones(1, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert traced(*of(lambda x, a: double[0] * single[0] * a * x)) is not None
