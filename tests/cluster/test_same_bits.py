"""The same leaves give the same bits, wherever and in whatever portions they are summed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import dfit

CHUNK = 150_000  # more than half a leaf, so that every chunk is a leaf of its own
CHUNKS = 7


def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c


def parabola(t, a, b, c):  # far from its own origin: ill-conditioned, so that triangles are reduced
    return a + b * (t + 300) + c * (t + 300) ** 2


def data() -> xr.DataArray:
    rng = np.random.default_rng(11)
    t = np.sort(rng.uniform(0, 9, CHUNK * CHUNKS + 12_345))
    y = 3 * np.exp(-t / 2) + 1 + rng.normal(0, 0.1, t.size)
    y[::1000] = np.nan
    array = xr.DataArray(y.astype("f4"), dims="i", coords={"t": ("i", t)}).chunk(i=CHUNK)
    return array.assign_coords(g=("i", np.arange(t.size) // 4000))


FITS: dict[str, tuple[Any, dict[str, Any]]] = {
    "JtJ": (decay, {"p0": [2, 1, 0], "sigma": 0.1}),
    "QR": (parabola, {"p0": [1, 0, 0]}),
    "robust": (decay, {"p0": [2, 1, 0], "loss": "huber", "f_scale": 0.1, "bounds": {"tau": (0, 5)}}),
    "groups": (decay, {"p0": [2, 1, 0], "cov": {"groups": "g"}}),
}


def bits(kind: str, y: xr.DataArray, **settings: Any) -> tuple[bytes, ...]:
    model, options = FITS[kind]
    chosen = dask.config.set({"dfit.partition-bytes": "4 MiB", **settings})
    with chosen, pytest.warns(dfit.DfitWarning, match="left out"):
        found = dfit.fit(model, y, "t", **options)
    assert found.success
    assert found.run.form == ("QR" if kind == "QR" else "JtJ")
    assert found.run.compilations <= 4 * max(found.run.workers, 1)
    stderr = [found.params[name].stderr for name in found.params]
    return found.theta.tobytes(), np.array(stderr).tobytes(), np.float64(found.cost).tobytes()


@pytest.fixture(scope="module")
def y() -> xr.DataArray:
    return data()


@pytest.fixture(scope="module")
def expected(y: xr.DataArray) -> dict[str, tuple[bytes, ...]]:
    return {kind: bits(kind, y, scheduler="synchronous") for kind in FITS}


@pytest.mark.parametrize("kind", FITS)
def test_threads_change_no_bit(kind: str, y: xr.DataArray, expected: dict[str, Any]) -> None:
    assert bits(kind, y, scheduler="threads", num_workers=3) == expected[kind]


@pytest.mark.parametrize("size", ["1 B", "2 MiB", "1 GiB"])
@pytest.mark.parametrize("kind", FITS)
def test_size_of_a_partition_changes_no_bit(
    kind: str, size: str, y: xr.DataArray, expected: dict[str, Any]
) -> None:
    found = bits(kind, y, scheduler="threads", **{"dfit.partition-bytes": size})
    assert found == expected[kind]


@pytest.fixture(scope="module", params=[1, 2, pytest.param(3, marks=pytest.mark.long)])
def workers(request: pytest.FixtureRequest) -> Iterator[Client]:
    with (
        LocalCluster(n_workers=request.param, threads_per_worker=2, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_number_of_workers_changes_no_bit(workers: Client, y: xr.DataArray, expected: dict[str, Any]) -> None:
    for kind in FITS:
        assert bits(kind, y) == expected[kind], kind


def test_points_and_coordinates_in_memory_change_no_bit(y: xr.DataArray, expected: dict[str, Any]) -> None:
    again = y.assign_coords(t=y.t.chunk(i=40_000))
    assert bits("JtJ", again, scheduler="threads") == expected["JtJ"]
