"""Maps that are fitted in passes on workers: their tables stay there, and are those of this process."""

from __future__ import annotations

import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from distributed import Client, futures_of

from dfit.reduce import pixel_memory

TIME = np.linspace(0, 8, 40)
RATE = np.random.default_rng(2).uniform(1.3, 2.7, 12)
VALUES = 5 * np.exp(-TIME[:, None] / RATE) + 1 + 0.1 * np.random.default_rng(3).standard_normal((40, 12))


def decay(time, a, tau, c):
    return a * jnp.exp(-time / tau) + c


def fit(data: xr.DataArray) -> xr.Dataset:
    return data.fit("time", decay, p0={"a": 4.0, "tau": 2.0, "c": 0.5})


def test_tables_made_in_passes_stay_on_the_workers_and_are_those_of_this_process(
    client: Client, monkeypatch: pytest.MonkeyPatch
):
    data = xr.DataArray(VALUES, {"time": TIME}, ("time", "x")).chunk(time=10, x=7)
    with dask.config.set(scheduler="synchronous"):
        expected = fit(data).compute()
    monkeypatch.setattr(pixel_memory, "TASK_FRACTION", 1e-9)
    found = fit(data)
    assert (
        "in passes" in found.attrs["dfit_plan"] and "a worker's limit of 2.00 GiB" in found.attrs["dfit_plan"]
    )
    tables = futures_of(found.curvefit_coefficients)
    assert len(tables) == 2 and all(future.status == "finished" for future in tables)
    found = found.compute()
    np.testing.assert_allclose(found.curvefit_coefficients, expected.curvefit_coefficients, rtol=1e-10)
    np.testing.assert_allclose(found.curvefit_covariance, expected.curvefit_covariance, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(found.curvefit_status, expected.curvefit_status)
