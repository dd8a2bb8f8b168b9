"""What a dry run sums: the beginning of the first leaf, where that takes long enough to be timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import xarray as xr

from dfit.reduce import calibrate
from dfit.reduce.calibrate import dry_run
from dfit.reduce.reading import Held
from tests.one_task import Task


def line(x, a, b):
    return a + b * x


def along(shape: Sequence[int], chunks: Sequence[Any]) -> xr.DataArray:
    """Data with the coordinate x along the last dimension."""
    dims = ("row", "x")[-len(shape) :]
    y = xr.DataArray(np.ones(shape), dims=dims, coords={"x": np.arange(float(shape[-1]))})
    return y.chunk(dict(zip(dims, chunks, strict=True)))


@pytest.mark.parametrize(
    ("shape", "chunks", "expected"),
    [
        pytest.param((4000,), (4000,), 1000, id="a part of a chunk"),
        pytest.param((400, 10), (400, 10), 1000, id="rows of a chunk"),
        pytest.param((4, 3000), (4, 3000), 3000, id="a row is the least"),
        pytest.param((4000,), (300,), 1200, id="whole chunks"),
        pytest.param((700,), (200,), 700, id="all there is"),
    ],
)
@pytest.mark.parametrize("long", [True, False])
def test_points_that_a_dry_run_sums(
    shape: Sequence[int], chunks: Sequence[int], expected: int, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    summed = calibrate.summed
    points: list[int] = []

    def look(*operands: Any) -> Any:
        report = summed(*operands)
        points.append(report.points)
        return report

    monkeypatch.setattr(calibrate, "summed", look)
    monkeypatch.setattr(calibrate, "BEGINNING", 1000)
    monkeypatch.setattr(calibrate, "LONG_S", 0.0 if long else 1e9)
    task = Task(along(shape, chunks), line)
    found = dry_run(task.job, task.shared.works, [()], task.point, {})
    assert not found.failure and found.point_ns > 0
    assert points == [expected] * 3 if long else [expected] * 2 + [int(np.prod(shape))] * 2


@pytest.mark.parametrize(("least", "rows"), [(1000, 100), (1 << 16, 400)])
def test_the_beginning_has_the_first_rows(least: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "BEGINNING", least)
    task = Task(along((400, 10), (400, 10)), line)
    y, x = np.arange(4000.0).reshape(400, 10), np.arange(10.0)
    short, held = calibrate._beginning(task.job, task.shared.works[0], Held([[y, x]], [7], 0))
    assert [chunk.shape for chunk in short.partition.chunks] == [(rows, 10)]
    assert np.array_equal(held.arrays[0][0], y[:rows]) and np.array_equal(held.arrays[0][1], x)
