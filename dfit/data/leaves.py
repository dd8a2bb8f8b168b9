"""Points of a leaf as flat arrays of one fixed size, whatever the chunks look like.

Arrays along fewer dimensions than y are spread over the leaf only, so a coordinate along one
dimension never exists at full size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dfit.data.plan import Chunk, Segment

# JAX reads such an array where it is; any other it copies into fresh memory, in every call. What comes
# out of dask and zarr is aligned to 16.
ALIGNED_BYTES = 64


def empty_aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """Array (size,) without values that JAX can read where it is."""
    raw = np.empty(size * dtype.itemsize + ALIGNED_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNED_BYTES
    return raw[start : start + size * dtype.itemsize].view(dtype)


def spread(array: np.ndarray, axes: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """View of ``array``, which lies along ``axes``, over a chunk of ``shape``; nothing is copied."""
    index = tuple(slice(None) if axis in axes else None for axis in range(len(shape)))
    return np.broadcast_to(array[index], shape)


def copy_range(view: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
    """Points ``start`` to ``stop`` (C order) of a possibly broadcast view into ``out``."""
    if start >= stop:
        return
    if view.ndim == 1:
        out[:] = view[start:stop]
        return
    if view.ndim == 0:
        out[:] = view
        return
    inner = view[0].size
    first, last = -(-start // inner), stop // inner
    if first > last:  # inside one row
        row = start // inner
        copy_range(view[row], start - row * inner, stop - row * inner, out)
        return
    head = first * inner - start
    if head:
        copy_range(view[first - 1], inner - head, inner, out[:head])
    rows = last - first
    if rows:
        out[head : head + rows * inner].reshape(rows, *view.shape[1:])[...] = view[first:last]
    tail = head + rows * inner
    if tail < out.size:
        copy_range(view[last], 0, out.size - tail, out[tail:])


def gather(
    segments: Sequence[Segment],
    chunks: Sequence[Chunk],
    arrays: Mapping[int, Sequence[np.ndarray]],
    axes: Sequence[Sequence[int]],
    size: int,
    slabs: dict[int, np.ndarray] | None = None,
) -> tuple[list[np.ndarray], int]:
    """Arrays (size,) of one leaf, one per source, and how many of their points count.

    A full, aligned leaf of a chunk is a view; the rest is copied, and what lies beyond the points is
    not initialised, because the kernel never looks at it.

    Parameters
    ----------
    slabs : where copies go, by source; filled on first use and overwritten by the next leaf, so that
        memory is not touched for the first time with every leaf.
    """
    slabs = {} if slabs is None else slabs
    points = sum(s.stop - s.start for s in segments)
    out = []
    for k, lies_along in enumerate(axes):
        first = segments[0]
        chunk = chunks[first.chunk]
        whole = arrays[first.chunk][k]
        if len(segments) == 1 and points == size and whole.size == chunk.size:
            leaf = whole.reshape(-1)[first.start : first.stop]
            if leaf.ctypes.data % ALIGNED_BYTES == 0:
                out.append(leaf)
                continue
        slab = slabs.get(k)
        if slab is None or (slab.dtype, slab.size) != (whole.dtype, size):
            slab = slabs[k] = empty_aligned(size, whole.dtype)
        at = 0
        for s in segments:
            view = spread(arrays[s.chunk][k], lies_along, chunks[s.chunk].shape)
            copy_range(view, s.start, s.stop, slab[at : at + s.stop - s.start])
            at += s.stop - s.start
        out.append(slab)
    return out, points
