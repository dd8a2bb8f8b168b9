"""Strategies: each by name, decided by the limit of memory in force, refused where it cannot run."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.data.storage import Storage
from dfit.limits import Limit
from dfit.planning import Facts, decide, keep_room, strategy_of
from dfit.plans import STRATEGIES, Plan
from dfit.reduce.site import Site
from dfit.terms import Origin, Terms
from tests import straight_lines
from tests.one_task import Reads
from tests.resumed import differences, stop_and_go
from tests.straight_lines import CHUNK, fitted, same_bits

CHUNKS = 12


@pytest.mark.usefixtures("leaf_a_chunk")
@pytest.mark.parametrize("scheduler", [None, "threads", "synchronous"])
@pytest.mark.parametrize("warmup", [False, dfit.Warmup(sample_points=4000)], ids=["cold", "warm"])
def test_every_strategy_gives_the_same_bits(scheduler: str | None, warmup: Any) -> None:
    found = {}
    with dask.config.set({} if scheduler is None else {"scheduler": scheduler}):
        for strategy in STRATEGIES:
            given = Reads(CHUNKS, CHUNK)
            found[strategy] = fitted(given.y, strategy=strategy, warmup=warmup)
            read = given.numbers()
            assert found[strategy].plan.strategy == strategy
            assert set(read) == set(range(CHUNKS))
            # What is kept is read once, whatever the sample has read of it before.
            again = found[strategy].npasses if strategy == "streaming" else 1
            assert len(read) >= again * CHUNKS if warmup else len(read) == again * CHUNKS
            assert strategy == "streaming" or len(read) == CHUNKS
    assert found["in_memory"].npasses > 1 or warmup
    assert same_bits(found["in_memory"], found["cached"])
    assert same_bits(found["in_memory"], found["streaming"])


@pytest.mark.usefixtures("leaf_a_chunk")
def test_data_in_memory_and_in_chunks_are_fitted_by_the_same_strategy() -> None:
    found = fitted(Reads(CHUNKS, CHUNK).y.load())
    assert found.plan.strategy == "in_memory" and found.plan.reason == "the data are in memory"
    assert found.plan.bytes_per_pass == 0


@pytest.mark.usefixtures("leaf_a_chunk")
def test_configuration_says_the_strategy_and_the_call_overrides_it() -> None:
    given = Reads(CHUNKS, CHUNK)
    with dask.config.set({"dfit.strategy": "streaming"}):
        assert fitted(given.y).plan.strategy == "streaming"
        assert fitted(given.y, strategy="cached").plan.strategy == "cached"
        assert fitted(given.y, plan=dfit.Plan("cached")).plan.strategy == "cached"
    with (
        dask.config.set({"dfit.strategy": "hybrid"}),
        pytest.raises(
            dfit.InputError, match=r"dfit.strategy is 'hybrid' in dask.config; expected one of 'in_memory'"
        ),
    ):
        fitted(given.y)


@pytest.mark.usefixtures("leaf_a_chunk")
@pytest.mark.parametrize("at", ["on_partition", "callback"])
def test_a_fit_goes_on_by_another_strategy_and_plan_with_the_same_bits(at: str, tmp_path: Path) -> None:
    given = Reads(CHUNKS, CHUNK)
    wanted = itertools.cycle(
        [
            Plan("streaming", CHUNK, 1, False),
            Plan("cached", 5 * CHUNK),
            Plan("in_memory"),
            Plan("streaming", 3 * CHUNK),
        ]
    )
    used = []

    def run(**options: Any) -> dfit.FitResult:
        used.append(next(wanted))
        return fitted(given.y, plan=used[-1], **options)

    found, stops = stop_and_go(run, tmp_path / "kept", at=at)
    assert stops > 1 and len(used) == stops + 1
    assert differences(found, fitted(given.y)) == []
    assert found.plan.strategy == used[-1].strategy


@pytest.mark.parametrize("strategy", ["STANDARD", "chunked", "", 1, True])
def test_unknown_strategies_are_refused(strategy: Any) -> None:
    with pytest.raises(
        dfit.InputError, match=r"strategy is .*; expected one of 'in_memory', 'cached', 'streaming'"
    ):
        fitted(Reads(2, CHUNK).y, strategy=strategy)


@pytest.mark.parametrize("strategy", ["cached", "streaming"])
def test_nothing_is_read_again_of_data_in_memory(strategy: str) -> None:
    y = Reads(2, CHUNK).y.load()
    with pytest.raises(
        dfit.InputError, match=rf"strategy='{strategy}'.*in memory: type strategy='in_memory'"
    ):
        fitted(y, strategy=strategy)


def test_cached_is_refused_where_nothing_stays() -> None:
    with (
        dask.config.set(scheduler="processes"),
        pytest.raises(dfit.InputError, match=r"strategy='cached'.*keeps nothing.*type strategy='streaming'"),
    ):
        fitted(Reads(2, CHUNK).y, strategy="cached")


# Half a GiB, that nobody reads: more or less than may be kept.
SIZE, SMALL = 1 << 26, "1.6 GB"


def large() -> xr.DataArray:
    y = da.zeros((64, SIZE // 64), chunks=(1, -1))
    return xr.DataArray(y, dims=("t", "i"), coords={"x": ("t", np.arange(64.0))})


def planned(**options: Any) -> dfit.Plan:
    return straight_lines.planned(large(), plan="static", **options)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 GiB, no other limit, and 400 MiB that this process holds."""
    monkeypatch.setattr("dfit.limits._limits", lambda root: iter([(32 << 30, "physical memory", True)]))
    monkeypatch.setattr("dfit.reduce.site.held_bytes", lambda source: 400 << 20)


@pytest.mark.usefixtures("machine")
def test_memory_limit_changes_the_decision() -> None:
    assert planned().strategy == "in_memory"
    assert planned(memory_limit=SMALL).strategy == "streaming"
    with dask.config.set({"dfit.memory-limit": SMALL}):
        assert planned().strategy == "streaming"
        assert planned(memory_limit="30 GB").strategy == "in_memory"


def test_a_strategy_configured_for_all_fits_is_none_for_data_in_memory() -> None:
    y = xr.DataArray(np.ones(50), dims="time", coords={"time": np.arange(50.0)})
    with dask.config.set({"dfit.strategy": "streaming"}):
        assert dfit.plan(lambda time, c: c + 0 * time, y, "time", p0=[1.0]).strategy == "in_memory"


@pytest.mark.usefixtures("machine")
def test_memory_fraction_changes_the_decision() -> None:
    assert planned(memory_fraction=0.03).strategy == "streaming"
    with dask.config.set({"dfit.memory-fraction": 0.03}):
        assert planned().strategy == "streaming"
        assert planned(memory_fraction=0.75).strategy == "in_memory"


@pytest.mark.usefixtures("machine")
def test_limits_of_the_system_change_the_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    for size, strategy in ((1500 << 20, "streaming"), (16 << 30, "in_memory")):
        monkeypatch.setattr(
            "dfit.limits._limits",
            lambda root, size=size: iter(
                [(32 << 30, "physical memory", True), (size, "control group", True)]
            ),
        )
        plan = planned()
        assert (plan.strategy, plan.limit.source) == (strategy, "control group")


def test_environment_changes_the_decision(source_environment: dict[str, str]) -> None:
    script = (
        "import dask.array as da, numpy as np, xarray as xr, dfit\n"
        "y = xr.DataArray(da.zeros((64, 1 << 20), chunks=(1, -1)), dims=('t', 'i'), coords={'x': ('t', np.arange(64.))})\n"
        "plan = dfit.plan(lambda x, a, b: a + b * x, y, 'x', p0={'a': 1, 'b': 1})\n"
        "print(plan.strategy, plan.limit.bytes, plan.limit.source, plan.limit.fraction, sep=', ')"
    )
    said = {"DASK_DFIT__MEMORY_LIMIT": "1.6 GB", "DASK_DFIT__MEMORY_FRACTION": "0.6"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=source_environment | said, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "streaming, 1600000000, dask.config dfit.memory-limit, 0.6"
    asked = dask.config.collect_env({"DASK_DFIT__STRATEGY": "cached"})
    with dask.config.set(asked):
        assert planned().strategy == "cached"


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("strategy", ["in_memory", "cached"])
def test_what_does_not_fit_is_not_kept(strategy: str) -> None:
    with pytest.raises(
        dfit.InputError,
        match=rf"strategy='{strategy}': 512.00 MiB of data are more than .*type strategy='streaming', or memory_limit='",
    ):
        planned(strategy=strategy, memory_limit=SMALL)


@pytest.mark.usefixtures("machine")
def test_the_limit_that_is_named_instead_is_enough() -> None:
    with pytest.raises(dfit.InputError) as refused:
        planned(strategy="in_memory", memory_limit=SMALL)
    named = str(refused.value).partition("memory_limit='")[2].partition("'")[0]
    assert planned(strategy="in_memory", memory_limit=named).strategy == "in_memory"


@pytest.mark.usefixtures("machine")
def test_a_limit_below_one_partition_names_the_smallest_that_works() -> None:
    with pytest.raises(dfit.InputError, match=r"needs .* in one process; the limit is 95\.37 MiB") as refused:
        planned(memory_limit="100 MB")
    named = str(refused.value).partition("memory_limit='")[2].partition("'")[0]
    assert named and planned(memory_limit=named).strategy == "streaming"


@pytest.mark.usefixtures("machine")
def test_a_limit_beyond_the_machine_is_warned_about_and_does_not_hold() -> None:
    with pytest.warns(dfit.DfitWarning, match="is more than a process can have here.*32.00 GiB"):
        plan = planned(memory_limit="64 GB")
    assert plan.limit.bytes == 32 << 30


@pytest.mark.parametrize("given", [0, -5, "-1 GB", "many", float("nan"), True])
def test_a_limit_that_is_no_size_is_refused(given: Any) -> None:
    with pytest.raises(dfit.InputError, match=r"memory_limit=.*expected a size of memory above 0"):
        planned(memory_limit=given)


@pytest.mark.parametrize(
    "setting", [{"dfit.partition-bytes": 0}, {"dfit.partition-bytes": "many"}, {"num_workers": -3}]
)
def test_a_setting_of_dask_that_is_no_size_or_number_is_refused(setting: dict[str, Any]) -> None:
    with dask.config.set(setting), pytest.raises(dfit.InputError, match=f"{next(iter(setting))}.*expected a"):
        planned()


@pytest.mark.parametrize("given", [0, -0.1, 1.5, "0.5", float("nan"), True])
def test_a_fraction_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(dfit.InputError, match=r"memory_fraction=.*expected the part of the limit"):
        planned(memory_fraction=given)


def test_data_that_fit_but_leave_no_room_for_a_partition_are_read_in_every_pass() -> None:
    chunk = 16_000_000
    facts = Facts(
        25_000_000, 200_000_000, 8, chunk, chunk, 1 << 20, 1024, 3, Storage("zarr", "none", False, 0)
    )
    limit = Limit(1_000_000_000, "memory_limit", False, 0.75, "default")
    site = Site(None, None, 0, 2, 2, limit, used=330_000_000)
    assert facts.nbytes < keep_room(site)
    strategy, reason = strategy_of(None, facts, site)
    plan = decide(facts, Plan(), strategy, reason, site, Terms(10.0, 1.0, 0.5, 1.0, 0.25, Origin.STATIC))
    assert plan.strategy == "streaming" and site.used + plan.peak_bytes <= limit.budget
    with pytest.raises(dfit.InputError, match=r"memory_limit='\d+ MB' is the smallest"):
        decide(facts, Plan(), "in_memory", "asked for", site, plan.terms)
