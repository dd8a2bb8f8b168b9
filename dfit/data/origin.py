"""Where the values of a dask graph come from, for errors that must name a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask._task_spec import DataNode, GraphNode


def origin(graph: Mapping[Any, Any], key: Any) -> str:
    """Path or URL that a key of a graph is read from, or "" where no node of the graph tells."""
    todo, seen = [key], {key}
    while todo:
        node = graph.get(todo.pop())
        if isinstance(node, DataNode):
            path = _path(node.value)
            if path:
                return path
        elif isinstance(node, GraphNode):  # and not what is kept, or persisted
            new = node.dependencies - seen
            seen |= new
            todo += new
    return ""


def _path(value: Any) -> str:
    """Path of an array in a store: of zarr, of h5py, or of either in xarray's wrappers."""
    while (inner := getattr(value, "array", getattr(value, "_array", None))) is not None:
        value = inner
    if hasattr(value, "store_path"):  # zarr
        folder = getattr(value.store, "path", None)
        return f"{folder}/{value.path}".rstrip("/") if folder else str(value.store_path)
    if hasattr(value, "datastore"):  # xarray, for NetCDF and HDF5
        return str(getattr(value.datastore, "_filename", ""))
    try:
        return str(value.file.filename)  # h5py
    except (AttributeError, ValueError):  # something else, or closed
        return ""
