"""Saves that fail, take long, or are damaged afterwards: the fit ends as without them."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

import dfit
from tests.resumed import differences, stop_after
from tests.small_disk import mounted
from tests.warmed import SAMPLE, Reads, decay

pytestmark = pytest.mark.usefixtures("small_leaves")

CHUNK = 5000


def fit(path: Any = None, **options: Any) -> dfit.FitResult:
    settings = {"p0": [2.0, 1.5, 0.8], "warmup": False, "checkpoint": path}
    return dfit.fit(decay, Reads().array(chunk=CHUNK), "t", **{**settings, **options})


@pytest.fixture(scope="module")
def expected() -> dfit.FitResult:
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr("dfit.data.plan.LEAF_POINTS", 2048)
        return fit()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 1 MiB."""
    with mounted(tmp_path / "disk", "size=1m") as folder:
        yield folder


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC


@pytest.mark.parametrize("after", [1, 6, 15])
def test_on_a_disk_that_fills_up_the_fit_ends_as_without_and_warns_once(
    after: int, small: Path, expected: dfit.FitResult
) -> None:
    saves = dfit.Checkpoint(small / "run", every_s=0)
    seen: list[Any] = []
    kept: dict[str, bytes] = {}

    def observe(event: Any) -> None:
        seen.append(event)
        if len(seen) == after:
            fill(small)
            kept.update({path.name: path.read_bytes() for path in (small / "run").iterdir()})

    with pytest.warns(dfit.DfitWarning) as told:
        found = fit(saves, on_partition=observe)
    assert differences(found, expected) == []
    assert len(told) == 1
    assert re.match(
        "the fit goes on without a new checkpoint: .*cannot be written: OSError: No space left",
        str(told[0].message),
    )
    assert kept and {path.name: path.read_bytes() for path in (small / "run").iterdir()} == kept
    saves.validate()
    (small / "filler").unlink()
    assert differences(fit(saves), expected) == []
    assert int(Path(saves.latest() or "").stem[-6:]) > after


def test_a_save_that_takes_long_warns_once_and_says_what_to_type(
    tmp_path: Path, expected: dfit.FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.keeping.SLOW_SAVE_S", 0.0)
    with pytest.warns(dfit.DfitWarning) as told:
        found = fit(dfit.Checkpoint(tmp_path, every_s=0))
    assert differences(found, expected) == []
    assert len(told) == 1
    assert re.match(r"a checkpoint took \d+\.\d s to save in .*Type: dfit\.Checkpoint", str(told[0].message))


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_newest_save_falls_back_and_ends_with_the_same_bits(
    damage: str, tmp_path: Path, expected: dfit.FitResult
) -> None:
    fit(dfit.Checkpoint(tmp_path, every_s=0), on_partition=stop_after(10))
    newest = Path(dfit.Checkpoint(tmp_path).entries()[-1].path)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 16
    newest.write_bytes({"flipped": content, "cut": content[:-9], "empty": b""}[damage])
    with pytest.warns(dfit.DfitWarning, match=f"damaged and passed over. {re.escape(str(newest))}"):
        found = fit(tmp_path)
    assert differences(found, expected) == []


def test_where_all_saves_are_damaged_it_begins_again(tmp_path: Path, expected: dfit.FitResult) -> None:
    fit(tmp_path, max_passes=2)
    for entry in dfit.Checkpoint(tmp_path).entries():
        Path(entry.path).write_bytes(b"nothing")
    with pytest.warns(dfit.DfitWarning, match="damaged and passed over"):
        found = fit(tmp_path)
    assert differences(found, expected) == []


def test_a_damaged_sample_is_drawn_again(tmp_path: Path) -> None:
    expected = fit(warmup=SAMPLE)
    fit(tmp_path, warmup=SAMPLE, max_passes=1)
    (tmp_path / "sample.h5").write_bytes(b"nothing")
    with pytest.warns(dfit.DfitWarning, match="the sample is drawn again"):
        found = fit(tmp_path, warmup=SAMPLE)
    assert differences(found, expected) == []
