"""Memory: what limits are in force, what a fit will need, and whether its data fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dask.local
from dask.system import CPU_COUNT
from dask.utils import format_bytes

from dfit.limits import process_limit
from dfit.reduce.allocator import resident_bytes
from dfit.reduce.pulse import Pulse

if TYPE_CHECKING:
    from distributed import Client

# Of the memory that is free when a fit begins, data kept between passes may take this part: dask
# starts to spill at 0.6 of a worker's limit, and a pass needs room beside them.
KEEP_FRACTION = 0.4
# Reading holds a chunk in compressed form, decoded, and as the array of the leaf in hand.
COPIES_WHILE_READING = 2.5
# JAX, its compiler and the code of a kernel in a process that has not used them before.
FIRST_USE_BYTES = 250 << 20


@dataclass(frozen=True)
class Memory:
    """Memory of one fit, in bytes.

    Attributes
    ----------
    workers, threads : worker processes (0 for this one alone), tasks at a time in all.
    limit : of one worker, or of this process.
    data : size of the chunked data of a pass.
    keep : whether they stay in memory after the first pass.
    partition_peak : predicted peak of one worker above its idle state.
    """

    workers: int
    threads: int
    limit: int
    data: int
    keep: bool
    partition_peak: int = 0

    @property
    def room(self) -> int:
        """What may be kept beside the data."""
        free = int(KEEP_FRACTION * self.limit * max(self.workers, 1))
        return free - self.data if self.keep else free

    def with_chunk(self, chunk: int, leaf_points: int, columns: int) -> Memory:
        """With the predicted peak for chunks of so many bytes."""
        per_worker = -(-self.threads // max(self.workers, 1))
        # A leaf's arrays are copied into aligned ones, and a block holds its value and derivatives.
        leaf = leaf_points * 8 * 6 + (columns + 16) * 8 * (1 << 15)
        peak = FIRST_USE_BYTES + per_worker * int(COPIES_WHILE_READING * chunk + leaf)
        if self.keep:
            peak += -(-self.data // max(self.workers, 1))
        return replace(self, partition_peak=peak)

    def sentence(self, partitions: int, points: int) -> str:
        """The decision in words."""
        where = f"{self.workers} workers" if self.workers else "this process"
        if not self.data:
            how = "data in memory"
        elif self.keep:
            how = f"data ({format_bytes(self.data)}) are kept in memory after the first pass"
        else:
            how = f"data ({format_bytes(self.data)}) are read again in every pass"
        return (
            f"{points} points in {partitions} partitions on {where}, {self.threads} at a time; {how}; "
            f"predicted peak {format_bytes(self.partition_peak)} above an idle process, "
            f"limit {format_bytes(self.limit)}"
        )


def memory_of(get: Callable[..., Any] | None, client: Client | None, data: int) -> Memory:
    """Limits in force where the tasks will run, and whether ``data`` bytes may be kept there."""
    if client is not None:
        known = Pulse(client).ask(lambda: client.scheduler.identity(n_workers=-1))
        workers = list(known["workers"].values())
        threads = sum(w["nthreads"] for w in workers)
        limits = [w["memory_limit"] or process_limit()[0] for w in workers]
        limit = int(min(limits, default=process_limit()[0]))
        keep = 0 < data <= KEEP_FRACTION * sum(limits)
        return Memory(max(len(workers), 1), max(threads, 1), limit, data, keep)
    one_at_a_time = get is dask.local.get_sync
    threads = 1 if one_at_a_time else int(dask.config.get("num_workers", None) or CPU_COUNT)
    limit = process_limit()[0]
    here = get is None or get in (dask.threaded.get, dask.local.get_sync)
    keep = here and 0 < data <= KEEP_FRACTION * (limit - resident_bytes()[0])
    return Memory(0, threads, limit, data, keep)
