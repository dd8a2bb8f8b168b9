"""Where the tasks of a fit run, and what memory they may take there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import dask.local
import dask.threaded
from dask.system import CPU_COUNT

from dfit.errors import InputError, warn
from dfit.limits import Limit, limit_in_force, process_limit
from dfit.reduce.allocator import held_bytes
from dfit.reduce.pulse import Pulse

if TYPE_CHECKING:
    from distributed import Client

    from dfit.reduce.runners import Get


HERE = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Site:
    """Processes that tasks run in.

    Attributes
    ----------
    get, client : dask's local scheduler or the client in force; None and None for threads of this process.
    workers : worker processes; 0 for this process alone.
    threads : tasks at a time, in all processes.
    cores : that may do their work.
    limit : of one process.
    used : bytes that the fullest of the processes holds already, counted as the limit counts.
    """

    get: Get | None
    client: Client | None
    workers: int
    threads: int
    cores: int
    limit: Limit
    used: int

    @property
    def processes(self) -> int:
        return max(self.workers, 1)

    @property
    def threads_each(self) -> int:
        """Tasks at a time in one process."""
        return -(-self.threads // self.processes)

    @property
    def keeps(self) -> bool:
        """Whether what a task has read can stay where it ran."""
        return self.client is not None or self.get in (None, dask.threaded.get, dask.local.get_sync)

    @property
    def flexible(self) -> bool:
        """Whether there may be more tasks at a time than threads are given: nobody has said how many."""
        chosen = dask.config.get("num_workers", None) is not None
        return self.client is None and self.get in (None, dask.threaded.get) and not chosen

    @property
    def words(self) -> str:
        """'3 workers' or 'this process'."""
        return f"{self.workers} worker{'s' * (self.workers != 1)}" if self.workers else "this process"


def site_of(
    get: Get | None,
    client: Client | None,
    memory_limit: str | float | None = None,
    memory_fraction: float | None = None,
) -> Site:
    """The processes that a scheduler sends tasks to, with the limit in force there.

    Parameters
    ----------
    memory_limit, memory_fraction : of one process, see `dfit.limits`.
    """
    if client is None:
        threads = 1 if get is dask.local.get_sync else _threads()
        limit = limit_in_force(memory_limit, memory_fraction)
        return Site(get, None, 0, threads, CPU_COUNT, limit, held_bytes(limit.source))
    known = Pulse(client).ask(lambda: client.scheduler.identity(n_workers=-1))
    workers = list(known["workers"].values())
    threads = max(sum(w["nthreads"] for w in workers), 1)
    limits = [(int(w["memory_limit"]), "worker memory_limit", True) for w in workers if w["memory_limit"]]
    found = min(limits, default=_shared_limit(workers))
    used = max((int(w.get("metrics", {}).get("memory", 0)) for w in workers), default=0)
    limit = limit_in_force(memory_limit, memory_fraction, found)
    if not workers and limit.enforced:
        warn(
            "the cluster has no worker yet, and memory is planned as if one had that of this process. "
            "Type: cluster.adapt(minimum=1), or memory_limit='4 GB' with that of one worker"
        )
    return Site(get, client, max(len(workers), 1), threads, _cores(workers), limit, used)


def _shared_limit(workers: list[dict]) -> tuple[int, str, bool]:
    """Of each of several workers that dask sets no limit: those of a machine share what this process may have."""
    size, source, enforced = process_limit()
    sharing = max(Counter(worker["host"] for worker in workers).values(), default=1)
    return size // sharing, f"{source}, shared by {sharing} workers" if sharing > 1 else source, enforced


def _threads() -> int:
    """Threads of a local scheduler, as dask's configuration says."""
    given = dask.config.get("num_workers", None)
    if given and (isinstance(given, bool) or not isinstance(given, Integral) or given < 0):
        raise InputError(
            f"num_workers is {given!r} in dask.config; expected an integer of at least 1. "
            "Type: dask.config.set(num_workers=4)"
        )
    return int(given or CPU_COUNT)


def _cores(workers: list[dict]) -> int:
    """Cores of the workers: all of this machine's, and elsewhere one for each thread."""
    by_host = Counter[str]()
    for worker in workers:
        by_host[worker["host"]] += worker["nthreads"]
    return max(1, sum(CPU_COUNT if host in HERE else n for host, n in by_host.items()))
