"""The algebra by Cholesky factors against the one by singular values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfit.core import cholesky, subproblem
from dfit.core.bounds import pressed
from dfit.core.equations import Equations
from dfit.core.state import Tolerances, start
from dfit.core.trust_region import step

P = 3
NONE, ZERO = np.zeros(P, bool), np.zeros(P)
# One compilation of each function for all tests: shapes never change.
ALGEBRAS = [cholesky.BY_CHOLESKY, subproblem.BY_SVD]
PROJECTIONS = [jax.jit(algebra.projection) for algebra in ALGEBRAS]
STEPS = [jax.jit(algebra.restricted_step) for algebra in ALGEBRAS]
WHOLE_STEPS = [jax.jit(lambda *a, algebra=algebra: step(*a, Tolerances(), algebra)) for algebra in ALGEBRAS]
inverse = jax.jit(cholesky.inverse)
root_of = jax.jit(cholesky.root_of, static_argnums=1)


def condition(r):
    return cholesky.projection(r[:, :-1], r[:, -1], np.ones(r.shape[1] - 1))[2]


def both(functions, *args):
    with jax.enable_x64(True):
        return [jax.tree.map(np.asarray, function(*args)) for function in functions]


def one(function, *args):
    return both([function], *args)[0]


def root(seed: int, log_condition: float = 0.0, size: int = P) -> np.ndarray:
    """A triangle (p + 1, p + 1) whose Jacobian part has norm-1 columns and about that condition."""
    rng = np.random.default_rng(seed)
    u, _, vt = np.linalg.svd(rng.normal(size=(size + 1, size)), full_matrices=False)
    jacobian = u * np.logspace(0, -log_condition, size) @ vt
    jacobian /= np.linalg.norm(jacobian, axis=0)
    return np.linalg.qr(np.column_stack([jacobian, rng.normal(size=size + 1)]), mode="r")


def norms(matrix: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(matrix[:, :-1], axis=0)
    return np.where(size > 0, size, 1.0)


def digits_left(log_condition: float) -> float:
    """Relative error that squares may leave, with room for a factor of a thousand."""
    return 1e3 * np.finfo(float).eps * 10 ** (2 * log_condition)


@pytest.mark.parametrize("log_condition", [0, 1, 3, 5, 6])
def test_projection_is_that_by_singular_values(log_condition):
    for seed in range(5):
        r = root(seed, log_condition)
        (t2, rank, _), (exact, exact_rank, _) = both(PROJECTIONS, r[:, :P], r[:, P], norms(r))
        assert rank == exact_rank == P
        np.testing.assert_allclose(t2, exact, rtol=digits_left(log_condition))


@pytest.mark.parametrize("radius", [np.inf, 2.0, 0.3, 1e-3, 1e-9, 0.0])
@pytest.mark.parametrize("log_condition", [0, 3, 6])
def test_step_within_any_radius_is_that_by_singular_values(radius, log_condition):
    weights = np.array([1.0, 3.0, 0.7])
    for seed in range(5):
        r = root(seed, log_condition)
        weighted = weights * norms(r)
        (s, full), (exact, exact_full) = both(STEPS, r[:, :P], r[:, P], weighted, radius, NONE, ZERO)
        assert full == exact_full
        tolerance = digits_left(log_condition) * np.linalg.norm(weighted * exact)
        np.testing.assert_allclose(weighted * s, weighted * exact, rtol=0, atol=max(tolerance, 1e-300))
        assert np.linalg.norm(weighted * s) <= radius * (1 + 1e-11)
        if not full and radius > 0:
            assert np.linalg.norm(weighted * s) >= radius * (1 - 1e-9)


@pytest.mark.parametrize("radius", [np.inf, 0.8, 0.2])
def test_held_parameters_take_their_step_from_the_shift(radius):
    held, shift = np.array([False, True, False]), np.array([0.0, 0.1, 0.0])
    for seed in range(5):
        r = root(seed, 1)
        (s, full), (exact, exact_full) = both(STEPS, r[:, :P], r[:, P], norms(r), radius, held, shift)
        assert s[1] == exact[1] == 0.1 and full == exact_full
        np.testing.assert_allclose(s, exact, rtol=1e-10, atol=1e-12)


def test_step_stays_where_all_parameters_are_held():
    r = root(1)
    (s, _), (exact, _) = both(STEPS, r[:, :P], r[:, P], norms(r), 1.0, ~NONE, ZERO)
    np.testing.assert_array_equal(s, ZERO)
    np.testing.assert_array_equal(exact, ZERO)


@pytest.mark.parametrize("radius", [np.inf, 0.3])
def test_a_column_of_zeros_has_no_step_and_no_rank(radius):
    r = root(2, 1)
    r[:, 1] = 0
    (s, full), (exact, exact_full) = both(STEPS, r[:, :P], r[:, P], norms(r), radius, NONE, ZERO)
    assert s[1] == 0 and full == exact_full
    np.testing.assert_allclose(s, exact, rtol=1e-10, atol=1e-14)
    (t2, rank, _), (exact, exact_rank, _) = both(PROJECTIONS, r[:, :P], r[:, P], norms(r))
    assert rank == exact_rank == P - 1
    np.testing.assert_allclose(t2, exact, rtol=1e-12)


def test_dependent_columns_are_seen_as_one():
    r = root(3)
    r[:, 2] = 2 * r[:, 0]
    (t2, rank, condition), (exact, exact_rank, _) = both(PROJECTIONS, r[:, :P], r[:, P], norms(r))
    assert rank == exact_rank == P - 1
    np.testing.assert_allclose(t2, exact, rtol=1e-9)
    assert np.isinf(condition)


# 1e-150 squared is no longer a normal number of float32 nor 1e150 one, but both are of float64.
@pytest.mark.parametrize("units", [(1e-150, 1.0, 1e150), (1e150, 1e-150, 1e150), (1e-21, 1e21, 1e-100)])
@pytest.mark.parametrize("radius", [np.inf, 0.4])
def test_units_of_the_parameters_change_no_digit_of_a_step(units, radius):
    for seed in range(3):
        r, unit = root(seed, 1), np.array(units)
        plain, _ = one(STEPS[0], r[:, :P], r[:, P], norms(r), radius, NONE, ZERO)
        s, _ = one(STEPS[0], r[:, :P] * unit, r[:, P], norms(r) * unit, radius, NONE, ZERO)
        np.testing.assert_allclose(s * unit, plain, rtol=1e-11)
        t2, rank, _ = one(PROJECTIONS[0], r[:, :P] * unit, r[:, P], norms(r) * unit)
        assert rank == P
        np.testing.assert_allclose(t2, one(PROJECTIONS[0], r[:, :P], r[:, P], norms(r))[0], rtol=1e-11)


def test_weights_far_above_the_columns_keep_the_full_step():
    r = root(4)
    (s, full), (exact, _) = both(STEPS, r[:, :P], r[:, P], 1e9 * norms(r), 1e12, NONE, ZERO)
    assert full
    np.testing.assert_allclose(s, exact, rtol=1e-9)


@pytest.mark.parametrize("log_condition", [0, 1, 2, 4, 6])
def test_condition_is_that_of_the_singular_values_within_a_factor_of_the_number_of_columns(log_condition):
    for seed in range(5):
        r = root(seed, log_condition)
        (_, _, found), (_, _, exact) = both(PROJECTIONS, r[:, :P], r[:, P], norms(r))
        np.testing.assert_allclose(exact, np.linalg.cond(r[:, :P] / norms(r)), rtol=1e-6)
        assert 1 / (2 * P) <= found / exact <= 1.01


@pytest.mark.parametrize("log_condition", [0, 2, 3])
@pytest.mark.parametrize("free", [(True, True, True), (True, False, True), (False, False, False)])
def test_inverse_is_that_of_the_free_columns(log_condition, free):
    free = np.array(free)
    r = root(5, log_condition)
    expected = np.zeros((P, P))
    half = np.linalg.pinv(r[:, :P][:, free]) if free.any() else np.zeros((0, P))
    expected[np.ix_(free, free)] = half @ half.T
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        one(inverse, r, free), expected, rtol=0, atol=digits_left(log_condition) * scale
    )


@pytest.mark.parametrize("unit", [1e-100, 1e-21, 1.0, 1e21, 1e100])
def test_root_gives_back_its_sums_of_squares(unit):
    r = root(6, 2) * unit
    square = r.T @ r
    pairs = [square[i, j] for i in range(P + 1) for j in range(i, P + 1)]
    found = one(root_of, pairs, P + 1)
    assert (np.tril(found, -1) == 0).all()
    np.testing.assert_allclose(found.T @ found, square, rtol=1e-11, atol=1e-14 * np.abs(square).max())


def test_root_of_sums_that_are_zero_is_zero():
    np.testing.assert_array_equal(one(root_of, [np.float64(0)] * 10, P + 1), np.zeros((P + 1, P + 1)))


def equations(seed: int, log_condition: float, unit: float) -> Equations:
    r = root(seed, log_condition) * unit
    # Columns keep their size, so the unit of the data is that of the parameters.
    psi2 = np.float64(r[:, P] @ r[:, P])
    return Equations(r, psi2 / 2, psi2, np.float64(9.0) * unit**2, np.float64(40.0), np.bool_(True))


@pytest.mark.parametrize("unit", [1e-21, 1.0, 1e21])
@pytest.mark.parametrize("box", ["none", "wide", "active"])
def test_both_algebras_propose_the_same_trial(unit, box):
    theta = np.array([0.5, -0.2, 0.3])
    half = {"none": np.inf, "wide": 50.0, "active": 0.05}[box]
    met = set()
    for seed in range(6):
        at = equations(seed, 2, unit)
        lower, upper = theta - half, theta + half
        if box == "active":  # it starts on a bound as well
            lower[0] = theta[0]
        found, exact = both(WHOLE_STEPS, start(theta), at, lower, upper)
        np.testing.assert_allclose(found.trial, exact.trial, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.predicted, exact.predicted, rtol=1e-9)
        np.testing.assert_allclose(found.offset, exact.offset, rtol=1e-9)
        assert found.status == exact.status and found.full == exact.full
        assert ((lower <= found.trial) & (found.trial <= upper)).all()
        held = pressed(theta, at.root[:, :P].T @ at.root[:, P], lower, upper)
        met.add((bool(np.any(held)), bool(((found.trial == lower) | (found.trial == upper)).any())))
    assert len(met) > (box == "active")


@pytest.mark.parametrize("refused", [True, False])
def test_both_algebras_judge_a_second_trial_alike(refused):
    theta = np.array([0.5, -0.2, 0.3])
    wide = np.full(P, np.inf)
    for seed in range(4):
        first = both(WHOLE_STEPS, start(theta), equations(seed, 2, 1.0), -wide, wide)
        at = equations(seed + 10, 2, 2.0 if refused else 0.01)
        found, exact = (
            one(function, state, at, -wide, wide) for function, state in zip(WHOLE_STEPS, first, strict=True)
        )
        for name in ("theta", "trial", "radius", "offset", "predicted"):
            np.testing.assert_allclose(
                getattr(found, name), getattr(exact, name), rtol=1e-8, atol=1e-12, err_msg=name
            )
        assert (found.theta == theta).all() == refused
        assert found.status == exact.status


def test_sums_that_are_not_finite_leave_the_state_usable():
    bad = equations(1, 1, 1.0)
    bad = bad._replace(root=jnp.full((P + 1, P + 1), np.nan), finite=np.bool_(False))
    wide = np.full(P, np.inf)
    state = one(WHOLE_STEPS[0], start(ZERO + 1), equations(1, 1, 1.0), -wide, wide)
    after = one(WHOLE_STEPS[0], state, bad, -wide, wide)
    np.testing.assert_array_equal(after.theta, state.theta)
    assert np.isfinite(after.trial).all() and after.radius <= state.radius / 4 * 1.0001


def test_problems_side_by_side_are_solved_as_alone():
    rng = np.random.default_rng(9)
    theta = rng.normal(size=(P, 6))
    all_at = [equations(seed, seed, 1.0) for seed in range(6)]  # conditions 1 to 1e5
    at = jax.tree.map(lambda *parts: np.stack(parts, axis=-1), *all_at)
    lower, upper = theta - [[1e-3, 1, 1, 1, 9, 0]], theta + 2.0
    begun = [start(theta[:, k]) for k in range(6)]
    together = one(WHOLE_STEPS[0], jax.tree.map(lambda *a: np.stack(a, axis=-1), *begun), at, lower, upper)
    for k, state in enumerate(begun):
        alone = one(WHOLE_STEPS[0], state, all_at[k], lower[:, k], upper[:, k])
        for name in ("trial", "predicted", "offset", "radius"):
            mine, expected = getattr(together, name)[..., k], getattr(alone, name)
            np.testing.assert_allclose(mine, expected, rtol=digits_left(k), err_msg=name)
        assert together.status[k] == alone.status and together.full[k] == alone.full
