"""Keys that several partitions need: computed once, before the first pass, if they are small enough."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dask._task_spec import Task
from dask.sizeof import sizeof
from dask.utils import format_bytes, key_split

from dfit.data.graph import Upstream
from dfit.data.origin import origin
from dfit.errors import InputError, WorkerError
from dfit.reduce.reading import process_name, tried_again

# A rechunk or an overlap shares blocks as large as the data; a mean shares little. Up to so many blocks
# of a kind are computed without asking.
FEW = 4


def first_of_each(shared: Upstream) -> list[Any]:
    """One key of every kind that has many, whose size tells that of the others."""
    return [keys[0] for keys in _kinds(shared.kept).values() if len(keys) > FEW]


def with_retries(shared: Upstream, retries: int) -> Upstream:
    """The same work, where each task that computes a kept key is tried again as a read of a chunk is."""
    graph = {
        key: Task(
            key,
            Patient(node.func, str(key), origin(shared.kept_graph, key), retries),
            *node.args,
            **node.kwargs,
        )
        if type(node) is Task
        else node
        for key, node in shared.kept_graph.items()
    }
    return replace(shared, kept_graph=graph)


@dataclass(frozen=True)
class Patient:
    """A function of a task that may read: called again where it fails, ``retries`` times at most."""

    func: Callable[..., Any]
    key: str
    path: str
    retries: int

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return tried_again(lambda: self.func(*args, **kwargs), self.retries, self._failed)[0]

    def _failed(self, error: Exception) -> WorkerError:
        return WorkerError(
            f"{self.key}, which several partitions need, could not be computed "
            f"{f'from {self.path} ' if self.path else ''}in process {process_name()} after {self.retries + 1} "
            f"tries: {type(error).__name__}: {error}",
            worker=process_name(),
        )


def require_room(shared: Upstream, size_of: Callable[[Any], int], room: int) -> None:
    """Refuse to keep more than ``room`` bytes.

    Parameters
    ----------
    size_of : gives the bytes of a key of `first_of_each`.

    Raises
    ------
    InputError
        With the line to type instead.
    """
    sample = set(first_of_each(shared))
    total, largest = 0, ("", 0)
    for kind, keys in _kinds(shared.kept).items():
        if keys[0] in sample:
            size = size_of(keys[0]) * len(keys)
            total += size
            largest = max(largest, (kind, size), key=lambda item: item[1])
    if total > room:
        raise InputError(
            f"blocks of {largest[0]!r} are needed by several partitions each (a rechunk or an overlap shares "
            f"them); keeping them takes {format_bytes(total)}, and {format_bytes(room)} may be kept. "
            "Type: y = y.persist() on a cluster with more memory, or y.to_zarr(path) first and fit that"
        )


def _kinds(keys: Sequence[Any]) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = defaultdict(list)
    for key in keys:
        out[key_split(key)].append(key)
    return out


def size_in_bytes(value: Any) -> int:
    """Memory that a value takes."""
    return int(sizeof(value))
