"""The fingerprint of a traced model: models that differ are told apart, whatever was traced before."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfit.model import Model
from dfit.parameters import Parameters
from dfit.probe import traced

FACTOR = 2.0


def of(func: Callable, **kwargs) -> tuple[Model, Parameters]:
    model = Model.from_callable(func, "x", **kwargs)
    return model, Parameters.resolve(model, [1.0])


def scaled(factor: Callable) -> Callable:
    """A model that calls another function."""
    return lambda x, a: factor(a * x)


def curved(slope: float) -> Callable:
    """A function whose derivative is the user's own, whatever the function computes."""

    @jax.custom_jvp
    def square(x):
        return x**2

    square.defjvp(lambda at, along: (at[0] ** 2, slope * at[0] * along[0]))
    return square


def closing_over(table: np.ndarray) -> Callable:
    return lambda x, a: a * jnp.interp(x, table, table)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (scaled(jnp.sin), scaled(jnp.cos)),
        (scaled(jax.jit(lambda x: 2 * x)), scaled(jax.jit(lambda x: 3 * x))),
        (scaled(curved(2.0)), scaled(curved(3.0))),
        (closing_over(np.arange(3.0)), closing_over(np.arange(3.0) * 2)),
    ],
    ids=["the function", "a jitted helper", "only the derivative", "values"],
)
def test_models_that_differ_are_told_apart_however_often_they_are_seen(
    one: Callable, other: Callable
) -> None:
    first, second = traced(*of(one)), traced(*of(other))
    assert first is not None and second is not None and first != second
    assert (traced(*of(one)), traced(*of(other))) == (first, second)


def test_an_edited_global_of_a_jitted_helper_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    helper = jax.jit(lambda x: FACTOR * x)
    before = traced(*of(scaled(helper)))
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert traced(*of(scaled(helper))) != before
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    assert traced(*of(scaled(helper))) == before


def test_other_derivatives_of_the_user_make_another_program() -> None:
    found = [
        traced(*of(lambda x, a: a * x, jac=lambda x, a, scale=scale: (scale * x)[:, None]))
        for scale in (1.0, 2.0)
    ]
    assert None not in found and found[0] != found[1]
