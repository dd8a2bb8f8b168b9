"""The sample in this process: what is read for it, and that nothing but the seed changes its points."""

from __future__ import annotations

from collections import Counter
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dfit.data.plan import Source
from dfit.errors import WorkerError
from dfit.prepare import Prepared
from dfit.reduce.draw import Gathering, Sample
from tests.sampling import CHUNK, CHUNKS, THETA, N, bits, counted, in_memory, plan_of, ready, values

WANTED = 5000


@pytest.fixture(autouse=True)
def _small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 8192)


@pytest.fixture
def reads() -> list[int]:
    return []


def sampled(fit: Prepared, wanted: int = WANTED, **options: Any) -> Sample:
    return fit.evaluator.sample(plan_of(fit, wanted, **options))


@pytest.fixture(scope="module")
def expected() -> tuple[bytes, ...]:
    with dask.config.set(scheduler="synchronous"):
        return bits(sampled(ready(counted([]))))


@pytest.mark.parametrize("size", ["1 B", "512 kiB", "1 GiB"])
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_partitions_and_threads_change_no_point(
    size: str, scheduler: str, expected: tuple[bytes, ...]
) -> None:
    with dask.config.set({"scheduler": scheduler, "num_workers": 3, "dfit.partition-bytes": size}):
        assert bits(sampled(ready(counted([])))) == expected


def test_seed_changes_the_points(expected: tuple[bytes, ...]) -> None:
    assert bits(sampled(ready(counted([])), seed=1)) != expected


def test_points_are_those_of_the_data_each_once_and_in_order() -> None:
    t, y = values()
    found = sampled(ready(counted([])))
    place = np.searchsorted(t, found.coords[0])
    assert found.y.size == WANTED and (np.diff(place) > 0).all()
    np.testing.assert_array_equal(found.y, y[place])
    assert not np.isnan(found.y).any() and found.y.dtype == "f4"
    assert (found.total, found.chunks, found.chunks_read) == (N, CHUNKS, 64)
    assert found.reason == "5,000 of 300,000 points, from 64 of 200 chunks" and not found.complete


@pytest.mark.usefixtures("rereading")
def test_only_the_chosen_chunks_are_read(reads: list[int]) -> None:
    fit = ready(counted(reads))
    plan = plan_of(fit, WANTED)
    found = fit.evaluator.sample(plan)
    assert sorted(reads) == [share.number for share in plan.shares]
    assert found.bytes_read == fit.evaluator.account.bytes_read == 64 * CHUNK * 4
    fit.evaluator(THETA)
    assert fit.evaluator.account.first_bytes == N * 4
    assert fit.evaluator.account.bytes_read == (CHUNKS + 64) * CHUNK * 4


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_what_stays_in_memory_is_read_once_in_all(reads: list[int], scheduler: str) -> None:
    with dask.config.set({"scheduler": scheduler, "dfit.partition-bytes": "64 kiB"}):
        fit = ready(counted(reads))
        sampled(fit)
        fit.evaluator(THETA)
        fit.evaluator(THETA)
    assert len(fit.partitions) > 4 and Counter(reads) == dict.fromkeys(range(CHUNKS), 1)
    assert fit.evaluator.account.first_bytes == fit.evaluator.account.bytes_read == N * 4


@pytest.mark.parametrize("wanted", [100_000, N])
def test_first_pass_collects_the_same_points_and_keeps_its_bits(
    wanted: int, request: pytest.FixtureRequest
) -> None:
    direct = sampled(ready(in_memory().chunk(i=CHUNK)), wanted)
    request.getfixturevalue("rereading")
    fit = ready(counted(reads := []))
    plan = plan_of(fit, wanted)
    assert plan.collect is (wanted < N)
    gathering = Gathering(plan)
    equations = fit.evaluator(THETA, collect=gathering)
    found = gathering.sample()
    assert len(reads) == CHUNKS
    assert bits(found) == bits(direct)
    assert (found.bytes_read, found.read_s) == (0, 0)
    assert ("collected during the first pass" in found.reason) is (wanted < N)
    plain = ready(counted([])).evaluator(THETA)
    np.testing.assert_array_equal(equations.root, plain.root)
    assert equations.cost == plain.cost


def test_large_chunk_of_many_leaves_is_drawn_from_once() -> None:
    t = np.linspace(0, 9, 40_000)
    y = xr.DataArray(np.exp(-t), dims="i", coords={"t": ("i", t)}).chunk(i=20_000)
    fit = ready(y)
    plan = plan_of(fit, 1000)
    gathering = Gathering(plan)
    fit.evaluator(THETA, collect=gathering)
    assert bits(gathering.sample()) == bits(fit.evaluator.sample(plan))
    assert gathering.sample().y.size == 1000


def test_small_data_are_their_own_sample_without_a_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask.threaded.get", lambda *_: pytest.fail("a scheduler was started"))
    y = in_memory()[:2000]
    y[0] = np.inf
    found = sampled(ready(y), 131_072)
    np.testing.assert_array_equal(found.y, y.values)
    np.testing.assert_array_equal(found.coords[0], y.t.values)
    assert found.complete and found.reason == "all 2,000 points" and found.held.sum() == 400


@pytest.mark.parametrize("wanted", [300, 131_072])
def test_sigma_mask_and_times_come_as_the_kernel_takes_them(wanted: int) -> None:
    place = np.arange(6000).reshape(60, 100)
    y = xr.DataArray(place + 1j, dims=("t", "x"), coords={"t": pd.date_range("2020", periods=60, freq="h")})
    sigma, where = xr.DataArray(np.arange(100.0) + 1, dims="x"), place % 3 != 0
    found = sampled(ready(y.chunk(t=20, x=30), sigma=sigma, where=where, time_unit="h"), wanted)
    there = found.y.real.astype(int)
    np.testing.assert_array_equal(found.coords[0], there // 100)
    np.testing.assert_array_equal(found.sigma, there % 100 + 1)
    np.testing.assert_array_equal(found.where, there % 3 != 0)
    assert found.y.dtype.kind == "c"
    assert (found.y.size, found.where.all()) == ((300, True) if wanted == 300 else (6000, False))


def test_every_group_has_points_in_the_sample() -> None:
    group = np.arange(N) // (N // 30)
    group[77_777] = 30
    codes = Source("group", xr.DataArray(group, dims="i"), (0,))
    y = in_memory()
    y[77_777] = 1.0
    found = sampled(ready(y.chunk(i=CHUNK)), groups=codes)
    t = y.t.values
    np.testing.assert_array_equal(found.codes, group[np.searchsorted(t, found.coords[0])])
    counts = np.bincount(found.codes, minlength=31)
    assert counts[30] == 1 and counts[:30].min() >= 8
    assert np.bincount(found.codes, found.held, minlength=31)[:30].max() < counts[:30].min()


def test_failed_read_is_tried_again_and_then_names_its_partition(reads: list[int]) -> None:
    with dask.config.set(scheduler="synchronous"):
        found = sampled(ready(counted(reads, broken=2), retries=2))
        assert found.y.size == WANTED
        with pytest.raises(WorkerError, match="after 3 tries: OSError: the disk is away"):
            sampled(ready(counted([], broken=3), retries=2))
