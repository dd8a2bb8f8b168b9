"""Chunks of a partition, computed one after the other from its piece of the dask graph.

A task holds the chunks that its leaf in hand needs and no more: memory follows from the chunks, however
many of them make up a partition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dfit.data.graph import Key, Work
from dfit.errors import DataError


class Loader:
    """Arrays of one partition, chunk by chunk, in any order, each once.

    A value that several chunks need is computed once and dropped after its last use.  After an
    exception the same chunk may be asked for again.

    Attributes
    ----------
    bytes_read : size of what came out of the graph so far, each block once.
    """

    def __init__(self, work: Work, sources: Sequence[tuple[str, Any]], kept: Mapping[Any, Any]) -> None:
        """``sources`` are (role, time axis or None); ``kept`` are the values of the work's needs."""
        self._work = work
        self._sources = sources
        self._values: dict[Any, Any] = dict(kept)
        self._uses = Counter(key for node in work.graph.values() for key in node.dependencies)
        self._uses.update(item.name for row in work.items for item in row if isinstance(item, Key))
        self._counted: set[Any] = set()
        self.bytes_read = 0

    def chunk(self, number: int) -> list[np.ndarray]:
        """Arrays of a chunk, one per source, C-contiguous."""
        row, chunk = self._work.items[number], self._work.partition.chunks[number]
        for item in row:
            if isinstance(item, Key):
                self._compute(item.name)
        arrays = []
        for (role, time), item in zip(self._sources, row, strict=True):
            array = _missing_as_nan(self._values[item.name] if isinstance(item, Key) else item)
            if time is not None:
                array = time.offsets(array)
            if role == "y" and array.shape != chunk.shape:
                raise DataError(
                    f"partition {self._work.partition.index}: a chunk of y has shape {array.shape}, "
                    f"its array announces {chunk.shape}. Type: y = y.persist(); y.compute_chunk_sizes()"
                )
            arrays.append(_native(array))
        for item, array in zip(row, arrays, strict=True):
            if isinstance(item, Key):
                if item.name not in self._counted:
                    self._counted.add(item.name)
                    self.bytes_read += array.nbytes
                self._used(item.name)
        return arrays

    def _compute(self, wanted: Any) -> None:
        """Value of a key of the graph, from those it depends on."""
        stack = [wanted]
        while stack:
            key = stack[-1]
            if key in self._values:
                stack.pop()
                continue
            node = self._work.graph[key]
            missing = [d for d in node.dependencies if d not in self._values]
            if missing:
                stack += missing
                continue
            self._values[key] = node(self._values)
            stack.pop()
            for dependency in node.dependencies:
                self._used(dependency)

    def _used(self, key: Any) -> None:
        self._uses[key] -= 1
        if self._uses[key] == 0:
            del self._values[key]


def _missing_as_nan(values: Any) -> np.ndarray:
    """Values as a plain array; masked ones become NaN, or False in a mask."""
    if not isinstance(values, np.ma.MaskedArray):
        return np.asarray(values)
    if values.dtype.kind not in "bmM":
        values = values.astype(np.result_type(values.dtype, np.float64))
    missing: Any = {"b": False, "m": np.timedelta64("NaT"), "M": np.datetime64("NaT")}
    return np.asarray(values.filled(missing.get(values.dtype.kind, np.nan)))


def _native(array: np.ndarray) -> np.ndarray:
    """The array C-contiguous, in this machine's byte order, and no wider than float64."""
    widest = {"f": np.dtype(np.float64), "c": np.dtype(np.complex128)}.get(array.dtype.kind, array.dtype)
    narrow = array.dtype.itemsize <= widest.itemsize
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=") if narrow else widest)
