"""The kernel against the same sums written plainly in NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize._lsq.least_squares import IMPLEMENTED_LOSSES

from dfit.core.kernel import Layout, Leaf, Scalars, as_given, block_points, forward, leaf_kernel
from dfit.core.loss import CURVATURE_FLOOR, LOSSES
from dfit.precision import float64_on_cpu
from tests.unit.points import (
    BLOCK,
    SIZE,
    THETA,
    Points,
    decay,
    kernel_sums,
    padded,
    points_of,
    wave,
)


def plain(
    points: Points, loss: str = "linear", f_scale: float = 1.0, predict: Any = decay
) -> dict[str, np.ndarray]:
    """Weighted residuals r (n,), derivatives J (n, p) and scipy's rho."""
    with float64_on_cpu():
        f = np.asarray(predict(THETA, [points.x], None))
        jacobian = np.asarray(jax.jacfwd(lambda t: predict(t, [points.x], None))(jnp.asarray(THETA)))
    sigma = np.ones(points.x.size) if points.sigma is None else points.sigma
    r, jacobian = (points.y - f) / sigma, jacobian / sigma[:, None]
    if np.iscomplexobj(r):
        r = np.concatenate([r.real, r.imag])
        jacobian = np.concatenate([jacobian.real, jacobian.imag])
    z = (r / f_scale) ** 2
    rho = np.stack([z, np.ones_like(z), np.zeros_like(z)])
    if loss != "linear":
        IMPLEMENTED_LOSSES[loss](z, rho, cost_only=False)
    return {"r": r, "jacobian": jacobian, "z": z, "rho": rho}


def root_rows(p: dict[str, np.ndarray]) -> np.ndarray:
    h = np.maximum(p["rho"][1] + 2 * p["z"] * p["rho"][2], CURVATURE_FLOOR * p["rho"][1])
    return np.column_stack([p["jacobian"] * np.sqrt(h)[:, None], p["r"] * p["rho"][1] / np.sqrt(h)])


@pytest.mark.parametrize("n", [1, 64, 65, 512])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("form", ["normal", "triangle"])
def test_sums_are_those_of_plain_numpy(form: str, loss: str, n: int) -> None:
    points = points_of(n, sigma=True)
    out = kernel_sums(points, form, loss, 0.7)
    p = plain(points, loss, 0.7)
    rows = root_rows(p)
    matrix = out["matrix"].T @ out["matrix"] if form == "triangle" else out["matrix"]
    np.testing.assert_allclose(matrix, rows.T @ rows, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(out["cost"], 0.5 * 0.7**2 * p["rho"][0].sum(), rtol=1e-12)
    np.testing.assert_allclose(out["psi2"], ((p["r"] * p["rho"][1]) ** 2).sum(), rtol=1e-12)
    assert out["count"] == n


@pytest.mark.parametrize("form", ["normal", "triangle"])
@pytest.mark.parametrize("loss", LOSSES)
def test_root_holds_the_gradient_of_the_cost(loss: str, form: str) -> None:
    points = points_of(200)

    def cost(theta: np.ndarray) -> float:
        return float(kernel_sums(points, "normal", loss, 0.7, theta=theta)["cost"])

    h = 1e-5
    numeric = np.array([(cost(THETA + h * e) - cost(THETA - h * e)) / (2 * h) for e in np.eye(3)])
    matrix = kernel_sums(points, form, loss, 0.7)["matrix"]
    matrix = matrix.T @ matrix if form == "triangle" else matrix
    np.testing.assert_allclose(-matrix[:3, 3], numeric, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_sandwich_has_hessian_bread_and_squared_score_meat(loss: str) -> None:
    points = points_of(300, sigma=True)
    p = plain(points, loss, 0.7)
    bread, meat = kernel_sums(points, "sandwich", loss, 0.7)["matrix"]
    jacobian, (_, rho1, rho2) = p["jacobian"], p["rho"]
    curvature = rho1 + 2 * p["z"] * rho2
    np.testing.assert_allclose(bread, jacobian.T @ (jacobian * curvature[:, None]), rtol=1e-10, atol=1e-11)
    score = jacobian * (p["r"] * rho1)[:, None]
    np.testing.assert_allclose(meat, score.T @ score, rtol=1e-11, atol=1e-12)


def test_rows_are_those_of_each_point_and_zero_where_excluded() -> None:
    points = points_of(200, sigma=True)
    where = np.arange(200) % 3 > 0
    p = plain(points, "huber", 0.7)
    found = kernel_sums(points._replace(where=where), "groups", "huber", 0.7)
    _, rho1, rho2 = p["rho"]
    expected = {"jacobian": p["jacobian"].T, "psi": p["r"] * rho1, "curvature": rho1 + 2 * p["z"] * rho2}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name][..., :200], np.where(where, values, 0), rtol=1e-12, atol=1e-14)
        assert (found[name][..., 200:] == 0).all()


@pytest.mark.parametrize("form", ["normal", "triangle"])
def test_complex_data_count_as_real_and_imaginary_residuals(form: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 5, 300)
    y = np.asarray(2 * np.exp(1.4j * x)) + rng.normal(size=300) + 1j * rng.normal(size=300)
    points = Points(x, y, rng.uniform(0.5, 2, 300))
    rows = root_rows(plain(points, predict=wave))
    out = kernel_sums(points, form, predict=wave)
    matrix = out["matrix"].T @ out["matrix"] if form == "triangle" else out["matrix"]
    np.testing.assert_allclose(matrix, rows.T @ rows, rtol=1e-11, atol=1e-11)
    assert out["count"] == 600
    weight = points.sigma**-2
    mean = (weight * y).sum() / weight.sum()
    expected = [weight.sum(), mean.real, mean.imag, (weight * abs(y - mean) ** 2).sum()]
    np.testing.assert_allclose(out["moments"][:4], expected, rtol=1e-11)


def test_float32_data_are_summed_in_float64() -> None:
    points = points_of(512)
    narrow = Points(points.x.astype("f4"), points.y.astype("f4"))
    wide = Points(narrow.x.astype("f8"), narrow.y.astype("f8"))
    for name, value in kernel_sums(narrow).items():
        np.testing.assert_array_equal(value, kernel_sums(wide)[name], err_msg=name)


@pytest.mark.parametrize("scale", [1.0, 2.0**-70])
def test_float32_sigma_keeps_the_weights_in_float64(scale: float) -> None:
    points = points_of(400, sigma=True)
    sigma = (points.sigma * scale).astype("f4")
    found = kernel_sums(points._replace(sigma=sigma))
    expected = kernel_sums(points._replace(sigma=sigma.astype("f8")))
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("kind", ["i2", "u1", "i8", "?"])
def test_integer_data_are_their_values(kind: str) -> None:
    points = points_of(200)
    whole = np.abs(points.y * 10).astype(kind)
    found = kernel_sums(points._replace(y=whole, x=np.arange(200)))
    expected = kernel_sums(points._replace(y=whole.astype(float), x=np.arange(200.0)))
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_scalar_sigma_is_an_array_of_it() -> None:
    points = points_of(200)
    found = kernel_sums(points, scalar_sigma=0.3)
    expected = kernel_sums(points._replace(sigma=np.full(200, 0.3)))
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-12, err_msg=name)


def test_what_lies_in_the_padding_is_never_seen() -> None:
    points = points_of(130)
    layout = Layout("normal", "linear", BLOCK, False)
    found = []
    with float64_on_cpu():
        kernel = jax.jit(leaf_kernel(forward(decay), layout))
        for fill in (np.nan, np.inf, 0.0, 1e300):
            leaf = Leaf(padded(points.y, fill), (padded(points.x, fill),), None, None, (), 130)
            found.append(jax.tree.map(np.asarray, kernel(THETA, leaf, Scalars(1.0, 1.0, True, None))))
    for other in found[1:]:
        for name, value in other.items():
            np.testing.assert_array_equal(value, found[0][name], err_msg=name)


def test_moments_survive_a_large_mean() -> None:
    points = points_of(500, sigma=True)
    y = points.y + 1e9
    moments = kernel_sums(points._replace(y=y))["moments"]
    weight = points.sigma**-2
    mean = np.average(y, weights=weight)
    np.testing.assert_allclose(moments[1], mean, rtol=1e-15)
    np.testing.assert_allclose(moments[3], (weight * (y - mean) ** 2).sum(), rtol=1e-7)


def test_only_a_survey_counts_what_depends_on_the_data_alone() -> None:
    points = points_of(300)
    points.y[5] = np.nan
    found = kernel_sums(points, survey=False)
    assert (found["counts"] == 0).all() and (found["moments"] == 0).all()
    np.testing.assert_array_equal(found["matrix"], kernel_sums(points)["matrix"])


def test_given_values_and_derivatives_replace_the_model() -> None:
    points = points_of(200)
    with float64_on_cpu():
        f = np.asarray(decay(THETA, [points.x], None))
        jacobian = np.asarray(jax.jacfwd(lambda t: decay(t, [points.x], None))(jnp.asarray(THETA))).T
        given = (padded(f), np.pad(jacobian, ((0, 0), (0, SIZE - 200)), constant_values=np.nan))
        leaf = Leaf(padded(points.y), (padded(points.x),), None, None, given, 200)
        kernel = jax.jit(leaf_kernel(as_given, Layout("normal", "linear", BLOCK, False)))
        found = jax.tree.map(np.asarray, kernel(THETA, leaf, Scalars(1.0, 1.0, True, None)))
    for name, value in kernel_sums(points).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("p", "points"), [(1, 16384), (3, 4096), (4, 4096), (9, 2048), (100, 256), (0, 16384)]
)
def test_block_keeps_the_derivatives_near_an_eighth_of_the_cache(p: int, points: int) -> None:
    assert block_points(p) == points


def test_no_array_of_points_times_parameters_exists() -> None:
    size = 1 << 18
    leaf = Leaf(np.zeros(size), (np.zeros(size),), None, None, (), size)
    with float64_on_cpu():
        kernel = jax.jit(leaf_kernel(forward(decay), Layout("normal", "linear", 4096, False)))
        memory = kernel.lower(THETA, leaf, Scalars(1.0, 1.0, True, None)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < size * 8 / 2
