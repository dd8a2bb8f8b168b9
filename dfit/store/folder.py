"""Folder of checkpoints: numbered images, the newest sound one is the one that counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from dfit.errors import CheckpointDamaged, CheckpointError, InputError, warn
from dfit.store.image import LIMIT_BYTES, Tree, decode, encode
from dfit.store.place import place_of

NAME = re.compile(r"checkpoint-([0-9]{6,})\.h5")


@dataclass(frozen=True)
class Entry:
    """One image of a folder.

    Attributes
    ----------
    path : path or URL.
    number : how many images were saved up to it.
    size_bytes : 0 where it cannot be read.
    problem : why it is of no use; None where it is sound.
    """

    path: str
    number: int
    size_bytes: int
    problem: str | None


class Folder:
    """Numbered images in a folder or below a URL, which one process at a time writes.

    Parameters
    ----------
    path : path, or a URL that fsspec knows ("s3://bucket/run1")
        Made by the first save; a folder only for its owner.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._place = place_of(path)
        self.path = self._place.path

    def save(self, tree: Mapping[str, Any], keep_last: int = 3) -> str:
        """Keep a tree under the next number; remove all but the ``keep_last`` newest.

        Gives the path of the new image. Nothing is removed before it is safe, and a failure leaves all
        as it was.

        Raises
        ------
        CheckpointError
            If the tree cannot be stored, or the store is full or cannot be reached.
        """
        _count(keep_last)
        image = encode(tree)
        self._place.sweep()
        numbers = self._numbers()
        number = max(numbers, default=0) + 1
        self._place.write(_name(number), image)
        for old in sorted([*numbers, number])[:-keep_last]:
            self._place.remove(_name(old))
        return self._path(number)

    def latest(self) -> tuple[Tree, str] | None:
        """The newest sound tree and its path; None where there is none.

        Damaged ones are passed over, each with a warning.

        Raises
        ------
        CheckpointError
            If the newest one was written by a later dfit, or the store cannot be read.
        """
        for number in reversed(self._numbers()):
            try:
                return self._load(number)[0], self._path(number)
            except KeyError:
                continue  # removed since it was listed
            except CheckpointDamaged as error:
                warn(f"a checkpoint is damaged and passed over. {error}")
        return None

    def put(self, name: str, tree: Mapping[str, Any]) -> None:
        """Keep a tree by a name of its own, beside the numbered ones."""
        self._place.write(f"{name}.h5", encode(tree))

    def get(self, name: str) -> Tree | None:
        """What was put there; None where nothing was.

        Raises
        ------
        CheckpointDamaged
            If it is not what was put there.
        """
        try:
            return decode(self._place.read(f"{name}.h5", LIMIT_BYTES))
        except KeyError:
            return None

    def entries(self) -> list[Entry]:
        """All images, the oldest first, each read and verified."""
        return [entry for number in self._numbers() if (entry := self._entry(number))]

    def validate(self) -> None:
        """Raise CheckpointError that says what is wrong; with nothing where all images are sound."""
        entries = self.entries()
        problems = [entry.problem for entry in entries if entry.problem]
        if problems or not entries:
            raise CheckpointError("\n".join(problems) or f"{self.path} holds no checkpoint")

    def clean(self, keep_last: int = 3) -> list[str]:
        """Remove what is older than the ``keep_last`` newest sound images, and what killed saves left.

        Gives the paths of the removed images.
        """
        _count(keep_last)
        self._place.sweep()
        entries = self.entries()
        sound = [entry.number for entry in entries if entry.problem is None]
        if len(sound) < keep_last:
            return []
        old = [entry for entry in entries if entry.number < sound[-keep_last]]
        for entry in old:
            self._place.remove(_name(entry.number))
        return [entry.path for entry in old]

    def _numbers(self) -> list[int]:
        found = (NAME.fullmatch(name) for name in self._place.names())
        return sorted(int(match[1]) for match in found if match)

    def _load(self, number: int) -> tuple[Tree, int]:
        """Tree and size in bytes."""
        image = self._place.read(_name(number), LIMIT_BYTES)
        try:
            return decode(image), len(image)
        except CheckpointError as error:
            raise type(error)(f"{self._path(number)}: {error}") from error

    def _entry(self, number: int) -> Entry | None:
        try:
            return Entry(self._path(number), number, self._load(number)[1], None)
        except KeyError:
            return None
        except CheckpointError as error:
            return Entry(self._path(number), number, 0, str(error))

    def _path(self, number: int) -> str:
        return f"{self.path}/{_name(number)}"


def _name(number: int) -> str:
    return f"checkpoint-{number:06d}.h5"


def _count(keep_last: int) -> None:
    if keep_last < 1:
        raise InputError(f"keep_last={keep_last} would keep no checkpoint. Type: keep_last=1")
