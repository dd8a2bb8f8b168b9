"""What a result and an observer are told of each partition, and how an observer stops a fit."""

from __future__ import annotations

import os
from typing import Any

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.events import PartitionDone, PassDone

ROWS, COLUMNS, ROW, COLUMN = 12, 1500, 3, 500
PARTITIONS = (ROWS // ROW) * (COLUMNS // COLUMN)

pytestmark = [
    pytest.mark.usefixtures("small_leaves", "chunk_partitions", "rereading"),
    pytest.mark.filterwarnings("ignore:.*points were left out:dfit.DfitWarning"),
]


def plane(x, t, a, b, k):
    return a + b * x + jnp.exp(-k * t)


def values() -> np.ndarray:
    x, t = np.linspace(-1, 2, ROWS)[:, None], np.linspace(0, 3, COLUMNS)
    y = 2 + 0.5 * x + np.exp(-1.5 * t) + 0.1 * np.random.default_rng(4).standard_normal((ROWS, COLUMNS))
    y[:, ::250] = np.nan
    y[0, :100] = np.nan
    return y


def lazy(read: Any = None) -> xr.DataArray:
    """y over ("x", "time"), read chunk by chunk; `read` comes between."""
    y = da.from_array(values(), chunks=(ROW, COLUMN))
    if read is not None:
        y = y.map_blocks(read, dtype=float, meta=np.empty((0, 0)))
    coords = {
        "x": np.linspace(-1, 2, ROWS)[::-1],
        "time": np.datetime64("2024-03-01") + np.arange(COLUMNS) * np.timedelta64(1, "m"),
        "t": ("time", np.linspace(0, 3, COLUMNS)),
        "station": ("x", [f"s{k}" for k in range(ROWS)]),
    }
    return xr.DataArray(y, dims=("x", "time"), coords=coords)


def fitted(y: xr.DataArray, **settings: Any) -> dfit.FitResult:
    start = {"a": 1.0, "b": 0.0, "k": 1.0}
    return dfit.fit(plane, y, ("x", "t"), p0=start, **{"warmup": False, **settings})


@pytest.mark.parametrize("asked", [{}, {"cov": "hc1"}, {"cov": {"groups": "station"}}, {"validate": "full"}])
def test_table_has_what_each_partition_gave_and_cost(asked: dict[str, Any]) -> None:
    y = lazy()
    if "groups" in str(asked):
        asked = {"cov": {"groups": y.station}}
    found = fitted(y, **asked)
    table = found.partitions
    assert table is not None and dict(table.sizes) == {"partition": PARTITIONS}
    whole = values()
    boxes = zip(
        *(table[name].values for name in ("x_start", "x_stop", "time_start", "time_stop")), strict=True
    )
    blocks = [np.s_[a:b, c:d] for a, b, c, d in boxes]
    residual = found.residual().values
    expected = [np.nansum(residual[block] ** 2) / 2 for block in blocks]
    np.testing.assert_allclose(table.cost, expected, rtol=1e-6)
    np.testing.assert_allclose(table.cost.sum(), found.cost, rtol=1e-9)
    np.testing.assert_array_equal(table.missing, [np.isnan(whole[block]).sum() for block in blocks])
    np.testing.assert_array_equal(table.points, ROW * COLUMN)
    assert table.points.sum() == whole.size == found.ndata + table.missing.sum()
    np.testing.assert_array_equal(table.bytes_read, found.npasses * ROW * COLUMN * 8)
    assert table.bytes_read.sum() == found.run.bytes_read
    assert (table.seconds > 0).all() and not table.retries.any() and not table.left_out.any()
    assert set(table.worker.values) == {f"{os.uname().nodename}:{os.getpid()}"}


def test_table_has_the_ranges_of_dimensions_and_coordinates() -> None:
    y = lazy()
    table = fitted(y).partitions
    assert table is not None
    for number, (row, column) in enumerate(np.ndindex(ROWS // ROW, COLUMNS // COLUMN)):
        here, block = table.isel(partition=number), np.s_[row * ROW : (row + 1) * ROW]
        assert (here.x_start, here.x_stop) == (row * ROW, (row + 1) * ROW)
        assert (here.time_start, here.time_stop) == (column * COLUMN, (column + 1) * COLUMN)
        assert (here.x_min, here.x_max) == (y.x.values[block].min(), y.x.values[block].max())
        along = np.s_[column * COLUMN : (column + 1) * COLUMN]
        assert (here.time_min, here.time_max) == (y.time.values[along][0], y.time.values[along][-1])
        assert (here.t_min, here.t_max) == (y.t.values[along][0], y.t.values[along][-1])
    assert "station_min" not in table.coords


def test_dates_of_another_calendar_are_told_as_the_model_sees_them() -> None:
    time = xr.date_range("2001-02-27", periods=6000, freq="h", calendar="noleap", use_cftime=True)
    y = xr.DataArray(np.exp(-np.arange(6000) / 2000), {"time": time}).chunk(time=2000)

    def decay(time, a, tau):
        return a * jnp.exp(-time / tau)

    found = dfit.fit(decay, y, "time", p0={"a": 0.5, "tau": 100}, time_unit="D")
    assert found.partitions is not None
    np.testing.assert_allclose(found.partitions.time_min, [0, 2000 / 24, 4000 / 24])
    np.testing.assert_allclose(found.partitions.time_max, [1999 / 24, 3999 / 24, 5999 / 24])


def test_reads_that_were_tried_again_are_counted_where_they_were() -> None:
    broken = []

    def unsteady(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info[0]["chunk-location"] == (1, 2) and len(broken) < 2:
            broken.append(1)
            raise OSError("the disk is away")
        return block

    found = fitted(lazy(unsteady))
    assert found.partitions is not None
    assert found.partitions.retries.values.tolist() == [2 * (k == 5) for k in range(PARTITIONS)]
    assert found.streaming_diagnostics == {
        "total_batches_processed": PARTITIONS * found.npasses,
        "batch_success_rate": 1.0,
        "failed_batch_indices": [],
        "error_type_distribution": {},
        "retries": 2,
    }
    assert "reads tried again    = 2" in found.fit_report()
    assert "failed tasks" not in found.fit_report()
    assert "tried again" not in fitted(lazy()).fit_report()


def test_tasks_that_failed_are_counted_by_their_errors() -> None:
    def dead(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        where = block_info[0]["chunk-location"]
        if where in ((1, 2), (3, 0)):
            raise OSError("the disk is away") if where == (1, 2) else TimeoutError("no answer")
        return block

    with pytest.warns(dfit.DfitWarning, match="2 of 12 partitions"):
        found = fitted(lazy(dead), retries=1, min_success_rate=0.5)
    told = found.streaming_diagnostics
    assert told["total_batches_processed"] == PARTITIONS + (PARTITIONS - 2) * (found.npasses - 1)
    assert told["batch_success_rate"] == 1 - 2 / told["total_batches_processed"]
    assert told["failed_batch_indices"] == [5, 9]
    assert told["error_type_distribution"] == {"OSError": 1, "TimeoutError": 1}
    assert told["retries"] == 2
    rows = found.partitions
    assert rows is not None and np.flatnonzero(rows.left_out).tolist() == [5, 9]
    assert rows.cost.isnull().values.tolist() == rows.left_out.values.tolist()
    assert "(OSError: 1, TimeoutError: 1)" in found.fit_report()


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_observer_sees_every_partition_of_every_pass_once(scheduler: str) -> None:
    seen: list[PartitionDone] = []
    with dask.config.set(scheduler=scheduler):
        found = fitted(lazy(), on_partition=seen.append, cov="hc0")
    assert found.partitions is not None
    for npass in range(1, found.npasses + 1):
        events = [event for event in seen if event.npass == npass]
        assert [event.done for event in events] == list(range(1, PARTITIONS + 1))
        assert sorted(event.partition for event in events) == list(range(PARTITIONS))
    assert {(event.partitions, event.failure) for event in seen} == {(PARTITIONS, None)}
    for name in ("seconds", "bytes_read", "missing"):
        table = np.zeros(PARTITIONS)
        for event in seen:
            table[event.partition] += getattr(event, name)
        np.testing.assert_allclose(found.partitions[name], table, rtol=1e-12)


class Stop:
    """Says stop at a partition of a pass."""

    def __init__(self, npass: int, done: int, how: Any = False) -> None:
        self._at, self._how, self.calls = (npass, done), how, 0

    def __call__(self, event: PartitionDone) -> Any:
        self.calls += 1
        if (event.npass, event.done) == self._at:
            if self._how is StopIteration:
                raise StopIteration
            return self._how
        return None


@pytest.mark.parametrize("how", [False, StopIteration])
def test_observer_that_stops_gets_the_best_values_of_the_passes_before(how: Any) -> None:
    stop, passes = Stop(4, 5, how), []
    found = fitted(lazy(), on_partition=stop, callback=passes.append, loss="huber")
    assert stop.calls == 3 * PARTITIONS + 5
    assert [event.npasses for event in passes] == [1, 2, 3]
    assert found.best_values == passes[-1].params and found.cost == passes[-1].cost
    assert not found.success and not found.partial
    assert "not converged: stopped by on_partition" in found.message
    assert np.isnan(found.covariance.stderr).all() and "no standard errors" in found.fit_report()
    assert found.npasses == 3


def test_observer_that_does_not_say_false_stops_nothing() -> None:
    for how in (None, 0, True):
        assert fitted(lazy(), on_partition=Stop(2, 5, how)).success


def test_observer_that_stops_the_first_pass_gets_an_error_that_says_what_to_type() -> None:
    with pytest.raises(
        dfit.FitFailed, match=r"before a pass .* nothing to return.* checkpoint=path"
    ) as caught:
        fitted(lazy(), on_partition=Stop(1, 5))
    assert caught.value.best_values is None


def test_observer_that_stops_the_pass_of_the_covariance_leaves_the_parameters() -> None:
    npasses = fitted(lazy()).npasses
    found = fitted(lazy(), cov="hc1", on_partition=Stop(npasses + 1, 5))
    expected = fitted(lazy())
    np.testing.assert_array_equal(found.theta, expected.theta)
    assert found.success and found.message == expected.message
    assert np.isnan(found.covariance.stderr).all() and "no standard errors" in found.fit_report()


def test_observer_that_stops_after_a_loss_gets_the_values_before_it_in_the_error() -> None:
    """What is left out was part of the last complete pass: its numbers are no answer any more."""
    passes: list[PassDone] = []

    def dying(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if len(passes) >= 2 and block_info[0]["chunk-location"] == (1, 2):
            raise OSError("the disk is away")
        return block

    def stop(event: PartitionDone) -> bool | None:
        return False if event.npass == 4 else None

    with pytest.raises(dfit.FitFailed, match="nothing to return") as caught:
        fitted(lazy(dying), retries=0, min_success_rate=0.9, on_partition=stop, callback=passes.append)
    assert len(passes) == 2 and caught.value.best_values == passes[-1].params


def test_error_of_the_observer_is_the_users() -> None:
    def wrong(event: PartitionDone) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        fitted(lazy(), on_partition=wrong)
