"""A fit that leaves partitions out is stopped, and goes on as if it had not been."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dfit
from dfit.events import PartitionDone
from dfit.reduce.endings import with_piece
from tests.unreadable import BROKEN, CHUNKS, Spoiler, as_zarr, damage_zarr, fitted, require_same, without

COUNTED = ("failed_batch_indices", "error_type_distribution", "retries")

pytestmark = [
    pytest.mark.usefixtures("small_leaves", "chunk_partitions", "rereading"),
    pytest.mark.filterwarnings("ignore:.*(points were left out|partitions .* are left out):dfit.DfitWarning"),
]


@pytest.mark.parametrize("npass", [1, 3])
@pytest.mark.parametrize("done", [2, 9], ids=["before the loss", "after the loss"])
def test_partial_fit_goes_on_after_a_stop_with_the_same_bits(tmp_path: Path, npass: int, done: int) -> None:
    """The loss is in the pass that is stopped, or in the first one where that is stopped later."""
    data = as_zarr(tmp_path)
    damage_zarr(tmp_path)
    checkpoint, before, after = tmp_path / "kept", [], []

    def stop(event: PartitionDone) -> bool:
        before.append(event)
        return (event.npass, event.done) != (npass, done)

    expected = fitted(data, min_success_rate=0.9)
    if npass == 1:
        with pytest.raises(dfit.FitFailed):
            fitted(data, min_success_rate=0.9, on_partition=stop, checkpoint=checkpoint)
    else:
        fitted(data, min_success_rate=0.9, on_partition=stop, checkpoint=checkpoint)
    assert (before[-1].npass, before[-1].done) == (npass, done)
    found = fitted(data, min_success_rate=0.9, on_partition=after.append, checkpoint=checkpoint)
    assert (after[0].npass, after[0].done) == (npass, done + 1)
    np.testing.assert_array_equal(found.theta, expected.theta)
    np.testing.assert_array_equal(found.covar, expected.covar)
    assert found.cost == expected.cost and found.ndata == expected.ndata
    assert found.message == expected.message and found.npasses == expected.npasses
    # The reason is told by the process that found it.
    assert [one.error.partition(" in process")[0] for one in found.left_out] == [
        one.error.partition(" in process")[0] for one in expected.left_out
    ]
    told, wanted = found.streaming_diagnostics, expected.streaming_diagnostics
    # Both processes have looked at three chunks, whether they are those of before.
    assert told["total_batches_processed"] == wanted["total_batches_processed"] + 6
    assert {n: told[n] for n in COUNTED} == {n: wanted[n] for n in COUNTED}
    with pytest.raises(dfit.InputError, match=r"91\.67% of the partitions could be read"):
        fitted(data, checkpoint=checkpoint)


def test_partition_lost_by_an_earlier_process_in_a_later_pass_is_no_part_of_the_answer(
    tmp_path: Path,
) -> None:
    data = as_zarr(tmp_path)
    spoiler = Spoiler(lambda: damage_zarr(tmp_path), npass=3)

    def stop(event: PartitionDone) -> bool:
        spoiler.partition(event)
        return event.failure is None

    settings = {"min_success_rate": 0.9, "checkpoint": tmp_path / "kept"}
    fitted(data, on_partition=stop, **settings)
    spoiler.require()
    events: list[PartitionDone] = []
    found = fitted(data, on_partition=events.append, **settings)
    assert events[0].npass == 3 and 3 < events[0].done < CHUNKS
    require_same(found, without(BROKEN))
    assert [one.partition for one in found.left_out] == [BROKEN]


def test_chunk_that_an_earlier_process_could_read_is_left_out(tmp_path: Path) -> None:
    """Also where it is one that tells whether the data are those of before."""
    data = as_zarr(tmp_path)
    settings = {"min_success_rate": 0.9, "checkpoint": tmp_path / "kept"}
    before = fitted(data, callback=lambda event: event.npasses < 3, **settings)
    assert not before.success and not before.partial
    damage_zarr(tmp_path, CHUNKS // 2)
    found = fitted(data, **settings)
    require_same(found, without(CHUNKS // 2))
    assert [one.partition for one in found.left_out] == [CHUNKS // 2]


def test_leaves_that_are_left_out_by_processes_with_other_pieces_count_once() -> None:
    lost = frozenset({(0, 0, 4), (1, 8, 12)})
    whole = with_piece(lost, (0, 0, 8))
    assert whole == {(0, 0, 8), (1, 8, 12)}
    assert with_piece(whole, (0, 4, 8)) == whole
    assert with_piece(lost, (0, 4, 8)) == lost | {(0, 4, 8)}
