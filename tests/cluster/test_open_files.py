"""Arrays over open files: good in one process, refused with the line to type where they must travel."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import h5py
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from distributed import Client

import dfit

T = np.linspace(0, 10, 5000)


def decay(t, a, tau):
    return a * jnp.exp(-t / tau)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    y = 3 * np.exp(-T / 2) + np.random.default_rng(4).normal(0, 0.05, T.size)
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file.create_dataset("y", data=y, chunks=(500,))
        file.create_dataset("t", data=T, chunks=(500,))
    return tmp_path / "bare.h5"


def test_open_h5_file_is_fitted_in_this_process(path: Path) -> None:
    with h5py.File(path) as file:
        y = da.from_array(file["y"], chunks=500)
        result = dfit.fit(decay, y, {"t": T}, p0=[1, 1])
    assert result.success and abs(result.best_values["tau"] - 2) < 5 * result.params["tau"].stderr


def test_open_h5_file_is_refused_on_a_cluster_and_the_line_works(path: Path, client: Client) -> None:
    with (
        h5py.File(path) as file,
        pytest.raises(dfit.InputError, match=r"h5py objects cannot be pickled.*phony_dims"),
    ):
        dfit.fit(decay, da.from_array(file["y"], chunks=500), {"t": T}, p0=[1, 1])
    with xr.open_dataset(path, engine="h5netcdf", phony_dims="sort", chunks={}) as stored:
        result = dfit.fit(decay, stored.y, {"t": stored.t}, p0=[1, 1])
    assert result.success and abs(result.best_values["tau"] - 2) < 5 * result.params["tau"].stderr
