"""Partitions of a finished fit: what each gave and cost, what faults did, and what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from dfit.data.domain import Domain
from dfit.data.plan import Partition, covered, describe, extent
from dfit.reduce.books import Table
from dfit.reduce.endings import LostLeaves

TOLD = 5  # partitions that a warning names
ORDERED = "biufmM"  # kinds of values that have a smallest and a largest one
COLUMNS = {
    "points": "points that the last pass has read, missing ones among them",
    "cost": "half the weighted sum of squares (or of rho) at the parameters of the last pass; NaN: not read",
    "seconds": "reading and computing, all passes and the sample",
    "bytes_read": "all passes and the sample",
    "retries": "reads that were tried again, all passes and the sample",
    "missing": "points without a value (NaN)",
    "leaves": "pieces of fixed points that the last pass has summed",
}


@dataclass(frozen=True)
class LeftOut:
    """A partition, or a part of one, that could not be read and is no part of the answer.

    Attributes
    ----------
    partition : which one, as in `FitResult.partitions`.
    points : how many it has.
    ranges : start and stop along each dimension.
    place : the same in words, with the ranges of the coordinates.
    error : why.
    """

    partition: int
    points: int
    ranges: dict[str, tuple[int, int]]
    place: str
    error: str


@dataclass(frozen=True)
class Faults:
    """What went wrong on the way, and what was done about it.

    Attributes
    ----------
    partitions, points : of the data.
    tasks : that have ended, of all passes and the sample.
    retries : reads that were tried again.
    errors : tasks that have failed, by the type of their error.
    left_out : what could not be read.
    """

    partitions: int = 0
    points: int = 0
    tasks: int = 0
    retries: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()

    @property
    def failures(self) -> int:
        """Tasks that have failed."""
        return sum(self.errors.values())

    @property
    def sentence(self) -> str:
        """How much is left out, in words; empty where nothing is."""
        lost = self.left_out
        if not lost:
            return ""
        count, share = len({one.partition for one in lost}), sum(one.points for one in lost) / self.points
        return f"{count} of {self.partitions} partitions ({100 * share:.2g} % of the points) are left out"

    @property
    def note(self) -> str:
        """The same, by partition and place."""
        places = [one.place for one in self.left_out[:TOLD]]
        more = len(self.left_out) - len(places)
        rest = f" and {more} more, see result.left_out" if more else ""
        return (
            self.sentence
            and f"{self.sentence}, because they could not be read or summed: {', '.join(places)}{rest}"
        )

    def diagnostics(self) -> dict[str, Any]:
        """The same under the names that guides to streaming fits use; a batch is a task of one partition."""
        return {
            "total_batches_processed": self.tasks,
            "batch_success_rate": 1 - self.failures / self.tasks if self.tasks else float("nan"),
            "failed_batch_indices": sorted({one.partition for one in self.left_out}),
            "error_type_distribution": dict(self.errors),
            "retries": self.retries,
        }


@dataclass(frozen=True, eq=False)
class Shares:
    """What each partition gave, whether some of it is left out, and where it lies: (partitions, dimensions)."""

    domain: Domain
    table: Table
    start: np.ndarray
    stop: np.ndarray
    left_out: np.ndarray

    @classmethod
    def of(
        cls, domain: Domain, table: Table, partitions: Sequence[Partition], lost: Iterable[LostLeaves]
    ) -> Shares:
        """Of the table of a pass over these partitions, without what is lost."""
        chunks = [chunk for p in partitions for chunk in p.chunks]
        first = np.cumsum([0, *(len(p.chunks) for p in partitions)])[:-1]
        start = np.array([chunk.start for chunk in chunks])
        stop = start + np.array([chunk.shape for chunk in chunks])
        left_out = np.isin(np.arange(len(partitions)), [index for index, *_ in lost])
        low, high = np.minimum.reduceat(start, first), np.maximum.reduceat(stop, first)
        return cls(domain, table, low, high, left_out)

    def dataset(self) -> xr.Dataset:
        """Table on the grid of the partitions, with the ranges of dimensions and coordinates."""
        domain = self.domain
        columns = dict(self.table.columns)
        read = columns["leaves"] > 0
        columns["cost"] = np.where(read, columns["cost"], np.nan)
        variables: dict[str, Any] = {
            name: ("partition", columns[name], {"long_name": words}) for name, words in COLUMNS.items()
        }
        variables["worker"] = ("partition", np.array(self.table.workers, object))
        variables["left_out"] = ("partition", self.left_out)
        coords: dict[str, Any] = {"partition": np.arange(len(read))}
        for axis, dim in enumerate(domain.data.dims):
            coords[f"{dim}_start"] = ("partition", self.start[:, axis])
            coords[f"{dim}_stop"] = ("partition", self.stop[:, axis])
        for name, axis, values in _along_one(domain):
            low, high = _ranges(values, self.start[:, axis], self.stop[:, axis])
            coords |= {f"{name}_min": ("partition", low), f"{name}_max": ("partition", high)}
        return xr.Dataset(variables, coords)


def _along_one(domain: Domain) -> Iterator[tuple[str, int, np.ndarray]]:
    """Coordinates along one dimension that are in memory: name, axis and values."""
    y = domain.data
    found: dict[Any, xr.DataArray] = {dim: y[dim] for dim in y.dims if dim in y.indexes}
    for name, array in domain.coords.items():  # of times the offsets, where dates cannot be compared
        if name not in found or found[name].dtype.kind not in ORDERED:
            found[name] = array
    for name, array in found.items():
        if array.ndim == 1 and array.chunks is None and array.dtype.kind in ORDERED:
            yield str(name), y.dims.index(array.dims[0]), array.values


def _ranges(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value, NaN apart, from each start to its stop."""
    pairs, place = np.unique(np.stack([start, stop], axis=1), axis=0, return_inverse=True)
    runs = [values[a:b] for a, b in pairs]
    place = place.reshape(-1)
    return np.array([np.fmin.reduce(r) for r in runs])[place], np.array([np.fmax.reduce(r) for r in runs])[
        place
    ]


def left_out_of(
    domain: Domain,
    partitions: Sequence[Partition],
    lost: Iterable[LostLeaves],
    recovery: Iterable[Mapping[str, Any]],
) -> tuple[LeftOut, ...]:
    """What is left out, in the order of the data; the recovery log has the reasons."""
    why = {
        entry["partition"]: entry["detail"] for entry in recovery if entry["strategy"] == "partition left out"
    }
    found = []
    for index, first, stop in sorted(lost):
        partition = partitions[index]
        chunks, points = covered(partition, range(first, stop))
        along = extent(partition, chunks)
        ranges = {str(dim): run for dim, run in zip(domain.data.dims, along, strict=True)}
        found.append(LeftOut(index, points, ranges, describe(domain, partition, chunks), why[index]))
    return tuple(found)
