"""Going on with a fit that began on a sample: what is returned at once, and by processes with other memory."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import dfit
from dfit.store.folder import Folder
from tests.resumed import differences, stop_after
from tests.warmed import P0, SAMPLE, Reads, decay

pytestmark = pytest.mark.usefixtures("small_leaves")


def fit(path: Path | None = None, reads: Reads | None = None, **options: Any) -> dfit.FitResult:
    y = (Reads() if reads is None else reads).array()
    return dfit.fit(decay, y, "t", **{"p0": P0, "warmup": SAMPLE, "checkpoint": path, **options})


def test_the_answer_of_a_sample_is_returned_as_such_again(tmp_path: Path) -> None:
    first = fit(tmp_path, max_passes=0)
    reads = Reads()
    again = fit(tmp_path, reads, max_passes=0)
    assert reads == []
    assert (again.success, again.message) == (False, first.message)
    assert differences(again, first) == []


def test_the_answer_of_a_sample_is_not_that_of_a_fit_with_passes(tmp_path: Path) -> None:
    fit(tmp_path, max_passes=0)
    found = fit(tmp_path)
    assert found.npasses > 1
    assert differences(found, fit()) == []


@pytest.mark.usefixtures("rereading")
def test_what_the_collecting_pass_found_is_returned_by_a_process_that_finds_nothing_more(
    tmp_path: Path,
) -> None:
    stopped = fit(tmp_path, callback=lambda event: False)
    found = fit(tmp_path, on_partition=lambda event: False)
    assert found.cost == stopped.cost < np.inf
    assert found.best_values == stopped.best_values


@pytest.mark.usefixtures("rereading")
def test_a_fit_that_ends_in_the_collecting_pass_is_finished(tmp_path: Path) -> None:
    p0 = list(fit(warmup=False).best_values.values())
    first = fit(tmp_path, p0=p0, tol=1e-3)
    assert (first.success, first.npasses) == (True, 1)
    reads = Reads()
    again = fit(tmp_path, reads, p0=p0, tol=1e-3)
    assert reads == []
    assert differences(again, first) == []


@pytest.mark.usefixtures("chunk_partitions")
def test_a_pass_that_collects_goes_on_where_the_data_are_kept(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfit.planning.KEEP_FRACTION", 1e-9)
        expected = fit()
        with contextlib.suppress(KeyboardInterrupt):
            fit(tmp_path, on_partition=stop_after(3))
    ended: list[int] = []
    found = fit(tmp_path, on_partition=lambda event: ended.append(event.npass))
    assert 0 < ended.count(1) < ended.count(2)
    assert differences(found, expected) == []


class Breaks(Reads):
    """A store of which no more than so many chunks can be read."""

    def append(self, chunk: int) -> None:
        if len(self) == 6:
            raise OSError("no such block")
        super().append(chunk)


def test_part_of_a_partition_that_is_kept_whole_is_no_change_of_the_data(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        fit(tmp_path, warmup=False, on_partition=stop_after(1))
    with dask.config.set({"dfit.partition-bytes": "1 B"}), pytest.raises(dfit.WorkerError):
        fit(tmp_path, Breaks(), warmup=False, retries=0)  # as many threads as chunks: a task for each
    found = Folder(tmp_path).latest()
    assert found is not None
    leaves = found[0]["running"]["table"]["leaves"].tolist()
    assert len(set(leaves) - {0}) > 1, f"a partition is summed in part: {leaves}"
    assert differences(fit(tmp_path, warmup=False), fit(warmup=False)) == []


def test_a_fit_that_began_again_and_was_killed_at_once_does_not_go_on_from_before(tmp_path: Path) -> None:
    def wrong(event: Any) -> None:
        raise dfit.InputError("as a kill this leaves no save behind")

    before = fit(tmp_path, warmup=False)
    with pytest.raises(dfit.InputError, match="no save behind"):
        fit(tmp_path, warmup=False, resume=False, on_partition=wrong)
    reads = Reads()
    found = fit(tmp_path, reads, warmup=False)
    assert set(reads) == set(range(10))
    assert differences(found, before) == []
