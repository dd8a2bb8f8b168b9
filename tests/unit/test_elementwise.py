"""What a program tells of a model that mixes its points."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dfit.elementwise import acts_pointwise
from dfit.model import Model


def of(func) -> bool:
    return acts_pointwise(Model.from_callable(func, "x"))


@pytest.mark.parametrize(
    "func",
    [
        lambda x, a, b: a * jnp.exp(-x / b),
        lambda x, a, b: jnp.where(x > b, a * jnp.sin(x) ** 2, jax.nn.softplus(x)),
        lambda x, a, b: a,
        jax.jit(lambda x, a, b: jnp.clip(a * x, 0, b)),
    ],
)
def test_formula_of_single_points_is_known_to_be_one(func) -> None:
    assert of(func)


def test_model_with_constants_is_left_to_a_trial() -> None:
    model = Model.from_callable(lambda x, a, c: a * c[0] * x, "x", constants={"c": np.ones(3)})
    assert not acts_pointwise(model)


@pytest.mark.parametrize(
    "func",
    [
        lambda x, a, b: a * x / x.max() + b,
        lambda x, a, b: a * x / len(x) + b,
        lambda x, a, b: a * jnp.cumsum(x) + b,
        lambda x, a, b: a * x[::-1] + b,
        lambda x, a, b: a * (x - x[0]) + b,
        lambda x, a, b: a * x @ jnp.ones((x.size, x.size)) + b,
        lambda x, a, b: a * jnp.interp(x, np.arange(3.0), np.arange(3.0)) + b,
        lambda x, a, b: lax.fori_loop(0, 3, lambda i, y: y * a, x) + b,
    ],
)
def test_what_may_mix_points_or_is_not_known_is_left_to_a_trial(func) -> None:
    assert not of(func)
