"""The content sum of what is read changes with every value, and with nothing else."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from dfit.data.domain import Domain
from dfit.data.graph import upstream
from dfit.data.loading import Loader
from dfit.data.plan import chunk_grid, chunks_in_order, partitions_of, sources_of

Y = np.random.default_rng(3).normal(size=(6, 5))
T = np.random.default_rng(4).uniform(size=(6, 5))


def contents(y: np.ndarray, t: np.ndarray = T, order: int = 1, points: int = 1000) -> list[int]:
    """Content of each partition, its chunks read in or against their order."""
    lazy = [xr.DataArray(da.from_array(a, chunks=(2, 5)), dims=("a", "b")) for a in (y, t)]
    domain = Domain(lazy[0], {"t": lazy[1]}, {})
    sources, grid = sources_of(domain), chunk_grid(domain)
    partitions = partitions_of(list(chunks_in_order(grid)), points)
    found = []
    for work in upstream(sources, grid, partitions).works:
        loader = Loader(work, [(s.role, s.time) for s in sources], {})
        for number in range(len(work.items))[::order]:
            loader.chunk(number)
        found.append(loader.content)
    return found


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ">f8", "i2", "u1", "c16"])
def test_any_value_that_changes_changes_the_content(dtype: str) -> None:
    whole = (100 * Y).astype(dtype) if dtype != "u1" else np.arange(30, dtype="u1").reshape(6, 5)
    before = contents(whole)
    for place in np.ndindex(whole.shape):
        changed = whole.copy()
        changed[place] += 1
        assert contents(changed) != before


def test_content_of_coordinates_counts_and_is_not_that_of_y() -> None:
    changed = T.copy()
    changed[5, 4] = np.nextafter(changed[5, 4], 1)
    assert len({contents(Y)[0], contents(Y, changed)[0], contents(T, Y)[0]}) == 3


def test_chunks_that_change_places_change_the_content() -> None:
    assert contents(Y[[2, 3, 0, 1, 4, 5]]) != contents(Y)


def test_order_of_reading_does_not_change_the_content() -> None:
    assert contents(Y, order=-1) == contents(Y)


def test_contents_of_pieces_add_up_to_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = contents(Y)
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 8)
    pieces = contents(Y, points=10)
    assert len(pieces) == 3
    assert sum(pieces) % 2**64 == whole
    assert 0 <= whole < 2**64


def test_zeros_are_told_from_what_was_not_looked_at() -> None:
    assert contents(np.zeros((6, 5)), np.zeros((6, 5)))[0] != 0


def test_byte_order_does_not_change_the_content() -> None:
    assert contents(Y.astype(">f8")) == contents(Y)
