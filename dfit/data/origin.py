"""Where the values of a dask graph come from: the arrays at its bottom, and the file that an error must name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dask._task_spec import DataNode, GraphNode, Task


def origin(graph: Mapping[Any, Any], key: Any) -> str:
    """Path or URL that a key of a graph is read from, or "" where no node of the graph tells."""
    todo, seen = [key], {key}
    while todo:
        node = graph.get(todo.pop())
        if isinstance(node, GraphNode):  # and not what is kept, or persisted
            path = next((path for value in held_by(node) if (path := _path(value))), "")
            if path:
                return path
            new = node.dependencies - seen
            seen |= new
            todo += new
    return ""


def held_by(node: Any) -> Iterator[Any]:
    """Values that a node holds itself: its data, or the literal arguments of its task."""
    if isinstance(node, DataNode):
        yield node.value
    elif isinstance(node, Task):
        for argument in (*node.args, *node.kwargs.values()):
            if isinstance(argument, GraphNode):
                yield from held_by(argument)
            else:
                yield argument


def innermost(value: Any) -> Any:
    """The array that xarray's wrappers are around: of zarr, of h5py, of a file of xarray's, of NumPy."""
    while (inner := getattr(value, "array", getattr(value, "_array", None))) is not None:
        value = inner
    return value


def _path(value: Any) -> str:
    """Path of an array in a store: of zarr, of h5py, or of either in xarray's wrappers."""
    value = innermost(value)
    if hasattr(value, "store_path"):  # zarr
        folder = getattr(value.store, "path", None)
        return f"{folder}/{value.path}".rstrip("/") if folder else str(value.store_path)
    if hasattr(value, "datastore"):  # xarray, for NetCDF and HDF5
        return str(getattr(value.datastore, "_filename", ""))
    try:
        return str(value.file.filename)  # h5py
    except (AttributeError, ValueError):  # something else, or closed
        return ""
