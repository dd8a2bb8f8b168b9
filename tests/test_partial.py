"""Partitions that stay unreadable: the fit ends, or goes on without them and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.events import PassDone
from tests.unreadable import (
    BROKEN,
    CHUNK,
    CHUNKS,
    START,
    Spoiler,
    as_hdf5,
    as_zarr,
    damage_hdf5,
    damage_zarr,
    dataset,
    fitted,
    hide_zarr,
    require_same,
    without,
)

pytestmark = [
    pytest.mark.usefixtures("small_leaves", "chunk_partitions", "rereading"),
    pytest.mark.filterwarnings("ignore:.*(points were left out|partitions .* are left out):dfit.DfitWarning"),
]


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize(
    ("store", "spoil"), [(as_zarr, damage_zarr), (as_zarr, hide_zarr), (as_hdf5, damage_hdf5)]
)
def test_fit_goes_on_without_a_partition_that_cannot_be_read(
    tmp_path: Path, store: Callable[[Path], xr.Dataset], spoil: Callable[[Path], None], scheduler: str
) -> None:
    data = store(tmp_path)
    spoil(tmp_path)
    with dask.config.set(scheduler=scheduler), pytest.warns(dfit.DfitWarning) as told:
        found = fitted(data, min_success_rate=0.9)
    expected = without(BROKEN)
    require_same(found, expected)
    assert found.partial and found.success
    assert (
        found.message == f"partial: 1 of 12 partitions (8.3 % of the points) are left out: {expected.message}"
    )
    (lost,) = found.left_out
    assert (lost.partition, lost.points) == (BROKEN, CHUNK)
    assert lost.ranges == {"i": (BROKEN * CHUNK, (BROKEN + 1) * CHUNK)}
    assert "y 'signal', chunk (4,)" in lost.error and str(tmp_path) in lost.error
    place = "partition 4 (i[8000:10000] = 2020-11-29 08:00:00 to 2021-02-20 15:00:00)"
    assert any(f"because they could not be read or summed: {place}" in str(w.message) for w in told)
    assert place in found.fit_report()
    assert found.streaming_diagnostics["failed_batch_indices"] == [BROKEN]
    assert found.run.points_per_pass == CHUNK * (CHUNKS - 1)


def test_more_lost_partitions_than_allowed_end_the_fit(tmp_path: Path) -> None:
    data = as_zarr(tmp_path)
    for chunk in (2, 5, 9):
        damage_zarr(tmp_path, chunk)
    with pytest.raises(dfit.WorkerError, match=r"partition [259] \(i\[\d+:\d+\].*checksum") as caught:
        fitted(data, min_success_rate=10 / 12)
    assert caught.value.best_values is None
    with pytest.warns(dfit.DfitWarning, match="3 of 12 partitions"):
        require_same(fitted(data, min_success_rate=9 / 12), without(2, 5, 9))


def test_partition_lost_in_a_later_pass_leaves_the_answer_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = as_zarr(tmp_path)
    spoiler = Spoiler(lambda: damage_zarr(tmp_path), npass=3)
    with pytest.warns(dfit.DfitWarning, match="partition 4"):
        found = fitted(data, min_success_rate=0.9, on_partition=spoiler.partition, verbose=1)
    spoiler.require()
    assert "partition 4 is left out: y 'signal', chunk (4,)" in capsys.readouterr().out
    # A third pass is given up; what the next one finds is of other data than what the second has found.
    assert [event.npasses for event in found.history] == [*range(1, found.npasses)]
    assert [np.isnan(event.reduction) for event in found.history[:4]] == [True, False, True, False]
    require_same(found, without(BROKEN))
    assert found.partial and [one.partition for one in found.left_out] == [BROKEN]
    assert found.partitions is not None
    assert found.partitions.missing.sum() == 2 * (CHUNKS - 1)


@pytest.mark.parametrize(
    "asked", [{"loss": "huber", "f_scale": 0.05}, {"cov": "hc1"}, {"cov": {"groups": "day"}}]
)
def test_partition_lost_in_the_pass_of_the_covariance_is_no_part_of_the_answer(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    data = as_zarr(tmp_path)
    day = xr.DataArray(np.arange(CHUNK * CHUNKS) // 100, dims="i", name="day")
    kept = np.isin(np.arange(CHUNK * CHUNKS) // CHUNK, BROKEN, invert=True)
    grouped = {"cov": {"groups": day}} if asked.get("cov") == {"groups": "day"} else {}
    spoiler = Spoiler(lambda: damage_zarr(tmp_path), npass=None)
    with pytest.warns(dfit.DfitWarning, match="partition 4"):
        found = fitted(
            data,
            min_success_rate=0.9,
            on_partition=spoiler.partition,
            callback=spoiler.after_convergence,
            **{**asked, **grouped},
        )
    spoiler.require()
    if grouped:
        grouped = {"cov": {"groups": day.isel(i=kept)}}
    require_same(found, without(BROKEN, **{**asked, **grouped}))
    assert found.partial and np.isfinite(found.covariance.stderr).all()


def test_sample_is_drawn_without_chunks_that_cannot_be_read(tmp_path: Path) -> None:
    data = as_zarr(tmp_path)
    damage_zarr(tmp_path)
    warmup = dfit.Warmup(sample_points=3000)
    with pytest.warns(dfit.DfitWarning, match="partition 4"):
        found = fitted(data, min_success_rate=0.9, warmup=warmup)
    assert found.warmup is not None and found.warmup.chunks_read == CHUNKS - 1
    require_same(found, without(BROKEN))


def test_answer_of_a_sample_alone_tells_what_it_could_not_read(tmp_path: Path) -> None:
    data = as_zarr(tmp_path)
    damage_zarr(tmp_path)
    with pytest.warns(dfit.DfitWarning, match="partition 4"):
        found = fitted(data, min_success_rate=0.9, warmup=dfit.Warmup(sample_points=3000), max_passes=0)
    assert found.partial and found.message.startswith("partial: 1 of 12 partitions")
    with pytest.warns(dfit.DfitWarning, match="partition 4"):
        whole = fitted(data, min_success_rate=0.9, warmup=dfit.Warmup(sample_points=CHUNK * CHUNKS))
    require_same(whole, without(BROKEN))
    assert whole.warmup is not None
    assert whole.warmup.sample == "all 22,000 points that can be read, of 24,000"
    with pytest.raises(dfit.WorkerError, match=r"partition 4.*stays unreadable"):
        fitted(data, warmup=dfit.Warmup(sample_points=3000))


def test_partial_result_is_the_same_after_a_file(tmp_path: Path) -> None:
    data = as_zarr(tmp_path)
    damage_zarr(tmp_path)
    with pytest.warns(dfit.DfitWarning, match="partition 4"):
        found = fitted(data, min_success_rate=0.5)
    found.to_dataset().to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
    again = dfit.FitResult.from_dataset(xr.load_dataset(tmp_path / "result.nc", engine="h5netcdf"))
    assert again.partial and again.left_out == found.left_out
    assert again.streaming_diagnostics == found.streaming_diagnostics
    assert again.fit_report() == found.fit_report()
    assert again.partitions is None


def test_error_in_a_later_pass_carries_the_best_values_so_far(tmp_path: Path) -> None:
    data = as_zarr(tmp_path)
    spoiler = Spoiler(lambda: damage_zarr(tmp_path), npass=3)
    passes: list[PassDone] = []
    with pytest.raises(dfit.WorkerError, match="partition 4") as caught:
        fitted(data, on_partition=spoiler.partition, callback=passes.append)
    spoiler.require()
    assert len(passes) == 2
    assert caught.value.best_values == passes[-1].params != START
    assert any(str(passes[-1].params) in note for note in caught.value.__notes__)


@pytest.mark.parametrize("rate", [0, 1.1, -0.5, float("nan"), True, "0.9"])
def test_rate_that_is_no_share_is_refused(rate: Any) -> None:
    with pytest.raises(dfit.InputError, match=r"min_success_rate is .*expected the share of partitions"):
        fitted(dataset(), min_success_rate=rate)
