"""Going on with a fit: what need not be told again, what may change, what is said, and at every door."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.store.folder import Folder
from tests.resumed import differences, stop_after
from tests.warmed import SAMPLE, Reads, T, Y, decay

pytestmark = pytest.mark.usefixtures("small_leaves")

CHUNK = 5000
P0 = [2.0, 1.5, 0.8]


def fit(path: Any = None, reads: Reads | None = None, **options: Any) -> dfit.FitResult:
    y = (Reads() if reads is None else reads).array(chunk=CHUNK)
    return dfit.fit(decay, y, "t", **{"p0": P0, "warmup": False, "checkpoint": path, **options})


@pytest.fixture(scope="module")
def expected() -> dfit.FitResult:
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr("dfit.data.plan.LEAF_POINTS", 2048)
        return fit()


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The newest save as a program of another kind would have written it."""
    folder = Folder(path)
    found = folder.latest()
    assert found is not None
    change(found[0])
    folder.save(found[0])


def words(change: Callable[[dict[str, Any]], None], name: str) -> Callable[[dict[str, Any]], None]:
    """The same for one of its fields that are JSON."""

    def apply(tree: dict[str, Any]) -> None:
        told = json.loads(tree[name])
        change(told)
        tree[name] = json.dumps(told)

    return apply


def test_the_first_line_says_where_it_goes_on(
    tmp_path: Path, expected: dfit.FitResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not fit(tmp_path, on_partition=stop_after(11)).success
    found = fit(tmp_path, verbose=1)
    first = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(r"resuming: pass 3, 3 of 4 partitions, saved \d\d:\d\d UTC", first)
    assert differences(found, expected) == []


def test_it_is_said_where_nothing_is_printed_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(tmp_path, max_passes=2)
    with caplog.at_level(logging.WARNING, "dfit"):
        fit(tmp_path)
    assert [r.message[:36] for r in caplog.records] == ["resuming: pass 3, 0 of 4 partitions,"]


def test_a_finished_fit_is_returned_without_a_read_and_says_so(
    tmp_path: Path, expected: dfit.FitResult, capsys: pytest.CaptureFixture[str]
) -> None:
    reads = Reads()
    array = reads.array(chunk=CHUNK)
    settings = {"p0": P0, "warmup": False, "checkpoint": tmp_path}
    dfit.fit(decay, array, "t", **settings)
    reads.clear()
    found = dfit.fit(decay, array, "t", verbose=1, **settings)
    assert reads == [] and differences(found, expected) == []
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"resuming: the fit was finished after {found.npasses} passes, saved ")
    assert first.endswith("; nothing is read")


def test_resume_need_not_be_told_what_are_numbers_and_words(tmp_path: Path) -> None:
    options = {"bounds": {"tau": (0, 1.8)}, "loss": "huber", "f_scale": 0.1, "warmup": SAMPLE, "tol": 1e-6}
    expected = fit(**options)
    fit(tmp_path, on_partition=stop_after(6), **options)
    found = dfit.resume(tmp_path, decay, Reads().array(chunk=CHUNK))
    assert differences(found, expected) == []
    assert found.loss == "huber" and found.warmup is not None


def test_resume_must_be_told_arrays_and_functions(tmp_path: Path) -> None:
    sigma, data = np.linspace(0.1, 0.2, T.size), xr.DataArray(Y, dims="i").chunk(i=CHUNK)
    given = {"coords": {"t": T}, "sigma": sigma, "p0": P0, "warmup": False}
    dfit.fit(decay, data, max_passes=2, checkpoint=tmp_path, **given)
    with pytest.raises(
        dfit.InputError, match=r"was given coords, sigma, which .* does not hold.*coords=\.\.\., sigma=\.\.\."
    ):
        dfit.resume(tmp_path, decay, data)
    found = dfit.resume(tmp_path, decay, data, coords={"t": T}, sigma=sigma, max_passes=100)
    assert differences(found, dfit.fit(decay, data, **given)) == []


def test_resume_must_be_told_what_ties_a_parameter(tmp_path: Path) -> None:
    tie = {"c": lambda p: p["a"] / 3}
    given = {"p0": {"a": 2, "tau": 1.5}, "tie": tie}
    fit(tmp_path, on_partition=stop_after(6), **given)
    with pytest.raises(dfit.InputError, match=r"was given tie, which .* does not hold"):
        dfit.resume(tmp_path, decay, Reads().array(chunk=CHUNK))
    found = dfit.resume(tmp_path, decay, Reads().array(chunk=CHUNK), tie=tie)
    assert differences(found, fit(**given)) == []


def test_resume_of_nothing_is_refused_with_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(dfit.CheckpointError, match=r"holds no checkpoint.*Type: dfit\.fit\(model, data"):
        dfit.resume(tmp_path, decay, Reads().array(chunk=CHUNK))


def test_begun_again_it_does_not_look_at_what_is_there(tmp_path: Path, expected: dfit.FitResult) -> None:
    fit(tmp_path, max_passes=2)
    reads = Reads()
    found = fit(tmp_path, reads, resume=False)
    assert differences(found, expected) == []
    assert {0, 1, 2, 3} <= set(reads)


def test_by_default_nothing_is_written_and_false_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit()
    with dask.config.set({"dfit.checkpoint.path": str(tmp_path / "run")}):
        fit(False)
    assert list(tmp_path.iterdir()) == []


def test_defaults_are_those_of_dask_config(tmp_path: Path, expected: dfit.FitResult) -> None:
    often = {
        "dfit.checkpoint.path": str(tmp_path / "run"),
        "dfit.checkpoint.every-s": 1e9,
        "dfit.checkpoint.every-passes": 2,
        "dfit.checkpoint.keep-last": 4,
    }
    with dask.config.set(often):
        fit(max_passes=2)
        made = dfit.Checkpoint(tmp_path / "other")
        found = fit()
    assert (made.every_s, made.every_passes, made.keep_last) == (1e9, 2, 4)
    assert differences(found, expected) == []
    assert 2 <= len(dfit.Checkpoint(tmp_path / "run").entries()) <= 4


@pytest.mark.parametrize("every", [{"every_s": 0}, {"every_passes": 1, "every_s": 1e9}])
def test_saves_come_as_often_as_asked_for_and_so_many_are_kept(every: dict[str, Any], tmp_path: Path) -> None:
    found = fit(dfit.Checkpoint(tmp_path, keep_last=2, **every))
    entries = dfit.Checkpoint(tmp_path).entries()
    assert len(entries) == 2
    tasks = 4 * found.npasses if "every_passes" not in every else 0
    assert entries[-1].number == tasks + found.npasses + 1


def test_more_passes_go_on_where_fewer_ended(tmp_path: Path, expected: dfit.FitResult) -> None:
    first = fit(tmp_path, max_passes=2)
    assert (first.success, first.npasses) == (False, 2)
    assert fit(tmp_path, max_passes=2).message == first.message
    assert differences(fit(tmp_path, max_passes=3), fit(max_passes=3)) == []
    assert differences(fit(tmp_path), expected) == []


@pytest.mark.parametrize("tighter", [{"tol": 1e-9}, {"tol": 1e-5, "xtol": 1e-12}])
def test_a_finished_fit_goes_on_to_a_tighter_tolerance(tighter: dict[str, Any], tmp_path: Path) -> None:
    loose = fit(tmp_path, tol=0.1)
    found, at_once = fit(tmp_path, **tighter), fit(**tighter)
    assert loose.success and loose.npasses < found.npasses <= at_once.npasses + 1
    np.testing.assert_allclose(found.theta, at_once.theta, rtol=1e-10)
    np.testing.assert_allclose(found.covar, at_once.covar, rtol=1e-8)


def test_a_finished_fit_under_a_looser_tolerance_is_finished(tmp_path: Path, expected: Any) -> None:
    fit(tmp_path)
    found = fit(tmp_path, tol=1e-3)
    assert found.success and found.npasses == expected.npasses
    assert found.theta.tobytes() == expected.theta.tobytes()


@pytest.mark.parametrize(
    "changed",
    [{"scheduler": "threads", "num_workers": 3}, {"dfit.partition-bytes": "1 B"}],
    ids=["threads", "partition bytes"],
)
@pytest.mark.usefixtures("rereading")
def test_on_other_resources_it_ends_with_the_same_bits(
    changed: dict[str, Any], tmp_path: Path, expected: dfit.FitResult
) -> None:
    fit(tmp_path, on_partition=stop_after(10))
    with dask.config.set(changed):
        found = fit(tmp_path, retries=1, validate="full")
    assert differences(found, expected) == []


@pytest.mark.parametrize("name", ["jaxlib", "processor"])
def test_another_environment_goes_on_and_says_what_is_no_longer_promised(
    name: str, tmp_path: Path, expected: dfit.FitResult, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path, on_partition=stop_after(10))
    edit(tmp_path, words(lambda told: told.update({name: "0.1"}), "environment"))
    found = fit(tmp_path, verbose=1)
    first = capsys.readouterr().out.splitlines()[0]
    assert f"The last bits are no longer promised, 1e-10 is: {name} 0.1, now " in first
    np.testing.assert_allclose(found.theta, expected.theta, rtol=1e-10)


def test_a_later_schema_is_refused_naming_the_version_that_reads_it(tmp_path: Path) -> None:
    fit(tmp_path, max_passes=2)
    edit(tmp_path, lambda tree: tree.update(schema=99, version="7.1"))
    with pytest.raises(dfit.CheckpointError, match=r"written by dfit 7\.1.*Type: pip install 'dfit>=7\.1'"):
        fit(tmp_path)
    assert fit(tmp_path, max_passes=1, resume=False).npasses == 1


def test_a_store_of_something_else_is_refused(tmp_path: Path) -> None:
    Folder(tmp_path).save({"a": 1})
    with pytest.raises(dfit.CheckpointError, match=f"{re.escape(str(tmp_path))}.*holds no state of a fit"):
        fit(tmp_path)


def test_a_path_is_one_line_of_many(tmp_path: Path) -> None:
    fit(dfit.Checkpoint(tmp_path, every_s=0, keep_last=5))
    saves = dfit.Checkpoint(tmp_path)
    saves.validate()
    numbers = [entry.number for entry in saves.entries()]
    assert saves.latest() == saves.entries()[-1].path
    assert len(saves.clean(keep_last=2)) == 3
    assert [entry.number for entry in saves.entries()] == numbers[-2:]
