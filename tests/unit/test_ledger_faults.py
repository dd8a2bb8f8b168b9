"""A history that is damaged, another's, or cannot be written: passed over with one warning."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dfit.errors import CheckpointError, DfitWarning
from dfit.store import ledger
from dfit.store.ledger import Ledger
from dfit.store.row import encode
from tests.small_disk import mounted
from tests.unit.runs import NUMBERS, changed, loaded, put, record, use

GARBAGE = {
    "empty line": b"",
    "cut": encode(record())[:-40],
    "not JSON": b"\x00\xff\xfe nothing",
    "a list": b"[1, 2]",
    "deep": b"[" * 10_000 + b"]" * 10_000,
    "long": b'{"dfit_history": 1, "id": "' + b"a" * 100_000 + b'"}',
    "long number": changed().replace(b"20.0", b"9" * 5000),
    "no time": changed(when=float("nan")),
    "endless": changed(measured=NUMBERS | {"pass_s": float("inf")}),
    "huge": changed(measured=NUMBERS | {"pass_s": 1e300}),
    "negative": changed(measured=NUMBERS | {"pass_s": -1}),
    "true": changed(measured=NUMBERS | {"pass_s": True}),
    "text for a number": changed(measured=NUMBERS | {"pass_s": "2.5"}),
    "a dict inside": changed(workload={"model": {"a": 1}}),
    "a list for a dict": changed(workload=["model"]),
    "control characters": changed(predicted_by="\x1b[2J"),
    "half a character": changed(about={"name": "\ud800"}),
    "an id that is a path": changed(id="../../../../../../tmp/aaaaaaaaaa"),
    "many names": changed(about={str(k): k for k in range(100)}),
    "another name": changed(code="print()"),
    "no version": changed(dfit_history=None),
    "version 0": changed(dfit_history=0),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_damaged_rows_are_passed_over_with_one_warning(name: str, tmp_path: Path) -> None:
    one = record()
    path = put(tmp_path, encode(one) + GARBAGE[name] + b"\n")
    history = Ledger(tmp_path)
    with pytest.warns(DfitWarning, match=r"passed over: damaged rows: 1.*dfit\.history\.clear\(\)") as told:
        found = use(history)
    assert (found, len(told)) == ([one], 1)
    history.compact()
    assert path.exists(), "what is not understood is not lost"


def test_rows_of_a_later_dfit_are_passed_over_and_stay(tmp_path: Path) -> None:
    path = put(tmp_path, changed(dfit_history=2, more=[1]))
    with pytest.warns(DfitWarning, match="rows of a later dfit: 1"):
        assert Ledger(tmp_path).load() == []
    for k in range(3):
        Ledger(tmp_path).add(record(str(k)))
    Ledger(tmp_path).compact()
    assert path.exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_links_folders_and_pipes_are_not_followed(tmp_path: Path) -> None:
    outside = put(tmp_path, encode(record()), "outside")
    folder = tmp_path / "history"
    folder.mkdir()
    (folder / f"run-{'1' * 32}.jsonl").symlink_to(outside)
    (folder / f"run-{'2' * 32}.jsonl").mkdir()
    os.mkfifo(folder / f"run-{'3' * 32}.jsonl")
    with pytest.warns(DfitWarning, match="no file: 3"):
        assert Ledger(folder).load() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_another_user_are_passed_over(tmp_path: Path) -> None:
    one = record()
    Ledger(tmp_path).add(one)
    os.chown(put(tmp_path, encode(record("b"))), 12345, 12345)
    with pytest.warns(DfitWarning, match="not this user's or no file: 1"):
        assert Ledger(tmp_path).load() == [one]
    assert Ledger(tmp_path).clear() == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_nothing_is_written_into_the_folder_of_another_user(tmp_path: Path) -> None:
    folder = tmp_path / "history"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.warns(DfitWarning, match="belongs to another user") as told:
        Ledger(folder).add(record())
    assert 'dask.config.set({"dfit.history": False})' in str(told[0].message)
    assert list(folder.iterdir()) == []


def test_a_file_of_many_rows_is_not_read(tmp_path: Path) -> None:
    put(tmp_path, b"1\n" * 1_000_000)
    with pytest.warns(DfitWarning, match="files of too many rows: 1"):
        assert Ledger(tmp_path).load() == []


def test_only_the_newest_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [record(str(k)) for k in range(4)]
    for k, one in enumerate(kept):
        Ledger(tmp_path).add(one)
        os.utime(tmp_path / f"run-{one.id}.jsonl", (1000 + k, 1000 + k))
    monkeypatch.setattr(ledger, "READ_FILES", 3)
    assert {one.id for one in Ledger(tmp_path).load()} == {one.id for one in kept[1:]}
    monkeypatch.setattr(ledger, "READ_BYTES", 2 * len(encode(kept[0])) + 50)
    assert {one.id for one in Ledger(tmp_path).load()} == {one.id for one in kept[2:]}


def file_in_the_way(folder: Path) -> Path:
    put(folder, b"", "history")
    return folder / "history"


def full_name(folder: Path) -> Path:
    return folder / ("n" * 300)


@pytest.mark.parametrize("place", [file_in_the_way, full_name])
def test_a_folder_that_cannot_be_used_costs_one_warning(
    place: Callable[[Path], Path], tmp_path: Path
) -> None:
    history = Ledger(place(tmp_path))
    with pytest.warns(DfitWarning, match="cannot be read.*Fits go on without it") as told:
        found = use(history)
    assert (found, len(told)) == ([], 1)


def test_a_folder_that_cannot_be_written_costs_one_warning_and_is_still_read(tmp_path: Path) -> None:
    one = record()
    with mounted(tmp_path / "disk", "size=1m") as disk:
        Ledger(disk).add(one)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        history = Ledger(disk)
        with pytest.warns(DfitWarning, match="cannot be kept: .*Read-only file system") as told:
            found = use(history)
    assert (found, len(told)) == ([one], 1)


def test_on_a_full_disk_what_was_kept_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "FILES", 2)
    with mounted(tmp_path / "disk", "size=64k,nr_inodes=100") as disk:
        kept = [record(str(k), id=f"{k:031x}f") for k in range(3)]
        for one in kept:
            Ledger(disk).add(one)
        before = sorted(path.name for path in disk.iterdir())
        with pytest.raises(OSError), (disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.warns(DfitWarning, match="No space left"):
            Ledger(disk).add(record("last", id="0" * 32))
        assert sorted(path.name for path in disk.iterdir()) == sorted([*before, "filler"])
        assert sorted(loaded(disk)) == sorted(one.id for one in kept)


def test_a_file_too_large_hides_no_older_record(tmp_path: Path) -> None:
    Ledger(tmp_path).add(record())
    with open(tmp_path / f"run-{'0' * 32}.jsonl", "wb") as large:
        large.truncate(ledger.READ_BYTES + 1)
    with pytest.warns(DfitWarning, match="files too large: 1"):
        assert len(Ledger(tmp_path).load()) == 1


def test_a_history_that_is_a_file_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match=r"no folder.*Type: dask.config.set"):
        Ledger(tmp_path / "file").clear()
    assert (tmp_path / "file").read_text() == "mine"
