"""The two loops around `step`, and that they are one solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfit.core import drive
from dfit.core.drive import iterate, solve
from dfit.core.trust_region import Status, Tolerances, start
from tests.unit.problems import equations_of, linear, on_host

X = np.linspace(0, 10, 100)
TRUTHS = np.array([[5, 2, 1], [3, 1, 2], [7, 4, 0.5], [1, 2, 0.2]], float)
BOXES = {
    "free": (np.full(3, -np.inf), np.full(3, np.inf)),
    "active": (np.array([0, 0, 0.8]), np.array([6, 3, 10.0])),
}


def decay(x, theta):
    return theta[0] * jnp.exp(-x / theta[1]) + theta[2]


def data() -> np.ndarray:
    clean = TRUTHS[:, :1] * np.exp(-X / TRUTHS[:, 1:2]) + TRUTHS[:, 2:]
    return clean + 0.1 * np.random.default_rng(1).normal(size=clean.shape)


def by_host(y, box):
    *_, state = iterate(on_host(equations_of(decay, X, y)), start([1, 1, 1]), *box, Tolerances(1e-10))
    return state


@pytest.mark.parametrize("kind", BOXES)
def test_host_loop_while_loop_and_vmap_give_the_same_answer(kind):
    box = BOXES[kind]

    def one(y):
        return solve(equations_of(decay, X, y), jnp.ones(3), *box, Tolerances(1e-10), 100)

    with jax.enable_x64(True):
        batch = jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(data()))
        alone = [jax.tree.map(np.asarray, jax.jit(one)(y)) for y in data()]
    hosted = [by_host(y, box) for y in data()]
    for k in range(len(TRUTHS)):
        for other in (alone[k], jax.tree.map(lambda leaf, k=k: leaf[k], batch)):
            np.testing.assert_allclose(other.theta, hosted[k].theta, rtol=1e-9)
            np.testing.assert_allclose(other.equations.cost, hosted[k].equations.cost, rtol=1e-12)
            assert other.status == hosted[k].status == Status.OFFSET
    touching = [bool(np.any((state.theta == box[0]) | (state.theta == box[1]))) for state in hosted]
    assert any(touching) == (kind == "active")


def test_solve_ends_at_max_evaluations_and_says_so():
    with jax.enable_x64(True):
        state = solve(equations_of(decay, X, data()[0]), jnp.ones(3), *BOXES["free"], Tolerances(), 3)
    assert (int(state.status), int(state.evaluations)) == (Status.RUNNING, 3)


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_going_on_from_a_kept_state_gives_the_same_bits(kept):
    evaluate = on_host(equations_of(decay, X, data()[0]))
    whole = list(iterate(evaluate, start([1, 1, 0]), -np.inf, np.inf, Tolerances()))
    rest = list(iterate(evaluate, whole[kept - 1], -np.inf, np.inf, Tolerances()))
    assert len(rest) == len(whole) - kept
    for mine, other in zip(jax.tree.leaves(rest[-1]), jax.tree.leaves(whole[-1]), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_states_are_numpy_of_64_bits_and_one_comes_from_each_evaluation():
    seen = []

    def evaluate(theta):
        assert isinstance(theta, np.ndarray) and theta.dtype == np.float64
        seen.append(theta)
        return linear(np.eye(4, 2), np.arange(4.0))(theta)

    states = list(iterate(evaluate, start([1, 1]), -np.inf, np.inf, Tolerances()))
    assert len(states) == len(seen) == int(states[-1].evaluations)
    for leaf in jax.tree.leaves(states[-1]):
        assert isinstance(leaf, np.ndarray) and leaf.dtype in (np.float64, np.int32, np.bool_)


def test_a_state_that_has_ended_asks_for_nothing():
    evaluate = linear(np.eye(4, 2), np.arange(4.0))
    *_, ended = iterate(evaluate, start([1, 1]), -np.inf, np.inf, Tolerances())
    assert list(iterate(evaluate, ended, -np.inf, np.inf, Tolerances())) == []
    np.testing.assert_array_equal(ended.trial, ended.theta)


def test_a_second_fit_of_as_many_parameters_compiles_nothing():
    evaluate = linear(np.eye(7, 5), np.arange(7.0))
    list(iterate(evaluate, start(np.ones(5)), -np.inf, np.inf, Tolerances()))
    compiled = drive._step._cache_size()
    list(iterate(evaluate, start([2] * 5), [0] * 5, np.full(5, 9), Tolerances(1e-5, ftol=1e-3)))
    assert drive._step._cache_size() == compiled


def test_64_bits_stay_inside_the_loop():
    for _ in iterate(linear(np.eye(4, 2), np.arange(4.0)), start([1, 1]), -np.inf, np.inf, Tolerances()):
        assert jnp.ones(1).dtype == jnp.float32
