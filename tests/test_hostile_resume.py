"""Fits that go on where they should not, or not as they should: what a hostile user finds at a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import dask.config
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from tests.resumed import stop_after

pytestmark = pytest.mark.usefixtures("small_leaves")

N = 60
U, V = np.linspace(0, 5, N), np.linspace(1, 3, N)
NOISE = np.random.default_rng(0).normal(0, 0.1, (N, N))
ROWS = np.arange(N) // 10
SQUARE = xr.DataArray(
    3 * np.exp(-U[:, None] / 2) + 2 * np.cos(V) + 1 + NOISE,
    dims=("i", "j"),
    coords={"x": ("i", U), "y": ("j", V), "g": ("i", ROWS), "h": ("j", ROWS)},
)


def plane(first, second, a, b, c):
    return a * jnp.exp(-first / 2) + b * jnp.cos(second) + c


def fit(data: xr.DataArray = SQUARE, coords: Any = ("x", "y"), **options: Any) -> dfit.FitResult:
    return dfit.fit(plane, data, coords, **{"p0": {"a": 1, "b": 1, "c": 0}, "warmup": False, **options})


def along(dim: str, values: np.ndarray = U + 1) -> xr.DataArray:
    return xr.DataArray(values, dims=dim)


OTHER_AXIS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "coordinate": (
        {"coords": (along("i"), SQUARE.y)},
        {"coords": (along("j"), SQUARE.y)},
        "coordinate first: ",
    ),
    "sigma": ({"sigma": along("i")}, {"sigma": along("j")}, "sigma: other values"),
    "where": ({"where": along("i") > 2}, {"where": along("j") > 2}, "where: other values"),
    "groups": ({"cov": {"groups": "g"}}, {"cov": {"groups": "h"}}, "groups: other values"),
    "order": ({}, {"coords": ("y", "x")}, "coordinates: x, y, now y, x"),
}


@pytest.mark.parametrize("what", OTHER_AXIS)
def test_a_finished_fit_is_not_that_of_the_same_numbers_along_another_axis(what: str, tmp_path: Path) -> None:
    before, now, said = OTHER_AXIS[what]
    fit(**before, checkpoint=tmp_path)
    with pytest.raises(dfit.InputError, match=said):
        fit(**now, checkpoint=tmp_path)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "resume": ({"resume": "no"}, "resume is 'no'; expected True, or False"),
    "callback": ({"callback": 5}, "callback is 5; expected a function"),
    "on_partition": ({"on_partition": "print"}, "on_partition is 'print'; expected a function"),
    "path": ({"checkpoint": "run\0"}, "expected a path or a URL"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_observer_flag_or_path_is_refused_before_a_read(what: str) -> None:
    wrong, said = REFUSED[what]
    with pytest.raises(dfit.InputError, match=said):
        fit(**wrong)


@pytest.mark.parametrize("at", ["callback", "on_partition"])
def test_false_of_numpy_stops_a_fit(at: str) -> None:
    found = fit(**{at: lambda event: np.bool_(event.npass < 2 if at == "on_partition" else False)})
    assert (len(found.history), found.success) == (1, False)


def test_url_of_a_file_on_this_machine_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit(max_passes=1, checkpoint=f"file://localhost{tmp_path}/run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_save_that_fails_warns_at_the_line_of_the_fit(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def remove(event: Any) -> None:
        folder.rename(tmp_path / f"moved{event.done}")
        folder.write_text("no folder")

    once = dask.config.set({"dfit.partition-bytes": "1 B"})
    with once, pytest.warns(dfit.DfitWarning, match="goes on without a new checkpoint") as warned:
        fit(
            SQUARE.chunk(i=30),
            max_passes=1,
            checkpoint=dfit.Checkpoint(folder, every_s=0),
            on_partition=lambda event: remove(event) if event.done == 1 else None,
        )
    assert {Path(one.filename) for one in warned if "goes on" in str(one.message)} == {Path(__file__)}


LAZY = SQUARE.copy(data=da.from_array(SQUARE.values, chunks=(6, -1)))
WARMUPS = {"from p0": False, "with a sample": dfit.Warmup(sample_points=200)}


@pytest.mark.parametrize("warmup", WARMUPS.values(), ids=WARMUPS)
def test_bytes_of_partitions_are_those_of_the_fit_also_where_a_look_or_a_sample_keeps_them(
    warmup: Any, chunk_partitions: None, tmp_path: Path
) -> None:
    found = fit(LAZY, warmup=warmup, checkpoint=tmp_path)
    assert found.partitions is not None and found.partitions.sizes == {"partition": 2}
    np.testing.assert_array_equal(found.partitions.bytes_read, SQUARE.nbytes // 2)
    assert found.run.bytes_read == found.run.bytes_per_pass == SQUARE.nbytes


@pytest.mark.usefixtures("rereading", "chunk_partitions")
def test_bytes_of_a_pass_are_those_of_all_of_it_after_a_resume_within_the_first(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(LAZY, checkpoint=tmp_path, on_partition=stop_after(1))
    assert fit(LAZY, checkpoint=tmp_path).run.bytes_per_pass == SQUARE.nbytes


def test_partitions_that_the_sample_stands_for_are_not_called_left_out(chunk_partitions: None) -> None:
    found = fit(LAZY, warmup=dfit.Warmup(sample_points=200), max_passes=0)
    assert found.partitions is not None and not found.partial
    assert found.partitions.left_out.values.tolist() == [False, False]
    assert found.partitions.leaves.values.tolist() == [0, 0]


@pytest.mark.parametrize("door", ["fit", "resume"])
def test_a_fit_that_ended_with_its_sample_goes_on_to_passes(door: str, tmp_path: Path) -> None:
    options = {"p0": {"a": 1, "b": 1, "c": 0}, "checkpoint": tmp_path}
    assert dfit.fit(plane, LAZY, ("x", "y"), max_passes=0, **options).npasses == 0
    if door == "fit":
        found = dfit.fit(plane, LAZY, ("x", "y"), **options)
    else:
        found = dfit.resume(tmp_path, plane, LAZY, max_passes=100)
    assert found.success and found.warmup is not None
    assert found.theta.tobytes() == fit(LAZY, warmup=True).theta.tobytes()


@pytest.mark.filterwarnings("ignore:2880 points were left out")
def test_another_variable_that_is_alike_where_a_resume_looks_is_refused(tmp_path: Path) -> None:
    inside = SQUARE.where((SQUARE.x > 1) & (SQUARE.x < 2))
    both = xr.Dataset({"first": inside, "second": 2 * inside})
    both = both.map(lambda one: one.copy(data=da.from_array(one.values, chunks=(6, -1))))
    expected = fit(both["first"], checkpoint=tmp_path)
    with pytest.raises(dfit.InputError, match="name of the data: first, now second"):
        fit(both["second"], checkpoint=tmp_path)
    again = fit(both["first"].rename(None), checkpoint=tmp_path)
    assert again.theta.tobytes() == expected.theta.tobytes()
