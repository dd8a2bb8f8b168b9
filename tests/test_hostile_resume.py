"""Fits that go on where they should not, or not as they should: what a hostile user finds at a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit

pytestmark = pytest.mark.usefixtures("small_leaves")

N = 60
U, V = np.linspace(0, 5, N), np.linspace(1, 3, N)
NOISE = np.random.default_rng(0).normal(0, 0.1, (N, N))
ROWS = np.arange(N) // 10
SQUARE = xr.DataArray(
    3 * np.exp(-U[:, None] / 2) + 2 * np.cos(V) + 1 + NOISE,
    dims=("i", "j"),
    coords={"x": ("i", U), "y": ("j", V), "g": ("i", ROWS), "h": ("j", ROWS)},
)


def plane(first, second, a, b, c):
    return a * jnp.exp(-first / 2) + b * jnp.cos(second) + c


def fit(data: xr.DataArray = SQUARE, coords: Any = ("x", "y"), **options: Any) -> dfit.FitResult:
    return dfit.fit(plane, data, coords, **{"p0": {"a": 1, "b": 1, "c": 0}, "warmup": False, **options})


def along(dim: str, values: np.ndarray = U + 1) -> xr.DataArray:
    return xr.DataArray(values, dims=dim)


OTHER_AXIS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "coordinate": (
        {"coords": (along("i"), SQUARE.y)},
        {"coords": (along("j"), SQUARE.y)},
        "coordinate first: ",
    ),
    "sigma": ({"sigma": along("i")}, {"sigma": along("j")}, "sigma: other values"),
    "where": ({"where": along("i") > 2}, {"where": along("j") > 2}, "where: other values"),
    "groups": ({"cov": {"groups": "g"}}, {"cov": {"groups": "h"}}, "groups: other values"),
    "order": ({}, {"coords": ("y", "x")}, "coordinates: x, y, now y, x"),
}


@pytest.mark.parametrize("what", OTHER_AXIS)
def test_a_finished_fit_is_not_that_of_the_same_numbers_along_another_axis(what: str, tmp_path: Path) -> None:
    before, now, said = OTHER_AXIS[what]
    fit(**before, checkpoint=tmp_path)
    with pytest.raises(dfit.InputError, match=said):
        fit(**now, checkpoint=tmp_path)
