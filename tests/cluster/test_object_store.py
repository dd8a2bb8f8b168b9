"""Data and checkpoints in a real object store that answers errors, freezes, dies and comes back."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import fsspec
import pytest
import xarray as xr

import dfit
from dfit.errors import CheckpointError
from dfit.reduce.task import Report
from dfit.store.folder import Folder
from tests.objects import KEY, SECRET, ObjectServer, installed
from tests.read_again import CHUNKS, bits, dataset, fitted, watch_reports
from tests.serving import Fault, Server, serving

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("small_leaves", "rereading")]
# A frozen server is given up after some 10 s.  Left to themselves s3fs asks it 5 times 5 times, and botocore
# each time 5 times, 15 s each.
ATTEMPTS = 2
PATIENCE = {"connect_timeout": 2, "read_timeout": 1, "retries": {"max_attempts": 1}}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    if not installed():
        why = "no S3 server, type: pip install dfit[ci]"
        pytest.fail(why) if "CI" in os.environ else pytest.skip(why)
    server = ObjectServer(tmp_path_factory.mktemp("objects"))
    yield server
    server.kill()


@pytest.fixture
def proxy(objects: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """What clients speak to: it hands on to the store, or fails."""
    with serving(objects.ports["s3"]) as server:
        options = {"endpoint_url": server.url, "key": KEY, "secret": SECRET, "config_kwargs": PATIENCE}
        monkeypatch.setattr("s3fs.S3FileSystem.retries", ATTEMPTS)
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        yield server


@pytest.fixture
def data(proxy: Server) -> xr.Dataset:
    """The data in the store."""
    fsspec.filesystem("s3").makedirs("dfit", exist_ok=True)
    dataset().to_zarr("s3://dfit/data.zarr", mode="w", zarr_format=2)
    return xr.open_zarr("s3://dfit/data.zarr", chunks={})


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    return watch_reports(monkeypatch)


@pytest.fixture(scope="module")
def expected() -> dict[str, bytes]:
    return {}


def undisturbed(known: dict[str, bytes]) -> bytes:
    """Bits of the same fit to the data in memory, whose chunks are the same."""
    if "bits" not in known:
        known["bits"] = bits(fitted(dataset()))
    return known["bits"]


def strike_in_second_pass(
    proxy: Server,
    reports: list[Report],
    fault: Fault | None,
    lasting: bool = False,
    also: Callable[[], None] = lambda: None,
) -> list[int]:
    """Fail a read of a chunk after the first partitions of the second pass; how many tasks had ended."""
    finished: list[int] = []

    def strike() -> None:
        finished.append(len(reports))
        also()

    reports.clear()
    proxy.fail(fault, at=CHUNKS + 8, within="GET dfit/data.zarr/signal/", lasting=lasting, on_strike=strike)
    return finished


@pytest.mark.parametrize("fault", [500, 503, "reset", "short"])
def test_store_that_fails_once_changes_no_bit(
    data: xr.Dataset, proxy: Server, reports: list[Report], expected: dict[str, bytes], fault: Fault
) -> None:
    whole = undisturbed(expected)
    finished = strike_in_second_pass(proxy, reports, fault)
    assert bits(fitted(data)) == whole
    assert [r.fault for r in proxy.log if r.fault] == [fault]
    assert 4 < finished[0] < 8


@pytest.mark.parametrize("fault", [403, 500])
def test_store_that_keeps_failing_ends_the_fit_and_names_the_object(
    data: xr.Dataset, proxy: Server, reports: list[Report], fault: Fault
) -> None:
    finished = strike_in_second_pass(proxy, reports, fault, lasting=True)
    with pytest.raises(dfit.WorkerError, match=r"y 'signal', chunk \(\d+,\).*from dfit/data\.zarr/signal"):
        fitted(data, retries=1)
    assert 4 < finished[0] < 8


def test_frozen_store_that_comes_back_changes_no_bit(
    data: xr.Dataset,
    objects: ObjectServer,
    proxy: Server,
    reports: list[Report],
    expected: dict[str, bytes],
) -> None:
    whole = undisturbed(expected)
    thaw = threading.Timer(3, objects.thaw)

    def freeze() -> None:
        objects.freeze()
        thaw.start()

    finished = strike_in_second_pass(proxy, reports, None, also=freeze)
    try:
        assert bits(fitted(data)) == whole
    finally:
        thaw.join()
    assert 4 < finished[0] < 8


def test_store_that_stays_frozen_ends_the_fit_within_a_minute(
    data: xr.Dataset, objects: ObjectServer, proxy: Server, reports: list[Report]
) -> None:
    frozen: list[float] = []

    def freeze() -> None:
        objects.freeze()
        frozen.append(time.monotonic())

    finished = strike_in_second_pass(proxy, reports, None, also=freeze)
    try:
        with pytest.raises(dfit.WorkerError, match=r"y 'signal', chunk \(\d+,\)"):
            fitted(data, retries=0)
        assert time.monotonic() - frozen[0] < 60
    finally:
        objects.thaw()
    assert 4 < finished[0] < 8


def test_store_that_dies_and_is_started_again_changes_no_bit(
    data: xr.Dataset,
    objects: ObjectServer,
    proxy: Server,
    reports: list[Report],
    expected: dict[str, bytes],
) -> None:
    whole = undisturbed(expected)
    again = threading.Thread(target=objects.start)

    def kill() -> None:
        objects.kill()
        again.start()

    finished = strike_in_second_pass(proxy, reports, None, also=kill)
    try:
        assert bits(fitted(data, retries=9)) == whole
    finally:
        again.join()
    assert 4 < finished[0] < 8


@pytest.fixture
def folder(proxy: Server) -> Folder:
    """An empty folder of checkpoints in the store."""
    files = fsspec.filesystem("s3")
    files.makedirs("dfit", exist_ok=True)
    if files.exists("dfit/run"):
        files.rm("dfit/run", recursive=True)
    return Folder("s3://dfit/run")


def names(folder: Folder) -> list[str]:
    return [entry.path.rpartition("/")[2] for entry in folder.entries()]


def test_checkpoints_in_the_store_are_seen_as_soon_as_they_are_saved(folder: Folder) -> None:
    for k in range(1, 8):
        path = folder.save({"k": k}, keep_last=3)
        assert folder.latest() == ({"k": k}, path)
        elsewhere = Folder("s3://dfit/run")
        assert elsewhere.latest() == ({"k": k}, path)
        assert names(elsewhere) == [f"checkpoint-{n:06d}.h5" for n in range(max(1, k - 2), k + 1)]
    folder.validate()


@pytest.mark.parametrize("fault", [500, 503, "reset"])
@pytest.mark.parametrize("verb", ["PUT", "GET", "DELETE"])
def test_checkpoint_store_that_fails_once_is_asked_again(
    folder: Folder, proxy: Server, fault: Fault, verb: str
) -> None:
    folder.save({"k": 1})
    proxy.fail(fault, at=1, within=f"{verb} dfit")
    path = folder.save({"k": 2}, keep_last=1)
    assert folder.latest() == ({"k": 2}, path)
    assert names(folder) == ["checkpoint-000002.h5"]
    assert [r.fault for r in proxy.log if r.fault] == [fault]


@pytest.mark.parametrize("fault", [403, 500, "silent"])
def test_save_that_the_store_refuses_leaves_the_one_before(
    folder: Folder, proxy: Server, fault: Fault
) -> None:
    before = folder.save({"k": 1})
    proxy.fail(fault, at=1, within="PUT dfit/run", lasting=True)
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=r"s3://dfit/run/checkpoint-000002\.h5 cannot be written: "):
        folder.save({"k": 2}, keep_last=1)
    assert time.monotonic() - began < 60
    proxy.fail(None)
    assert folder.latest() == ({"k": 1}, before)
    assert folder.latest() == Folder("s3://dfit/run").latest()


def test_checkpoints_outlive_a_store_that_is_frozen_and_killed(
    folder: Folder, objects: ObjectServer, proxy: Server
) -> None:
    before = folder.save({"k": 1})
    objects.freeze()
    try:
        with pytest.raises(CheckpointError, match="cannot be"):
            folder.save({"k": 2})
    finally:
        objects.thaw()
    objects.kill()
    with pytest.raises(CheckpointError, match="cannot be"):
        folder.latest()
    objects.start()
    assert folder.latest() in [({"k": 1}, before), ({"k": 2}, before.replace("001", "002"))]
    after = folder.save({"k": 3})
    assert folder.latest() == ({"k": 3}, after)


def test_fit_with_data_and_checkpoints_in_a_store_goes_on_after_it_died(
    data: xr.Dataset,
    folder: Folder,
    objects: ObjectServer,
    proxy: Server,
    reports: list[Report],
) -> None:
    whole = bits(fitted(dataset()))
    tasks = len(reports)
    often = dfit.Checkpoint(folder.path, every_s=0)
    finished = strike_in_second_pass(proxy, reports, None, also=objects.kill)
    with (
        pytest.warns(dfit.DfitWarning, match="goes on without a new checkpoint"),
        pytest.raises(dfit.WorkerError, match="stays unreadable"),
    ):
        fitted(data, retries=0, checkpoint=often)
    assert 4 < finished[0] < 8
    objects.start()
    reports.clear()
    proxy.fail(None)
    assert bits(fitted(data, checkpoint=often)) == whole
    assert 0 < len(reports) <= tasks - finished[0] + 1


def test_fit_ends_without_a_checkpoint_where_their_store_is_silent(
    folder: Folder, proxy: Server, reports: list[Report], expected: dict[str, bytes]
) -> None:
    whole = undisturbed(expected)
    proxy.fail("silent", at=1, within="PUT dfit/run", lasting=True, on_strike=reports.clear)
    with pytest.warns(dfit.DfitWarning, match="goes on without a new checkpoint"):
        found = fitted(dataset(), checkpoint=dfit.Checkpoint(folder.path, every_passes=3))
    assert bits(found) == whole
    assert len(reports) > 4
    proxy.fail(None)
    assert folder.entries() == []
