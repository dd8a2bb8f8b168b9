"""A model travels to worker processes: compiled once each, always the one that the client means."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import cloudpickle
import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from distributed import Client

import dfit

# As in a notebook, whose functions exist nowhere but in it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

N, CHUNK = 600_000, 150_000
scale = 1.0


def decay(t, a, tau):
    return a * jnp.exp(-t / tau)


def scaled(t, a, tau):
    return scale * decay(t, a, tau)


def helper(t, a, tau):
    return a * np.exp(-t / tau)


def helper_times_four(t, a, tau):
    return 4 * a * np.exp(-t / tau)


def plain(t, a, tau):
    return helper(t, a, tau)


@pytest.fixture(scope="module")
def noisy() -> xr.Dataset:
    t = np.linspace(0, 10, N)
    y = 3 * np.exp(-t / 2) + np.random.default_rng(5).normal(0, 0.05, N)
    return xr.Dataset({"y": ("i", y), "t": ("i", t)}).chunk(i=CHUNK)


def test_each_worker_compiles_once_for_all_partitions_and_passes(client: Client, noisy: xr.Dataset) -> None:
    def fresh_model(t, a, tau):
        return a * jnp.exp(-t / tau) + 0 * a * 1.25

    with dask.config.set({"dfit.partition-bytes": CHUNK * 16}):
        result = dfit.fit(fresh_model, noisy.y, {"t": noisy.t}, p0=[2, 1])
    assert result.success and result.npasses >= 4
    assert result.run.compilations == len(client.scheduler_info()["workers"]) == 2


def test_edited_global_changes_the_answer(client: Client, noisy: xr.Dataset, monkeypatch) -> None:
    before = dfit.fit(scaled, noisy.y, {"t": noisy.t}, p0=[2, 1])
    monkeypatch.setattr(sys.modules[__name__], "scale", 2.0)
    after = dfit.fit(scaled, noisy.y, {"t": noisy.t}, p0=[2, 1])
    assert after.best_values["a"] == pytest.approx(before.best_values["a"] / 2, rel=1e-9)


def test_edited_helper_changes_the_answer_of_a_plain_numpy_model(
    client: Client, noisy: xr.Dataset, monkeypatch
) -> None:
    with pytest.warns(dfit.DfitWarning, match="finite differences"):
        before = dfit.fit(plain, noisy.y, {"t": noisy.t}, p0=[2, 1])
    monkeypatch.setattr(sys.modules[__name__], "helper", helper_times_four)
    with pytest.warns(dfit.DfitWarning, match="finite differences"):
        after = dfit.fit(plain, noisy.y, {"t": noisy.t}, p0=[2, 1])
    assert after.best_values["a"] == pytest.approx(before.best_values["a"] / 4, rel=1e-7)


def test_worker_with_another_copy_of_a_module_is_refused_by_name(
    client: Client, noisy: xr.Dataset, tmp_path: Path, monkeypatch
) -> None:
    source = "import jax.numpy as jnp\ndef shape(t, a, tau):\n    return {} * a * jnp.exp(-t / tau)\n"
    file = tmp_path / "model_of_the_lab.py"
    file.write_text(source.format(1))

    def load(folder: str) -> None:
        sys.path.insert(0, folder)
        importlib.import_module("model_of_the_lab")

    client.run(load, str(tmp_path))
    file.write_text(source.format("1.5"))
    monkeypatch.syspath_prepend(str(tmp_path))
    changed = importlib.import_module("model_of_the_lab")
    with pytest.raises(
        dfit.WorkerError, match=r"another shape than the client \(module 'model_of_the_lab'\)"
    ):
        dfit.fit(changed.shape, noisy.y, {"t": noisy.t}, p0=[2, 1])


def test_constants_do_not_travel_with_every_task(client: Client, noisy: xr.Dataset) -> None:
    table = np.linspace(0, 10, 200_000)

    def looked_up(t, a, tau, table):
        return a * jnp.exp(-jnp.interp(t, table, table) / tau)

    with dask.config.set({"dfit.partition-bytes": CHUNK * 16}):
        result = dfit.fit(looked_up, noisy.y, {"t": noisy.t}, p0=[2, 1], constants={"table": table})
    assert result.best_values["tau"] == pytest.approx(2, abs=5 * result.params["tau"].stderr)
    events = [
        transfer
        for log in client.run(lambda dask_worker: list(dask_worker.transfer_incoming_log)).values()
        for transfer in log
        if any("dfit-constants" in str(key) for key in transfer["keys"])
    ]
    # One worker has them from the scheduler, the other from it: once, not once a task. Between two passes
    # distributed's memory manager may drop what lies there twice.
    tasks = result.npasses * N // CHUNK
    assert len(events) <= result.npasses < tasks / 2


def test_data_that_fit_are_read_once(client: Client, noisy: xr.Dataset) -> None:
    result = dfit.fit(decay, noisy.y, {"t": noisy.t}, p0=[2, 1])
    assert result.run.bytes_read == result.run.bytes_per_pass == N * 16
    assert "read once and kept in memory" in result.fit_report()


def test_nothing_is_left_on_the_cluster(client: Client, noisy: xr.Dataset) -> None:
    dfit.fit(decay, noisy.y, {"t": noisy.t}, p0=[2, 1])
    deadline = time.monotonic() + 60  # the scheduler hears of released futures a little later
    while time.monotonic() < deadline:
        left = [key for keys in client.has_what().values() for key in keys if "dfit" in str(key)]
        if not left:
            break
    assert left == []
