"""The peak that is announced before the fit is not exceeded by the fit."""

from __future__ import annotations

import logging
import re

import dask
import dask.utils
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import dfit


def model(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c


@pytest.mark.parametrize("partition", ["8 MiB", "64 MiB"])
def test_measured_peak_stays_under_the_predicted_one(
    caplog: pytest.LogCaptureFixture, partition: str, tmp_path
) -> None:
    n = 12_000_000
    t = np.linspace(0, 10, n)
    y = 3 * np.exp(-t / 2) + 1 + np.random.default_rng(1).normal(0, 0.1, n)
    chunks = {"y": {"chunks": (500_000,)}, "t": {"chunks": (500_000,)}}
    xr.Dataset({"y": ("i", y), "t": ("i", t)}).to_zarr(tmp_path / "d.zarr", zarr_format=2, encoding=chunks)
    stored = xr.open_zarr(tmp_path / "d.zarr")
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit="2GiB"
        ) as cluster,
        Client(cluster),
        dask.config.set({"dfit.partition-bytes": partition}),
        caplog.at_level(logging.INFO, "dfit"),
    ):
        result = dfit.fit(model, stored.y, {"t": stored.t}, p0=[2, 1, 0])
    announced = re.search(r"predicted peak ([\d.]+ \w+) above", caplog.text)
    assert announced is not None
    assert 0 < result.run.peak_bytes <= dask.utils.parse_bytes(announced[1])
    assert result.best_values["tau"] == pytest.approx(2, abs=5 * result.params["tau"].stderr)
