"""The plan of a fit: made without one, followed by it, and told."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.plans import Plan
from tests.one_task import Reads
from tests.straight_lines import CHUNK, fitted, planned

CHUNKS = 12

pytestmark = pytest.mark.usefixtures("leaf_a_chunk")


def reads(chunks: int = CHUNKS, **options: Any) -> Reads:
    return Reads(chunks, CHUNK, **options)


WISHES = [Plan(), Plan(partition_points=5000), Plan("streaming", 3 * CHUNK, 1, False), Plan(in_flight=3)]


def test_fewer_partitions_at_a_time_than_threads_are_warned_of_where_memory_is_why() -> None:
    with dask.config.set(num_workers=64):
        asked, free = planned(reads().y, plan=Plan(in_flight=1)), planned(reads().y)
        short = planned(reads().y, memory_limit=free.smallest_limit + (128 << 20))
    assert (asked.in_flight, asked.warnings) == (1, ())
    assert short.in_flight is not None and 1 < short.in_flight < 64
    (warning,) = short.warnings
    assert "memory for " in warning and "type smaller chunks" in warning


@pytest.mark.parametrize("wish", WISHES, ids=range(len(WISHES)))
def test_fit_follows_the_plan_that_was_made_before(wish: Plan) -> None:
    given = reads()
    plan = planned(given.y, plan=wish)
    assert plan.complete and given.numbers() == []
    found = fitted(given.y, plan=plan)
    assert found.plan == plan
    for name in ("strategy", "partition_points", "in_flight", "read_ahead"):
        assert getattr(wish, name) in (None, getattr(plan, name))
    assert found.partitions.sizes["partition"] == plan.partitions
    assert found.run.points_per_pass == plan.points == CHUNK * CHUNKS
    assert found.run.bytes_per_pass == plan.bytes_per_pass
    passes = found.npasses if plan.strategy == "streaming" else 1
    assert sorted(given.numbers()) == sorted([*range(CHUNKS)] * passes)


def test_fit_without_a_plan_makes_the_same_one() -> None:
    given = reads()
    plan, found = planned(given.y), fitted(given.y)
    assert found.plan.choices() == plan.choices()
    assert (found.plan.partitions, found.plan.terms) == (plan.partitions, plan.terms)


def test_a_warm_up_is_planned_for() -> None:
    cold, warm = planned(reads().y), planned(reads().y, warmup=dfit.Warmup(sample_points=4000))
    assert (cold.sample_points, warm.sample_points) == (0, 4000)
    assert "on 4,000 points first" in repr(warm)
    assert warm.choices() == cold.choices()
    assert fitted(reads().y, plan=warm).plan.sample_points == 0  # as that call has none


@pytest.mark.parametrize("points", [CHUNK, 4 * CHUNK, 10**9])
def test_partitions_have_the_points_that_the_plan_says(points: int) -> None:
    found = fitted(reads().y, plan=Plan(partition_points=points))
    each = min(points, CHUNK * CHUNKS)
    np.testing.assert_array_equal(found.partitions.points, each)
    assert found.plan.partition_points == points or each < points


@pytest.mark.parametrize("in_flight", [1, 3])
def test_threads_sum_so_many_partitions_at_a_time(in_flight: int) -> None:
    given = reads(4)
    fitted(given.y, plan=Plan("streaming", CHUNK, in_flight, False))
    assert len(given.threads) <= in_flight
    at_once, most = 0, 0
    for what, _ in given.events:
        at_once += 1 if what == "begins" else -1
        most = max(most, at_once)
    assert 1 <= most <= in_flight


def test_same_bits_come_out_of_any_plan() -> None:
    given = reads()
    plain = fitted(given.y)
    for plan in (*WISHES, "static", Plan("in_memory", CHUNK), Plan("cached", 10**9, 2, True)):
        other = fitted(given.y, plan=plan)
        assert (other.best_values, other.chisqr) == (plain.best_values, plain.chisqr)
        np.testing.assert_array_equal(other.covar, plain.covar)


def test_decision_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dfit"):
        found = fitted(reads().y)
    said = [record.getMessage() for record in caplog.records if "predicted peak" in record.getMessage()]
    assert said == [found.plan.decision]
    (text,) = said
    assert "\n" not in text
    assert text.startswith(f"in_memory: {CHUNK * CHUNKS} points in {found.plan.partitions} partitions")
    assert str(found.plan.limit) in text and text.endswith(found.plan.reason)


def test_a_plan_is_printed_with_its_numbers_and_where_they_come_from() -> None:
    plan = planned(reads().y, strategy="streaming", memory_limit="8 GB", memory_fraction=0.5)
    text = repr(plan)
    assert "streaming: asked for" in text and f"{plan.points:,}" in text
    assert "7.45 GiB (memory_limit), of which a fit may take 0.5 (memory_fraction): 3.73 GiB" in text
    assert text.rstrip().endswith("static")
    assert plan.origins["pass_s"] == "static" and plan.origins["limit"] == "memory_limit, memory_fraction"


def test_a_wish_is_printed_as_one() -> None:
    text = repr(Plan("cached"))
    assert "strategy" in text and "cached" in text and text.count("to be decided") == 3


def test_html_of_a_plan_is_escaped() -> None:
    plan = replace(planned(reads().y), reason="<script>alert(1)</script>", warnings=("<b>slow</b>",))
    html = plan._repr_html_()
    assert "<script>" not in html and "<b>slow" not in html
    assert "&lt;script&gt;" in html and "&lt;b&gt;slow" in html


def test_a_plan_for_other_data_is_refused() -> None:
    plan = planned(reads().y)
    with pytest.raises(dfit.InputError, match=r"the plan is for 24,576 points.*type plan=dfit\.plan"):
        fitted(reads(5).y, plan=plan)


def test_a_plan_and_a_strategy_that_disagree_are_refused() -> None:
    given = reads()
    plan = planned(given.y, strategy="streaming")
    with pytest.raises(dfit.InputError, match=r"strategy='in_memory', and plan= has 'streaming': type"):
        fitted(given.y, plan=plan, strategy="in_memory")
    assert fitted(given.y, plan=plan, strategy="streaming").plan == plan


def test_a_plan_for_other_limits_is_made_anew() -> None:
    given = reads()
    plan = planned(given.y, plan=Plan("streaming", 3 * CHUNK))
    found = fitted(given.y, plan=plan, memory_limit="4 GB").plan
    assert found.limit != plan.limit and found.limit.source == "memory_limit"
    assert found.choices() == plan.choices()


@pytest.mark.usefixtures("tried")
def test_what_one_model_costs_is_not_believed_of_another() -> None:
    def other(x, offset_of_it, slope_of_it):
        return offset_of_it - slope_of_it * x

    given = reads()
    plan = planned(given.y)
    found = fitted(given.y, model=other, plan=plan).plan
    assert plan.workload and found.workload["model"] != plan.workload["model"]
    assert found.choices() == plan.choices()


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("nonsense", r"plan is 'nonsense'; expected 'auto', 'static', or a dfit\.Plan"),
        ("streaming", r"plan is 'streaming';.*Type: strategy='streaming'"),
        (3, r"plan is 3; expected 'auto'"),
        (None, r"plan is None; expected 'auto'"),
        (np.arange(3), r"plan is array.*expected 'auto'"),
    ],
)
def test_what_is_no_plan_is_refused(plan: Any, message: str) -> None:
    with pytest.raises(dfit.InputError, match=message):
        fitted(reads().y, plan=plan)


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "chunked"},
        {"strategy": 3},
        {"partition_points": 0},
        {"partition_points": -5},
        {"partition_points": 1.5},
        {"partition_points": True},
        {"in_flight": -1},
        {"in_flight": 0},
        {"read_ahead": "yes"},
    ],
    ids=str,
)
def test_a_plan_of_values_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(dfit.InputError, match=rf"{name} is .*; expected"):
        Plan(**wrong)


def test_a_long_fit_is_told_to_keep_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    given = reads()
    assert not any("checkpoint" in text for text in planned(given.y).warnings)
    monkeypatch.setattr("dfit.plan_warnings.LONG_S", 1e-9)
    (text,) = planned(given.y).warnings
    assert "predicted to take" in text and "type checkpoint='fit.ckpt'" in text
    assert caplog.records[-1].levelno == logging.WARNING and caplog.records[-1].getMessage() == text
    assert planned(given.y, checkpoint=tmp_path / "kept").warnings == ()
    assert fitted(given.y, plan=planned(given.y)).plan.warnings == (text,)
    assert fitted(given.y, plan=planned(given.y), checkpoint=tmp_path / "kept").plan.warnings == ()


@pytest.mark.parametrize(("compressed", "threads"), [(True, 4), (True, 1), (False, 4)])
def test_threads_that_wait_for_a_lock_are_advised(compressed: bool, threads: int, tmp_path: Path) -> None:
    y = xr.DataArray(1 + 2 * np.arange(4.0 * CHUNK), dims="i", coords={"x": ("i", np.arange(4.0 * CHUNK))})
    encoding = {"y": {"chunksizes": (CHUNK,), **({"zlib": True} if compressed else {})}}
    y.to_dataset(name="y").to_netcdf(tmp_path / "y.nc", engine="h5netcdf", encoding=encoding)
    with (
        xr.open_dataset(tmp_path / "y.nc", engine="h5netcdf", chunks={"i": CHUNK}) as stored,
        dask.config.set(num_workers=threads),
    ):
        plan = planned(stored.y, strategy="streaming")
        kept = planned(stored.y)
    told = [text for text in plan.warnings if "lock" in text]
    assert bool(told) == (compressed and threads > 1)
    assert all("zarr" in text for text in told)
    assert kept.strategy == "in_memory" and kept.warnings == ()  # read once
