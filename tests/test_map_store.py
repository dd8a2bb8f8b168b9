"""Maps that are written region by region: what is there is kept, what is not the same is refused."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit

TIME = np.linspace(0, 4, 20)
SHAPE = (10, 6)
RATE = 1.5 + np.arange(60).reshape(SHAPE) / 60
CLEAN = 2 * np.exp(-TIME[:, None, None] / RATE) + 0.3
VALUES = CLEAN + np.random.default_rng(4).normal(0, 0.01, CLEAN.shape)
P0 = {"a": 1.5, "tau": 1.2, "c": 0.1}
SIZES = {"time": 8, "y": 4, "x": 3}
REGIONS = 6


def decay(time, a, tau, c):
    return a * jnp.exp(-time / tau) + c


def doubled(time, a, tau, c):
    return 2 * a * jnp.exp(-time / tau) + c


def cube(values: Any = VALUES, **sizes: int) -> xr.DataArray:
    """A stack of images with a name for each row, in chunks."""
    coords = {"time": TIME, "row": ("y", [f"r{k}" for k in range(values.shape[1])]), "x": np.arange(6) / 2}
    array = xr.DataArray(values, coords, ("time", "y", "x"), name="signal", attrs={"units": "mV"})
    return array.chunk(**(sizes or SIZES))


def fit(y: Any = None, model: Any = decay, **options: Any) -> xr.Dataset:
    return (cube() if y is None else y).fit("time", model, **{"p0": P0, **options})


@pytest.fixture(scope="module")
def expected() -> xr.Dataset:
    return fit().compute()


@pytest.fixture
def one_after_the_other() -> Iterator[None]:
    """No region is still under way when an error is raised."""
    with dask.config.set(scheduler="synchronous"):
        yield


class Reads:
    """A stack that counts how often each of its chunks is read."""

    def __init__(self, values: np.ndarray = VALUES) -> None:
        self.seen: list[tuple[int, ...]] = []
        self._values = values

    def _block(self, block_id: Any = None, block_info: Any = None) -> np.ndarray:
        self.seen.append(tuple(block_id))
        return self._values[tuple(slice(*span) for span in block_info[None]["array-location"])]

    def array(self) -> xr.DataArray:
        like = cube().data
        name = f"counted-{uuid.uuid4().hex}"
        return cube().copy(
            data=da.map_blocks(
                self._block, chunks=like.chunks, dtype=float, meta=np.empty((0, 0, 0)), name=name
            )
        )

    def of_regions(self) -> set[tuple[int, ...]]:
        """Regions of which all chunks were read."""
        times = len(cube().data.chunks[0])
        places = {place[1:] for place in self.seen}
        return {place for place in places if {(k, *place) for k in range(times)} <= set(self.seen)}


def require_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Refuse a map out of a store that is another one; it does not say how one was planned."""
    attrs = {name: text for name, text in expected.attrs.items() if "dfit_plan" not in name}
    xr.testing.assert_identical(found, expected.drop_attrs(deep=False).assign_attrs(attrs))


def marks(path: Path) -> list[str]:
    """Names of the marks of finished regions."""
    return sorted(p.name for p in (path / "dfit_regions").iterdir() if re.match(r"\d+-\d", p.name))


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def forget(path: Path, *regions: str, torn: bool = False) -> None:
    """Leave a store as a kill in the midst of some regions would, with chunks half written if `torn`."""
    for name in regions:
        (path / "dfit_regions" / name).unlink()
        place = name.partition("-")[2].replace(".", "/")
        for file in (f"coefficients/c/{place}/0", f"status/c/{place}"):
            written = path / f"curvefit_{file}"
            written.write_bytes(written.read_bytes()[:5]) if torn else written.unlink()


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


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": doubled}, "the model computes something else"),
    "p0": ({"p0": {**P0, "tau": 1.0}}, "p0 of tau: 1.2, now 1.0"),
    "p0 by pixel": ({"p0": {**P0, "tau": xr.DataArray(RATE, dims=("y", "x"))}}, "p0 of tau: "),
    "bounds": ({"bounds": {"tau": (0, 9)}}, "upper bound of tau: inf, now 9.0"),
    "fixed": ({"fixed": {"c": 0.1}}, "fixed parameters: , now c"),
    "neighbours": ({"neighbours": True}, "neighbours: other values"),
    "guess": ({"p0": lambda y, time: [1.0, 1.0, 0.0]}, "guess: other values"),
    "sigma": ({"sigma": 0.1}, "sigma: None, now 0.1"),
    "where": ({"where": cube() > 0.5}, "where: "),
    "loss": ({"loss": "huber"}, "loss: linear, now huber"),
    "tol": ({"tol": 1e-6}, "tol: 1e-08, now 1e-06"),
    "max_passes": ({"max_passes": 7}, "max_passes: 100.0, now 7.0"),
    "values": ({"y": cube(VALUES + 1e-9)}, "content of values of the data: other values"),
    "type of the values": ({"y": cube(VALUES.astype("f4"))}, "dtype of the data: float64, now float32"),
    "chunks": ({"y": cube(time=8, y=5, x=3)}, "regions: other values"),
    "shape": ({"y": cube().isel(y=slice(0, 8))}, "shape of the data: "),
    "coordinate": ({"y": cube().assign_coords(time=TIME * 2)}, "coordinate time: other values"),
    "labels": ({"y": cube().assign_coords(x=np.arange(6))}, "coordinates of the map: other values"),
    "name": ({"y": cube().rename("noise")}, "name of the data: signal, now noise"),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "map.zarr"
    fit(to=path)
    return path


@pytest.mark.parametrize("what", REFUSED)
def test_the_path_of_another_map_is_refused_and_kept(what: str, kept: Path) -> None:
    options, said = REFUSED[what]
    before = contents(kept)
    with pytest.raises(dfit.InputError) as refused:
        fit(**options, to=kept)
    told = str(refused.value)
    assert said in told and str(kept) in told and "Type another path, as to='map-2.zarr'" in told
    assert contents(kept) == before


def test_data_that_were_changed_where_they_lie_are_refused(tmp_path: Path) -> None:
    data, path = tmp_path / "data.zarr", tmp_path / "map.zarr"

    def opened() -> xr.DataArray:
        return xr.open_zarr(data, consolidated=False).signal

    stored = cube().drop_vars("row").to_dataset()
    stored.to_zarr(data, consolidated=False)
    fit(opened(), to=path)
    shutil.move(data, tmp_path / "elsewhere.zarr")  # moved data are the same
    moved = xr.open_zarr(tmp_path / "elsewhere.zarr", consolidated=False).signal
    assert fit(moved, to=path).equals(fit(moved))
    (stored + 1e-6).to_zarr(data, consolidated=False)
    with pytest.raises(dfit.InputError, match="content of values of the data: other values"):
        fit(opened(), to=path)


def test_a_path_that_holds_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    other, file, folder = tmp_path / "other.zarr", tmp_path / "map.nc", tmp_path / "thesis"
    cube().drop_vars("row").to_dataset().to_zarr(other, consolidated=False)
    file.write_bytes(b"CDF")
    folder.mkdir()
    (folder / "chapter1.tex").write_text("It")
    before = contents(tmp_path)
    for path in (other, folder):
        with pytest.raises(
            dfit.InputError, match=r"holds something that is no map of dfit. Type another path"
        ):
            fit(to=path)
    with pytest.raises(dfit.InputError, match=r"map.nc is a file; expected a folder"):
        fit(to=file)
    assert contents(tmp_path) == before


def test_what_cannot_be_a_map_in_a_store_is_refused_before_a_read(tmp_path: Path) -> None:
    reads = Reads()
    with open(__file__) as file:

        def named(time, a, tau, c):
            return a * np.exp(-np.asarray(time) / tau) + c * len(file.name)

        with (
            pytest.warns(dfit.DfitWarning, match="JAX"),
            pytest.raises(dfit.InputError, match=r"can be recognised again.*leave to= out and type .to_zarr"),
        ):
            fit(reads.array(), named, to=tmp_path / "m")
    with pytest.raises(dfit.InputError, match=r"has none: leave it out, and type .to_zarr\(path\)"):
        fit(reads.array(), reduce_dims=..., to=tmp_path / "m")
    for path, said in ((7, "expected a path or a URL"), ("", "expected a path"), ("m.zip", "one zip file")):
        with pytest.raises(dfit.InputError, match=said):
            fit(reads.array(), to=path)
    with pytest.raises(dfit.InputError, match="'nowhere://a/dfit_regions' cannot be reached"):
        fit(reads.array(), to="nowhere://a")
    assert reads.seen == [] and list(tmp_path.iterdir()) == []


def test_what_zarr_cannot_keep_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    for y, said in (
        (cube().assign_attrs(tags={1, 2}), r"Type first: y = y.drop_attrs\(\)"),
        (cube().stack(pixel=("y", "x")), r"or y.reset_index\(name\) for an index of several levels"),
        (cube().rename("a/b").to_dataset(), r"Type: .rename\("),
    ):
        with pytest.raises(dfit.InputError, match=said):
            fit(y, to=tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


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
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=140", "none", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        why = "a file system of its own cannot be mounted here"
        pytest.fail(f"{why}, as .ci/run can") if "CI" in os.environ else pytest.skip(why)
    yield place
    subprocess.run(["umount", str(place)], check=True)


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
