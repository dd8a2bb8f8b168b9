"""Points of a leaf as flat arrays, against NumPy's own broadcasting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfit.data import plan
from dfit.data.leaves import copy_range, empty_aligned, gather, spread
from dfit.data.plan import Segment, chunks_in_order, leaves_of

shapes = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


def subarray(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    lengths = [shape[a] for a in axes]
    return np.arange(1.0, 1.0 + int(np.prod(lengths, dtype=int))).reshape(lengths)


def full(array: np.ndarray, axes: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    index = tuple(slice(None) if a in axes else None for a in range(len(shape)))
    return np.broadcast_to(array[index], shape).ravel()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_range_of_a_spread_array_is_that_of_the_broadcast_one(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    axes = tuple(a for a in range(len(shape)) if data.draw(st.booleans()))
    array = subarray(shape, axes)
    expected = full(array, axes, shape)
    start = data.draw(st.integers(0, expected.size))
    stop = data.draw(st.integers(start, expected.size))
    out = np.full(stop - start, -1.0)
    copy_range(spread(array, axes, shape), start, stop, out)
    np.testing.assert_array_equal(out, expected[start:stop])


def test_spreading_copies_nothing() -> None:
    array = np.arange(1000.0)
    view = spread(array, (1,), (10**6, 1000, 10**6))
    assert view.shape == (10**6, 1000, 10**6)
    assert np.shares_memory(view, array)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_leaves_hold_every_point_once_in_chunk_order(data: st.DataObject) -> None:
    size = 8  # a leaf's points
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "LEAF_POINTS", size)
        grid = data.draw(
            st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=3)
        )
        shape = tuple(map(sum, grid))
        chunks = list(chunks_in_order(grid))
        y = np.arange(float(np.prod(shape, dtype=int))).reshape(shape)
        axes = tuple(a for a in range(len(shape)) if data.draw(st.booleans()))
        x = subarray(shape, axes)

        def cut(array: np.ndarray, along: tuple[int, ...], chunk: plan.Chunk) -> np.ndarray:
            return array[tuple(slice(chunk.start[a], chunk.start[a] + chunk.shape[a]) for a in along)]

        every = tuple(range(len(shape)))
        arrays = [[np.ascontiguousarray(cut(y, every, c)), cut(x, axes, c)] for c in chunks]
        found = []
        for segments in leaves_of(chunks, size):
            (y_leaf, x_leaf), n = gather(segments, chunks, arrays, [every, axes], size)
            assert y_leaf.shape == x_leaf.shape == (size,)
            assert 0 < n <= size
            found.append((y_leaf[:n], x_leaf[:n]))
        if not found:
            assert y.size == 0
            return
        y_all, x_all = (np.concatenate(parts) for parts in zip(*found, strict=True))
        np.testing.assert_array_equal(y_all, np.concatenate([a.ravel() for a, _ in arrays]))
        np.testing.assert_array_equal(np.sort(y_all), y.ravel())
        np.testing.assert_array_equal(x_all, full(x, axes, shape)[y_all.astype(int)])


def test_a_full_leaf_is_a_view_where_it_is_aligned_and_else_an_aligned_copy() -> None:
    chunks = list(chunks_in_order([[4], [8]]))
    for shift in (0, 1):
        y = empty_aligned(32 + shift, np.dtype(float))[shift:].reshape(4, 8)
        y[:] = np.arange(32.0).reshape(4, 8)
        (leaf,), n = gather([Segment(0, 8, 16)], chunks, [[y]], [(0, 1)], 8)
        assert n == 8
        assert np.shares_memory(leaf, y) == (shift == 0)
        assert leaf.ctypes.data % 64 == 0
        np.testing.assert_array_equal(leaf, np.arange(8.0, 16.0))


def test_sources_keep_their_own_type() -> None:
    chunks = list(chunks_in_order([[3]]))
    arrays = [[np.array([1, 2, 3], "f4"), np.array([True, False, True])]]
    (y, where), n = gather([Segment(0, 0, 3)], chunks, arrays, [(0,), (0,)], 8)
    assert (n, y.dtype, where.dtype) == (3, np.dtype("f4"), np.dtype(bool))
    np.testing.assert_array_equal(where[:3], [True, False, True])
