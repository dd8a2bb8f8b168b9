"""Maps that are written region by region: what is there is kept."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import dfit
from tests.map_in_store import RATE, REGIONS, VALUES, Reads, contents, cube, fit, forget, marks, require_same
from tests.small_disk import mounted


@pytest.fixture(scope="module")
def expected() -> xr.Dataset:
    return fit().compute()


@pytest.fixture
def one_after_the_other() -> Iterator[None]:
    """No region is still under way when an error is raised."""
    with dask.config.set(scheduler="synchronous"):
        yield


def test_a_written_map_is_the_lazy_one_bit_for_bit(tmp_path: Path, expected: xr.Dataset) -> None:
    path = tmp_path / "map.zarr"
    found = fit(to=path)
    assert found.chunksizes["y"] == (4, 4, 2) and found.chunksizes["x"] == (3, 3)
    require_same(found, expected)
    require_same(xr.open_zarr(path)[list(found)], expected)
    assert len(marks(path)) == REGIONS


def test_a_map_of_data_in_memory_is_written_as_it_is_computed(tmp_path: Path) -> None:
    y = cube().compute()
    require_same(fit(y, to=os.fspath(tmp_path / "m")), fit(y))


@pytest.mark.long
def test_a_dataset_is_written_with_all_of_its_variables(tmp_path: Path) -> None:
    both = xr.Dataset({"b": cube(), "a": cube(VALUES + 1)}, attrs={"title": "two"})
    found = fit(both, to=tmp_path / "m")
    require_same(found, fit(both))
    require_same(fit(both[["a", "b"]], to=tmp_path / "m"), found)
    with pytest.raises(dfit.InputError, match="the variables were a, b, now b"):
        fit(both[["b"]], to=tmp_path / "m")


def test_a_map_is_written_to_a_url(expected: xr.Dataset) -> None:
    url = f"memory://{uuid.uuid4().hex}/map.zarr"
    require_same(fit(to=url), expected)
    require_same(fit(to=url), expected)
    with pytest.raises(dfit.InputError, match="holds another map"):
        fit(to=url, loss="huber")


def test_finished_regions_are_not_read_again(
    tmp_path: Path, expected: xr.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    path, first = tmp_path / "map.zarr", Reads()
    fit(first.array(), to=path)
    assert first.of_regions() == set(np.ndindex(3, 2))
    forget(path, "0-1.0", "0-2.1", torn=True)
    again = Reads()
    with caplog.at_level(logging.INFO, "dfit"):
        require_same(fit(again.array(), to=path), expected)
    assert again.of_regions() == {(1, 0), (2, 1)}
    assert f"{path}: 4 of 6 regions were there" in caplog.text
    third = Reads()
    require_same(fit(third.array(), to=path), expected)
    assert set(third.seen) == {(0, 0, 0), (1, 1, 1), (2, 2, 1)}  # what is looked at


def test_pixels_that_nobody_came_to_have_a_status_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "map.zarr"
    fit(to=path)
    forget(path, "0-1.0")
    found = xr.open_zarr(path).isel(y=slice(4, 8), x=slice(0, 3))
    assert (found.curvefit_status == -1).all() and found.curvefit_coefficients.isnull().all()


def test_a_kill_before_all_is_laid_out_leaves_a_path_to_go_on_with(
    tmp_path: Path, expected: xr.Dataset
) -> None:
    path = tmp_path / "map.zarr"
    fit(to=path)
    claimed = (path / "dfit_regions" / "made_of.json").read_bytes()
    shutil.rmtree(path)
    (path / "dfit_regions").mkdir(parents=True)
    require_same(fit(to=path), expected)  # an empty folder
    shutil.rmtree(path)
    (path / "dfit_regions").mkdir(parents=True)
    (path / "dfit_regions" / "made_of.json").write_bytes(claimed)
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    require_same(fit(to=path), expected)


@pytest.mark.usefixtures("one_after_the_other")
def test_a_region_that_fails_raises_and_the_finished_ones_are_kept(tmp_path: Path) -> None:
    values, path = VALUES.copy(), tmp_path / "map.zarr"
    values[:, 5, 1] = np.inf
    y = cube(values)
    for _ in range(2):
        with pytest.raises(dfit.FitFailed, match=r"y=5, x=0.5: y, a coordinate or sigma is infinite"):
            fit(y, to=path)
    before = contents(path)
    assert 0 < len(marks(path)) < REGIONS and "0-1.0" not in marks(path)
    found = fit(y, to=path, errors="ignore")
    assert {name: contents(path)[name] for name in before} == before
    require_same(found, fit(y, errors="ignore"))
    bad = found.isel(y=5, x=1).compute()
    assert bad.curvefit_status == 11 and bad.curvefit_coefficients.isnull().all()
    with pytest.raises(dfit.FitFailed, match=r"y=5, x=0.5"):
        fit(y, to=path)


def test_chunks_of_several_lengths_are_read_in_regions_of_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    y = cube().chunk(y=(3, 5, 2), x=6)
    y = y.assign_coords(height=(("y", "x"), da.from_array(RATE, chunks=(10, 4))))
    with caplog.at_level(logging.INFO, "dfit"):
        found = fit(y, to=tmp_path / "m")
    assert "chunks of 3, 5, 2 along y are of no one length" in caplog.text
    assert found.chunksizes["y"] == (5, 5)
    require_same(found, fit(y))
    np.testing.assert_array_equal(found.height.values, RATE)


def test_a_path_that_cannot_be_written_is_named() -> None:
    with pytest.raises(
        dfit.CheckpointError, match=r"/proc/nobody/map.zarr cannot be written: \w+Error: No such"
    ):
        fit(to="/proc/nobody/map.zarr")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that holds some of the files of a map."""
    with mounted(tmp_path / "disk", "nr_inodes=140") as folder:
        yield folder


@pytest.mark.usefixtures("one_after_the_other")
def test_a_full_disk_is_named_and_finished_regions_are_kept(disk: Path, expected: xr.Dataset) -> None:
    path = disk / "map.zarr"
    with pytest.raises(
        dfit.CheckpointError, match=r"map.zarr cannot be written: OSError: .*No space left"
    ) as full:
        fit(to=path)
    assert "finished are kept: type the same call again" in str(full.value)
    done = marks(path)
    assert 0 < len(done) < REGIONS
    subprocess.run(["mount", "-o", "remount,nr_inodes=1000", str(disk)], check=True)
    reads = Reads()
    require_same(fit(reads.array(), to=path), expected)
    assert len(reads.of_regions()) == REGIONS - len(done)
