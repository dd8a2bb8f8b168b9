"""Reads that fail on the workers of a cluster, over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr
from distributed import Client

import dfit
from dfit.reduce.task import Report
from tests.read_again import CHUNKS, bits, dataset, fitted, watch_reports
from tests.serving import Server, serving


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 2048)
    dataset().to_zarr(tmp_path / "data.zarr", zarr_format=2)
    with serving(tmp_path) as found:
        yield found


@pytest.fixture
def data(server: Server) -> xr.Dataset:
    return xr.open_zarr(f"{server.url}/data.zarr", chunks={})


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    return watch_reports(monkeypatch)


@pytest.fixture(params=["kept", "read again"])
def kept(request: pytest.FixtureRequest) -> bool:
    if request.param == "read again":
        request.getfixturevalue("rereading")
    return request.param == "kept"


@pytest.mark.usefixtures("client")
def test_read_that_fails_once_on_a_worker_changes_no_bit(
    data: xr.Dataset, server: Server, reports: list[Report], kept: bool
) -> None:
    whole = bits(fitted(data))
    reports.clear()
    at = 8 if kept else CHUNKS + 8
    finished: list[int] = []
    server.fail(500, at=at, within="signal/", on_strike=lambda: finished.append(len(reports)))
    assert bits(fitted(data)) == whole
    assert sum(r.fault == 500 for r in server.log) == 1
    assert sum(r.retries for r in reports) == 1
    assert kept or 8 <= finished[0] < 16  # in the second of the passes of eight partitions


@pytest.mark.usefixtures("client")
def test_read_that_keeps_failing_on_a_worker_names_array_chunk_and_place(
    data: xr.Dataset, server: Server, reports: list[Report], kept: bool
) -> None:
    server.fail(500, at=8 if kept else CHUNKS + 8, within="signal/", lasting=True)
    with pytest.raises(dfit.WorkerError) as caught:
        fitted(data)
    path = next(r.path for r in server.log if r.fault == 500)
    assert sum(r.fault == 500 for r in server.log) == 4
    assert f"y 'signal', chunk ({path.rpartition('/')[2]},) in partition" in str(caught.value)
    assert f"{server.url}/data.zarr/signal" in str(caught.value)
    assert "after 4 tries" in str(caught.value)
    assert reports


def test_partition_that_could_not_be_read_and_kept_is_read_by_the_next_fit(
    client: Client, data: xr.Dataset, server: Server
) -> None:
    before = set(client.who_has())
    server.fail(500, at=8, within="signal/", lasting=True)
    with pytest.raises(dfit.WorkerError, match="stays unreadable"):
        fitted(data, retries=0)
    server.fail(None)
    found = fitted(data)
    assert found.success
    deadline = time.monotonic() + 20  # what is let go leaves the workers a little later
    while left := set(client.who_has()) - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
