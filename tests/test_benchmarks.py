"""Short forms of the benchmarks: what they claim that does not depend on a quiet machine."""

from __future__ import annotations

import resource
import sys

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from tests.benchmarks import in_memory, kernels, out_of_core, overhead
from tests.benchmarks.nist import ragged

POINTS = 1 << 18


def test_all_kernels_of_the_benchmark_give_the_same_sums():
    expected = kernels.plain(POINTS)
    for found in (kernels.ours(POINTS), *(kernels.by_c(name, POINTS) for name in kernels.C_FLAGS)):
        np.testing.assert_allclose(found, expected, rtol=1e-10)
    triangle = kernels.ours(POINTS, form="triangle")
    np.testing.assert_allclose(triangle.T @ triangle, expected, rtol=1e-10)


def test_one_fit_in_memory_and_scipy_find_the_same_optimum():
    ours, scipy = (in_memory.one_fit(library, 20_000) for library in ("dfit", "scipy"))
    assert in_memory.distance(scipy, ours) < 1e-3
    np.testing.assert_allclose(ours["stderr"], scipy["stderr"], rtol=1e-3)
    assert ours["cpu_s"] > 0


@pytest.mark.parametrize("compressed", [True, pytest.param(False, marks=pytest.mark.long)])
def test_stored_data_are_fitted_under_a_limit_of_the_kernel(tmp_path, compressed):
    path = out_of_core.write(tmp_path, 300_000, compressed)
    limit = 2 * 10**9
    done = out_of_core.limited(["--do", "memory", "--path", str(path)], limit)
    fit = out_of_core.last_json(done)
    assert fit["success"]
    assert fit["distance"] < 4
    assert 0 < fit["peak_mib"] < 1000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on the data segment")
def test_control_that_loads_everything_dies_under_the_limit(tmp_path):
    assert hasattr(resource, "RLIMIT_DATA")
    path = out_of_core.write(tmp_path, 20_000_000, compressed=True)
    control = out_of_core.limited(["--do", "load", "--path", str(path)], 700 * 10**6)
    assert control.returncode != 0
    assert "Unable to allocate" in control.stderr or "MemoryError" in control.stderr


@pytest.mark.long
def test_overhead_counts_every_point_in_every_pass():
    passes = overhead.measure(chunks=8, rounds=2)
    assert len(passes) == 2
    assert all(one["partitions"] >= 1 for one in passes)
    assert all(0 < one["task s / threads"] < one["wall s"] * 1.01 for one in passes)


def test_coordinates_along_one_dimension_are_not_read_in_a_pass(tmp_path):
    shape = (60, 40, 50)
    axes = dict(zip(("time", "latitude", "longitude"), map(np.arange, shape), strict=True))
    grid = np.meshgrid(*axes.values(), indexing="ij", sparse=True)
    noise = np.random.default_rng(3).standard_normal(shape)
    values = (280 - 0.5 * grid[1] + 0.1 * grid[2] + 0.02 * grid[0] + noise).astype("f4")
    chunked = da.from_array(values, chunks=tuple(ragged(n, 3) for n in shape))
    y = xr.DataArray(chunked, coords=axes, dims=list(axes), name="t2m")
    path = tmp_path / "t2m.zarr"
    y.chunk(25).to_dataset().to_zarr(path, consolidated=False)

    def plane(time, latitude, longitude, t0, south, east, trend):
        return t0 + south * latitude + east * longitude + trend * time + 0 * jnp.exp(-time)

    for data in (y, xr.open_zarr(path, consolidated=False).t2m):
        result = dfit.fit(plane, data, list(axes), p0={"t0": 1, "south": 0, "east": 0, "trend": 0})
        assert result.best_values["south"] == pytest.approx(-0.5, abs=0.01)
        assert result.run.bytes_per_pass == result.run.bytes_read == values.nbytes
