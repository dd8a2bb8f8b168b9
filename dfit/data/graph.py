"""What a partition must compute before its points can be summed: its own piece of the dask graph.

Upstream graphs (a read, a calibration, a mask) are cut so that one partition is one task.  A key that
only one partition needs goes into that task.  A key that several need (the mean in
``y - y.mean("time")``) is *kept*: computed once, before the first pass, and handed to every task.
What a kept key is made of is not read again for its sake.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cloudpickle
import dask
import dask.array
import numpy as np
from dask._task_spec import Alias, DataNode, GraphNode, convert_legacy_graph, cull
from dask.core import toposort

from dfit.data.plan import Chunk, Partition, Source, middle

SHARED = -1
SMALL_LITERAL_BYTES = 100_000


@dataclass(frozen=True)
class Work:
    """What one partition reads: a piece of graph, and for each chunk and source a key or an array.

    ``needs`` are kept keys; their values arrive beside the work.
    """

    partition: Partition
    graph: dict[Any, Any] = field(default_factory=dict)
    items: tuple[tuple[Any, ...], ...] = ()
    needs: tuple[Any, ...] = ()

    def without_data(self) -> Work:
        """Partition and keys alone, for a task whose arrays are already where it runs."""
        items = tuple(tuple(item if isinstance(item, Key) else None for item in row) for row in self.items)
        return Work(self.partition, {}, items)


@dataclass(frozen=True)
class Key:
    """A key of the graph where otherwise an array stands."""

    name: Any


@dataclass(frozen=True)
class Upstream:
    """Work of all partitions, and the graph of the keys they share."""

    works: tuple[Work, ...]
    kept: tuple[Any, ...]
    kept_graph: dict[Any, Any]


def upstream(
    sources: Sequence[Source], grid: Sequence[Sequence[int]], partitions: Sequence[Partition]
) -> Upstream:
    """Cut the graphs of all sources by partition."""
    arrays = [_on_grid(source, grid) for source in sources]
    lazy = [a for a in arrays if isinstance(a, dask.array.Array)]
    # Collected before: dask.optimize leaves persisted blocks that nothing consumes out of its graph.
    futures = {key: node for a in lazy for key, node in _written_out(a) if is_future(node)}
    optimized = iter(dask.optimize(*lazy)) if lazy else iter(())
    arrays = [next(optimized) if isinstance(a, dask.array.Array) else a for a in arrays]
    graph: dict[Any, Any] = {}
    for a in arrays:
        if isinstance(a, dask.array.Array):
            graph.update(a.__dask_graph__())
    graph = convert_legacy_graph({k: v for k, v in graph.items() if k not in futures}, all_keys=set(graph))
    cut: dict[Any, np.ndarray] = {}
    items = [
        tuple(
            tuple(_item(a, s, chunk, cut) for a, s in zip(arrays, sources, strict=True)) for chunk in p.chunks
        )
        for p in partitions
    ]
    wanted = [{i.name for row in rows for i in row if isinstance(i, Key)} for rows in items]
    kept = _shared_keys(graph, wanted, futures)
    works = []
    for partition, rows, names in zip(partitions, items, wanted, strict=True):
        piece, needs = _piece(graph, names, kept)
        works.append(Work(partition, piece, rows, tuple(sorted(needs, key=str))))
    used = {key for work in works for key in work.needs}
    kept_graph = {**cull(graph, used - set(futures)), **{k: futures[k] for k in used & set(futures)}}
    return Upstream(tuple(works), tuple(sorted(used, key=str)), kept_graph)


def split(work: Work) -> list[Work]:
    """The work as two that follow each other and have the same leaves; alone where no chunks can be parted."""
    p = work.partition
    chunks, leaves = middle(p.chunks)
    if not chunks:
        return [work]
    first = replace(p, leaves=leaves, chunks=p.chunks[:chunks])
    second = replace(p, first_leaf=p.first_leaf + leaves, leaves=p.leaves - leaves, chunks=p.chunks[chunks:])
    return [_part(work, first, work.items[:chunks]), _part(work, second, work.items[chunks:])]


def _part(work: Work, partition: Partition, rows: tuple[tuple[Any, ...], ...]) -> Work:
    names = [item.name for row in rows for item in row if isinstance(item, Key)]
    graph, needs = _piece(work.graph, names, set(work.needs))
    return Work(partition, graph, rows, tuple(key for key in work.needs if key in needs))


def is_future(node: Any) -> bool:
    """Whether a value of a graph is a Future: a block that the user has persisted on a cluster."""
    return not isinstance(node, GraphNode) and hasattr(node, "add_done_callback")


def on_cluster(array: Any) -> bool:
    """Whether blocks of an array are persisted on a cluster."""
    return isinstance(array, dask.array.Array) and any(is_future(node) for _, node in _written_out(array))


def _written_out(array: dask.array.Array) -> Iterator[tuple[Any, Any]]:
    """Nodes of the layers that are plain mappings, as those of persisted arrays are."""
    graph = array.__dask_graph__()
    for layer in getattr(graph, "layers", {"": graph}).values():
        mapping = getattr(layer, "mapping", layer if isinstance(layer, dict) else {})
        yield from mapping.items()


def _on_grid(source: Source, grid: Sequence[Sequence[int]]) -> Any:
    """The source's array, a lazy one cut like y."""
    data = source.array.data
    if isinstance(data, dask.array.Array):
        return data.rechunk(tuple(grid[axis] for axis in source.axes))
    return np.asarray(data)


def _item(array: Any, source: Source, chunk: Chunk, cut: dict[Any, np.ndarray]) -> Any:
    """Key or part of a source for a chunk.

    Chunks beside each other share the parts of what lies along fewer dimensions: ``cut`` has them by place,
    so that they travel once in a task and not once a chunk.
    """
    if isinstance(array, dask.array.Array):
        return Key((array.name, *(chunk.index[axis] for axis in source.axes)))
    place = (id(array), *((chunk.start[a], chunk.shape[a]) for a in source.axes))
    if place not in cut:
        cut[place] = array[tuple(slice(chunk.start[a], chunk.start[a] + chunk.shape[a]) for a in source.axes)]
    return cut[place]


def _shared_keys(
    graph: Mapping[Any, Any], wanted: Sequence[set[Any]], futures: Mapping[Any, Any]
) -> set[Any]:
    """Keys that tasks of two partitions need directly.

    Consumers first: a key belongs to the partitions of its consumers, but a shared consumer is
    computed apart and asks nothing of any partition.
    """
    owner: dict[Any, int] = {}

    def claim(key: Any, partition: int) -> None:
        owner[key] = partition if owner.get(key, partition) == partition else SHARED

    for index, names in enumerate(wanted):
        for key in names:
            claim(key, index)
    shared = set(futures)
    there = set(futures)
    for key in reversed(toposort(graph, {k: v.dependencies - there for k, v in graph.items()})):
        who = owner.get(key)
        if who is None:
            continue
        if who == SHARED and not _small_literal(graph[key]):
            shared.add(key)
            continue
        for dependency in graph[key].dependencies:
            claim(dependency, who)
    return shared


def _small_literal(node: Any) -> bool:
    """Whether a node is a value that may travel in every task (a file's description, say)."""
    if isinstance(node, Alias):
        return True
    if not isinstance(node, DataNode):
        return False
    if isinstance(node.value, np.ndarray):
        return node.value.nbytes <= SMALL_LITERAL_BYTES
    try:
        return len(cloudpickle.dumps(node.value)) <= SMALL_LITERAL_BYTES
    except TypeError:  # an open file: good in this process, and refused where it must travel
        return True


def _piece(graph: Mapping[Any, Any], names: Iterable[Any], kept: set[Any]) -> tuple[dict[Any, Any], set[Any]]:
    """Nodes that compute ``names`` from kept keys, and the kept keys they need."""
    piece: dict[Any, Any] = {}
    needs: set[Any] = set()
    todo = list(names)
    while todo:
        key = todo.pop()
        if key in kept:
            needs.add(key)
        elif key not in piece:
            piece[key] = graph[key]
            todo += graph[key].dependencies
    return piece, needs
