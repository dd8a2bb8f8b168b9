"""The memory allocator of a worker process, and what the process has used.

dask's nanny starts workers with ``MALLOC_TRIM_THRESHOLD_=65536``, which also freezes glibc's mmap
threshold: every array of a task is fresh memory that the kernel must zero page by page.  Three
``mallopt`` calls undo it (the same pass ran 2 to 4 times as fast).
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dfit.limits import ULIMITS

logger = logging.getLogger("dfit")

MIB = 1 << 20
# (glibc's parameter, value): the process keeps at most 256 MiB of freed memory.
SETTINGS = {"trim threshold": (-1, 256 * MIB), "mmap threshold": (-3, 32 * MIB), "top pad": (-2, 64 * MIB)}

# dask pauses a worker at 0.8 of its limit until its memory falls, which memory kept by the allocator
# never does by itself.
GIVE_BACK_ABOVE = 0.7

_tuned = False
_lock = threading.Lock()
_idle: dict[str, int] = {}
_free_slabs: dict[str, list[dict[int, np.ndarray]]] = {}


def tune_allocator() -> bool:
    """Let this process reuse freed memory, once, where dask's nanny forbade it.

    Gives whether the process is tuned.  Switched off by ``dfit.tune-allocator: false`` in dask's
    configuration of the client.
    """
    global _tuned
    with _lock:
        if _tuned or "MALLOC_TRIM_THRESHOLD_" not in os.environ or platform.libc_ver()[0] != "glibc":
            return _tuned
        mallopt = ctypes.CDLL(None).mallopt
        done = [mallopt(number, value) == 1 for number, value in SETTINGS.values()]
        _tuned = all(done)
        logger.info(
            "allocator of process %d: %s%s",
            os.getpid(),
            ", ".join(f"{name} {value // MIB} MiB" for name, (_, value) in SETTINGS.items()),
            "" if _tuned else " (refused by the C library)",
        )
        return _tuned


def give_back(limit: int) -> None:
    """Return freed memory to the system where a tuned process holds most of its limit (0 for none)."""
    if _tuned and limit and resident_bytes()[0] > GIVE_BACK_ABOVE * limit:
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> tuple[int, int]:
    """Resident memory of this process now and at its peak (0, 0 where the system does not tell)."""
    now, peak = _status("VmRSS", "VmHWM")
    return now, peak


def held_bytes(source: str) -> int:
    """Memory of this process, as a limit counts it that comes from a source, see `dfit.limits.Limit`.

    ``ulimit`` counts what is asked for and not what is touched: a quarter more in a process that has
    imported JAX, and several times as much where all addresses count.
    """
    return _status(ULIMITS[source][1] if source in ULIMITS else "VmRSS")[0]


def _status(*names: str) -> list[int]:
    """Bytes that the kernel tells of this process under some names; 0 where it does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return [int(fields[name].split()[0]) * 1024 if name in fields else 0 for name in names]


def reset_peak() -> None:
    """Let the peak start again from what is resident now (Linux)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def idle_bytes(fit: str) -> int:
    """Resident memory of this process when a task of the fit first asked, from which its peak is counted."""
    with _lock:
        if fit not in _idle:
            _idle.clear()
            reset_peak()
            _idle[fit] = resident_bytes()[0]
        return _idle[fit]


@contextmanager
def slabs_of(fit: str) -> Iterator[dict[int, np.ndarray]]:
    """Arrays for the leaves of one task of the fit, see `dfit.data.leaves.gather`, from its last task.

    What a task frees the C library gives back to the system, and the next one's first touch of every page cost
    more than the sums of a cheap model.  Kept until another fit sums here, or `let_go_of_slabs`.
    """
    with _lock:
        if fit not in _free_slabs:
            _free_slabs.clear()
        free = _free_slabs.setdefault(fit, [])
        slabs = free.pop() if free else {}
    yield slabs
    with _lock:  # not after an error, whose traceback may be kept and still shows what was in them
        free.append(slabs)


def let_go_of_slabs(fit: str) -> None:
    """Free what `slabs_of` has kept for the fit."""
    with _lock:
        _free_slabs.pop(fit, None)
