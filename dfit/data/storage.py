"""How the data of an array are stored: what decides the price of a read, and whether threads can share it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dask.array
import numpy as np
import xarray as xr
from dask._task_spec import DataNode, GraphNode, Task, convert_legacy_graph
from dask.blockwise import Blockwise

from dfit.data.graph import is_future
from dfit.data.origin import held_by, innermost

# Filters of HDF5 by their number.  Source: the HDF Group's list of registered filter plugins.
_HDF5_FILTERS = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32026: "blosc2",
}
# What the metadata of a file raise that has been closed, removed or cut since.
_GONE = (OSError, RuntimeError, ValueError, KeyError)


@dataclass(frozen=True)
class Storage:
    """How the chunks of an array are stored; nothing in it says where.

    Attributes
    ----------
    kind : str
        "zarr", "netcdf", "hdf5", "memory", "computed" (by dask: made, or persisted on a cluster) or "other".
    codec : str
        Filters and compressors in the order of writing, such as "zstd", "blosc:lz4" or "shuffle+gzip"; "none", or
        "unknown".
    locked : bool
        Whether threads of one process wait for each other to read: for the lock of a library, or the user's.
    chunk_bytes : int
        Size of a stored chunk when decoded, in the type it is stored in; 0 where any part can be read alone.
    """

    kind: str
    codec: str
    locked: bool
    chunk_bytes: int


def storage_of(array: xr.DataArray) -> Storage:
    """How the data of an array are stored, as the block in its middle tells; none of them are read.

    Of several arrays below the block (a scan, its dark image), the largest that is in a store counts.
    """
    if array.chunks is None:  # a fit loads these once, as a whole
        return Storage("memory", "none", False, 0)
    nodes = list(_nodes(array.data))
    values = [value for node in nodes for value in held_by(node)]
    shared_lock = any(hasattr(value, "acquire") and hasattr(value, "release") for value in values)
    arrays = [(points, value) for value in values if (points := _points(value)) is not None]
    stored = [(points, known) for points, value in arrays if (known := _stored(value, shared_lock))]
    if stored:
        return max(stored, key=lambda found: found[0])[1]
    if any(isinstance(value, np.memmap) for _, value in arrays):
        return Storage("other", "none", shared_lock, 0)
    if not all(isinstance(value, np.ndarray | np.generic) for _, value in arrays):
        return Storage("other", "unknown", shared_lock, 0)
    if any(node is None or (isinstance(node, Task) and not node.dependencies) for node in nodes):
        return Storage("computed", "none", shared_lock, 0)
    return Storage("memory" if arrays else "other", "none" if arrays else "unknown", shared_lock, 0)


def lock_advice(storage: Storage, threads: int) -> str | None:
    """What to type where ``threads`` of one process would decode compressed chunks one after the other."""
    if threads < 2 or not storage.locked or storage.codec in ("none", "unknown"):
        return None
    return (
        f"the data are compressed ({storage.codec}) and read behind a lock of their library, so the {threads} "
        "threads of a process decode one after the other: read in processes, "
        "`from dask.distributed import Client; Client(processes=True, threads_per_worker=1)`, or convert the data "
        "once, `xr.open_dataset(...).to_zarr(path)`"
    )


class _Blocks:
    """Values of a graph by key; the blocks beside one that is asked for are not written out."""

    def __init__(self, graph: Any) -> None:
        self.layers: Mapping[Any, Any] = getattr(graph, "layers", {"": graph})

    def __contains__(self, key: Any) -> bool:
        return self._layer(key) is not None

    def __getitem__(self, key: Any) -> Any:
        layer = self._layer(key)
        return (layer.cull({key}, ())[0] if isinstance(layer, Blockwise) else layer)[key]

    def _layer(self, key: Any) -> Any:
        own = self.layers.get(_name(key))
        if isinstance(own, Blockwise):
            return own
        # A layer may hold keys of more names than its own.
        others = (layer for layer in self.layers.values() if not isinstance(layer, Blockwise))
        return own if own is not None and key in own else next((o for o in others if key in o), None)


def _name(key: Any) -> Any:
    return key[0] if isinstance(key, tuple) and key else key


def _nodes(array: dask.array.Array) -> Iterator[GraphNode | None]:
    """What an array's middle block is computed from: a node of each name, None for one persisted on a cluster.

    Blocks of one name are made alike, so that a mean over all chunks leads to one of them and not to all.
    """
    blocks = _Blocks(array.__dask_graph__())
    todo: list[Any] = [
        (array.name, *(number // 2 for number in array.numblocks))
    ]  # at the edge may be padding
    names: set[Any] = set()
    while todo:
        key = todo.pop()
        if _name(key) in names:
            continue
        names.add(_name(key))
        raw = blocks[key]
        if is_future(raw):
            yield None
            continue
        if isinstance(raw, tuple | list | dict | str):  # a task as dask wrote them once, or another key
            raw = convert_legacy_graph({key: raw}, all_keys=blocks)[key]
        node = raw if isinstance(raw, GraphNode) else DataNode(key, raw)
        yield node
        todo += sorted(node.dependencies, key=str)


def _points(value: Any) -> int | None:
    """Of an array, 0 where it does not tell any more; None for what is no array."""
    try:
        return math.prod(value.shape) if value.dtype is not None else None
    except (AttributeError, TypeError):
        return None
    except _GONE:
        return 0


def _stored(value: Any, shared_lock: bool) -> Storage | None:
    """Of an array in a store that is known; None for any other."""
    inner = innermost(value)
    if hasattr(inner, "store_path"):
        return Storage(
            "zarr", _zarr_codec(inner), shared_lock, math.prod(inner.chunks) * inner.dtype.itemsize
        )
    if hasattr(inner, "datastore"):
        return _netcdf(inner, shared_lock)
    if hasattr(inner, "id") and hasattr(inner.id, "get_create_plist"):  # h5py, which has a lock of its own
        return _hdf5(inner, "hdf5")
    return None


def _zarr_codec(array: Any) -> str:
    names = []
    for codec in (*array.filters, *array.compressors):
        if hasattr(codec, "to_dict"):  # of zarr 3
            said = codec.to_dict()
            name, settings = said["name"].removeprefix("numcodecs."), said.get("configuration", {})
        else:
            settings = codec.get_config()
            name = settings["id"]
        names.append(f"{name}:{settings['cname']}" if "cname" in settings else name)
    return _text(names)


def _netcdf(wrapper: Any, shared_lock: bool) -> Storage:
    """Of a variable that xarray reads from a file, through h5netcdf, netCDF4 or SciPy (which is never compressed)."""
    if not hasattr(wrapper, "get_array"):
        return Storage("netcdf", "none" if hasattr(wrapper, "get_variable") else "unknown", shared_lock, 0)
    try:
        with wrapper.datastore.lock:
            variable = wrapper.get_array(needs_lock=False)
            if hasattr(variable, "_h5ds"):
                return _hdf5(variable._h5ds, "netcdf")
            filters, chunks = variable.filters(), variable.chunking()
            size = math.prod(chunks) * variable.dtype.itemsize if isinstance(chunks, list) else 0
    except _GONE:
        return Storage("netcdf", "unknown", True, 0)
    names = {"zlib": "gzip"}
    used = [
        name for name in ("shuffle", "zlib", "szip", "zstd", "bzip2", "blosc") if (filters or {}).get(name)
    ]
    return Storage("netcdf", _text(names.get(name, name) for name in used), True, size)


def _hdf5(dataset: Any, kind: str) -> Storage:
    try:
        settings = dataset.id.get_create_plist()
        numbers = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
        size = math.prod(dataset.chunks) * dataset.dtype.itemsize if dataset.chunks else 0
    except _GONE:
        return Storage(kind, "unknown", True, 0)
    return Storage(
        kind, _text(_HDF5_FILTERS.get(number, f"filter {number}") for number in numbers), True, size
    )


def _text(names: Iterable[str]) -> str:
    return "+".join(names) or "none"
