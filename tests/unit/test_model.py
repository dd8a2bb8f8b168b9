"""A callable's arguments are sorted into coordinates, parameters and constants, and it travels."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cloudpickle
import jax
import numpy as np
import pytest

from dfit.errors import InputError
from dfit.model import Model

X = np.array([1.0, 2.0, 3.0])
Y = np.array([10.0, 20.0, 30.0])


def line(x, a, b=2.0):
    return a + b * x


def plane(x, y, a, b):
    return a * x + b * y


class Scaled:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x, a):
        return self.scale * a * x

    def method(self, x, a):
        return self.scale * a + x


def mode_last(x, a, mode="fast", b=1.0):
    return a * x + b * (mode == "fast")


CALLS = {
    "function": (line, "x", None, [1.0, 3.0], 1 + 3 * X),
    "two coordinates": (plane, ("x", "y"), None, [2.0, 1.0], 2 * X + Y),
    "one tuple": (lambda xy, a, b: a * xy[0] + b * xy[1], ("x", "y"), ["a", "b"], [2.0, 1.0], 2 * X + Y),
    "tuple and *args": (
        lambda xy, *p: p[0] * xy[0] + p[1] * xy[1],
        ("x", "y"),
        ["a", "b"],
        [2.0, 1.0],
        2 * X + Y,
    ),
    "two and *args": (lambda x, y, *p: p[0] * x + p[1] * y, ("x", "y"), ["a", "b"], [2.0, 1.0], 2 * X + Y),
    "only *args": (lambda *v: v[2] * v[0] + v[3] * v[1], ("x", "y"), ["a", "b"], [2.0, 1.0], 2 * X + Y),
    "keyword only": (lambda x, *, a, b: a + b * x, "x", None, [1.0, 3.0], 1 + 3 * X),
    "**kwargs": (lambda x, **p: p["a"] + p["b"] * x, "x", ["a", "b"], [1.0, 3.0], 1 + 3 * X),
    "jitted": (jax.jit(line), "x", None, [1.0, 3.0], 1 + 3 * X),
    "partial": (functools.partial(line, b=5.0), "x", None, [1.0], 1 + 5 * X),
    "partial by position": (functools.partial(plane, X), "x", None, [2.0, 1.0], 2 * X + X),
    "partial of a jitted one": (functools.partial(jax.jit(line), b=5.0), "x", None, [1.0], 1 + 5 * X),
    "object": (Scaled(4.0), "x", None, [2.0], 8 * X),
    "method": (Scaled(4.0).method, "x", None, [2.0], 8 + X),
    "ufunc": (np.power, "x", ["n"], [2.0], X**2),
    "builtin without signature": (max, "x", ["a"], [2.0], None),
    "renamed": (line, "x", ["intercept", "slope"], [1.0, 3.0], 1 + 3 * X),
    "in another order": (line, "x", ["b", "a"], [3.0, 1.0], 1 + 3 * X),
    "some of them": (mode_last, "x", ["a", "b"], [2.0, 5.0], 2 * X + 5),
}


@pytest.mark.parametrize("name", CALLS)
def test_any_callable_is_called_with_its_coordinates_and_parameters(name: str) -> None:
    func, coords, names, theta, expected = CALLS[name]
    model = Model.from_callable(func, coords, names)
    if expected is None:
        assert model([2.0], [5.0]) == 5.0
        return
    found = model(theta, [X, Y][: len(model.coords)])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len(model.param_names) == len(theta)


def test_parameters_are_named_by_the_signature_and_defaults_are_kept() -> None:
    model = Model.from_callable(line, "x")
    assert (model.param_names, model.defaults, model.packed) == (("a", "b"), {"b": 2.0}, None)


def test_packed_array_stacks_the_coordinates() -> None:
    model = Model.from_callable(lambda xy, a: a * xy.sum(axis=0), ("x", "y"), packed="array")
    assert model.param_names == ("a",)
    np.testing.assert_array_equal(model([2.0], [X, Y]), 2 * (X + Y))
    traced = jax.make_jaxpr(lambda x, y: model([2.0], [x, y]))(X, Y)
    assert traced.out_avals[0].shape == (3,)


def test_single_packed_coordinate_keeps_its_row() -> None:
    model = Model.from_callable(lambda x, a: a * x[0], "x", packed="array")
    np.testing.assert_array_equal(model([2.0], [X]), 2 * X)


def test_constants_are_passed_by_name_and_are_no_parameters() -> None:
    def model_of(x, table, a, *, shift):
        return a * table[0] * x + shift

    model = Model.from_callable(model_of, "x", constants={"table": [3.0, 4.0], "shift": 1.0})
    assert model.param_names == ("a",)
    np.testing.assert_array_equal(model([2.0], [X]), 6 * X + 1)
    other = {"table": np.array([5.0]), "shift": np.array(0.0)}
    np.testing.assert_array_equal(model([2.0], [X], other), 10 * X)


def test_jac_is_called_like_the_model() -> None:
    model = Model.from_callable(line, "x", jac=lambda x, a, b: np.stack([np.ones_like(x), x], axis=-1))
    np.testing.assert_array_equal(model.jacobian([0.0, 0.0], [X]), np.stack([np.ones(3), X], axis=-1))
    with pytest.raises(InputError, match="jac=your_function"):
        Model.from_callable(line, "x").jacobian([0.0, 0.0], [X])


def no_names(x, *p):
    return p[0] * x


REFUSED = {
    "no callable": ((3, "x"), {}, "the model is int, not a callable"),
    "an lmfit-like model": ((type("M", (), {"func": line})(), "x"), {}, "model.func"),
    "jac no callable": ((line, "x"), {"jac": "2-point"}, "jac is str"),
    "no coordinate": ((line, ()), {}, "coords='x'"),
    "too many coordinates": ((line, tuple("pqrs")), {}, r"def line\(p, q, r, s, a, b\)"),
    "no parameter left": ((lambda x: x, "x"), {}, "no parameter left"),
    "unnamed parameters": ((no_names, "x"), {}, r"no_names\(x, \*p\).*param_names=\['a', 'b'\]"),
    "twice the same name": ((line, "x", ["a", "a"]), {}, "'a' occurs twice"),
    "a coordinate as parameter": ((no_names, "x", ["x"]), {}, "'x' occurs twice"),
    "swapped coordinates": ((plane, ("y", "x")), {}, r"type coords=\('x', 'y'\)"),
    "a parameter as coordinate": ((line, "a"), {}, r"line\(x, a, b=2.0\).*type coords=\('x',\)"),
    "too many names": ((line, "x", ["a", "c", "d"]), {}, r"type param_names=\['a', 'b'\]"),
    "moved names": ((line, "x", ["b", "c"]), {}, r"type param_names=\['a', 'b'\]"),
    "left out without default": ((plane, ("x", "y"), ["a"]), {}, "nothing is given for the argument 'b'"),
    "empty names": ((line, "x", []), {}, r"param_names is empty: type param_names=\['a', 'b'\]"),
    "unknown constant": ((line, "x"), {"constants": {"grid": X}}, "'grid', which is no argument"),
    "a coordinate as constant": ((line, "x"), {"constants": {"x": X}}, "'x' occurs twice"),
    "text as constant": ((line, "x"), {"constants": {"b": ["t"]}}, "dtype <U1, expected numbers"),
    "default is no number": ((mode_last, "x"), {}, r"functools.partial\(model, mode='fast'\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_misfit_is_refused_with_the_line_to_type(name: str) -> None:
    arguments, keywords, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        Model.from_callable(*arguments, **keywords)


def test_blob_leaves_constants_out_and_gets_them_back() -> None:
    table = np.arange(1_000_000.0)
    model = Model.from_callable(lambda x, table, a: a * table[3] * x, "x", constants={"table": table})
    blob = model.to_blob()
    assert len(blob) < 10_000
    np.testing.assert_array_equal(Model.from_blob(blob, {"table": table})([2.0], [X]), 6 * X)


BIG = np.zeros(200_000)


def reads_big(x, a):
    return a * x + uses_big(x)


def uses_big(x):
    return BIG[0] * x


def test_large_closure_is_refused_by_name() -> None:
    grid = np.zeros(200_000)
    with pytest.raises(InputError, match=r"'grid' is 1.6 MB.*constants=\{'grid': grid\}"):
        Model.from_callable(lambda x, a: a * x + grid[0], "x").to_blob()


@pytest.fixture
def pickled_by_value() -> Iterator[ModuleType]:
    """This module, pickled as if its functions were typed into a notebook."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield module
    cloudpickle.unregister_pickle_by_value(module)


def test_large_global_of_a_helper_is_refused_by_name(pickled_by_value: ModuleType) -> None:
    with pytest.raises(InputError, match=r"'BIG' is 1.6 MB.*constants=\{'BIG': BIG\}"):
        Model.from_callable(reads_big, "x").to_blob()


GAIN = 2.0


class Gain:
    def __call__(self, x, a):
        return GAIN * a * x


def test_loading_a_blob_where_it_was_made_leaves_the_users_class_alone(
    pickled_by_value: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    func = Gain()
    model = Model.from_callable(func, "x")
    Model.from_blob(model.to_blob(), {})
    monkeypatch.setattr(pickled_by_value, "GAIN", 3.0)
    np.testing.assert_array_equal(func(X, 1.0), 3 * X)


SCRIPT = """
import jax, jax.numpy as jnp
from dfit.model import Model
SCALE = 2.5
with jax.enable_x64(True):
    TENTH = jnp.asarray(0.1)
def helper(x):
    return SCALE * x
class Peak:
    width = 2.0
    def __call__(self, x, a):
        return a * helper(x) / self.width + TENTH
print(Model.from_callable(Peak(), "x").to_blob().hex())
"""


def test_blob_from_a_script_works_in_another_process(
    tmp_path: Path, source_environment: dict[str, str]
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    blob = subprocess.run(command, env=source_environment, capture_output=True, check=True, text=True).stdout
    model = Model.from_blob(bytes.fromhex(blob), {})
    with jax.enable_x64(True):
        found = np.asarray(model([2.0], [X])).tolist()
    assert found == (2.5 * X + 0.1).tolist()


def gained(x, a):
    return GAIN * a * x


def test_jitted_model_follows_an_edited_global(monkeypatch: pytest.MonkeyPatch) -> None:
    jitted = jax.jit(gained)
    assert float(jitted(1.0, 1.0)) == 2.0
    monkeypatch.setattr(sys.modules[__name__], "GAIN", 3.0)
    np.testing.assert_array_equal(Model.from_callable(jitted, "x")([1.0], [X]), 3 * X)
