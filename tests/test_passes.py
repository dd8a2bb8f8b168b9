"""One pass: it accepts what is finished already, and gives the same bits whatever that was."""

from __future__ import annotations

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import dfit
from dfit.core.sums import Sums
from dfit.data.domain import build_domain
from dfit.errors import WorkerError
from dfit.events import PartitionDone
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.prepare import Prepared, prepare
from dfit.reduce.books import Table
from dfit.reduce.knowledge import RunningPass
from dfit.reduce.tree import Done, Forest, insert
from dfit.settings import Settings

N, CHUNK = 40 * 262_144, 262_144
THETA = np.array([3.0, 2.0])


def decay(t, a, tau):
    return a * jnp.exp(-t / tau)


def lazy() -> xr.Dataset:
    t = da.linspace(0, 10, N, chunks=CHUNK)
    return xr.Dataset({"y": ("i", 3 * da.exp(-t / 2.1) + 0.01 * da.sin(1e4 * t)), "t": ("i", t)})


def prepared(data: xr.Dataset, tasks: list[PartitionDone], retries: int = 0) -> Prepared:
    model = Model.from_callable(decay, ("t",))
    domain = build_domain(model, data.y, data.t)
    parameters = Parameters.resolve(model, p0=[1, 1])
    return prepare(model, parameters, domain, Settings(retries=retries), tasks.append)


def finished_part(ready: Prepared, form: str, parts: slice) -> RunningPass:
    """What a pass that was cut short after some partitions would have left."""
    forest: Forest = {}
    evaluator, table = ready.evaluator, Table(len(ready.partitions))
    point, job, runner = evaluator.point(THETA), evaluator.job_for(form), evaluator.runner

    def take(report) -> None:
        if report.partition in range(len(ready.partitions))[parts]:
            table.add(report)
            for node, sums in report.forest.items():
                insert(forest, node, sums, form)

    runner.run(job, point, Done(), take)
    return RunningPass(THETA, form, forest, table)


def gone_on(ready: Prepared, running: RunningPass) -> Sums:
    """Sums of a pass that goes on from what was finished."""
    ready.evaluator.restore(ready.evaluator.memory()._replace(running=running))
    return ready.evaluator.reduce(running.theta, running.form)


@pytest.mark.parametrize("form", ["normal", "triangle"])
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_pass_goes_on_from_finished_subtrees_with_the_same_bits(form: str, scheduler: str) -> None:
    with dask.config.set({"scheduler": scheduler, "dfit.partition-bytes": "8 MiB"}):
        data, tasks = lazy(), []
        ready = prepared(data, tasks)
        done = finished_part(ready, form, slice(2, 7))
        whole = ready.evaluator.reduce(THETA, form)
        everything = len(tasks)
        tasks.clear()
        rest = gone_on(ready, done)
    assert everything == len(ready.partitions) > 7
    assert len(tasks) == everything - 5
    np.testing.assert_array_equal(rest.matrix, whole.matrix)
    assert (rest.cost, rest.count) == (whole.cost, whole.count) and rest.count == N


def test_cluster_goes_on_from_finished_subtrees_with_the_same_bits() -> None:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
        dask.config.set({"dfit.partition-bytes": "8 MiB"}),
    ):
        tasks: list[PartitionDone] = []
        ready = prepared(lazy(), tasks)
        done = finished_part(ready, "normal", slice(0, 3))
        whole = ready.evaluator.reduce(THETA, "normal")
        tasks.clear()
        rest = gone_on(ready, done)
        ready.close()
    assert len(tasks) == len(ready.partitions) - 3
    np.testing.assert_array_equal(rest.matrix, whole.matrix)


def test_ill_conditioned_fit_that_starts_at_its_optimum_keeps_the_digits_of_its_standard_deviations() -> None:
    t = np.linspace(0, 9, 5000)
    columns = np.stack([np.ones_like(t), t + 300, (t + 300) ** 2], axis=1)
    y = columns @ [1.0, 2.0, 0.5] + np.random.default_rng(2).normal(0, 0.1, t.size)

    def parabola(t, a, b, c):
        return a + b * (t + 300) + c * (t + 300) ** 2

    optimum = dfit.fit(parabola, y, {"t": t}, p0=[1, 2, 0.5]).theta
    again = dfit.fit(parabola, y, {"t": t}, p0=optimum)
    q, r = np.linalg.qr(columns)
    inverse = np.linalg.inv(r / np.linalg.norm(r, axis=0)) / np.linalg.norm(r, axis=0)[:, None]
    noise = np.sqrt(np.sum((y - q @ (q.T @ y)) ** 2) / (t.size - 3))
    expected = noise * np.linalg.norm(inverse, axis=1)
    assert again.success and again.run.form == "QR"
    np.testing.assert_allclose(again.covariance.stderr, expected, rtol=1e-8)


def test_failed_read_is_tried_again_and_then_names_its_partition() -> None:
    tries: list[int] = []

    def unsteady(block: np.ndarray, broken: int) -> np.ndarray:
        tries.append(1)
        if len(tries) <= broken:
            raise OSError("the disk is away")
        return block

    data = lazy().isel(i=slice(0, CHUNK))
    with dask.config.set(scheduler="synchronous"):
        for broken, retries in ((2, 2), (3, 2)):
            tries.clear()
            y = data.y.copy(data=data.y.data.map_blocks(unsteady, broken, dtype=float, meta=np.empty(0)))
            ready = prepared(xr.Dataset({"y": y, "t": data.t}), [], retries)
            if broken <= retries:
                assert ready.evaluator.reduce(THETA, "normal").count == CHUNK
            else:
                with pytest.raises(
                    WorkerError, match=r"partition 0 .* after 3 tries: OSError: the disk is away"
                ):
                    ready.evaluator.reduce(THETA, "normal")
            assert len(tries) == 3
