"""What the user types about parameters becomes values, bounds and masks, or an error that helps."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import cloudpickle
import jax
import jax.numpy as jnp
import lmfit
import numpy as np
import pytest
from scipy.optimize import Bounds

from dfit.errors import DfitWarning, InputError
from dfit.model import Model
from dfit.parameters import Parameters

INF = np.inf


def decay(time, amplitude, tau=2.0, offset=0.0):
    return amplitude * jnp.exp(-time / tau) + offset


MODEL = Model.from_callable(decay, "time")


def resolve(*args, **kwargs) -> Parameters:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DfitWarning)
        return Parameters.resolve(MODEL, *args, **kwargs)


@pytest.mark.parametrize(
    ("p0", "expected"),
    [
        ({"amplitude": 3}, [3, 2, 0]),
        ({"amplitude": np.float32(3), "offset": np.array(1)}, [3, 2, 1]),
        ([3, 4, 5], [3, 4, 5]),
        (np.array([3.0, 4.0, 5.0]), [3, 4, 5]),
        (lmfit.create_params(amplitude=3, tau=4, offset=5), [3, 4, 5]),
        (lmfit.create_params(amplitude=3), [3, 2, 0]),
    ],
)
def test_p0_is_read_by_name_and_by_position(p0: object, expected: list[float]) -> None:
    np.testing.assert_array_equal(resolve(p0).init, expected)


def test_a_single_parameter_may_start_from_a_number() -> None:
    model = Model.from_callable(lambda x, a: a * x, "x")
    np.testing.assert_array_equal(Parameters.resolve(model, 4.0).init, [4.0])


def test_missing_start_is_one_and_warned_about_once_by_name() -> None:
    model = Model.from_callable(lambda x, a, b, c=3.0: a * x + b + c, "x")
    with pytest.warns(DfitWarning, match=r"p0=\{'a': 1.0, 'b': 1.0\}$") as caught:
        parameters = Parameters.resolve(model)
    np.testing.assert_array_equal(parameters.init, [1, 1, 3])
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("bounds", "start"), [((0, 1), 0.5), ((5, None), 6), ((None, -5), -6), ((-INF, 1), 0), ((4, INF), 5)]
)
def test_default_outside_its_bounds_moves_as_in_scipy(bounds: tuple, start: float) -> None:
    with pytest.warns(DfitWarning, match="tau"):
        parameters = Parameters.resolve(MODEL, {"amplitude": 1}, bounds={"tau": bounds})
    assert parameters.init[1] == start


def test_p0_on_a_bound_is_accepted() -> None:
    parameters = resolve([0, 2, 0], bounds={"amplitude": (0, 5), "tau": (None, 2)})
    np.testing.assert_array_equal(parameters.init, [0, 2, 0])
    np.testing.assert_array_equal(parameters.lower, [0, -INF, -INF])
    np.testing.assert_array_equal(parameters.upper, [5, 2, INF])


@pytest.mark.parametrize(
    "bounds",
    [
        {"amplitude": (0, 9), "tau": (0, 9), "offset": (0, 9)},
        (0, 9),
        ([0, 0, 0], [9, 9, 9]),
        (0, [9, 9, 9]),
        (np.zeros(3), 9.0),
        Bounds([0, 0, 0], [9, 9, 9]),
        Bounds(0, 9),
    ],
)
def test_bounds_have_one_meaning_in_every_form(bounds: object) -> None:
    parameters = resolve([1, 2, 3], bounds=bounds)
    np.testing.assert_array_equal(parameters.lower, [0, 0, 0])
    np.testing.assert_array_equal(parameters.upper, [9, 9, 9])


def test_fixed_parameters_do_not_vary() -> None:
    for fixed, value in (({"tau": 7}, 7), (["tau"], 4), ("tau", 4)):
        parameters = resolve([3, 4, 5], fixed=fixed)
        assert (parameters.varying, parameters.fixed) == ((0, 2), (1,))
        assert parameters.init[1] == value
        assert parameters.expand([10.0, 20.0]) == [10, value, 20]
        assert parameters.expand([10.0, 20.0], [30.0]) == [10, 30, 20]


def test_name_fixed_without_p0_keeps_the_signatures_default() -> None:
    assert resolve({"amplitude": 1}, fixed=["tau"]).init[1] == 2.0


def test_lmfit_brings_bounds_and_fixed_parameters() -> None:
    given = lmfit.create_params(amplitude={"value": 3, "min": 0}, tau={"value": 4, "vary": False}, offset=1)
    parameters = resolve(given)
    assert parameters.varying == (0, 2)
    np.testing.assert_array_equal(parameters.lower, [0, -INF, -INF])
    np.testing.assert_array_equal(parameters.init, [3, 4, 1])


def test_tied_parameters_follow_the_others_in_any_order() -> None:
    ties = {"offset": lambda p: 1 - p["tau"], "tau": lambda p: 2 * p["amplitude"]}
    parameters = resolve({"amplitude": 3}, tie=ties)
    np.testing.assert_array_equal(parameters.init, [3, 6, -5])
    assert parameters.varying == (0,)
    assert parameters.expand([4.0]) == [4, 8, -7]


def test_ties_are_traced_differentiated_and_pickled() -> None:
    parameters = resolve({"amplitude": 3, "tau": 1}, tie={"offset": lambda p: p["tau"] ** 2 * p["amplitude"]})
    copy = cloudpickle.loads(cloudpickle.dumps(parameters))
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(lambda theta: copy.expand(theta)[2]))(jnp.array([3.0, 5.0]))
    np.testing.assert_array_equal(gradient, [25, 30])


SOMETHING = SimpleNamespace(value=1)

REFUSED = {
    "unknown p0": (
        {"p0": {"ampl": 1}},
        "p0 has 'ampl', but.*amplitude, tau, offset, did you mean 'amplitude'",
    ),
    "unknown bounds": ({"bounds": {"t": (0, 1)}}, "bounds has 't'"),
    "unknown fixed": ({"fixed": {"t": 1}}, "fixed has 't'"),
    "unknown fixed name": ({"fixed": ["t"]}, "fixed has 't'"),
    "unknown tie": ({"tie": {"t": lambda p: 1}}, "tie has 't'"),
    "short p0": ({"p0": [1, 2]}, "2 values for the 3 parameters amplitude, tau, offset"),
    "text as p0": ({"p0": "amplitude"}, "expected numbers"),
    "text in p0": ({"p0": {"tau": "1"}}, r"p0\['tau'\] is '1', expected a number"),
    "boolean in p0": ({"p0": [1, True, 1]}, r"p0\['tau'\] is True, expected a number"),
    "complex in p0": ({"p0": [1, 1j, 1]}, r"p0\['tau'\] is 1j, expected one real number"),
    "array in p0": ({"p0": {"tau": [1, 2]}}, "expected one real number"),
    "object in p0": ({"p0": {"tau": SOMETHING}}, "expected one real number"),
    "NaN in p0": ({"p0": [1, np.nan, 1]}, r"p0\['tau'\] is nan, expected a finite number"),
    "infinity in p0": ({"p0": {"tau": INF}}, r"p0\['tau'\] is inf"),
    "p0 outside": (
        {"p0": [1, 9, 1], "bounds": {"tau": (0, 5)}},
        r"tau = 9.0 is outside its bounds \[0.0, 5.0\]",
    ),
    "fixed outside": ({"fixed": {"tau": 9}, "bounds": {"tau": (0, 5)}}, "tau = 9.0 is outside its bounds"),
    "crossed": ({"bounds": {"tau": (5, 0)}}, r"crossed.*bounds=\{'tau': \(0.0, 5.0\)\}"),
    "equal": ({"bounds": {"tau": (5, 5)}}, r"type fixed=\{'tau': 5.0\}"),
    "NaN bound": ({"bounds": {"tau": (0, np.nan)}}, "a bound of 'tau' is nan"),
    "one bound": ({"bounds": {"tau": 5}}, r"expected \(lower, upper\): type bounds=\{'tau': \(0, None\)\}"),
    "list of pairs": ({"bounds": [(0, 1)] * 3}, "bounds has 3 entries, expected"),
    "short bounds": ({"bounds": ([0, 0], [1, 1])}, "bounds has 2 values for the 3 parameters"),
    "fixed nowhere": ({"fixed": ["amplitude"]}, r"type fixed=\{'amplitude': 1.0\}"),
    "fixed and tied": ({"fixed": ["tau"], "tie": {"tau": lambda p: 1}}, "both fixed and tied"),
    "p0 of a tied one": ({"p0": {"tau": 1}, "tie": {"tau": lambda p: 1}}, "which tie computes"),
    "bounds of a tied one": ({"bounds": {"tau": (0, 5)}, "tie": {"tau": lambda p: 1}}, "cannot be bounded"),
    "tie in a list": ({"tie": ["tau"]}, r"type tie=\{'amplitude': ...\}"),
    "tie to a number": ({"tie": {"tau": 3}}, r"lambda p: 1 - p\['other'\]"),
    "tie to itself": ({"tie": {"tau": lambda p: p["tau"]}}, "may read amplitude, offset"),
    "tie to nobody": ({"tie": {"tau": lambda p: p["t"]}}, "tie.'tau'. reads 't', but may read"),
    "circle": ({"tie": {"tau": lambda p: p["offset"], "offset": lambda p: p["tau"]}}, "need each other"),
    "tie gives NaN": ({"tie": {"tau": lambda p: np.nan}}, "tie.'tau'. at the start is nan"),
    "nothing varies": ({"p0": [1, 2, 3], "fixed": ["amplitude", "tau", "offset"]}, "leave at least one"),
    "lmfit expression": (
        {"p0": lmfit.create_params(amplitude=1, tau={"expr": "2 * amplitude"})},
        r"expression '2 \* amplitude'.*tie=\{'tau': lambda p: ...\}",
    ),
    "lmfit and bounds": ({"p0": lmfit.create_params(tau=1), "bounds": {"tau": (0, 5)}}, "do not pass bounds"),
    "lmfit unknown": ({"p0": lmfit.create_params(t=1)}, "p0 has 't'"),
}


@pytest.mark.filterwarnings("ignore:no initial value")
@pytest.mark.parametrize("name", REFUSED)
def test_misuse_is_refused_with_the_names_involved(name: str) -> None:
    arguments, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        Parameters.resolve(MODEL, **arguments)
