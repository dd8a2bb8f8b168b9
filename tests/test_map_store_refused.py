"""What is no place for a map, or cannot be kept in one, is refused, and what is there is left as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import dfit
from tests.map_in_store import P0, RATE, TIME, VALUES, Reads, contents, cube, doubled, fit

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
