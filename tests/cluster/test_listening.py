"""What listens, and where: the sockets of real processes, as the kernel lists them."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAME_FIT = [sys.executable, str(ROOT / "cluster" / "same_fit.py")]
LISTEN = "0A"
PAGE = 4096

# A fit on threads and one on the workers of a user's cluster; waits for a line after each stage.
FITS = """
import sys
import dask.array as da, jax.numpy as jnp, numpy as np, xarray as xr
import dfit

def stage(name):
    print(name, flush=True)
    sys.stdin.readline()

def fit():
    t = np.linspace(0, 9, 20_000)
    y = xr.DataArray(da.from_array(3 * np.exp(-t / 2) + 1, chunks=2000), dims="i", coords={"t": ("i", t)})
    assert dfit.fit(lambda t, a, tau, c: a * jnp.exp(-t / tau) + c, y, "t", p0=[2, 1, 0]).success

fit()
stage("threads")
from distributed import Client, LocalCluster
with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster):
    stage("cluster")
    fit()
    stage("fitted")
"""

Socket = tuple[str, int]


def listening(session: int) -> set[Socket]:
    """Addresses and ports on which the processes of a session listen."""
    handles: set[str] = set()
    lines: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) != session:
                continue
            handles |= {os.readlink(handle) for handle in (process / "fd").iterdir()}
            for table in ("tcp", "tcp6"):
                lines |= set((process / "net" / table).read_text().splitlines()[1:])
        except (FileNotFoundError, ProcessLookupError):  # it has ended, or closed the file
            continue
    rows = [line.split() for line in lines]
    return {address(row[1]) for row in rows if row[3] == LISTEN and f"socket:[{row[9]}]" in handles}


def address(text: str) -> Socket:
    """From the kernel's hexadecimal words, each little-endian."""
    host, port = text.split(":")
    words = bytes.fromhex(host)
    packed = b"".join(words[k : k + 4][::-1] for k in range(0, len(words), 4))
    return str(ipaddress.ip_address(packed)), int(port, 16)


def open_to_others(sockets: set[Socket]) -> set[int]:
    return {port for host, port in sockets if not ipaddress.ip_address(host).is_loopback}


def start(command: list[str], env: dict[str, str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        start_new_session=True,
    )


def of_whole_cluster(process: subprocess.Popen[str]) -> set[Socket]:
    """Sockets of a scheduler and its dashboard; of two workers, their pages and their nannies."""
    deadline = time.monotonic() + 60
    while len(sockets := listening(process.pid)) < 8:
        assert time.monotonic() < deadline, sockets
    return sockets


def test_local_cluster_of_the_page_listens_on_loopback_only(
    source_environment: dict[str, str], tmp_path: Path
) -> None:
    with start([*SAME_FIT, "--cluster", "local"], source_environment, tmp_path) as process:
        dashboard = re.match(r"Dashboard: http://127\.0\.0\.1:(\d+)/status", process.stdout.readline())
        sockets = of_whole_cluster(process)
        os.killpg(process.pid, signal.SIGKILL)
    assert ("127.0.0.1", int(dashboard[1])) in sockets
    assert open_to_others(sockets) == set()


def test_cluster_of_the_security_page_listens_on_loopback_only(
    source_environment: dict[str, str], tmp_path: Path
) -> None:
    page = (ROOT / "SECURITY.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert "...  # dfit.fit(...)" in block
    script = tmp_path / "page.py"
    script.write_text(block.replace("...  # dfit.fit(...)", "input()"))
    with start([sys.executable, str(script)], source_environment, tmp_path) as process:
        assert process.stdout.readline().startswith("tls://127.0.0.1:")
        sockets = of_whole_cluster(process)
        process.stdin.write("go on\n")
    assert process.returncode == 0
    assert open_to_others(sockets) == set()


def test_slurm_cluster_of_the_page_opens_its_encrypted_scheduler_only(
    source_environment: dict[str, str], tmp_path: Path
) -> None:
    command = [*SAME_FIT, "--cluster", "slurm", "--job-script"]
    reading, writing = os.pipe()
    full = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PAGE)
    # So that the program waits, its cluster open, for a reader of what it prints.
    os.write(writing, bytes(full))
    unbuffered = {**source_environment, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=unbuffered, cwd=tmp_path, stdout=writing, start_new_session=True
    ) as process:
        os.close(writing)
        sockets: set[Socket] = set()
        deadline = time.monotonic() + 60
        while len(sockets) < 2 or not open_to_others(sockets):  # of the dashboard and the scheduler
            assert process.poll() is None and time.monotonic() < deadline, sockets
            sockets |= listening(process.pid)
        with os.fdopen(reading) as printed:
            os.read(reading, full)
            while process.poll() is None:
                sockets |= listening(process.pid)
            out = printed.read()
    scheduler = re.search(r"dask_worker tls://[^ ]+:(\d+) ", out)
    assert open_to_others(sockets) == {int(scheduler[1])}
    assert re.search(r"--tls-ca-file \S+ --tls-cert \S+ --tls-key \S+", out)
    assert list(tmp_path.iterdir()) == []  # the keys are gone


def test_fit_listens_nowhere_itself(source_environment: dict[str, str]) -> None:
    with start([sys.executable, "-c", FITS], source_environment, ROOT) as process:

        def stages() -> Iterator[tuple[str, set[Socket]]]:
            for line in process.stdout:
                yield line.strip(), listening(process.pid)
                process.stdin.write("go on\n")

        sockets = dict(stages())
    assert process.returncode == 0
    assert sockets["threads"] == set()
    assert sockets["cluster"] == sockets["fitted"] != set()
    assert open_to_others(sockets["fitted"]) == set()
