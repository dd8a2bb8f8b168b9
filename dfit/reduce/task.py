"""The work of one task: read a partition, sum its leaves, combine what can be combined.

Functions of an importable module that take small values and return finished NumPy: the worker needs
nothing else, a lost task can run again anywhere, and dask sees the sizes and times as they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dfit.core.jackknife import group_table
from dfit.core.kernel import Leaf, Scalars
from dfit.core.sums import DROPS, FAULTS, MISSING, Sums
from dfit.data.graph import Key, Work
from dfit.data.leaves import gather
from dfit.data.loading import Loader
from dfit.data.plan import leaves_of
from dfit.errors import WorkerError
from dfit.reduce.allocator import reset_peak, resident_bytes, tune_allocator
from dfit.reduce.kernels import Recipe, as_sums, kernel_for
from dfit.reduce.tree import Forest, covers, insert, merge

Arrays = list[list[np.ndarray]]
Trouble = tuple[str, int, range]
FIRST_PAUSE_S = 0.1  # before a failed read is tried again; doubled each time


@dataclass(frozen=True)
class Job:
    """What is the same for every task of a fit.

    ``sources`` are (role, axes, time axis or None) of the arrays that `load` gives; ``leaf_size`` the
    padded length of a leaf; ``sigma`` and ``f_scale`` scalars; ``tune`` allows `tune_allocator`.
    """

    fit: str
    skipna: bool
    retries: int

    recipe: Recipe
    sources: tuple[tuple[str, tuple[int, ...], Any], ...]
    leaf_size: int
    sigma: float
    f_scale: float
    tune: bool


@dataclass(frozen=True)
class Point:
    """Where a pass wants its sums: theta (p,), fixed values, and whether to survey the data.

    ``basis`` (p, q): coordinates in which a table of groups is summed.
    """

    theta: np.ndarray
    held: np.ndarray
    survey: bool
    basis: np.ndarray | None = None


@dataclass(frozen=True)
class Report:
    """What one task leaves behind: finished nodes of the tree, and what it cost.

    ``trouble`` lists (a fault or "not finite", how many points, chunks of the partition) by leaf.
    ``process`` tells processes apart.
    """

    partition: int
    forest: Forest
    points: int
    bytes_read: int
    read_s: float
    compute_s: float
    compilations: int
    process: str
    peak_bytes: int
    trouble: tuple[Trouble, ...]


_idle: dict[str, int] = {}


def _idle_bytes(fit: str) -> int:
    """Resident memory of this process when the fit's first task began."""
    if fit not in _idle:
        _idle.clear()
        reset_peak()
        _idle[fit] = resident_bytes()[0]
    return _idle[fit]


def read(job: Job, work: Work, kept: Sequence[Any]) -> Arrays:
    """Arrays of all chunks of a partition, to be kept in memory."""
    loader = loader_of(job, work, kept)
    return [read_chunk(job, loader, work.partition.index, k) for k in range(len(work.items))]


def loader_of(job: Job, work: Work, kept: Sequence[Any]) -> Loader:
    """Loader of a partition, from the values of the kept keys that it needs."""
    if job.tune:
        tune_allocator()
    values = dict(zip(work.needs, kept, strict=True))
    return Loader(work, [(role, time_axis) for role, _, time_axis in job.sources], values)


def read_chunk(job: Job, loader: Loader, partition: int, number: int) -> list[np.ndarray]:
    """Arrays of one chunk; a read that fails is tried again, ``retries`` times.

    Raises
    ------
    WorkerError
        With the partition and the process, when the last try failed.
    """
    for attempt in range(job.retries + 1):
        try:
            return loader.chunk(number)
        except OSError as error:  # time-outs are a kind of it
            if attempt == job.retries:
                raise WorkerError(
                    f"partition {partition} could not be read in process {_process()} "
                    f"after {attempt + 1} tries: {type(error).__name__}: {error}"
                ) from error
            time.sleep(FIRST_PAUSE_S * 2**attempt)
    raise AssertionError("unreachable: the last try returns or raises")


def _process() -> str:
    return f"{os.uname().nodename}:{os.getpid()}"


def bytes_read(work: Work, arrays: Arrays) -> int:
    """Size of what came out of the graph, each block once."""
    pairs = zip((i for row in work.items for i in row), (a for row in arrays for a in row), strict=True)
    return sum({item: array.nbytes for item, array in pairs if isinstance(item, Key)}.values())


def accumulate(
    job: Job,
    work: Work,
    point: Point,
    constants: Mapping[str, np.ndarray],
    kept: Sequence[Any] = (),
    done: Forest | None = None,
    store: dict[int, Arrays] | None = None,
) -> Report:
    """Sum the leaves of one partition at one theta.

    Parameters
    ----------
    kept : values of the kept keys that the work needs, in its order.
    done : finished nodes of an earlier try; their leaves are skipped.
    store : where this process keeps partitions in memory, if it does.
    """
    idle = _idle_bytes(job.fit)
    started = time.perf_counter()
    partition = work.partition
    loader = loader_of(job, work, kept)
    size = 0
    if store is not None and partition.index not in store:
        store[partition.index] = read(job, work, kept)
        size = bytes_read(work, store[partition.index])
    held: dict[int, list[np.ndarray]] = {} if store is None else dict(enumerate(store[partition.index]))
    read_s = time.perf_counter() - started
    kernel = kernel_for(job.recipe, constants)
    forest: Forest = {}
    trouble: list[Trouble] = []
    form = job.recipe.layout.form
    axes = [axes for _, axes, _ in job.sources]
    scalars = Scalars(job.sigma, job.f_scale, point.survey, (point.held, dict(constants)))
    points = 0
    copies: dict[int, np.ndarray] = {}
    for number, segments in enumerate(leaves_of(partition.chunks, job.leaf_size)):
        node = (0, partition.first_leaf + number)
        if done and covers(done, node[1]):
            continue
        reading = time.perf_counter()
        if store is None:
            held = _hold(job, loader, partition.index, held, [s.chunk for s in segments])
        read_s += time.perf_counter() - reading
        slabs, n = gather(segments, partition.chunks, held, axes, job.leaf_size, copies)
        points += n
        sums = _leaf_sums(job, kernel, point, slabs, n, scalars)
        trouble += _faults(sums, range(segments[0].chunk, segments[-1].chunk + 1), job.skipna)
        insert(forest, node, sums, form)
    return Report(
        partition.index,
        forest,
        points,
        size + loader.bytes_read,
        read_s,
        time.perf_counter() - started - read_s,
        kernel.new_compilations(),
        _process(),
        max(resident_bytes()[1] - idle, 0),
        tuple(trouble),
    )


def _hold(
    job: Job, loader: Loader, partition: int, held: dict[int, list[np.ndarray]], wanted: Sequence[int]
) -> dict[int, list[np.ndarray]]:
    """The wanted chunks: those held already, and the rest read."""
    held = {k: held[k] for k in wanted if k in held}  # the others go before more is read
    for k in wanted:
        if k not in held:
            held[k] = read_chunk(job, loader, partition, k)
    return held


def _leaf_sums(
    job: Job, kernel: Any, point: Point, slabs: Sequence[np.ndarray], n: int, scalars: Scalars
) -> Sums:
    by_role: dict[str, list[np.ndarray]] = {}
    for (role, _, _), slab in zip(job.sources, slabs, strict=True):
        by_role.setdefault(role, []).append(slab)
    leaf = Leaf(
        by_role["y"][0],
        tuple(by_role.get("coordinate", ())),
        by_role["sigma"][0] if "sigma" in by_role else None,
        by_role["where"][0] if "where" in by_role else None,
        (),
        n,
    )
    out = kernel(point.theta, leaf, scalars)
    if job.recipe.layout.form != "groups":
        return as_sums(out)
    return _group_sums(out, by_role["group"][0], n, point.basis)


def _group_sums(rows: dict[str, np.ndarray], codes: np.ndarray, n: int, basis: np.ndarray | None) -> Sums:
    """Sums by group of what `row_kernel` gave for a leaf with these codes, padding included."""
    groups, place = np.unique(codes[:n], return_inverse=True)
    tables = []
    for start in range(0, rows["psi"].size, codes.size):  # real, then imaginary residuals
        psi, curvature, jacobian = (
            rows[name][..., start : start + n] for name in ("psi", "curvature", "jacobian")
        )
        jacobian = jacobian if basis is None else basis.T @ jacobian
        tables.append(group_table(jacobian, psi, curvature, place, groups.size))
    zero = np.zeros(len(DROPS) + len(FAULTS))
    return Sums(np.sum(tables, axis=0), 0.0, 0.0, 0.0, np.zeros(2), zero, np.zeros(5), groups)


def _faults(sums: Sums, chunks: range, skipna: bool) -> list[Trouble]:
    """What must not occur in a leaf of these chunks of the partition."""
    counted = dict(zip(DROPS + FAULTS, sums.counts, strict=True))
    wrong = FAULTS if skipna else (*MISSING, *FAULTS)
    found = [(name, int(counted[name]), chunks) for name in wrong if counted[name]]
    if not (np.isfinite(sums.matrix).all() and np.isfinite(sums.cost)):
        found.append(("not finite", 0, chunks))
    return found


def combine_reports(reports: Sequence[Report], form: str) -> list[Report]:
    """Reports of neighbouring partitions, their nodes combined into the first."""
    forest = merge((report.forest for report in reports), form)
    return [replace(report, forest={} if i else forest) for i, report in enumerate(reports)]
