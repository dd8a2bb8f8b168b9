"""A glance at the data: a bounded number of points in memory, from a bounded number of chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import numpy as np

from dfit.data.domain import Domain
from dfit.data.plan import Chunk, Source, chunk_grid, chunks_in_order, sources_of

POINTS = 1 << 16
CHUNKS = 64


def glance(domain: Domain) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Some points: y (n,), which of them a fit would use (n,), and the coordinates, (n,) each.

    At most `POINTS` points, evenly spread over at most `CHUNKS` chunks, which are spread over the array.
    What is not usable is 0 there.
    """
    chunks = _some(list(chunks_in_order(chunk_grid(domain))))
    where = _places(chunks, domain.data.shape)
    sources = sources_of(domain)
    read = dask.compute(*([_at(source, place) for place in where] for source in sources))
    columns = [np.concatenate(parts) for parts in read]
    y = columns[0]
    coords = [
        domain.numeric(name, column).astype(float)
        for name, column in zip(domain.coords, columns[1:], strict=False)
    ]
    valid = np.isfinite(y) & np.all([np.isfinite(c) for c in coords], axis=0)
    for source, column in zip(sources, columns, strict=True):
        if source.role == "sigma":
            valid &= np.isfinite(column)
        elif source.role == "where":
            valid &= column
    return np.where(valid, y, 0), valid, [np.where(valid, c, 0.0) for c in coords]


def _at(source: Source, place: tuple[np.ndarray, ...]) -> Any:
    """Values (k,) of a source at places of y (k,) along each dimension; lazy where the source is."""
    if not source.axes:
        return np.full(place[0].shape, source.array.values)
    index = tuple(place[axis] for axis in source.axes)
    return source.array.values[index] if source.array.chunks is None else source.array.data.vindex[index]


def _some(chunks: list[Chunk]) -> list[Chunk]:
    """One random chunk of each of `CHUNKS` equal runs; all of them where there are no more."""
    if len(chunks) <= CHUNKS:
        return chunks
    edges = np.linspace(0, len(chunks), CHUNKS + 1).astype(int)
    return [chunks[i] for i in np.random.default_rng(0).integers(edges[:-1], edges[1:]).tolist()]


def _places(chunks: Sequence[Chunk], shape: tuple[int, ...]) -> list[tuple[np.ndarray, ...]]:
    """Places in y, an index per dimension, of the points of each chunk: one of each of equally many runs."""
    rng = np.random.default_rng(0)
    each = max(1, POINTS // len(chunks))
    out = []
    for chunk in chunks:
        count = min(each, chunk.size)
        flat = ((np.arange(count) + rng.random(count) * (count < chunk.size)) * chunk.size / count).astype(
            int
        )
        inside = np.unravel_index(flat, chunk.shape)
        out.append(tuple(i + begin for i, begin in zip(inside, chunk.start, strict=True)))
    return out
