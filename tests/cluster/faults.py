"""What tests of faults share: data that are slow to read, their fit, and a blow in the middle of a pass."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import dask
import dask.array as da
import numpy as np
import xarray as xr
from distributed import Client

import dfit
from dfit.events import PassDone

PARTITIONS, POINTS = 200, 2000
DEADLINE_S = 90.0


def decay(t, a, tau, c):
    import jax.numpy as jnp

    return a * jnp.exp(-t / tau) + c


def block(read_s: float, block_id: Any = None) -> np.ndarray:
    """A chunk of noisy decays, the same wherever and however often it is read."""
    time.sleep(read_s)
    rng = np.random.default_rng(block_id[0])
    t = np.linspace(0, 6, POINTS)
    return 3 * np.exp(-t / 2) + 1 + rng.normal(0, 0.1, (1, POINTS))


def slow_data(read_s: float, partitions: int = PARTITIONS) -> xr.DataArray:
    """Chunks that take so many seconds each to read, as from a busy store."""
    chunks = ((1,) * partitions, (POINTS,))
    y = da.map_blocks(block, read_s, chunks=chunks, dtype=float, meta=np.empty((0, 0)))
    return xr.DataArray(y, dims=("shot", "time"), coords={"time": np.linspace(0, 6, POINTS)})


def fit(y: xr.DataArray, **options: Any) -> dfit.FitResult:
    """The fit of slow data, one partition a chunk."""
    with dask.config.set({"dfit.partition-bytes": "1 B"}):
        return dfit.fit(decay, y, "time", p0=[2, 1, 0], **options)


def bits(result: dfit.FitResult) -> tuple[bytes, ...]:
    """All that a fault must not change."""
    stderr = np.array([result.params[name].stderr for name in result.params])
    numbers = [result.cost, result.chisqr, result.ndata, result.npasses]
    for event in result.history:
        numbers += [event.cost, event.relative_offset, event.trust_radius, *event.params.values()]
    return result.theta.tobytes(), stderr.tobytes(), result.covar.tobytes(), np.array(numbers).tobytes()


def progress(dask_scheduler: Any) -> tuple[int, dict[str, int]]:
    """Partitions of the running pass that are not finished, and those under way by the worker's address."""
    prefix = dask_scheduler.task_prefixes.get("dfit-partition")
    left = sum(prefix.states[s] for s in ("waiting", "queued", "no-worker", "processing")) if prefix else 0
    busy = {
        ws.address: sum(ts.prefix.name == "dfit-partition" for ts in ws.processing)
        for ws in dask_scheduler.workers.values()
    }
    return left, busy


class Blow(threading.Thread):
    """Strikes once so many partitions of a pass are finished and others are under way.

    Parameters
    ----------
    after, npass : how many partitions of which pass, the first is 0.
    strike : what to do, given the number of tasks by the worker's address.
    partitions : of the data.

    Attributes
    ----------
    finished, running : partitions of the pass that were finished, and under way, when it struck.
    struck_at : time.monotonic() of it; None if the fit ended before.
    gave : what ``strike`` returned.
    """

    def __init__(
        self,
        client: Client,
        strike: Callable[[dict[str, int]], Any],
        after: int,
        npass: int = 0,
        partitions: int = PARTITIONS,
    ) -> None:
        super().__init__(daemon=True)
        self._client, self._strike, self._partitions = client, strike, partitions
        self._after, self._npass = after, npass
        self._passes = 0
        self._over = threading.Event()
        self.finished = self.running = 0
        self.struck_at: float | None = None
        self.gave: Any = None

    def run(self) -> None:
        while not self._over.wait(0.005):
            left, busy = self._client.run_on_scheduler(progress)
            finished, running = self._partitions - left, sum(busy.values())
            if self._passes >= self._npass and finished >= self._after and running:
                self.finished, self.running = finished, running
                self.struck_at = time.monotonic()
                self.gave = self._strike(busy)
                return

    def count(self, event: PassDone) -> None:
        """Callback of the fit."""
        self._passes = event.npasses

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(DEADLINE_S)

    def require(self) -> None:
        """Fail unless it struck while tasks were running and finished partitions were present."""
        assert self.struck_at is not None, "the fit ended before the fault"
        assert self.finished > 0 and self.running > 0


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that its parent has not asked after is gone, too."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """What a condition gives once it is true."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {condition}"
        time.sleep(0.02)
    return found


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
