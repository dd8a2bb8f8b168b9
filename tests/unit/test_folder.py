"""A folder of checkpoints: the newest sound one counts, on a disk and on an object store."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import pytest

from dfit.errors import CheckpointError, DfitWarning, InputError
from dfit.store import image
from dfit.store.folder import Folder
from dfit.store.image import BLOCK, encode


@pytest.fixture(params=["disk", "file url", "object store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "object store":
        return Folder(f"memory://{uuid4().hex}/run")
    return Folder(tmp_path / "run") if request.param == "disk" else Folder(f"file://{tmp_path}/run")


def put(path: str, content: bytes) -> None:
    with fsspec.open(path, "wb") as file:
        file.write(content)


def content(path: str) -> bytes:
    with fsspec.open(path, "rb") as file:
        return bytes(file.read())


def newest(folder: Folder) -> Any:
    """Number in the newest sound tree; without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = folder.latest()
    return found and found[0]["a"]


def test_folder_never_saved_to_holds_nothing(folder: Folder) -> None:
    assert folder.latest() is None
    assert (folder.entries(), folder.clean()) == ([], [])
    with pytest.raises(CheckpointError, match="run holds no checkpoint"):
        folder.validate()


def test_latest_is_what_was_saved_last_and_older_ones_go(folder: Folder) -> None:
    paths = [folder.save({"a": k}, keep_last=2) for k in range(12)]
    assert [Path(path).name for path in paths[-2:]] == ["checkpoint-000011.h5", "checkpoint-000012.h5"]
    assert [entry.path for entry in folder.entries()] == paths[-2:]
    assert folder.latest() == ({"a": 11}, paths[-1])
    folder.validate()


def test_entries_tell_sizes_and_what_is_wrong(folder: Folder) -> None:
    first, second = folder.save({"a": 1}), folder.save({"a": 2})
    put(second, content(first)[:-1])
    sound, damaged = folder.entries()
    assert (sound.path, sound.number, sound.size_bytes, sound.problem) == (
        first,
        1,
        len(content(first)),
        None,
    )
    assert (damaged.number, damaged.size_bytes) == (2, 0)
    assert f"{second}: it holds" in str(damaged.problem)
    with pytest.raises(CheckpointError, match=r"checkpoint-000002\.h5: it holds"):
        folder.validate()


def test_damaged_one_is_passed_over_with_a_warning_that_names_it(folder: Folder) -> None:
    paths = [folder.save({"a": k}) for k in range(3)]
    put(paths[2], b"")
    put(paths[1], content(paths[1]).replace(b"HDF", b"hdf"))
    with pytest.warns(DfitWarning) as caught:
        assert folder.latest() == ({"a": 0}, paths[0])
    assert [path in str(warning.message) for path, warning in zip(paths[:0:-1], caught, strict=True)] == [
        True
    ] * 2
    assert "0 bytes that begin with" in str(caught[0].message)
    assert "its SHA-256 is not that of its content" in str(caught[1].message)


def test_number_of_a_damaged_one_is_not_used_again(folder: Folder) -> None:
    folder.save({"a": 1})
    damaged = folder.save({"a": 2})
    put(damaged, b"damaged")
    assert folder.save({"a": 3}).endswith("checkpoint-000003.h5")
    assert content(damaged) == b"damaged"
    assert newest(folder) == 3


def test_one_of_a_later_dfit_is_neither_used_nor_passed_over(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.save({"a": 1})
    with monkeypatch.context() as later:
        later.setattr(image, "FORMAT", 2)
        path = folder.save({"a": 2})
    with pytest.raises(
        CheckpointError, match=r"checkpoint-000002\.h5: it has format 2.*pip install --upgrade"
    ):
        folder.latest()
    assert content(path)


def test_cleaning_keeps_the_newest_sound_ones(folder: Folder) -> None:
    paths = [folder.save({"a": k}, keep_last=9) for k in range(5)]
    put(paths[4], b"damaged")
    assert folder.clean(keep_last=5) == []
    assert folder.clean(keep_last=2) == paths[:2]
    assert [entry.path for entry in folder.entries()] == paths[2:]
    with pytest.warns(DfitWarning, match="000005"):
        assert folder.latest() == ({"a": 3}, paths[3])


def test_keeping_none_is_refused_with_the_line_to_type(folder: Folder) -> None:
    folder.save({"a": 1})
    for refused in (lambda: folder.save({"a": 2}, keep_last=0), lambda: folder.clean(keep_last=0)):
        with pytest.raises(InputError, match="Type: keep_last=1"):
            refused()
    assert newest(folder) == 1


def test_other_names_in_the_folder_are_left_alone(folder: Folder) -> None:
    folder.save({"a": 1})
    strangers = [f"{folder.path}/{name}" for name in ("checkpoint-9.h5", "checkpoint-000009.h5.bak", "notes")]
    for path in strangers:
        put(path, b"mine")
    assert folder.save({"a": 2}, keep_last=1).endswith("000002.h5")
    folder.clean(keep_last=1)
    assert [content(path) for path in strangers] == [b"mine"] * 3


def test_too_long_a_file_is_not_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.save({"a": 1})
    put(folder.save({"a": 2}), encode({"a": np.zeros(5000)}))
    monkeypatch.setattr("dfit.store.folder.LIMIT_BYTES", 20_000)
    with pytest.warns(DfitWarning, match="000002.h5 holds .* bytes; expected at most 20,000"):
        found = folder.latest()
    assert found and found[0] == {"a": 1}


def test_one_removed_while_it_is_looked_for_is_no_damage(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.save({"a": 1})
    monkeypatch.setattr(folder, "_numbers", lambda: [1, 2])
    assert newest(folder) == 1
    assert [entry.number for entry in folder.entries()] == [1]


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = Folder(tmp_path / "a" / "b").save({"a": 1})
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(os.stat(each).st_mode) for each in (path, tmp_path / "a" / "b", tmp_path / "a")]
    assert modes == [0o600, 0o700, 0o700]


def test_what_killed_saves_left_goes_with_the_next_one(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for name in (".unfinished-x1", ".unfinished-x2"):
        (tmp_path / name).write_bytes(encode({"a": 9})[:BLOCK])
    assert newest(folder) is None
    folder.save({"a": 1})
    assert os.listdir(tmp_path) == ["checkpoint-000001.h5"]
    (tmp_path / ".unfinished-x3").write_bytes(b"")
    assert folder.clean() == []
    assert os.listdir(tmp_path) == ["checkpoint-000001.h5"]


def test_temporary_names_cannot_be_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    rename = os.rename

    def watched(source: str, target: str) -> None:
        assert stat.S_IMODE(os.stat(source).st_mode) == 0o600
        seen.append(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    folder = Folder(tmp_path)
    for k in range(20):
        folder.save({"a": k})
    assert len(set(seen)) == 20


def test_links_and_pipes_are_passed_over_and_never_opened(tmp_path: Path) -> None:
    outside = tmp_path / "outside.h5"
    outside.write_bytes(encode({"a": 9}))
    folder = Folder(tmp_path / "run")
    folder.save({"a": 1})
    (tmp_path / "run" / "checkpoint-000002.h5").symlink_to(outside)
    os.mkfifo(tmp_path / "run" / "checkpoint-000003.h5")
    with pytest.warns(DfitWarning, match="is a link, a folder or a device") as caught:
        found = folder.latest()
    assert found and found[0] == {"a": 1} and len(caught) == 2
    folder.save({"a": 4}, keep_last=1)
    assert newest(folder) == 4 and outside.exists()


def test_link_put_in_place_after_the_look_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside.h5").write_bytes(encode({"a": 9}))
    (tmp_path / "checkpoint-000001.h5").symlink_to(tmp_path / "outside.h5")
    monkeypatch.setattr(os, "lstat", os.stat)
    with pytest.raises(CheckpointError, match=r"checkpoint-000001\.h5 cannot be read"):
        Folder(tmp_path).latest()


def test_file_in_place_of_the_folder_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(CheckpointError, match=r"run.* cannot be .*: (FileExists|NotADirectory)"):
        Folder(tmp_path / "run").save({"a": 1})


def test_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Folder("~/run").save({"a": 1}) == f"{tmp_path}/run/checkpoint-000001.h5"


def test_store_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="'nowhere://a' cannot be reached: Protocol not known"):
        Folder("nowhere://a")


def test_an_object_is_one_put_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(f"memory://{uuid4().hex}")
    files = type(folder._place._files)
    pipe_file, puts = files.pipe_file, []

    def watched(self: Any, path: str, value: bytes, **options: Any) -> None:
        puts.append((path.rpartition("/")[2], value))
        pipe_file(self, path, value, **options)

    monkeypatch.setattr(files, "pipe_file", watched)
    path = folder.save({"a": 1})
    assert puts == [("checkpoint-000001.h5", content(path))]


def test_what_another_process_put_is_seen_past_a_kept_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{uuid4().hex}"
    folder, kept = Folder(url), {}
    files = type(folder._place._files)
    ls = files.ls
    monkeypatch.setattr(files, "ls", lambda self, path, **how: kept.setdefault(path, ls(self, path, **how)))
    monkeypatch.setattr(files, "invalidate_cache", lambda self: kept.clear())
    folder.save({"a": 1})
    assert newest(folder) == 1
    put(f"{url}/checkpoint-000002.h5", encode({"a": 2}))
    assert newest(folder) == 2


def test_any_error_of_a_store_is_one_of_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentials(Exception):  # as those of botocore, of no builtin kind
        pass

    def refuse(*_: Any, **__: Any) -> None:
        raise NoCredentials("no key")

    folder = Folder(f"memory://{uuid4().hex}")
    folder.save({"a": 1})
    for method in ("pipe_file", "ls", "cat_file", "rm_file"):
        with monkeypatch.context() as broken:
            broken.setattr(type(folder._place._files), method, refuse)
            with pytest.raises(CheckpointError, match=r"cannot be .*: NoCredentials: no key"):
                folder.latest() if method == "cat_file" else folder.save({"a": 2}, keep_last=1)
