"""Predicted memory of a process that sums, above what it takes idle when all is imported.

A process holds, once: JAX, its compiler and the code of the kernels (the base), and the data kept between
passes.  And for each task at a time: the decoded chunks of a leaf, the buffers of their codec, and the
aligned arrays of a leaf; to these the chunks that it reads ahead.  The C library keeps
what a thread has freed for that thread, and stores decode in threads of their own, so that a task costs more
than it holds at any moment: `COPIES` are fitted to resident memory as the kernel counts it, with one and two
tasks at a time, chunks of 2 to 46 MiB and the workloads of ``tests.benchmarks.peak_memory``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MIB = 1 << 20
# JAX and a first kernel, and more for each column of derivatives, where no dry run has measured them.
BASE_BYTES, BASE_COLUMN_BYTES = 85 * MIB, MIB
# What a client compiles beside the kernel: the solver's step and the covariance, and with a warm-up its loop.
STEP_BYTES = 48 * MIB
WARMUP_BYTES, WARMUP_COLUMN_BYTES = 56 * MIB, 4.5 * MIB
# A process that sums goes on growing by so much after its first leaves.
LATER_BYTES = 4 * MIB
# What the C library keeps of reading a chunk, by its decoded bytes: buffers of codecs and copies, in the
# arenas of several threads; the filters of HDF5 hold a chunk once more each.
COPIES, HDF5_COPIES = 3.0, 7.0
COPIES_AHEAD = 0.6  # reading ahead mostly uses again what is kept anyhow
LEAF_ARRAYS = 3  # float64 arrays as long as a leaf: its slabs, beside those that the base has already
LEAST_TASK_BYTES = 4 * MIB  # a thread's own share of the C library's memory, however small the leaves
REPORT_BYTES = 2048  # of a partition, beside its nodes
UNEVENNESS = 1.1


@dataclass(frozen=True)
class Footprint:
    """Bytes that a process takes.

    Attributes
    ----------
    base : once, however many tasks run.
    task : for each task at a time.
    ahead : for each task that reads ahead, beside that.
    """

    base: int
    task: int
    ahead: int

    def peak(self, tasks: int, read_ahead: bool, kept: int) -> int:
        """With so many tasks at a time and so many bytes kept between passes."""
        return self.base + tasks * (self.task + self.ahead * read_ahead) + kept


def footprint_of(
    leaf_bytes: int,
    chunk_bytes: int,
    leaf_points: int,
    columns: int,
    kind: str | None,
    base: int | None = None,
    programs: int = 0,
    temporaries: int = 0,
) -> Footprint:
    """Footprint of a fit.

    Parameters
    ----------
    leaf_bytes : decoded bytes of the chunks that a leaf is made of, of all arrays; the largest.
    chunk_bytes : of one chunk, of all arrays; the largest.
    leaf_points : of a padded leaf.
    columns : varying parameters.
    kind : of the store that tasks read, see `dfit.data.storage.Storage`; None where the data are in memory.
    base : as a dry run has measured it: resident memory after it, less that before and less the data.
    programs : bytes of what a client compiles, where the tasks run in its process, see `programs_of`.
    temporaries : bytes of the compiled kernel, as its compiler says; 0 where it is not known.
    """
    task = max(leaf_points * 8 * LEAF_ARRAYS, LEAST_TASK_BYTES) + temporaries
    ahead = 0
    if kind is not None:
        copies = HDF5_COPIES if kind in ("netcdf", "hdf5") else COPIES
        task += leaf_bytes + int(copies * chunk_bytes)
        ahead = int(COPIES_AHEAD * leaf_bytes)
    if base is None:
        base = _base(columns)
    return Footprint(base + LATER_BYTES + programs, task, ahead)


def client_peak(partitions: int, columns: int, warms_up: bool) -> int:
    """Predicted memory of a client whose tasks run elsewhere, above what it takes idle."""
    reports = partitions * (REPORT_BYTES + 16 * (columns + 2) ** 2)
    return _base(columns) + programs_of(columns, warms_up) + reports


def programs_of(columns: int, warms_up: bool) -> int:
    """Bytes of what a client compiles beside the kernel."""
    if warms_up:
        return WARMUP_BYTES + int(columns * WARMUP_COLUMN_BYTES)
    return STEP_BYTES


def kept_each(kept: int, processes: int) -> int:
    """Bytes of kept data in the fullest of some processes, which do not get the same number of partitions."""
    return kept if processes == 1 else math.ceil(UNEVENNESS * kept / processes)


def _base(columns: int) -> int:
    return BASE_BYTES + columns * BASE_COLUMN_BYTES
