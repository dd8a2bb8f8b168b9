"""Kernels and covariances of many small problems against those of one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfit.core import cholesky
from dfit.core.covariance import covariance
from dfit.core.derivatives import value_and_derivatives
from dfit.core.equations import Equations
from dfit.core.kernel import Layout, Leaf, Scalars, leaf_kernel
from dfit.core.pixel_covariance import spreads
from dfit.core.pixels import reasons, sums, survey

N, P, POINTS = 40, 3, 24
T = np.linspace(0, 8, POINTS)
RNG = np.random.default_rng(4)
THETA = RNG.uniform(1, 3, (N, P))
EDGES = {"none": (-np.inf, np.inf), "some": (THETA - 1e-9 * (np.arange(N) % 3 > 0)[:, None], THETA + 1.0)}


def evaluate(theta, coords, given, context):
    return value_and_derivatives(lambda p: p[0] * jnp.exp(-coords[0] / p[1]) + p[2], theta)


def evaluate_complex(theta, coords, given, context):
    return value_and_derivatives(lambda p: p[0] * jnp.exp((-1 / p[1] + 1j * p[2]) * coords[0]), theta)


def leaf(is_complex: bool) -> Leaf:
    """A pixel with each kind of point that does not count."""
    y = 3 * np.exp(-T / 2) + 0.3 * np.random.default_rng(1).standard_normal(POINTS)
    y = y * np.exp(0.4j * T) if is_complex else y
    y[3], y[9] = np.nan, 7.0
    sigma = np.linspace(0.1, 0.3, POINTS)
    sigma[5] = np.inf
    x = T.copy()
    x[7] = np.nan
    return Leaf(y, (x,), sigma, np.arange(POINTS) != 11, (), POINTS)


KINDS = [
    ("linear", False),
    ("linear", True),
    ("huber", False),
    pytest.param("soft_l1", True, marks=pytest.mark.long),
    pytest.param("cauchy", True, marks=pytest.mark.long),
    pytest.param("arctan", False, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("loss", "is_complex"), KINDS)
def test_sums_over_points_are_those_of_the_kernel_of_one_fit(loss, is_complex):
    layout = Layout("normal", loss, POINTS, is_complex)
    model, theta = evaluate_complex if is_complex else evaluate, np.array([2.8, 1.7, 0.4])
    scalars = Scalars(2.0, 0.7, True, ())
    with jax.enable_x64(True):
        one = jax.jit(leaf_kernel(model, layout))(theta, leaf(is_complex), scalars)
        pixels = jax.tree.map(lambda a: a[:, None], leaf(is_complex)._replace(n=None))._replace(n=POINTS)
        (counts,) = reasons(pixels)
        (count,), (moments,), columns = survey(layout)(pixels, scalars)
        held = scalars._replace(context=(np.zeros((0, 1)), {}))
        found = jax.jit(sums(model, layout))(theta[:, None], columns, held)
    square = np.zeros((P + 1, P + 1))
    square[np.triu_indices(P + 1)] = found["matrix"][:, 0]
    np.testing.assert_allclose(square, np.triu(one["matrix"]), rtol=1e-12, atol=1e-12)
    for name in ("cost", "psi2"):
        np.testing.assert_allclose(found[name][0], one[name], rtol=1e-12)
    assert count == one["count"] == (POINTS - 4) * (2 if is_complex else 1)
    np.testing.assert_array_equal(counts, one["counts"])
    np.testing.assert_allclose(moments, one["moments"], rtol=1e-12, atol=1e-13)


def roots(deficient: tuple[int, ...] = ()) -> np.ndarray:
    """Roots (N, p + 1, p + 1), some of them without full rank."""
    found = RNG.normal(size=(N, P + 1, P + 1)) * [1e-8, 1, 1e6, 1]
    found[list(deficient), :, 1] = 0
    return np.linalg.qr(found, mode="r")


def equations(root: np.ndarray) -> Equations:
    psi2 = (root[..., P] ** 2).sum(axis=1)
    return Equations(root, psi2 / 2, psi2, psi2 * 9, np.full(N, 20.0), np.ones(N, bool))


def robust(root: np.ndarray) -> np.ndarray:
    """Bread and meat near J^T J, (N, 2, p, p)."""
    weights = RNG.uniform(0.6, 1.4, (2, N, P + 1, 1))
    jacobian = root[..., :P]
    return np.stack([np.swapaxes(jacobian, 1, 2) @ (w * jacobian) for w in weights], axis=1)


invert = jax.jit(jax.vmap(cholesky.inverse))


def inverted(root, free):
    with jax.enable_x64(True):
        return np.asarray(invert(root, free))


def assert_as_one_by_one(at, well, lower=-np.inf, upper=np.inf, sandwich=None, bread=False, absolute=False):
    low, high = (np.broadcast_to(limit, THETA.shape) for limit in (lower, upper))
    found = spreads(
        at, THETA, low, high, well, inverted, absolute_sigma=absolute, sandwich=sandwich, bread=bread
    )
    for k in range(N):
        one = covariance(
            Equations(*(part[k] for part in at)),
            THETA[k],
            low[k],
            high[k],
            absolute_sigma=absolute,
            bread=sandwich[k, 0] if bread else None,
            meat=None if sandwich is None else sandwich[k, 1],
        )
        unit = np.linalg.norm(at.root[k, :, :P], axis=0)
        unit = np.outer(*2 * [np.where(unit > 0, unit, 1.0)])
        scale = np.nanmax(np.abs(np.where(np.isfinite(one.matrix), one.matrix * unit, 0)), initial=1e-300)
        np.testing.assert_allclose(
            found.matrix[k] * unit / scale, one.matrix * unit / scale, rtol=1e-8, atol=1e-9, equal_nan=True
        )
        assert found.nfree[k] == one.nfree and found.undetermined[k] == one.undetermined.any()
    return found


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("edges", EDGES)
def test_covariances_of_many_are_those_of_one(edges, absolute):
    found = assert_as_one_by_one(equations(roots()), np.ones(N, bool), *EDGES[edges], absolute=absolute)
    assert np.isnan(found.matrix).any() == (edges == "some")


@pytest.mark.parametrize("bread", [True, False])
@pytest.mark.parametrize("edges", EDGES)
def test_sandwiches_of_many_are_those_of_one(edges, bread):
    root = roots()
    both = robust(root)
    found = assert_as_one_by_one(equations(root), np.ones(N, bool), *EDGES[edges], sandwich=both, bread=bread)
    np.testing.assert_array_equal(found.matrix, np.swapaxes(found.matrix, 1, 2))


@pytest.mark.parametrize("bread", [True, False])
def test_a_pixel_without_a_regular_sandwich_is_told_as_one_fit_is(bread):
    root = roots(deficient=(3,))
    both = robust(root)
    both[5, 0] *= -1  # no minimum
    both[6, 1] = np.inf  # sums that overflowed
    both[7, 1] = 0  # as many points as parameters
    both[8, 0, 0, 0] *= 1e-9  # not positive
    well = np.arange(N) % 2 == 0
    well[[5, 7]] = True
    found = assert_as_one_by_one(equations(root), well, sandwich=both, bread=bread)
    assert found.undetermined[3] and np.isnan(found.matrix[6]).all()
    assert np.isnan(found.matrix[5]).all() == bread
    assert (found.matrix[7] == 0).all()


def test_rank_and_equations_that_are_not_finite_are_told_as_one_fit_is():
    root = roots(deficient=(3, 4))
    at = equations(root)
    at.finite[6] = False
    root[6] = 0
    well = np.ones(N, bool)
    found = assert_as_one_by_one(at, well)
    assert found.undetermined[[3, 4]].all() and found.undetermined.sum() == 2
    assert found.nfree[3] == 18 and np.isnan(found.matrix[6]).all()
