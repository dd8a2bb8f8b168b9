"""Memory for the leaves of a task: kept from one to the next, never shared, let go of with the fit."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from dfit.reduce.allocator import let_go_of_slabs, slabs_of
from tests.one_task import Task, told


def line(x, a, b):
    return a + b * x


def filled(fit: str) -> np.ndarray:
    """What a task of the fit has in its hands."""
    with slabs_of(fit) as slabs:
        return slabs.setdefault(0, np.zeros(8))


def test_the_next_task_of_a_fit_has_the_arrays_of_the_last() -> None:
    assert filled("one") is filled("one")


def test_tasks_at_the_same_time_have_arrays_of_their_own() -> None:
    with slabs_of("two") as first, slabs_of("two") as second:
        assert first is not second


def test_arrays_go_with_their_fit() -> None:
    first = filled("one")
    let_go_of_slabs("one")
    second = filled("one")
    filled("another")
    assert len({id(array) for array in (first, second, filled("one"))}) == 3


def test_after_an_error_arrays_are_not_used_again() -> None:
    first = filled("one")
    with pytest.raises(ZeroDivisionError), slabs_of("one") as slabs:
        assert slabs[0] is first
        raise ZeroDivisionError
    assert filled("one") is not first


def test_what_an_earlier_task_has_left_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    x = np.arange(3000.0)
    y = xr.DataArray(rng.normal(size=3000), dims="x", coords={"x": x}).chunk(x=(700, 800, 750, 750))
    task = Task(y, line)
    let_go_of_slabs(task.job.fit)
    fresh = told(task.run())
    with slabs_of(task.job.fit) as slabs:
        assert slabs, "nothing was copied"
        for array in slabs.values():
            array[:] = np.nan
    assert told(task.run()) == fresh
