"""A model that goes wrong in one chunk only, or at a trial only, is named with its place and its parameters."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dfit
from dfit.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore::dfit.DfitWarning")

N, CHUNK = 400, 100
X = np.linspace(0, 10, N)
Y = 5 * np.exp(-X / 2) + 1 + np.random.default_rng(0).normal(0, 0.1, N)
P0 = {"a": 3.0, "tau": 1.0, "c": 0.0}
LAST = "x = 7.5188 to 10"  # the ranges of the last chunk


@pytest.fixture(autouse=True)
def leaves_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every chunk is a leaf and a partition, summed in threads."""
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", CHUNK)
    with dask.config.set({"dfit.partition-bytes": 8 * CHUNK, "scheduler": "threads"}):
        yield


def fit(model: Callable, **options: Any) -> dfit.FitResult:
    x, y = da.from_array(X, chunks=CHUNK), da.from_array(Y, chunks=CHUNK)
    return dfit.fit(model, y, {"x": x}, p0=options.pop("p0", P0), **options)


def decay(x, a, tau, c):
    return a * np.exp(-np.asarray(x) / tau) + c


def where_late(wrong: Callable) -> Callable:
    """`decay`, but ``wrong(prediction)`` in the last chunk, which the trial before the fit does not see."""

    def model(x, a, tau, c):
        f = decay(x, a, tau, c)
        return wrong(f) if np.max(x) > 7.5 else f

    return model


def looked_up(f):
    raise LookupError("no entry in my table")


WRONG: dict[str, tuple[Callable, str]] = {
    "raises": (looked_up, r"(?s)raised LookupError: no entry in my table.*raise LookupError\(.no entry"),
    "a scalar": (lambda f: float(f[0]), "a single number for 100 points and another one for half"),
    "its mean": (lambda f: f.mean(), "a single number for 100 points and another one for half"),
    "one value in an array": (lambda f: f[:1], r"shape \(1,\) for 100 points"),
    "a point too few": (lambda f: f[:-1], r"shape \(99,\) for 100 points"),
    "a point too many": (lambda f: np.append(f, 1.0), r"shape \(101,\) for 100 points"),
    "a column": (lambda f: f[:, None], r"shape \(100, 1\) for 100 points"),
    "a row": (lambda f: f[None], r"shape \(1, 100\) for 100 points"),
    "nothing": (lambda f: None, "returned None"),
    "complex": (lambda f: f + 0j, r"complex values for real data.*jnp\.real"),
    "integers": (lambda f: np.round(f).astype(int), "dtype int64.*leave out what rounds"),
    "bools": (lambda f: f > 1, "dtype bool"),
    "text": (lambda f: f.astype(str), "dtype <U32"),
    "a masked array": (lambda f: np.ma.masked_less(f, 2), r"\.filled\("),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_in_one_chunk_is_named_with_words_place_and_parameters(what: str) -> None:
    wrong, words = WRONG[what]
    with pytest.raises(ModelError, match=words) as caught:
        fit(where_late(wrong))
    assert "at a = 3, tau = 1, c = 0" in str(caught.value)
    assert f"for 100 points with {LAST}, in partition 3" in str(caught.value)
    assert (type(caught.value.__cause__) is LookupError) is (what == "raises")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("options", [{"warmup": True}, {"loss": "huber"}, {"warmup": True, "loss": "huber"}])
def test_wrong_in_one_chunk_is_named_with_a_warm_up_and_a_robust_loss(options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"(?s)no entry in my table.*at a = 3, tau = 1, c = 0.*to 10"):
        fit(where_late(looked_up), **options)


def test_raised_at_a_trial_is_named_with_the_trial() -> None:
    tried = []

    def model(x, a, tau, c):
        if a > 4.5:
            tried.append(a)
            raise ArithmeticError("beyond my table")
        return decay(x, a, tau, c)

    with pytest.raises(ModelError, match=r"(?s)raised ArithmeticError: beyond my table") as caught:
        fit(model)
    assert any(f"at a = {a:.6g}, tau = " in str(caught.value) for a in tried)


def test_a_constant_that_is_one_number_is_right() -> None:
    def step(x, a, b):
        if np.max(x) > 7.5:
            return b
        return a + 0 * np.asarray(x)

    y = np.where(np.arange(N) < 300, 2.0, 5.0) + np.random.default_rng(1).normal(0, 0.1, N)
    found = dfit.fit(step, da.from_array(y, chunks=CHUNK), {"x": da.from_array(X, chunks=CHUNK)}, p0=[1, 1])
    assert found.success
    assert found.best_values == pytest.approx({"a": y[:300].mean(), "b": y[300:].mean()}, rel=1e-9)


def test_numbers_in_a_list_are_right() -> None:
    expected = fit(lambda x, a, tau, c: decay(x, a, tau, c))
    assert fit(where_late(list)).best_values == pytest.approx(expected.best_values, rel=1e-9)


def test_a_wrong_jac_of_one_chunk_is_named() -> None:
    def jac(x, a, tau, c):
        return np.zeros((len(x), 3 if np.max(x) < 7.5 else 2))

    words = rf"(?s)jac of the model decay returned shape \(100, 2\).*tau = 1.*{LAST}"
    with pytest.raises(ModelError, match=words):
        fit(decay, jac=jac)


def test_what_compiled_code_calls_is_named_when_it_raises() -> None:
    def host(x):
        if x.max() > 7.5:
            looked_up(x)
        return -np.asarray(x)

    @jax.custom_jvp
    def minus(x):
        # JAX narrows what passes here to float32 in threads of its own, which know of no scope of float64.
        return jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, jnp.float32), x.astype(jnp.float32))

    minus.defjvp(lambda primal, tangent: (minus(*primal), -tangent[0].astype(jnp.float32)))
    with pytest.raises(ModelError, match=rf"(?s)no entry in my table.*at a = 3, tau = 1, c = 0.*{LAST}"):
        fit(lambda x, a, tau, c: a * jnp.exp(minus(x) / tau) + c)


def test_a_traced_model_that_raises_for_a_number_of_points_is_named() -> None:
    def model(x, a, tau, c):
        if x.shape[0] > 48:
            raise LookupError(f"no table for {x.shape[0]} points")
        return a * jnp.exp(-x / tau) + c

    with pytest.raises(ModelError, match=r"(?s)no table for \d+ points.*raise LookupError.*at a = 3"):
        fit(model)


def test_a_model_half_of_jax_computes_in_float64() -> None:
    def model(x, a, tau, c):
        if a > 1000:  # so that JAX cannot trace it
            return 0 * x
        return a * jnp.exp(-x / tau) + c

    found, expected = fit(model), fit(lambda x, a, tau, c: decay(x, a, tau, c))
    assert found.success
    assert found.best_values == pytest.approx(expected.best_values, rel=1e-9)


@pytest.mark.filterwarnings("default::dfit.DfitWarning")
def test_a_plain_model_in_float32_is_warned_about() -> None:
    with pytest.warns(dfit.DfitWarning, match="returns float32, of which finite differences leave about 2"):
        fit(lambda x, a, tau, c: decay(x, a, tau, c).astype("f4"), max_passes=1)
