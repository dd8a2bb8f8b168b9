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

ALL_BITS = (1 << 64) - 1


class Loader:
    """Arrays of one partition, chunk by chunk, in any order, each once.

    A value that several chunks need is computed once and dropped after its last use.  After an
    exception the same chunk may be asked for again.

    Attributes
    ----------
    bytes_read : size of what came out of the graph so far, each block once.
    content : sum over the bits of the chunks that came out of the graph so far, modulo 2^64; a bit that
        changes changes it, and so do chunks that change places.  Sums of pieces add up to that of the whole.
    at : source in hand, and the key of the graph that its chunk is.
    """

    def __init__(
        self, work: Work, sources: Sequence[tuple[str, Any]], kept: Mapping[Any, Any], sums: bool = True
    ) -> None:
        """``sources`` are (role, time axis or None), ``kept`` the values of the work's needs.

        ``sums``: whether the content is summed.
        """
        self._work = work
        self._sources = sources
        self._sums = sums
        self._values: dict[Any, Any] = dict(kept)
        self._uses = Counter(key for node in work.graph.values() for key in node.dependencies)
        self._uses.update(item.name for row in work.items for item in row if isinstance(item, Key))
        self._counted: set[Any] = set()
        self.bytes_read = 0
        self.content = 0
        self.at: tuple[int, Any] = (0, None)

    def chunk(self, number: int) -> list[np.ndarray]:
        """Arrays of a chunk, one per source, C-contiguous."""
        row, chunk = self._work.items[number], self._work.partition.chunks[number]
        for source, item in enumerate(row):
            if isinstance(item, Key):
                self.at = (source, item.name)
                self._compute(item.name)
        arrays = []
        for (role, time), item in zip(self._sources, row, strict=True):
            array = missing_as_nan(self._values[item.name] if isinstance(item, Key) else item)
            if time is not None:
                array = time.offsets(array)
            if role == "y" and array.shape != chunk.shape:
                raise DataError(
                    f"partition {self._work.partition.index}: a chunk of y has shape {array.shape}, "
                    f"its array announces {chunk.shape}. Type: y = y.persist(); y.compute_chunk_sizes()"
                )
            arrays.append(np.ascontiguousarray(plain(array)))
        for source, (item, array) in enumerate(zip(row, arrays, strict=True)):
            if isinstance(item, Key):
                if self._sums:
                    bits = sum_of_bits(array) * _factor(source, *chunk.index)
                    self.content = (self.content + bits) & ALL_BITS
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


def sum_of_bits(array: np.ndarray) -> int:
    """Sum of the array's 64-bit words and its size in bytes, modulo 2^64: zeros are not nothing.

    Not a hash: a plain sum runs at the speed of memory, a tenth of a nanosecond per point where the
    kernel takes ten, and no change of a single value can leave it as it was.
    """
    raw = array.reshape(-1).view(np.uint8)
    whole = raw.size & -8
    rest = int.from_bytes(raw[whole:].tobytes(), "little")
    return (int(np.add.reduce(raw[:whole].view(np.uint64))) + rest + raw.size) & ALL_BITS


def _factor(*places: int) -> int:
    """An odd factor for a place: odd, so that no bit of what it multiplies is lost."""
    mixed = 0
    for place in places:
        mixed = ((mixed ^ place) * 0x9E3779B97F4A7C15 + 1) & ALL_BITS
    return mixed | 1


def missing_as_nan(values: Any) -> np.ndarray:
    """Values as a plain array; masked ones become NaN, or False in a mask."""
    if not isinstance(values, np.ma.MaskedArray):
        return np.asarray(values)
    if values.dtype.kind not in "bmM":
        values = values.astype(np.result_type(values.dtype, np.float64))
    missing: Any = {"b": False, "m": np.timedelta64("NaT"), "M": np.datetime64("NaT")}
    return np.asarray(values.filled(missing.get(values.dtype.kind, np.nan)))


def plain(array: np.ndarray) -> np.ndarray:
    """The array in this machine's byte order, and no wider than float64."""
    widest = {"f": np.dtype(np.float64), "c": np.dtype(np.complex128)}.get(array.dtype.kind, array.dtype)
    narrow = array.dtype.itemsize <= widest.itemsize
    return array.astype(array.dtype.newbyteorder("=") if narrow else widest, copy=False)
