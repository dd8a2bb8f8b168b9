"""Checkpoints survive what happens to them: kills, damage, a full disk, files of strangers."""

from __future__ import annotations

import errno
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import pytest

from dfit.errors import CheckpointError, DfitWarning
from dfit.store.folder import Folder
from dfit.store.image import decode, encode

# Forks a process that saves without end for every path it reads; tells of each save once it is done.
SAVERS = """
import os, sys
import numpy as np
from dfit.store.folder import Folder

for line in sys.stdin:
    child = os.fork()
    if not child:
        folder, k = Folder(line.strip()), 0
        while True:
            k += 1
            folder.save({"k": k, "a": np.full(20_000, float(k))}, keep_last=2)
            os.write(1, f"saved {k}\\n".encode())
    os.write(1, f"child {child}\\n".encode())
    os.write(1, f"ended {os.waitpid(child, 0)[1]}\\n".encode())
"""


@pytest.fixture(scope="module")
def savers(source_environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SAVERS],
        env=source_environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        yield process
        process.stdin.close()


def kill_while_saving(savers: subprocess.Popen[str], folder: Path, wait_s: float) -> int:
    """Number of the last save that a process knew of when it was killed in the midst of saving."""
    savers.stdin.write(f"{folder}\n")
    told = {"child": 0, "saved": 0}
    killed = False
    while True:
        word, number = savers.stdout.readline().split()
        told[word] = int(number)
        if word == "ended":
            assert told["ended"] == signal.SIGKILL
            return told["saved"]
        if told["child"] and told["saved"] and not killed:
            time.sleep(wait_s)
            os.kill(told["child"], signal.SIGKILL)
            killed = True


def kill_again_and_again(savers: subprocess.Popen[str], where: Path, times: int) -> int:
    """How many of the kills struck between the first byte of a file and its name."""
    rng, unfinished = random.Random(5), 0
    for k in range(times):
        folder = Folder(where / str(k))
        acknowledged = kill_while_saving(savers, where / str(k), rng.uniform(0, 0.05))
        folder.validate()
        tree, _ = folder.latest()
        assert tree["k"] in (acknowledged, acknowledged + 1)
        assert set(tree["a"]) == {float(tree["k"])}
        unfinished += len(os.listdir(folder.path)) - len(folder.entries())
        folder.save({"k": 0})
        assert len(os.listdir(folder.path)) == len(folder.entries())
    return unfinished


def test_killed_in_the_midst_of_saving_nothing_acknowledged_is_lost(
    savers: subprocess.Popen[str], tmp_path: Path
) -> None:
    kill_again_and_again(savers, tmp_path, 10)


@pytest.mark.slow
def test_killed_150_times_nothing_acknowledged_is_lost(savers: subprocess.Popen[str], tmp_path: Path) -> None:
    assert kill_again_and_again(savers, tmp_path, 150) > 0


def test_order_is_write_fsync_rename_fsync_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, int]] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        seen.append(("fsync", path, 0 if os.path.isdir(path) else os.path.getsize(path)))
        fsync(handle)

    def watched_rename(source: str, target: str) -> None:
        seen.append(("rename", source, os.path.getsize(source)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    folder = Folder(tmp_path / "run")
    size = os.path.getsize(folder.save({"a": 1}))
    assert seen[0] == ("fsync", str(tmp_path), 0)  # of the name of the new folder
    (first, temporary, written), *rest = seen[1:]
    assert (first, written, Path(temporary).parent) == ("fsync", size, tmp_path / "run")
    assert rest == [("rename", temporary, size), ("fsync", str(tmp_path / "run"), 0)]


SAVE_ONCE = """
import sys
from dfit.store.folder import Folder
folder = Folder(sys.argv[1])
folder.save({"a": 1})
folder.save({"a": 2}, keep_last=1)
"""


def test_strace_sees_the_old_one_removed_after_the_new_one_is_safe(
    tmp_path: Path, source_environment: dict[str, str]
) -> None:
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-o", os.devnull, "true"], check=False).returncode:
        why = "strace is not installed or not allowed here"
        pytest.fail(f"{why}, and .ci/run installs it") if "CI" in os.environ else pytest.skip(why)
    log = tmp_path / "strace"
    calls = "trace=write,fsync,rename,renameat,renameat2,unlink,unlinkat"
    command = [strace, "-f", "-y", "-e", calls, "-o", str(log), sys.executable, "-c", SAVE_ONCE]
    subprocess.run([*command, str(tmp_path / "run")], env=source_environment, check=True)
    # Of the second save; a call that failed changed nothing. -y writes the path of a handle after it.
    ours = [line for line in log.read_text().splitlines() if f"{tmp_path}/run" in line and "= -1" not in line]
    told = [
        re.search(r" (\w+?)(?:at2?)?\(.*?(unfinished|checkpoint-\d+|run>)", line).groups() for line in ours
    ]
    one = [("write", "unfinished"), ("fsync", "unfinished"), ("rename", "unfinished"), ("fsync", "run>")]
    assert told == [*one, *one, ("unlink", "checkpoint-000001")]


def assert_damage_is_noticed(tmp_path: Path, cases: int) -> None:
    folder = Folder(tmp_path)
    folder.save({"a": np.arange(3.0), "b": {"c": "old"}})
    newest = Path(folder.save({"a": np.arange(3.0), "b": {"c": "new"}}))
    whole = newest.read_bytes()
    rng = random.Random(7)
    every = [("flip", at) for at in range(len(whole))] + [("cut", at) for at in range(len(whole))]
    for kind, at in rng.sample(every, cases):
        damaged = bytearray(whole if kind == "flip" else whole[:at])
        if kind == "flip":
            damaged[at] ^= 1 << rng.randrange(8)
        newest.write_bytes(damaged)
        with pytest.warns(DfitWarning, match=r"damaged and passed over.*checkpoint-000002\.h5"):
            found = folder.latest()
        assert found is not None and found[0]["b"]["c"] == "old", (kind, at)
    newest.write_bytes(whole)
    assert folder.latest()[0]["b"]["c"] == "new"


def test_no_flipped_bit_and_no_cut_goes_unnoticed(tmp_path: Path) -> None:
    assert_damage_is_noticed(tmp_path, 300)


@pytest.mark.slow
def test_none_of_2000_flipped_bits_and_cuts_goes_unnoticed(tmp_path: Path) -> None:
    assert_damage_is_noticed(tmp_path, 2000)


def test_hdf5_never_sees_a_damaged_image(monkeypatch: pytest.MonkeyPatch) -> None:
    image = bytearray(encode({"a": np.arange(3.0)}))
    opened: list[Any] = []
    monkeypatch.setattr(h5py.h5f, "open", lambda *given: opened.append(given))
    for at in range(0, len(image), 17):
        image[at] ^= 4
        with pytest.raises(CheckpointError):
            decode(bytes(image))
        image[at] ^= 4
    assert opened == []


@pytest.mark.parametrize("step", ["mkstemp", "write", "fsync", "rename"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_save_that_fails_at_any_step_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, fault: BaseException
) -> None:
    folder = Folder(tmp_path)
    paths = [folder.save({"a": k}) for k in range(3)]
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def fail(*_: Any, **__: Any) -> None:
        raise fault

    with monkeypatch.context() as broken:
        if step == "write":
            broken.setattr("dfit.store.place.open", Full(fail), raising=False)
        else:
            broken.setattr(tempfile if step == "mkstemp" else os, step, fail)
        with pytest.raises(CheckpointError if isinstance(fault, OSError) else KeyboardInterrupt) as caught:
            folder.save({"a": 3}, keep_last=1)
    if isinstance(fault, OSError):
        assert "checkpoint-000004.h5 cannot be written: OSError: No space left" in str(caught.value)
        assert caught.value.__cause__ is fault
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    assert folder.latest() == ({"a": 2}, paths[2])
    assert folder.save({"a": 4}).endswith("000004.h5")


class Full:
    """Like `open`, for files whose write fails after its first bytes."""

    def __init__(self, fail: Callable[..., None]) -> None:
        self.fail = fail

    def __call__(self, handle: int, mode: str) -> Full:
        self.handle = handle
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)

    def write(self, content: bytes) -> None:
        os.write(self.handle, content[:100])
        self.fail()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 256 KiB, or for which this process may write files of 64 KiB only."""
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(tmp_path)],
            check=False,
            capture_output=True,
        ).returncode
    )
    if mounted:
        yield tmp_path
        subprocess.run(["umount", str(tmp_path)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_the_old_ones_and_is_told(small: Path) -> None:
    folder = Folder(small / "run")
    path = folder.save({"k": 1})
    failed = 0
    for k in range(1, 6):
        try:
            path = folder.save({"k": k, "a": np.full(6000 * k, float(k))})
        except CheckpointError as error:
            assert re.search(r"cannot be written: OSError: (No space left|File too large)", str(error))
            failed += 1
            assert all(name.startswith("checkpoint-") for name in os.listdir(folder.path))
            assert folder.latest()[1] == path
    assert failed >= 2
    folder.validate()
    assert folder.save({"k": 9}) > path
    assert folder.latest()[0] == {"k": 9}
