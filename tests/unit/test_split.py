"""A partition in two pieces: the same leaves, chunks and values, and no more of the graph than each needs."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.local import get_sync

from dfit.data.domain import Domain
from dfit.data.graph import Work, split, upstream
from dfit.data.loading import Loader
from dfit.data.plan import chunk_grid, chunks_in_order, leaves_of, middle, partitions_of, sources_of

LEAF = 8


@pytest.fixture(autouse=True)
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", LEAF)


def work_of(y: Any) -> tuple[Work, list[tuple[str, Any]], dict[Any, Any]]:
    """All of y as the work of one partition, its roles, and the values of its kept keys."""
    data = xr.DataArray(y, dims="i")
    domain = Domain(data, {"t": xr.DataArray(np.arange(float(data.size)), dims="i")}, {})
    sources, grid = sources_of(domain), chunk_grid(domain)
    shared = upstream(sources, grid, partitions_of(list(chunks_in_order(grid)), 1 << 40))
    values = dict(zip(shared.kept, get_sync(shared.kept_graph, list(shared.kept)), strict=True))
    return shared.works[0], [(s.role, s.time) for s in sources], values


def pieces_of(work: Work) -> list[Work]:
    """Pieces that cannot be split any further."""
    parts = split(work)
    return parts if len(parts) == 1 else [piece for part in parts for piece in pieces_of(part)]


def values_of(work: Work, roles: list[tuple[str, Any]], kept: dict[Any, Any]) -> np.ndarray:
    loader = Loader(work, roles, {key: kept[key] for key in work.needs})
    return np.concatenate([loader.chunk(k)[0] for k in range(len(work.items))])


def leaf_table(work: Work) -> dict[int, list[tuple[int, int]]]:
    """Start and stop, among all points, of what each leaf is made of, by its number."""
    p = work.partition
    starts = [chunk.start[0] for chunk in p.chunks]
    return {
        p.first_leaf + k: [(starts[s.chunk] + s.start, starts[s.chunk] + s.stop) for s in leaf]
        for k, leaf in enumerate(leaves_of(p.chunks, LEAF))
    }


# Small chunks that share a leaf, a large one that is several, and what is left over.
CHUNKS = [(3, 3, 3, 2, 20, 1, 1, 8, 5), (8,) * 8, (1,) * 30, (40, 2)]


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_pieces_have_the_leaves_and_the_values_of_the_whole(chunks: tuple[int, ...]) -> None:
    values = np.random.default_rng(2).normal(size=sum(chunks))
    lazy = da.from_array(values, chunks=(chunks,))
    whole, roles, kept = work_of(2 * lazy - lazy.mean())
    pieces = pieces_of(whole)
    assert len(pieces) > 1
    assert [chunk for piece in pieces for chunk in piece.partition.chunks] == list(whole.partition.chunks)
    found = {number: leaf for piece in pieces for number, leaf in leaf_table(piece).items()}
    assert found == leaf_table(whole)
    assert sum(piece.partition.leaves for piece in pieces) == whole.partition.leaves
    read = np.concatenate([values_of(piece, roles, kept) for piece in pieces])
    np.testing.assert_array_equal(read, values_of(whole, roles, kept))


def test_a_piece_carries_its_own_part_of_the_graph() -> None:
    whole, _, _ = work_of(da.ones(64, chunks=8) + 1)
    first, second = split(whole)
    assert not set(first.graph) & set(second.graph)
    assert set(first.graph) | set(second.graph) == set(whole.graph)


def test_the_cut_is_as_near_to_the_middle_as_chunks_allow() -> None:
    data = xr.DataArray(da.ones(64, chunks=((4, 4, 8, 30, 8, 10),)), dims="i")
    chunks = list(chunks_in_order(chunk_grid(Domain(data, {}, {}))))
    assert middle(chunks) == (4, 6)  # 46 points of 64, and not 16


def test_one_large_chunk_stays_whole() -> None:
    whole, _, _ = work_of(da.ones(100, chunks=100))
    assert whole.partition.leaves == 13
    assert split(whole) == [whole]
