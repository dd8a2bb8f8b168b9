"""What a fit does not go on from: a checkpoint of another fit, and data that have changed meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from tests.resumed import differences

pytestmark = pytest.mark.usefixtures("small_leaves")

CHUNK, CHUNKS = 2000, 10
N = CHUNK * CHUNKS
T = np.linspace(0, 10, N)
Y = 3 * np.exp(-T / 2) + 1 + np.random.default_rng(0).normal(0, 0.1, N)


def decay(t, a, tau, c, scale=1.0):
    return scale * a * jnp.exp(-t / tau) + c


def other_decay(t, a, tau, c, scale=1.0):
    return scale * a * jnp.exp(-t / tau) + 2 * c


def with_constant(t, a, tau, c, scale=1.0, *, shift=None):
    return scale * a * jnp.exp(-t / tau) + c + shift[0]


def weekly(y: np.ndarray = Y, t: np.ndarray = T, chunk: int = CHUNK) -> xr.DataArray:
    """y over t in chunks, with two sets of groups."""
    points = np.arange(y.size)
    columns = {"t": ("i", t), "g": ("i", points // 1000), "h": ("i", points // 500)}
    return xr.DataArray(y, dims="i", coords=columns).chunk(i=chunk)


SETTINGS: dict[str, Any] = {
    "p0": {"a": 2, "tau": 1.5, "c": 0.8},
    "fixed": {"scale": 1.0},
    "bounds": {"tau": (0, 50)},
    "warmup": False,
}


def fit(y: Any = None, model: Any = decay, coords: Any = "t", **options: Any) -> dfit.FitResult:
    return dfit.fit(model, weekly() if y is None else y, coords, **{**SETTINGS, **options})


def changed(values: np.ndarray, at: int) -> np.ndarray:
    """The values, one of them another one."""
    return np.where(np.arange(values.size) == at, values + 1e-9, values)


SIGMA = np.full(N, 0.1)
WHERE = np.ones(N, bool)

# What a fit was begun with, with what it is to go on, and what is said.
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "shape": ({}, {"y": weekly(Y[:-CHUNK], T[:-CHUNK])}, "shape of the data: {'i': 20000}, now {'i': 18000}"),
    "dtype": ({}, {"y": weekly(Y.astype("f4"))}, "dtype of the data: float64, now float32"),
    "chunks": ({}, {"y": weekly(chunk=1000)}, "chunks of the data: other values"),
    "values in memory": (
        {"y": weekly().load()},
        {"y": weekly(changed(Y, 77)).load()},
        "values of the data: other values",
    ),
    "values in chunks": ({}, {"y": weekly(Y + 1e-9)}, "is of other data: their shape is the same"),
    "coordinate in chunks": ({}, {"y": weekly(t=T + 1e-9)}, "is of other data: their shape is the same"),
    "coordinate in memory": (
        {"y": weekly().load()},
        {"y": weekly(t=changed(T, 5)).load()},
        "coordinate t: other values",
    ),
    "model": ({}, {"model": other_decay}, "the model computes something else"),
    "constants": (
        {"model": with_constant, "constants": {"shift": np.zeros(1)}},
        {"model": with_constant, "constants": {"shift": np.ones(1)}},
        "the model computes something else",
    ),
    "p0": ({}, {"p0": {"a": 2, "tau": 1.4, "c": 0.8}}, "p0 of tau: 1.5, now 1.4"),
    "bounds": ({}, {"bounds": {"tau": (0, 40)}}, "upper bounds of tau: 50.0, now 40.0"),
    "fixed set": ({}, {"fixed": {"scale": 1.0, "c": 0.8}}, "fixed parameters of c: False, now True"),
    "fixed value": ({}, {"fixed": {"scale": 1.1}}, "p0 of scale: 1.0, now 1.1"),
    "tie": (
        {"p0": {"a": 2, "tau": 1.5}, "tie": {"c": lambda p: p["a"] / 3}},
        {"p0": {"a": 2, "tau": 1.5}, "tie": {"c": lambda p: p["a"] / 2}},
        "the model computes something else",
    ),
    "sigma": ({"sigma": 0.1}, {"sigma": 0.2}, "sigma: 0.1, now 0.2"),
    "sigma of points": ({"sigma": SIGMA}, {"sigma": changed(SIGMA, 9)}, "sigma: other values"),
    "sigma that was not": ({}, {"sigma": 0.1}, "sigma: "),
    "where": ({"where": WHERE}, {"where": np.arange(N) != 9}, "where: other values"),
    "loss": ({}, {"loss": "huber"}, "loss: linear, now huber"),
    "f_scale": ({"loss": "huber"}, {"loss": "huber", "f_scale": 2}, "f_scale: "),
    "cov": ({}, {"cov": "hc1"}, "cov: None, now hc1"),
    "groups": ({"cov": {"groups": "g"}}, {"cov": {"groups": "h"}}, "groups: other values"),
    "warm-up": ({}, {"warmup": True}, "warmup: "),
    "seed of the sample": (
        {"warmup": dfit.Warmup(sample_points=500)},
        {"warmup": dfit.Warmup(sample_points=500, seed=1)},
        "warmup: ",
    ),
    "skipna": ({}, {"skipna": False}, "skipna: True, now False"),
    "absolute_sigma": (
        {"sigma": 0.1},
        {"sigma": 0.1, "absolute_sigma": True},
        "absolute_sigma: False, now True",
    ),
}


@pytest.mark.filterwarnings("ignore::dfit.DfitWarning")
@pytest.mark.parametrize("what", REFUSED)
def test_checkpoint_of_another_fit_is_refused_and_kept(what: str, tmp_path: Path) -> None:
    before, now, said = REFUSED[what]
    first = fit(**before, max_passes=2, checkpoint=tmp_path)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(dfit.InputError) as refused:
        fit(**{**before, **now}, max_passes=2, checkpoint=tmp_path)
    told = str(refused.value)
    assert said in told and str(tmp_path) in told and "Type: resume=False" in told
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    assert differences(fit(**before, max_passes=2, checkpoint=tmp_path), first) == []


@pytest.mark.filterwarnings("ignore::dfit.DfitWarning")
def test_a_model_that_cannot_be_recognised_again_is_refused_before_a_read(tmp_path: Path) -> None:
    seen: list[Any] = []
    with open(__file__) as file:

        def named(t, a, tau, c, scale=1.0):
            return scale * a * np.exp(-t / tau) + c * len(file.name)

        with pytest.raises(dfit.InputError, match=r"can be recognised again.*Type: constants="):
            fit(model=named, checkpoint=tmp_path / "run", on_partition=seen.append)
    assert seen == [] and not (tmp_path / "run").exists()


@pytest.fixture
def chunked(tmp_path: Path) -> Path:
    """y over t as zarr on disk."""
    path = tmp_path / "data.zarr"
    weekly().drop_vars(["g", "h"]).rename("y").to_dataset().to_zarr(path, consolidated=False)
    return path


def opened(path: Path) -> xr.DataArray:
    return xr.open_zarr(path, consolidated=False).y


def change(path: Path, partition: int) -> None:
    """Another value in a chunk."""
    values = xr.open_zarr(path, consolidated=False).y.values
    at = partition * CHUNK + CHUNK // 2
    values[at] += 1e-6
    part = xr.Dataset({"y": ("i", values[partition * CHUNK : (partition + 1) * CHUNK])})
    part.to_zarr(path, region={"i": slice(partition * CHUNK, (partition + 1) * CHUNK)}, consolidated=False)


def each_chunk_a_partition() -> Any:
    return dask.config.set({"dfit.partition-bytes": "1 B"})


@pytest.mark.usefixtures("rereading")
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_a_value_changed_between_two_passes_is_refused_naming_the_partition(
    chunked: Path, scheduler: str, tmp_path: Path
) -> None:
    partition = int(np.random.default_rng().integers(CHUNKS))

    def change_once(event: Any) -> None:
        if event.npasses == 2:
            change(chunked, partition)

    place = rf"i\[{partition * CHUNK}:{(partition + 1) * CHUNK}\].*holds other values than the pass before"
    chosen = dask.config.set(scheduler=scheduler), each_chunk_a_partition()
    with chosen[0], chosen[1], pytest.raises(dfit.DataError, match=place) as refused:
        fit(opened(chunked), callback=change_once, checkpoint=tmp_path / "run")
    assert refused.value.partition == partition
    assert "resume=False" in str(refused.value)


@pytest.mark.usefixtures("rereading")
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read again"])
@pytest.mark.parametrize("stopped", ["between two passes", "within a pass"])
def test_a_value_changed_before_a_resume_is_refused_naming_the_partition(
    chunked: Path, stopped: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kept:
        monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 0.4)
    partition = int(np.random.default_rng().choice([1, 2, 3, 7, 8]))  # a resume looks at 0, 5 and 9
    seen: list[Any] = []

    def stop(event: Any) -> None:
        seen.append(event)
        if len(seen) == (2 * CHUNKS if stopped == "between two passes" else 2 * CHUNKS + 4):
            raise KeyboardInterrupt

    with each_chunk_a_partition():
        fit(opened(chunked), on_partition=stop, checkpoint=tmp_path / "run")
        change(chunked, partition)
        with pytest.raises(dfit.DataError, match="holds other values than the pass before") as refused:
            fit(opened(chunked), checkpoint=tmp_path / "run")
    assert refused.value.partition == partition


def test_a_value_changed_where_a_resume_looks_is_refused_before_a_pass(chunked: Path, tmp_path: Path) -> None:
    with each_chunk_a_partition():
        fit(opened(chunked), max_passes=1, checkpoint=tmp_path / "run")
        values = opened(chunked).values[:CHUNK]
        values[3] += 1e-6
        part = xr.Dataset({"y": ("i", values)})
        part.to_zarr(chunked, region={"i": slice(0, CHUNK)}, consolidated=False)
        seen: list[Any] = []
        with pytest.raises(dfit.InputError, match="is of other data"):
            fit(opened(chunked), checkpoint=tmp_path / "run", on_partition=seen.append)
    assert seen == []


def test_data_that_were_moved_are_the_same_data(chunked: Path, tmp_path: Path) -> None:
    expected = fit(opened(chunked))
    fit(opened(chunked), max_passes=2, checkpoint=tmp_path / "run")
    shutil.move(chunked, tmp_path / "elsewhere.zarr")
    found = fit(opened(tmp_path / "elsewhere.zarr"), checkpoint=tmp_path / "run")
    assert differences(found, expected) == []


def test_data_under_another_name_of_dask_are_the_same_data(tmp_path: Path) -> None:
    first, second = (weekly().copy(data=da.from_array(Y, chunks=CHUNK, name=False)) for _ in range(2))
    assert first.data.name != second.data.name
    warmup = dfit.Warmup(sample_points=500)
    expected = fit(first, warmup=warmup)
    fit(first, warmup=warmup, max_passes=1, checkpoint=tmp_path)
    sampled = (tmp_path / "sample.h5").stat().st_ino
    assert differences(fit(second, warmup=warmup, checkpoint=tmp_path), expected) == []
    assert (tmp_path / "sample.h5").stat().st_ino == sampled  # it was not drawn again


def test_a_fit_that_begins_again_draws_its_own_sample(tmp_path: Path) -> None:
    middle = np.where((T > 3) & (T < 4), Y + 1, Y)  # in no chunk that a resume looks at
    warmup = dfit.Warmup(sample_points=500)
    fit(warmup=warmup, max_passes=1, checkpoint=tmp_path)
    found = fit(weekly(middle), warmup=warmup, checkpoint=tmp_path, resume=False)
    assert differences(found, fit(weekly(middle), warmup=warmup)) == []
