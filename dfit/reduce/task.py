"""The work of one task: read a partition, sum its leaves, combine what can be combined.

Functions of an importable module that take small values and return finished NumPy: the worker needs
nothing else, a lost task can run again anywhere, and dask sees the sizes and times as they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dfit.core.jackknife import group_table
from dfit.core.kernel import Leaf, Scalars
from dfit.core.sums import DROPS, FAULTS, Sums, as_sums, faults, missing
from dfit.core.validation import is_finite
from dfit.data.drawing import Drawn, Share
from dfit.data.graph import Work
from dfit.data.leaves import gather
from dfit.data.plan import Partition, Segment, leaves_of
from dfit.errors import ModelError, ReadFailed
from dfit.reduce.allocator import idle_bytes, resident_bytes, slabs_of
from dfit.reduce.job import Job, Point
from dfit.reduce.kernels import Kernel, kernel_for
from dfit.reduce.not_finite import first_point
from dfit.reduce.reading import Held, Reading, ahead_of, process_name
from dfit.reduce.tree import Done, Forest, insert, merge


class Trouble(NamedTuple):
    """What must not occur, in a leaf: a fault or "not finite", at how many points, in which chunks.

    ``point``: the first point that is not finite, in words; looked for by ``validate="full"``.
    """

    what: str
    count: Any  # a plain int would hide tuple.count
    chunks: range
    point: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a piece of a partition could not be summed, through no fault of model or data.

    ``kind`` is "read", "memory" or "killed", ``error`` the exception's type, ``text`` all of it in words;
    ``leaves`` are those of the piece.
    """

    kind: str
    error: str
    text: str
    leaves: range


@dataclass(frozen=True)
class Report:
    """What one task leaves behind: finished nodes of the tree, and what it cost.

    Attributes
    ----------
    leaves, points, cost : what was summed.
    missing : points left out for a NaN; counted by the surveying pass alone.
    content : 64-bit sum of the bits of what was read.
    retries : reads that were tried again.
    read_s : seconds that reading took, in whichever thread; chunks that are read at once count each.
    wait_s : seconds that the task waited for reads.
    compute_s : seconds of everything else in the task; ``wait_s + compute_s`` is all of it.
    compile_s : those of ``compute_s`` in which the kernel was built or compiled.
    trouble : by leaf.
    process : tells processes apart.
    drawn : points for a sample.
    failure : why there is nothing else.
    """

    partition: int
    forest: Forest
    leaves: int
    points: int
    cost: float
    missing: int
    content: int
    retries: int
    bytes_read: int
    read_s: float
    wait_s: float
    compute_s: float
    compile_s: float
    compilations: int
    process: str
    peak_bytes: int
    trouble: tuple[Trouble, ...]
    drawn: tuple[Drawn, ...] = ()
    failure: Failure | None = None


def accumulate(job: Job, work: Work, *operands: Any) -> Report:
    """`summed`, or the report of a failure that is neither the model's nor the data's."""
    try:
        return summed(job, work, *operands)
    except ModelError as error:
        raise ModelError(f"{error}, in partition {work.partition.index}") from error.__cause__
    except ReadFailed as error:
        return replace(_of_nothing(work, unread(work, error)), retries=error.tries - 1)
    except MemoryError as error:
        return failed(work, "memory", type(error).__name__, str(error))


def failed(work: Work, kind: str, error: str, text: str) -> Report:
    """Report of a piece that gave nothing, see `Failure`."""
    return _of_nothing(work, Failure(kind, error, text, leaves_of_work(work)))


def unread(work: Work, error: ReadFailed) -> Failure:
    """Why a piece could not be read."""
    return Failure("read", error.error, str(error), leaves_of_work(work))


def _of_nothing(work: Work, why: Failure) -> Report:
    index = work.partition.index
    return Report(index, {}, 0, 0, 0.0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0, process_name(), 0, (), (), why)


def leaves_of_work(work: Work) -> range:
    """Leaves that a work sums."""
    return range(work.partition.first_leaf, work.partition.first_leaf + work.partition.leaves)


def summed(
    job: Job,
    work: Work,
    point: Point,
    constants: Mapping[str, np.ndarray],
    kept: Sequence[Any] = (),
    done: Done | None = None,
    store: MutableMapping[int, Held] | None = None,
    shares: Sequence[Share] = (),
) -> Report:
    """Sum the leaves of one partition, or of a piece of it, at one theta.

    Parameters
    ----------
    kept : values of the kept keys that the work needs, in its order.
    done : leaves that are skipped, because an earlier process has summed them.
    store : where this process keeps partitions in memory, if it does.
    shares : what chunks of the partition give to a sample meanwhile; those of skipped leaves give none.
    """
    idle = idle_bytes(job.fit)
    started = time.perf_counter()
    partition, form = work.partition, job.recipe.layout.form
    kernel = kernel_for(job.recipe, constants)
    compile_s = time.perf_counter() - started
    scalars = Scalars(job.sigma, job.f_scale, point.survey, (point.held, dict(constants)))
    first, todo = partition.first_leaf, leaves_of(partition.chunks, job.leaf_size)
    leaves = [k for k in range(len(todo)) if done is None or not done.covers(range(first + k, first + k + 1))]
    wanted = [[segment.chunk for segment in todo[k]] for k in leaves]
    forest: Forest = {}
    trouble: list[Trouble] = []
    drawn: list[Drawn] = []
    points = left_out = 0
    cost = 0.0
    with slabs_of(job.fit) as slabs, Reading(job, work, kept, store) as reading:
        for k, chunks, ahead in zip(leaves, wanted, ahead_of(wanted), strict=True):
            # No name here for the arrays: the last leaf's are let go before more are waited for.
            leaf = _sum_leaf(
                job, kernel, point, scalars, todo[k], partition, reading.hold(chunks, ahead), slabs
            )
            points, cost, compile_s = points + leaf.points, cost + leaf.sums.cost, compile_s + leaf.compile_s
            left_out += missing(leaf.sums.counts)
            trouble += leaf.trouble
            insert(forest, (0, first + k), leaf.sums, form)
            begun = {segment.chunk for segment in todo[k] if segment.start == 0}
            drawn += [reading.draw(share) for share in shares if share.chunk in begun]
    return Report(
        partition.index,
        forest,
        len(leaves),
        points,
        cost,
        left_out,
        reading.content,
        reading.retries,
        reading.bytes_read,
        reading.read_s,
        reading.wait_s,
        time.perf_counter() - started - reading.wait_s,
        compile_s,
        kernel.new_compilations(),
        process_name(),
        max(resident_bytes()[1] - idle, 0),
        tuple(trouble),
        tuple(drawn),
    )


class _Summed(NamedTuple):
    """A leaf: its sums, its points, what must not occur in it, seconds in which its kernel was compiled."""

    sums: Sums
    points: int
    trouble: list[Trouble]
    compile_s: float


def _sum_leaf(
    job: Job,
    kernel: Kernel,
    point: Point,
    scalars: Scalars,
    segments: Sequence[Segment],
    partition: Partition,
    held: Mapping[int, Sequence[np.ndarray]],
    slabs: dict[int, np.ndarray],
) -> _Summed:
    """Sum the leaf of these segments; ``slabs`` as in `gather`."""
    arrays, n = gather(segments, partition.chunks, held, job.axes, job.leaf_size, slabs)
    leaf, codes = _leaf_of(job, arrays, n)
    traces, called = kernel.traces, time.perf_counter()
    out = kernel(point.theta, leaf, scalars)
    # Other threads wait for the one that compiles: it is their time, too.
    compile_s = time.perf_counter() - called if kernel.traces != traces else 0.0
    if codes is None or job.recipe.layout.form != "groups":
        sums = as_sums(out)
    else:
        sums = group_sums(out, codes, n, point.basis)
    chunks = range(segments[0].chunk, segments[-1].chunk + 1)
    return _Summed(sums, n, list(_troubles(job, sums, chunks, point, leaf, scalars)), compile_s)


def _leaf_of(job: Job, arrays: Sequence[np.ndarray], n: int) -> tuple[Leaf, np.ndarray | None]:
    """The leaf of n points that these arrays make, and the codes of its groups, if it has any."""
    by_role: dict[str, list[np.ndarray]] = {}
    for role, array in zip(job.roles, arrays, strict=True):
        by_role.setdefault(role, []).append(array)
    sigma, where, codes = (by_role.get(role, [None])[0] for role in ("sigma", "where", "group"))
    return Leaf(by_role["y"][0], tuple(by_role.get("coordinate", ())), sigma, where, (), n), codes


def group_sums(rows: dict[str, np.ndarray], codes: np.ndarray, n: int, basis: np.ndarray | None) -> Sums:
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


def _troubles(
    job: Job, sums: Sums, chunks: range, point: Point, leaf: Leaf, scalars: Scalars
) -> Iterator[Trouble]:
    """What must not occur in a leaf of these chunks of the partition."""
    for name, count in faults(sums.counts, job.skipna).items():
        yield Trouble(name, count, chunks)
    if job.validate != "none" and not is_finite(sums):
        where = (job.recipe, scalars.context[1], point.theta, leaf, scalars)
        yield Trouble("not finite", 0, chunks, first_point(*where) if job.validate == "full" else "")


def combine_reports(reports: Sequence[Report], form: str) -> list[Report]:
    """Reports of neighbouring partitions, their nodes combined into the first."""
    forest = merge((report.forest for report in reports), form)
    return [replace(report, forest={} if i else forest) for i, report in enumerate(reports)]
