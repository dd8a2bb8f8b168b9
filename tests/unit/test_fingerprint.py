"""Fingerprints follow every edit, and nothing but edits, in any process."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from scipy.interpolate import CubicSpline

from dfit.fingerprint import NEW, fingerprint, fresh, of_code, of_traced, of_values
from dfit.model import Model
from dfit.parameters import Parameters

HERE = sys.modules[__name__]
X = jax.ShapeDtypeStruct((4,), np.float32)
GAIN = 2.0
TABLE = np.array([1.0, 2.0, 3.0])


def gained(x):
    return GAIN * x


def reads_first(helpers):
    return lambda x: helpers[0](x)


jitted = jax.jit(gained)


@jax.custom_jvp
def curved(x):
    return GAIN * jnp.sin(x)


curved.defjvp(lambda primals, tangents: (curved(*primals), GAIN * jnp.cos(primals[0]) * tangents[0]))


def scanned(carry, _):
    return GAIN * carry, None


@functools.lru_cache
def remembered(x):
    return GAIN * x


class Peak:
    def __init__(self, width):
        self.width = width

    def __call__(self, x):
        return gained(x) / self.width

    def method(self, x):
        return gained(x) * self.width


TRACED: dict[str, Callable] = {
    "global": lambda x: GAIN * x,
    "helper": lambda x: gained(x),
    "jitted helper": lambda x: jitted(x),
    "jitted model": jitted,
    "helper under vmap": lambda x: jax.vmap(jitted)(x),
    "custom derivative": lambda x: curved(x),
    "helper in a scan": lambda x: jax.lax.scan(scanned, x, None, length=3)[0],
    "helper in a branch": lambda x: jax.lax.cond(x[0] > 0, gained, lambda v: v, x),
    "helper in a loop": lambda x: jax.lax.while_loop(lambda v: v[0] < 9, gained, x),
    "object": Peak(2.0),
}
CODE: dict[str, Callable] = {
    "global": lambda x: np.exp(GAIN * x),
    "helper": lambda x: np.exp(gained(x)),
    "jitted helper": lambda x: np.exp(jitted(x)),
    "helper in a comprehension": lambda x: [gained(v) for v in x],
    "helper in a list": reads_first([gained]),
    "helper as default": lambda x, helper=gained: helper(x),
    "remembering helper": lambda x: remembered(x),
    "partial": functools.partial(lambda helper, x: helper(x), gained),
    "object": Peak(2.0),
    "method": Peak(2.0).method,
    "vectorized": np.vectorize(gained),
    "lambda in a class attribute": type("Own", (Peak,), {"rule": staticmethod(lambda x: gained(x))})(1.0),
}


@pytest.mark.parametrize("name", TRACED)
def test_traced_program_follows_an_edited_global(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of_traced(TRACED[name], X)
    assert of_traced(TRACED[name], X) == before
    monkeypatch.setattr(HERE, "GAIN", 3.0)
    assert of_traced(TRACED[name], X) != before
    monkeypatch.setattr(HERE, "GAIN", 2.0)
    assert of_traced(TRACED[name], X) == before


@pytest.mark.parametrize("name", TRACED)
def test_compiled_program_follows_an_edited_global(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    func, x = TRACED[name], np.ones(4, np.float32)
    compiled = jax.jit(lambda v: func(v))
    with fresh(of_traced(func, X)):
        before = compiled(x)
    monkeypatch.setattr(HERE, "GAIN", 3.5)
    with fresh(of_traced(func, X)):
        after = compiled(x)
        np.testing.assert_array_equal(after, jax.jit(lambda v: func(v))(x))
    assert np.all(np.asarray(after) != np.asarray(before))


@pytest.mark.parametrize("name", CODE)
def test_code_follows_an_edited_global(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of_code(CODE[name])
    assert not before.startswith(NEW)
    monkeypatch.setattr(HERE, "GAIN", 3.0)
    assert of_code(CODE[name]) != before
    monkeypatch.setattr(HERE, "GAIN", 2.0)
    assert of_code(CODE[name]) == before


def test_code_follows_an_edited_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    before = of_code(CODE["helper"])
    monkeypatch.setattr(HERE, "gained", lambda x: GAIN + x)
    assert of_code(CODE["helper"]) != before


def test_code_is_the_same_on_another_line_and_under_another_name() -> None:
    def first(x):
        return GAIN * np.sin(x)

    def second(x):
        # a comment
        return GAIN * np.sin(x)

    assert of_code(first) == of_code(second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x: x + 1, lambda x: x - 1),
        (lambda x: np.sin(x), lambda x: np.cos(x)),
        (lambda x, a=1: x, lambda x, a=2: x),
        (lambda x, *, a=1: x, lambda x, *, a=2: x),
        (lambda x: [v + 1 for v in x], lambda x: [v + 2 for v in x]),
        (np.sin, np.cos),
        (scipy.special.wofz, scipy.special.erfcx),
        (functools.partial(gained, 1), functools.partial(gained, 2)),
        (Peak(1.0), Peak(2.0)),
        (CubicSpline([0, 1, 2], [0, 1, 4]), CubicSpline([0, 1, 2], [0, 1, 5])),
        (lambda x: x if x in {"a", "b"} else 0, lambda x: x if x in {"a", "c"} else 0),
        (lambda x: x + 1, lambda x: x + 1.0),
        (lambda x: x + 0.0, lambda x: x + -0.0),
    ],
)
def test_different_code_has_different_fingerprints(one: Callable, other: Callable) -> None:
    assert of_code(one) != of_code(other)


def test_arrays_count_by_content_type_and_shape() -> None:
    values = np.arange(6.0)
    assert of_values({"a": values}) == of_values({"a": values.copy()})
    others = [values.astype(np.float32), values.reshape(2, 3), values + 1, values[::-1]]
    assert len({of_values({"a": v}) for v in [values, *others]}) == 5
    assert of_values({"a": values}) != of_values({"b": values})
    assert of_values({"a": values[::-1]}) == of_values({"a": values[::-1].copy()})


def test_traced_constants_count_in_full() -> None:
    table = np.arange(5000.0, dtype=np.float32)
    other = table.copy()
    other[2500] += 1  # a printed program would not show it
    assert of_traced(lambda x: x + jnp.asarray(table)[:4], X) == of_traced(
        lambda x: x + jnp.asarray(table.copy())[:4], X
    )
    assert of_traced(lambda x: x + jnp.asarray(table)[:4], X) != of_traced(
        lambda x: x + jnp.asarray(other)[:4], X
    )


def test_what_has_no_content_is_new_every_time() -> None:
    generator = (v for v in (1, 2))
    with open(os.devnull) as file:
        for func in (lambda x: file.name, lambda x: next(generator), np.frompyfunc(gained, 1, 1)):
            first, second = of_code(func), of_code(func)
            assert first.startswith(NEW)
            assert first != second


def test_recursive_functions_and_circular_objects_end() -> None:
    def down(x, n):
        return x if n == 0 else up(x, n)

    def up(x, n):
        return down(x + 1, n - 1)

    peak = Peak(1.0)
    peak.width = peak
    assert of_code(down) == of_code(down)
    assert of_code(peak) == of_code(peak)


MODULE = """
SCALE = 2.0
def helper(x):
    return SCALE * x
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the user's."""
    (tmp_path / "fit_settings.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("fit_settings")
    sys.modules.pop("fit_settings")


def test_code_follows_an_edited_module_of_the_users(
    settings: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(x):
        from fit_settings import helper

        return helper(x)

    functions = [lambda x: settings.SCALE * x, lambda x: settings.helper(x), late]
    before = [of_code(func) for func in functions]
    monkeypatch.setattr(settings, "SCALE", 3.0)
    after = [of_code(func) for func in functions]
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_fingerprint_covers_fixed_and_tied_parameters_and_constants() -> None:
    def line(x, table, a, b):
        return a * x + b + table[0]

    def parametrized(traceable: bool, constant: float = 1.0, **kwargs: object) -> str:
        model = Model.from_callable(line, "x", constants={"table": [constant]})
        return fingerprint(model, Parameters.resolve(model, p0=kwargs.pop("p0", None), **kwargs), traceable)

    for kind in (True, False):
        of = functools.partial(parametrized, kind)
        free = of(p0=[1, 1])
        assert of(p0=[5, 7], bounds={"a": (0, 9)}) == free
        assert of(p0={"a": 1}, fixed={"b": 1}) == of(p0={"a": 1}, fixed={"b": 2})
        tied = [of(p0={"a": 1}, tie={"b": rule}) for rule in (lambda p: p["a"], lambda p: 1 - p["a"])]
        assert len({free, of(2.0, p0=[1, 1]), of(p0={"a": 1}, fixed={"b": 1}), *tied}) == 5
