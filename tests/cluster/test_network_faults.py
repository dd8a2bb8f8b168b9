"""Hosts that vanish in the midst of a pass: real cables pulled, a real worker frozen, the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns import Hosts, require_namespaces

pytestmark = pytest.mark.faults

WORKERS = 3  # on hosts 1 to 3; scheduler and client are on host 0
CHUNKS, CHUNK_S, PASSES = 36, 0.15, 4
TCP_S = 12  # dask gives a connection up after so long
SETTINGS = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": f"{TCP_S}s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10s",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "10",
}
# Fits twice without a fault, then with; tells what the scheduler sees every 50 ms.
CLIENT = f"""
import json, os, sys, threading, time
import dask.array as da, jax.numpy as jnp, numpy as np, xarray as xr
from distributed import Client
import dfit, dfit.data.plan, dfit.planning

dfit.data.plan.LEAF_POINTS = 1000  # every chunk is a leaf, and
dfit.planning.KEEP_FRACTION = 1e-9  # every pass reads again

def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c

def slow(block):
    time.sleep({CHUNK_S})
    return block

def tell(**what):
    print(json.dumps({{"at": time.monotonic(), **what}}), flush=True)

def look(dask_scheduler):
    own = [t for t in dask_scheduler.tasks.values() if t.key.startswith("dfit-partition")]
    running = [t.processing_on.host for t in own if t.processing_on]
    return {{
        "hosts": sorted(w.host for w in dask_scheduler.workers.values()),
        "running": running, "done": sum(t.state == "memory" for t in own), "tasks": len(own),
    }}

def watch(client):
    while True:
        tell(**client.run_on_scheduler(look))
        time.sleep(0.05)

def fit():
    began = time.monotonic()
    found = dfit.fit(decay, data, "t", p0=[2, 1, 0], max_passes={PASSES}, tol=1e-15)
    stderr = [found.params[name].stderr for name in found.params]
    tell(seconds=time.monotonic() - began, bits=np.array([*found.theta, *stderr, found.cost]).tobytes().hex())

t = np.linspace(0, 9, 1000 * {CHUNKS})
clean = da.from_array(3 * np.exp(-t / 2) + 1 + 0.01 * np.sin(7 * t), chunks=1000)
data = xr.DataArray(da.map_blocks(slow, clean, dtype=float), dims="i", coords={{"t": ("i", t)}})
with Client(sys.argv[1], timeout=60) as client:
    client.wait_for_workers({WORKERS}, timeout=60)
    tell(pids={{address.split("/")[-1].split(":")[0]: pid for address, pid in client.run(os.getpid).items()}})
    fit()
    fit()
    threading.Thread(target=watch, args=(client,), daemon=True).start()
    fit()
    os._exit(0)  # the thread may be in the midst of a question
"""


class Cluster:
    """Scheduler and client on host 0, workers on the others, and what the client has told so far."""

    def __init__(self, hosts: Hosts, env: dict[str, str], folder: Path) -> None:
        self.hosts = hosts
        self._env = env | SETTINGS
        self._folder = folder
        at = hosts.address(0)
        self._start(0, "dask_scheduler", "--host", at, "--port", "8786", "--no-dashboard")
        for host in range(1, WORKERS + 1):
            named = (
                "--host",
                hosts.address(host),
                "--nthreads",
                "1",
                "--memory-limit",
                "1GiB",
                "--no-dashboard",
            )
            where = ("--local-directory", str(folder / str(host)), "--death-timeout", "60")
            self._start(host, "dask_worker", f"tcp://{at}:8786", *named, *where)
        self._client = hosts.start(
            0, [sys.executable, "-c", CLIENT, f"tcp://{at}:8786"], self._env, subprocess.PIPE
        )

    def _start(self, host: int, module: str, *options: str) -> None:
        with open(self._folder / f"{module}-{host}.log", "w") as log:
            self.hosts.start(
                host, [sys.executable, "-m", f"distributed.cli.{module}", *options], self._env, log
            )

    def told(self, wanted: Callable[[dict[str, Any]], Any]) -> Iterator[dict[str, Any]]:
        """What the client tells, until it is what was wanted."""
        for line in self._client.stdout:
            news = json.loads(line)
            yield news
            if wanted(news):
                return
        raise AssertionError(f"the client ended with {self._client.wait(timeout=20)}; logs in {self._folder}")

    def wait_for(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        *_, news = self.told(wanted)
        return news


@pytest.fixture
def cluster(source_environment: dict[str, str], tmp_path: Path) -> Iterator[Cluster]:
    require_namespaces()
    with Hosts(WORKERS + 1) as hosts:
        yield Cluster(hosts, source_environment, tmp_path)


def pull_the_cable(cluster: Cluster, host: int, pid: int) -> None:
    cluster.hosts.pull(host)


def freeze_the_worker(cluster: Cluster, host: int, pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("fault", [pull_the_cable, freeze_the_worker])
def test_lost_host_costs_its_detection_and_its_tasks(cluster: Cluster, fault: Callable[..., None]) -> None:
    assert_same_bits_in_time(cluster, fault, back_after_s=None)


def test_cable_that_is_back_after_8_seconds_changes_no_bit(cluster: Cluster) -> None:
    assert_same_bits_in_time(cluster, pull_the_cable, back_after_s=8)


def assert_same_bits_in_time(
    cluster: Cluster, fault: Callable[..., None], back_after_s: float | None
) -> None:
    victim = 2
    address = cluster.hosts.address(victim)
    pid = cluster.wait_for(lambda news: "pids" in news)["pids"][address]
    first, undisturbed = (cluster.wait_for(lambda news: "bits" in news) for _ in range(2))
    assert first["bits"] == undisturbed["bits"]

    def in_midst(news: dict[str, Any]) -> bool:
        return (
            address in news.get("running", ()) and news["tasks"] // 8 < news["done"] < 3 * news["tasks"] // 4
        )

    struck = cluster.wait_for(in_midst)  # tasks are running there, and others of the pass are done
    fault(cluster, victim, pid)
    began, removed, back = time.monotonic(), None, False
    for news in cluster.told(lambda news: "bits" in news):
        after = news["at"] - began
        if removed is None and address not in news.get("hosts", (address,)):
            removed = after
        if back_after_s is not None and after > back_after_s and not back:
            cluster.hosts.plug_back(victim)
            back = True
    assert news["bits"] == undisturbed["bits"]
    assert back_after_s is None or back, "the fit ended before the cable was back"
    assert removed is not None or back_after_s is not None, "nobody noticed"
    detection = TCP_S if removed is None else removed
    lost = struck["running"].count(address) * CHUNK_S * CHUNKS / struck["tasks"]
    # What is left of the fit is spread over one worker fewer.
    allowed = undisturbed["seconds"] * WORKERS / (WORKERS - 1) + detection + lost
    print(
        f"{fault.__name__}: {news['seconds']:.1f} s, undisturbed {undisturbed['seconds']:.1f} s, detected after "
        f"{'never' if removed is None else f'{removed:.1f} s'}: {news['seconds'] / allowed:.2f} of what is allowed"
    )
    assert news["seconds"] <= allowed
