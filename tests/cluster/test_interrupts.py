"""Ctrl-C in a notebook stops the fit and nothing else: a real kernel, interrupted as its stop button does."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster
from jupyter_client import BlockingKernelClient, KernelManager

from dfit.reduce.interrupts import shield_workers

CHUNKS, PER_PARTITION = 16, 2  # four partitions for each of two threads
SET_UP = f"""
import json, os, time
import dask, dask.array as da, jax.numpy as jnp, numpy as np, xarray as xr
import dfit, dfit.data.plan, dfit.planning

dfit.data.plan.LEAF_POINTS = 1000  # so that there are several partitions,
dfit.planning.KEEP_FRACTION = 1e-9  # and every pass reads again

def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c

def tell(mark):
    handle = os.open(READS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, mark)
    os.close(handle)

def slow(block):
    tell(b"(")
    time.sleep(0.02)
    tell(b")")
    return block

t = np.linspace(0, 9, {1000 * CHUNKS})
clean = da.from_array(3 * np.exp(-t / 2) + 1 + 0.01 * np.sin(7 * t), chunks=1000)
data = xr.DataArray(da.map_blocks(slow, clean, dtype=float), dims="i", coords={{"t": ("i", t)}})
"""
START = {
    "workers": """
from distributed import Client, LocalCluster
cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
client = Client(cluster)
""",
    "threads": "dask.config.set(scheduler='threads', num_workers=2)",
}
FIT = """
seen, found = [], None
found = dfit.fit(decay, data, "t", p0=[2, 1, 0], callback=seen.append, **settings)
"""
TELL = """
print(json.dumps({
    "seen": [[event.params, event.cost] for event in seen],
    "found": found and [found.best_values, found.cost],
    "message": found and found.message,
    "known": found and [bool(np.isfinite(found.params[name].stderr)) for name in found.params],
    "report": found and found.fit_report(),
}))
"""
LEFT = """
running = client.run(lambda dask_worker: len(dask_worker.state.executing))
print(json.dumps([len(cluster.scheduler.tasks), len(client.futures), *running.values()]))
"""
WORKERS = "print(json.dumps(sorted(client.run(os.getpid).values())))"


class Notebook:
    """A kernel whose fits read slowly, and what its cells print."""

    def __init__(self, kernel: KernelManager, reads: Path, kind: str) -> None:
        self.kernel = kernel
        self.reads = reads
        self.kind = kind
        self.client: BlockingKernelClient = kernel.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, cell: str, meanwhile: Callable[[], None] = lambda: None) -> tuple[str, Any]:
        """Name of the error that the cell raised, "" where none, and the JSON that it printed."""
        cell_id = self.client.execute(cell, allow_stdin=False)
        meanwhile()
        error, printed = "", ""
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != cell_id:
                continue
            if kind == "error":
                error = content["ename"]
            elif kind == "stream" and content["name"] == "stdout":
                printed += content["text"]
            elif kind == "status" and content["execution_state"] == "idle":
                return error, json.loads(printed or "null")

    def fit(self, **settings: Any) -> dict[str, Any]:
        """What a fit that nobody interrupts has found and told."""
        assert self.run(f"settings = {settings!r}") == ("", None)
        assert self.run(FIT) == ("", None)
        return self.run(TELL)[1]

    def begun_and_ended(self) -> tuple[int, int]:
        """Reads of chunks so far."""
        marks = self.reads.read_bytes() if self.reads.exists() else b""
        return marks.count(b"("), marks.count(b")")

    def interrupted_fit(self, after: int) -> tuple[str, dict[str, Any]]:
        """Error of a fit that is interrupted in the midst of a pass, after so many reads, and what it told."""
        self.reads.unlink()

        def in_midst() -> bool:
            begun, ended = self.begun_and_ended()
            return begun > ended >= after and ended % CHUNKS >= 2 * PER_PARTITION

        def strike() -> None:  # while a task is running and others of the pass have ended
            wait_until(in_midst)
            self.kernel.interrupt_kernel()

        error, _ = self.run(FIT, strike)
        told = self.run(TELL)[1]
        wait_until(lambda: len(set(self.begun_and_ended())) == 1)  # no task is running any more
        return error, told


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_true():
        assert time.monotonic() < deadline, "it did not come about within 120 s"
        time.sleep(0.002)


@pytest.fixture(scope="module", params=START)
def notebook(
    request: pytest.FixtureRequest,
    source_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Notebook]:
    folder = tmp_path_factory.mktemp("notebook")
    kernel = KernelManager(connection_file=str(folder / "kernel.json"))
    kernel.start_kernel(env=source_environment | {"IPYTHONDIR": str(folder)}, cwd=str(folder))
    try:
        notebook = Notebook(kernel, folder / "reads", request.param)
        assert notebook.run(f"READS = {str(notebook.reads)!r}{SET_UP}") == ("", None)
        assert notebook.run(START[request.param]) == ("", None)
        yield notebook
        notebook.client.stop_channels()
    finally:
        kernel.shutdown_kernel(now=True)


def interrupt_again_and_again(notebook: Notebook, moments: list[int], **settings: Any) -> None:
    """Interrupt fits after these numbers of reads; each must keep the promise of this page."""
    undisturbed = notebook.fit(**settings)
    workers = notebook.run(WORKERS) if notebook.kind == "workers" else None
    for after in moments:
        error, told = notebook.interrupted_fit(after)
        passes = len(told["seen"])
        assert passes >= after // CHUNKS
        assert told["seen"] == undisturbed["seen"][:passes]
        if passes:
            assert error == ""
            assert "not converged: interrupted" in told["message"]
            assert told["found"] == told["seen"][-1]
            assert all(told["known"])
        else:  # there is nothing to return yet
            assert (error, told["found"]) == ("KeyboardInterrupt", None)
        if workers is not None:
            wait_until(lambda: notebook.run(LEFT) == ("", [0, 0, 0, 0]))
            assert notebook.run(WORKERS) == workers
    again = notebook.fit(**settings)
    assert again["seen"] == undisturbed["seen"]


def random_moments(count: int) -> list[int]:
    """Numbers of reads in the first five passes, none near the border of two."""
    rng = random.Random(3)
    return [CHUNKS * rng.randrange(5) + rng.randrange(2 * PER_PARTITION, CHUNKS - 4) for _ in range(count)]


def test_interrupted_fit_returns_its_last_state_and_leaves_nothing_behind(notebook: Notebook) -> None:
    interrupt_again_and_again(notebook, [5, 2 * CHUNKS + 4, 4 * CHUNKS + 9])


@pytest.mark.slow
def test_kernel_is_usable_after_20_interrupts(notebook: Notebook) -> None:
    interrupt_again_and_again(notebook, random_moments(20))
    print(f"20 interrupts of fits on {notebook.kind}: last state returned, kernel usable, nothing left")


@pytest.mark.long
def test_standard_errors_that_need_a_pass_are_unknown_after_an_interrupt(notebook: Notebook) -> None:
    undisturbed = notebook.fit(loss="huber", f_scale=0.1)
    passes = len(undisturbed["seen"])
    error, told = notebook.interrupted_fit(CHUNKS + 2 * PER_PARTITION)
    assert (error, told["seen"], any(told["known"])) == ("", undisturbed["seen"][:1], False)
    assert notebook.begun_and_ended()[1] < 2 * CHUNKS, "one more pass was read"
    error, told = notebook.interrupted_fit(passes * CHUNKS + 2 * PER_PARTITION)
    assert (error, told["found"], any(told["known"])) == ("", undisturbed["found"], False)
    assert told["message"].startswith("converged")
    assert "no standard errors: the pass that gives them was interrupted" in told["report"]


def test_workers_that_are_threads_leave_the_interrupt_to_the_notebook() -> None:
    mine = signal.getsignal(signal.SIGINT)
    with LocalCluster(processes=False, dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        shield_workers(client)
        assert signal.getsignal(signal.SIGINT) is mine


SCRIPT = """
if __name__ == "__main__":
    from distributed import Client, LocalCluster
    import dask.array as da, numpy as np, time
    import dfit.reduce.interrupts
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        dfit.reduce.interrupts.shield_workers(client)
        futures = client.map(time.sleep, [0.5] * 400, pure=False)
        print("busy", flush=True)
        client.gather(futures)
"""


def processes_of(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("struck", [signal.SIGINT, signal.SIGKILL])
def test_shielded_workers_end_with_the_process_that_started_them(
    struck: signal.Signals, source_environment: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script)],
        env=source_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == b"busy\n"
        assert len(processes_of(process.pid)) >= 3  # this one and two workers
        if struck == signal.SIGINT:
            os.killpg(process.pid, struck)  # as a terminal does
        else:
            process.kill()
        process.wait(timeout=60)
        wait_until(lambda: processes_of(process.pid) == [])
    assert process.returncode != 0
