"""What finished fits leave for the plans of later ones, and what these make of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import pytest
import xarray as xr

import dfit
from dfit.cost import Load, pass_seconds
from dfit.costing import costs_of, hardware_of
from dfit.data.storage import Storage
from dfit.history import ledger
from dfit.planning import Facts
from dfit.plans import Plan
from dfit.reduce.calibrate import DryRun
from dfit.reduce.hardware import Hardware
from dfit.reduce.pace import PassCost
from dfit.reduce.site import site_of
from dfit.remembering import overhead_ms
from dfit.store.row import Record, key_of
from dfit.terms import Origin, Terms
from tests.one_task import Reads
from tests.small_disk import mounted
from tests.straight_lines import CHUNK, fitted, planned, same_bits

CHUNKS = 8
WHOLE = Plan("streaming", CHUNK * CHUNKS, 1, False)

pytestmark = pytest.mark.usefixtures("leaf_a_chunk", "tried")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A history of its own."""
    with dask.config.set({"dfit.history": str(tmp_path / "kept")}):
        yield tmp_path / "kept"


def records() -> list[Record]:
    kept = ledger()
    assert kept is not None
    return kept.load()


def test_a_fit_leaves_one_record_without_paths_values_or_names(folder: Path, tmp_path: Path) -> None:
    given = Reads(CHUNKS, CHUNK).y.rename("signal_of_ours")
    given.to_dataset().to_zarr(tmp_path / "private.zarr", encoding={"signal_of_ours": {"chunks": (CHUNK,)}})
    stored = xr.open_zarr(tmp_path / "private.zarr").signal_of_ours
    planned(stored)
    assert not folder.exists()
    found = fitted(stored, plan=WHOLE)
    (record,) = records()
    (file,) = folder.iterdir()
    text = file.read_text()
    assert text.count("\n") == 1
    names = [
        "private",
        str(tmp_path),
        os.sep + "tmp",
        "signal_of_ours",
        "secret_line",
        "offset_of_it",
        "lambda",
    ]
    assert [name for name in names if name in text] == []
    values = [*found.best_values.values(), found.chisqr, *stored.values[:3], *found.covar.ravel()]
    assert [value for value in values if f"{float(value)!r}"[:8] in text] == []
    assert record.predicted_by == Origin.DRY_RUN and record.workload["store"] == "zarr"
    assert record.about["flops_per_point"] > 0
    assert found.plan.origins["partition_points"] == found.plan.origins["in_flight"] == "asked for"
    assert found.plan.origins["pass_s"] == "dry run"
    assert record.settings["strategy"] == "streaming"
    assert record.measured["passes"] == found.npasses and record.measured["pass_s"] > 0


def test_small_fits_and_those_of_rules_leave_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted(Reads(CHUNKS, CHUNK).y, plan="static")
    monkeypatch.setattr("dfit.costing.TRY_ABOVE", 1 << 22)
    fitted(Reads(CHUNKS, CHUNK).y)
    assert not folder.exists()


def test_a_second_fit_goes_by_what_the_first_has_cost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.learning.OFF", 1e9)  # of so few points times say little
    first = fitted(Reads(CHUNKS, CHUNK).y, strategy="cached")
    second = fitted(Reads(CHUNKS, CHUNK).y, strategy="cached")
    assert first.plan.terms.origin == Origin.DRY_RUN
    assert second.plan.terms.origin == Origin.HISTORY and second.plan.origins["pass_s"] == "history"
    assert second.plan.terms.point_ns == records()[0].measured["point_ns"]
    assert same_bits(first, second) and len(records()) == 2


def test_reads_of_the_sample_alone_are_remembered_where_no_pass_reads_again(folder: Path) -> None:
    fitted(Reads(CHUNKS, CHUNK).y, strategy="cached", warmup=dfit.Warmup(sample_points=CHUNK))
    (record,) = records()
    assert record.measured["byte_ns"] > 0


def test_how_much_of_a_read_waits_is_never_learned_from_what_was_only_assumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.learning.OFF", 1e9)
    fitted(Reads(CHUNKS, CHUNK).y, strategy="cached")
    with monkeypatch.context() as patch:
        patch.setattr("dfit.planned.first_of", lambda *given: None)  # as for data that a mean is taken from
        assert fitted(Reads(CHUNKS, CHUNK).y, strategy="cached").plan.terms.origin == Origin.STATIC
    assert [record.measured["wait"] is None for record in records()] == [False, True]


def test_other_strategies_and_models_are_other_workloads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.learning.OFF", 1e9)
    fitted(Reads(CHUNKS, CHUNK).y, strategy="cached")
    assert planned(Reads(CHUNKS, CHUNK).y, strategy="cached").terms.origin == Origin.HISTORY
    assert planned(Reads(CHUNKS, CHUNK).y, strategy="streaming").terms.origin == Origin.DRY_RUN
    other = planned(
        Reads(CHUNKS, CHUNK).y, strategy="cached", model=lambda x, offset_of_it, slope_of_it: 2 * x
    )
    assert other.terms.origin == Origin.DRY_RUN


def test_a_history_that_a_dry_run_contradicts_is_not_followed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = fitted(Reads(CHUNKS, CHUNK).y, strategy="cached")
    (record,) = records()
    kept = ledger()
    assert kept is not None
    kept.clear()
    wrong = {**record.measured, "point_ns": 1e6 * record.measured["point_ns"]}
    kept.add(
        Record(
            **{name: getattr(record, name) for name in ("workload", "hardware", "about", "versions")},
            settings=record.settings,
            predicted=record.predicted,
            predicted_by=record.predicted_by,
            measured=wrong,
        )
    )
    with caplog.at_level("INFO", "dfit"):
        second = fitted(Reads(CHUNKS, CHUNK).y, strategy="cached")
    assert caplog.text.count("contradicts past fits") == 1
    assert second.plan.terms.origin == Origin.DRY_RUN and same_bits(first, second)


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_what_a_task_costs_is_found_in_the_seconds_that_the_model_gives_a_pass(threads: int) -> None:
    tasks, each_s, task_ms = 160, 0.1, 1.5
    load = Load(tasks, 0, threads, threads)
    seconds = pass_seconds(Terms(1e9 * each_s, 0.0, 0.0, task_ms, 0.0, Origin.DRY_RUN), load, 1)
    assert overhead_ms(
        PassCost(seconds, tasks, task_s=[each_s] * tasks, task_points=[1] * tasks), threads, False
    ) == pytest.approx(task_ms)


def test_hardware_is_the_same_in_any_order_of_answers_and_after_an_update_of_the_kernel() -> None:
    memory = (16 << 30) - (300 << 20)
    old, new, other = (
        DryRun(name, Hardware(name, 2, "32K"), (size, "physical memory", True))
        for name, size in (("old", memory), ("new", memory), ("old", memory - (1 << 20)))
    )
    site = site_of(None, None)
    assert hardware_of([old, new], site) == hardware_of([new, old], site)
    assert key_of(hardware_of([old], site)) == key_of(hardware_of([other], site))
    assert key_of(hardware_of([old], site)) != key_of(hardware_of([new], site))


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_is_kept_of_workers_of_which_nothing_is_known(workers: int) -> None:
    facts = Facts(1000, 8000, 8, 8000, 8000, 1000, 100, 2, Storage("zarr", "none", False, 8000))
    site = replace(site_of(None, None), workers=workers)
    known = costs_of(facts, {"model": "a line"}, site, try_out=list)
    assert known.terms.origin == Origin.STATIC
    assert known.workload == ({} if workers else {"model": "a line"})


@pytest.mark.parametrize("points", [0, 1 << 22], ids=["large", "small"])
def test_a_setting_that_is_no_history_is_refused_before_anything_is_read(
    points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.costing.TRY_ABOVE", points)
    given = Reads(CHUNKS, CHUNK)
    with dask.config.set({"dfit.history": 3}), pytest.raises(dfit.InputError, match=r"dfit\.history is 3"):
        fitted(given.y)
    assert given.numbers() == []


def corrupt(folder: Path) -> None:
    folder.mkdir()
    (folder / f"run-{'1' * 32}.jsonl").write_bytes(b"{\x00 nothing")


def in_the_way(folder: Path) -> None:
    folder.write_text("a file")


def of_another(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, 12345, 12345)


@pytest.mark.parametrize("damage", [corrupt, in_the_way, of_another])
def test_a_fit_goes_on_without_its_history_with_one_warning(damage: Any, folder: Path) -> None:
    if damage is of_another and os.getuid() != 0:
        pytest.skip("only root gives files away")
    damage(folder)
    with pytest.warns(dfit.DfitWarning) as told:
        found = fitted(Reads(CHUNKS, CHUNK).y)
    assert len([one for one in told if "history" in str(one.message)]) == len(told) == 1
    assert found.plan.terms.origin == Origin.DRY_RUN
    assert found.best_values["slope_of_it"] == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("full", [True, False], ids=["full", "read-only"])
def test_a_fit_goes_on_where_its_history_cannot_be_written(full: bool, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk, dask.config.set({"dfit.history": str(disk)}):
        before = fitted(Reads(CHUNKS, CHUNK).y, strategy="cached")
        if full:
            with pytest.raises(OSError), (disk / "filler").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.warns(dfit.DfitWarning, match="cannot be kept") as told:
            found = fitted(Reads(CHUNKS, CHUNK).y, strategy="streaming")
        assert len(told) == 1 and len(records()) == 1
    assert same_bits(found, before) and found.plan.terms.origin == Origin.DRY_RUN
