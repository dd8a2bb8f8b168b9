"""Places of named byte strings, on a file system or an object store; none of them is ever seen half written.

Both give the same five verbs. A name is a plain file name.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import fsspec

from dfit.errors import CheckpointDamaged, CheckpointError, InputError

TEMPORARY = ".unfinished-"


class Place(Protocol):
    """Where images are kept.

    Attributes
    ----------
    path : str
        Path or URL of the place.
    """

    path: str

    def names(self) -> list[str]:
        """Names of what is finished, in no order; empty where there is no such place yet."""

    def read(self, name: str, limit_bytes: int) -> bytes:
        """All bytes of a name.

        Raises
        ------
        KeyError
            If there is none any more.
        CheckpointDamaged
            If it is no plain file, or longer than the limit.
        """

    def write(self, name: str, content: bytes) -> None:
        """Keep these bytes, durably; a failure leaves nothing behind."""

    def remove(self, name: str) -> None:
        """Forget a name, if it is there."""

    def sweep(self) -> None:
        """Remove what killed writes have left behind."""


class Disk:
    """A folder that one process writes; made at the first write, for its owner only."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))

    def names(self) -> list[str]:
        with _told("listed", self.path):
            try:
                return [name for name in os.listdir(self.path) if not name.startswith(TEMPORARY)]
            except FileNotFoundError:
                return []

    def read(self, name: str, limit_bytes: int) -> bytes:
        path = os.path.join(self.path, name)
        with _told("read", path):
            try:
                # Asked before it is opened: a pipe would wait for its writer, a device do something.
                info = os.lstat(path)
                if not stat.S_ISREG(info.st_mode):
                    raise CheckpointDamaged(f"{path} is a link, a folder or a device, not a file")
                _limit(path, info.st_size, limit_bytes)
                with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                    return file.read()
            except FileNotFoundError as error:
                raise KeyError(name) from error

    def write(self, name: str, content: bytes) -> None:
        """Temporary file, fsync, rename, fsync of the folder: a kill leaves the old or all of the new."""
        with _told("written", os.path.join(self.path, name)):
            _make(self.path)
            handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=self.path)  # mode 0600
            try:
                with open(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(handle)
                os.rename(temporary, os.path.join(self.path, name))
            finally:
                Path(temporary).unlink(missing_ok=True)  # it is gone where it was renamed
            _sync(self.path)

    def remove(self, name: str) -> None:
        path = Path(self.path, name)
        with _told("removed", str(path)):
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        with _told("cleaned", self.path):
            for left in Path(self.path).glob(f"{TEMPORARY}*"):
                left.unlink(missing_ok=True)


class Bucket:
    """A prefix of an object store, one object a name. A PUT is atomic: there is nothing to sweep."""

    def __init__(self, url: str) -> None:
        self.path = url.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.path)
        except (ImportError, ValueError) as error:
            raise InputError(f"{url!r} cannot be reached: {error}") from error

    def names(self) -> list[str]:
        with self._asked("listed", ""):
            self._files.invalidate_cache()  # another process may have written meanwhile
            try:
                found = self._files.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        return [path.rpartition("/")[2] for path in found]

    def read(self, name: str, limit_bytes: int) -> bytes:
        with self._asked("read", name):
            try:
                size = self._files.info(self._at(name))["size"]
                _limit(f"{self.path}/{name}", size, limit_bytes)
                return bytes(self._files.cat_file(self._at(name)))
            except FileNotFoundError as error:
                raise KeyError(name) from error

    def write(self, name: str, content: bytes) -> None:
        with self._asked("written", name):
            self._files.pipe_file(self._at(name), content)

    def remove(self, name: str) -> None:
        with self._asked("removed", name):
            try:
                self._files.rm_file(self._at(name))
            except FileNotFoundError:
                return

    def sweep(self) -> None:
        return

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _asked(self, verb: str, name: str) -> Iterator[None]:
        # Stores raise errors of their own packages: no list of them would be complete.
        try:
            yield
        except (KeyError, CheckpointError):
            raise
        except Exception as error:
            raise _failed(verb, f"{self.path}/{name}", error) from error


def place_of(path: Any) -> Place:
    """The place of a path or URL."""
    text = os.fspath(path)
    if text.startswith("file://"):
        return Disk(text.removeprefix("file://").removeprefix("localhost"))
    return Bucket(text) if "://" in text else Disk(text)


@contextmanager
def _told(verb: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(verb, path, error) from error


def _failed(verb: str, path: str, error: Exception) -> CheckpointError:
    reason = getattr(error, "strerror", None) or error
    return CheckpointError(f"{path} cannot be {verb}: {type(error).__name__}: {reason}")


def _limit(path: str, size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise CheckpointDamaged(f"{path} holds {size_bytes:,} bytes; expected at most {limit_bytes:,}")


def _make(folder: str) -> None:
    if not os.path.isdir(folder):
        parent = os.path.dirname(folder)
        _make(parent)
        with suppress(FileExistsError):  # made by another process meanwhile
            os.mkdir(folder, 0o700)
        _sync(parent)


def _sync(folder: str) -> None:
    """Make names in a folder durable, after those of files that hold them."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
