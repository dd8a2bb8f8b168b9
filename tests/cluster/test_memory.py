"""The memory that a plan predicts is what the fit takes, and a limit that it calls enough is enough."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import dfit
from dfit.planning import keep_room
from dfit.reduce.site import site_of
from tests.benchmarks.peak_memory import measured_apart, settle
from tests.benchmarks.workloads import build, decay
from tests.memory_group import memory_group

ROOT = Path(__file__).parents[2]
PAGE = 4096  # of memory, of which control groups have a whole number
POINTS = 4_500_000  # a dry run has measured what the kernel takes

HERE, ONE, TWO = "1 process, 2 threads", "1 worker, 2 threads", "2 workers, 1 thread"
LONG = [
    ("decay, zarr", "streaming", ONE),
    ("decay, zarr", "cached", ONE),
    ("decay, zarr", "streaming", HERE),
    ("decay, zarr in 2,000 chunks", "streaming", TWO),
    ("decay, netcdf, float32", "streaming", ONE),
    ("peaks, zarr", "cached", TWO),
    ("rates, zarr", "streaming", TWO),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "strategy", "place"),
    LONG,
)
def test_peak_is_predicted_within_a_third_and_memory_is_steady(tmp_path, name, strategy, place):
    found = measured_apart(name, tmp_path, POINTS, strategy, place)
    assert 1 <= found["ratio"] <= 1.3, found
    assert found["variation"] < 0.1, found
    assert 0 < found["told"] <= found["predicted"], found


def limited(folder: Path, limit: int, whose: str, what: str) -> str:
    """What this file prints of a plan or a fit, as a program that the kernel gives so much memory."""
    command = [sys.executable, "-m", "tests.cluster.test_memory", str(folder), str(limit), whose, what]
    with memory_group(limit) if whose == "control group" else nullcontext([]) as inside:
        done = subprocess.run([*inside, *command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs limits of Linux")
@pytest.mark.parametrize("whose", ["ulimit", "control group"])
def test_fit_ends_well_under_the_smallest_limit_of_its_plan(tmp_path, whose):
    build("decay, zarr", tmp_path, POINTS)
    smallest = -(-int(limited(tmp_path, 2**32, whose, "plan")) // PAGE) * PAGE
    assert smallest < 2**30
    found = json.loads(limited(tmp_path, smallest, whose, "fit"))
    assert found["limit"] == smallest
    assert found["tau"] == pytest.approx(2, abs=0.01)


@pytest.mark.long
def test_cached_data_as_many_as_may_be_are_not_spilled():
    limit, workers, chunk = 1 << 30, 2, 500_000
    with (
        LocalCluster(workers, threads_per_worker=1, memory_limit=limit, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(settle)
        room = keep_room(site_of(None, client))
        chunks = int(0.98 * room / (16 * chunk))  # a worker's idle memory is not the same at every moment
        x, y = (
            da.map_blocks(block, k, chunks=((chunk,) * chunks,), dtype=float, meta=np.empty(0))
            for k in (0, 1)
        )
        data = xr.DataArray(y, {"x": ("point", x)}, ("point",))
        found = dfit.fit(decay, data, "x", p0=[2, 5, 0], strategy="cached")
        spilled = client.run(lambda dask_worker: dask_worker.data.spilled_total.disk)
        paused = client.run(lambda dask_worker: dask_worker.status.name)
    assert found.plan.kept_bytes == 16 * chunk * chunks
    assert set(spilled.values()) == {0}
    assert set(paused.values()) == {"running"}
    assert found.best_values["tau"] == pytest.approx(2, abs=0.01)


def block(which: int, block_id=None) -> np.ndarray:
    """A chunk of x, or of y."""
    x = np.linspace(0, 10, 500_000)
    noise = np.random.default_rng(block_id[0]).normal(0, 0.1, x.size)
    return 5 * np.exp(-x / 2) + 1 + noise if which else x


def main() -> None:
    folder, limit, whose, what = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    if whose == "ulimit":
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    warnings.simplefilter("ignore")
    work = build("decay, zarr", folder, POINTS)
    call = {"coords": work.coords, "p0": work.p0, "strategy": "streaming"}
    with dask.config.set(scheduler="threads", num_workers=2):
        if what == "plan":
            print(dfit.plan(work.model, work.data, **call).smallest_limit)
            return
        found = dfit.fit(work.model, work.data, **call)
    print(json.dumps({"limit": found.plan.limit.bytes, "tau": found.best_values["tau"]}))


if __name__ == "__main__":
    main()
