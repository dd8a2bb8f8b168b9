"""Reads that fail are tried again; what stays unreadable is named, and never a part of a sum."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import aiohttp
import dask
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

import dfit
from dfit.reduce.books import Account
from dfit.reduce.task import Report
from tests.read_again import CHUNK, CHUNKS, bits, dataset, fitted, watch_reports
from tests.serving import Fault, Server, serving

EVERY: list[Fault] = ["reset", "silent", 403, 500, "short", "damaged"]
PATIENCE_S = 0.3

pytestmark = pytest.mark.usefixtures("small_leaves", "rereading")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store whose chunks carry checksums."""
    path = tmp_path_factory.mktemp("served")
    checked = {"compressors": [zarr.codecs.Crc32cCodec()]}
    stored = {"encoding": {"signal": checked, "t": checked}, "zarr_format": 3}
    dataset().to_zarr(path / "data.zarr", **stored)
    return path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with serving(folder) as found:
        yield found


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    return watch_reports(monkeypatch)


def opened(server: Server) -> xr.Dataset:
    patience = aiohttp.ClientTimeout(sock_read=PATIENCE_S)
    options = {"client_kwargs": {"timeout": patience}}
    return xr.open_zarr(f"{server.url}/data.zarr", chunks={}, storage_options=options)


@cache
def undisturbed(folder: Path) -> bytes:
    """Bits of a fit to the same store on disk, with the leaves that all tests have."""
    return bits(fitted(xr.open_zarr(folder / "data.zarr", chunks={})))


@pytest.mark.parametrize("fault", EVERY)
def test_read_that_fails_once_is_tried_again_and_changes_no_bit(
    server: Server, folder: Path, reports: list[Report], fault: Fault
) -> None:
    expected = undisturbed(folder)
    data = opened(server)
    reports.clear()
    finished: list[int] = []
    server.fail(fault, at=CHUNKS + 8, within="signal/c/", on_strike=lambda: finished.append(len(reports)))
    assert bits(fitted(data)) == expected
    first = [r for r in server.log if r.fault is not None]
    assert len(first) == 1
    assert 4 < finished[0] < 8  # in the second pass, after its first partitions
    later = [r.fault for r in server.log if r.path == first[0].path]
    assert later.count(None) == len(later) - 1  # the same file was read when it was asked for again
    # A reset connection is tried once more by the client of HTTP itself.
    assert sum(r.retries for r in reports) == (0 if fault == "reset" else 1)


@pytest.mark.parametrize("fault", EVERY)
def test_read_that_keeps_failing_ends_the_fit_after_three_more_tries(
    server: Server, reports: list[Report], fault: Fault
) -> None:
    data = opened(server)
    finished: list[int] = []
    server.fail(
        fault,
        at=2 * CHUNKS + 8,
        within="signal/c/",
        lasting=True,
        on_strike=lambda: finished.append(len(reports)),
    )
    with pytest.raises(dfit.WorkerError) as caught:
        fitted(data)
    assert 8 < finished[0] < 12  # in the third pass, after its first partitions
    struck = [r for r in server.log if r.fault is not None]
    tries = [r.seconds for r in struck][:: 2 if fault == "reset" else 1]
    assert len(tries) == 4
    assert (np.diff(tries) >= [0.1, 0.2, 0.4]).all()
    number = int(struck[0].path.rpartition("/")[2])
    place = f"y 'signal', chunk ({number},) in partition {number // 3}"
    assert place in str(caught.value)
    assert f"{server.url}/data.zarr/signal" in str(caught.value)
    assert f"i[{number // 3 * 3 * CHUNK}:{(number // 3 + 1) * 3 * CHUNK}]" in str(caught.value)


def test_coordinate_that_cannot_be_read_is_named_by_its_name(server: Server) -> None:
    data = opened(server)
    server.fail(500, at=8, within="/t/c/", lasting=True)
    with pytest.raises(dfit.WorkerError, match=r"coordinate 't', chunk \(\d+,\).*500.*data\.zarr/t/c/\d+"):
        fitted(data, retries=1)
    assert sum(r.fault == 500 for r in server.log) == 2


def test_chunk_that_is_not_there_counts_as_missing_and_is_told(server: Server) -> None:
    """Stores leave out chunks of nothing but fill values: zarr takes a missing one for such a chunk."""
    data = opened(server)
    server.fail(404, at=8, within="signal/c/", lasting=True)
    with pytest.warns(dfit.DfitWarning, match=f"{CHUNK} points were left out"):
        found = fitted(data)
    assert found.covariance.nfree == CHUNK * (CHUNKS - 1) - 2
    assert len([r for r in server.log if r.fault]) == found.npasses


def test_chunk_that_disappears_between_passes_is_noticed(server: Server, reports: list[Report]) -> None:
    data = opened(server)
    server.fail(404, at=CHUNKS + 8, within="signal/c/")
    with pytest.raises(dfit.DataError, match="the data have changed during the fit: partition") as caught:
        fitted(data)
    number = int(next(r.path for r in server.log if r.fault).rpartition("/")[2])
    assert caught.value.partition == number // 3
    assert 4 < len(reports) < 8


@pytest.mark.parametrize("checksum", [True, False])
def test_file_cut_short_while_it_is_read_ends_the_fit(
    tmp_path: Path, reports: list[Report], monkeypatch: pytest.MonkeyPatch, checksum: bool
) -> None:
    path = tmp_path / "data.nc"
    stored = {"chunksizes": (CHUNK,), "fletcher32": checksum}
    dataset().to_netcdf(path, engine="h5netcdf", encoding={"signal": stored, "t": stored})
    data = xr.open_dataset(path, engine="h5netcdf", chunks={"i": CHUNK})
    with h5py.File(path) as file:
        third = [file[name].id.get_chunk_info(CHUNKS // 2) for name in ("signal", "t")]  # of four partitions
    cut = min(chunk.byte_offset + chunk.size // 2 for chunk in third)
    add = Account.add

    def cutting(account: Account, report: Report) -> None:
        add(account, report)
        if len(reports) == 6:  # two partitions of the second pass are summed
            os.truncate(path, cut)

    monkeypatch.setattr(Account, "add", cutting)
    monkeypatch.setattr("dfit.reduce.pieces.MOST_ORDERED", 0)  # in the order of the data
    # HDF5 gives zeros for what is beyond the end of a file: only a checksum, or the sum over the content, tells.
    error = dfit.WorkerError if checksum else dfit.DataError
    text = (
        f"from {path} in process .* after 2 tries: OSError"
        if checksum
        else "the data have changed during the fit"
    )
    with dask.config.set(num_workers=1), pytest.raises(error, match=text):
        fitted(data, retries=1)
    assert 6 <= len(reports) <= 8  # the one that ends the fit is not counted


@pytest.mark.parametrize("lasting", [False, True])
def test_value_that_all_partitions_share_is_read_as_patiently(
    server: Server, folder: Path, reports: list[Report], lasting: bool
) -> None:
    def centred(data: xr.Dataset) -> xr.Dataset:
        return data.assign(signal=data.signal - data.signal.mean() + 1)

    expected = bits(fitted(centred(xr.open_zarr(folder / "data.zarr", chunks={}))))
    data = centred(opened(server))
    reports.clear()
    server.fail(500, at=4, within="signal/c/", lasting=lasting)
    if lasting:
        with pytest.raises(
            dfit.WorkerError, match=r"which several partitions need.*data\.zarr/signal.* 4 tries.* 500"
        ):
            fitted(data)
        assert not reports
    else:
        assert bits(fitted(data)) == expected
    assert sum(r.fault == 500 for r in server.log) == (4 if lasting else 1)
