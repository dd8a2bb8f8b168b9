"""What passes and past fits cost changes how the next one runs, and never its bits."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

import dfit
from dfit.history import ledger
from dfit.plans import Plan
from dfit.terms import Origin
from tests.one_task import Reads
from tests.straight_lines import CHUNK, fitted, planned, same_bits, secret_line

CHUNKS = 8
pytestmark = pytest.mark.usefixtures("leaf_a_chunk")

EACH = Plan("streaming", CHUNK, 1, False)  # a task for each chunk, one after the other
WHOLE = Plan("streaming", CHUNK * CHUNKS, 1, False)


def plain_line(x, offset_of_it, slope_of_it):  # cannot be traced
    return np.asarray(offset_of_it + slope_of_it * np.asarray(x))


def test_a_partition_that_is_slow_comes_first_in_the_next_pass() -> None:
    slow = Reads(CHUNKS, CHUNK, before=lambda k: time.sleep(0.4 * (k == 5)))
    found = fitted(slow.y, plan=EACH)
    read = slow.numbers()
    assert found.npasses > 1
    assert read[:CHUNKS] == [*range(CHUNKS)]
    assert all(read[k * CHUNKS] == 5 for k in range(1, found.npasses))
    assert same_bits(found, fitted(Reads(CHUNKS, CHUNK).y, plan=EACH))


def test_tasks_that_take_long_are_cut_for_the_next_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fitted(Reads(CHUNKS, CHUNK).y, plan=WHOLE)
    assert before.faults.tasks == before.npasses
    monkeypatch.setattr("dfit.reduce.runners.LONGEST_S", 1e-6)
    after = fitted(Reads(CHUNKS, CHUNK).y, plan=WHOLE)
    assert after.faults.tasks == 1 + (after.npasses - 1) * CHUNKS
    assert after.partitions.sizes["partition"] == after.plan.partitions == 1
    assert same_bits(before, after)


@pytest.mark.parametrize("strategy", ["in_memory", "cached"])
def test_what_is_kept_is_not_cut_and_not_read_again(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.reduce.runners.LONGEST_S", 1e-6)
    given = Reads(CHUNKS, CHUNK)
    found = fitted(given.y, plan=Plan(strategy, CHUNK * CHUNKS))
    assert found.faults.tasks == found.npasses > 1
    assert given.numbers() == [*range(CHUNKS)]


@pytest.mark.parametrize("strategy", ["in_memory", "cached", "streaming"])
def test_a_partition_that_memory_has_no_room_for_is_cut(strategy: str) -> None:
    short = iter([True])

    def before(k: int) -> None:
        if k == 6 and next(short, False):
            raise MemoryError("Unable to allocate")

    found = fitted(Reads(CHUNKS, CHUNK, before).y, plan=Plan(strategy, CHUNK * CHUNKS, 1, False))
    assert found.faults.tasks == 2 * found.npasses
    assert same_bits(found, fitted(Reads(CHUNKS, CHUNK).y, plan=WHOLE))


@pytest.mark.usefixtures("tried")
def test_a_dry_run_reads_two_leaves_at_most() -> None:
    given = Reads(CHUNKS, CHUNK)
    plan = planned(given.y)
    assert plan.terms.origin == Origin.DRY_RUN and plan.terms.point_ns > 0
    assert set(given.numbers()) <= {0, 1}
    assert plan.origins["partition_points"] == "dry run"


@pytest.mark.parametrize("few", [True, False], ids=["few points", "static"])
def test_nothing_is_read_for_a_plan_by_rules(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not few:
        monkeypatch.setattr("dfit.costing.TRY_ABOVE", 0)
    given = Reads(CHUNKS, CHUNK)
    plan = planned(given.y, plan="auto" if few else "static")
    assert plan.terms.origin == Origin.STATIC and given.numbers() == []


@pytest.mark.usefixtures("tried")
def test_a_mean_over_all_data_is_not_computed_for_a_plan() -> None:
    given = Reads(CHUNKS, CHUNK)
    centred = given.y - given.y.mean()
    assert planned(centred).terms.origin == Origin.STATIC and given.numbers() == []
    found = fitted(centred, strategy="streaming")
    assert Counter(given.numbers()) == {k: 1 + found.npasses for k in range(CHUNKS)}


@pytest.mark.filterwarnings("ignore:JAX cannot compile the model")
@pytest.mark.usefixtures("tried")
def test_a_model_that_cannot_be_traced_is_tried() -> None:
    plan = planned(Reads(CHUNKS, CHUNK).y, model=plain_line)
    assert plan.terms.origin == Origin.DRY_RUN and plan.terms.point_ns > 0


def broken_read(k: int) -> None:
    if k < 2:
        raise OSError("the tape is torn")


def broken_model(x, offset_of_it, slope_of_it):
    x = np.asarray(x)
    if x.size > 100:  # not in the few points on which a model is tried
        raise RuntimeError("this model has a limit")
    return offset_of_it + slope_of_it * x


@pytest.mark.filterwarnings("ignore:JAX cannot compile the model")
@pytest.mark.parametrize(("read", "model"), [(broken_read, secret_line), (lambda k: None, broken_model)])
def test_what_fails_in_a_dry_run_is_told_by_the_pass(
    read: Any, model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = []
    for above in (1 << 22, 0):
        monkeypatch.setattr("dfit.costing.TRY_ABOVE", above)
        given = Reads(CHUNKS, CHUNK, read)
        with caplog.at_level(logging.INFO, "dfit"):
            assert planned(given.y, model=model).terms.origin == Origin.STATIC
        assert ("dry run in" in caplog.text) == (above == 0)
        with pytest.raises(dfit.DfitError) as error:
            fitted(given.y, model=model, plan=EACH)
        told.append((type(error.value), str(error.value)))
    assert told[0] == told[1]
    assert "torn" in told[0][1] or "has a limit" in told[0][1]


def test_tests_keep_no_history() -> None:
    assert ledger() is None
