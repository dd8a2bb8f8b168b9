"""Ledger: records of past fits in a folder that many processes write at once, without locks.

Every fit writes one file under a name of its own, once.  Where many have come together, a process writes
their records into one new file, again of a name of its own, and removes what it has read only when that
file is safe: a kill, or two that do so at once, leave a record twice but never not at all, and readers know
copies by their id.  Files of others, and rows that are damaged or newer, are passed over and stay; what
nobody has written to for as long as records are kept goes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dfit.errors import CheckpointError, warn
from dfit.store.place import TEMPORARY, Disk
from dfit.store.row import Newer, Record, decode, encode

EACH, ALL, DAYS = 20, 5000, 180  # records of one workload and hardware, of all, and how long they are kept
FILES = 100  # in a folder before they are put together
# What a folder filled on purpose can cost a fit: about as much as twice the records that are kept.
READ_FILES, READ_BYTES, ROWS = 2000, 64 << 20, 2 * ALL
TRIES = 3  # of a listing, where others put files together meanwhile
DAY_S = 86_400.0
FOREIGN, UNREADABLE = "what is not this user's or no file", "files that cannot be read"
NAME = re.compile(r"(run|runs)-[0-9a-f]{32}\.jsonl")


@dataclass(frozen=True)
class Stamp:
    """A file as the listing of the folder shows it: another content has another stamp."""

    name: str
    size_bytes: int
    written_ns: int


@dataclass(frozen=True)
class Found:
    """What a file holds.

    Attributes
    ----------
    records : in the order of the file.
    passed_over : how many rows for which reason.
    """

    records: tuple[Record, ...]
    passed_over: Counter[str]

    @property
    def sound(self) -> bool:
        """Whether all of it is known, so that it may be written elsewhere and removed."""
        return not self.passed_over


# What the files of the folders held when they were last read in this process. Replaced, never changed:
# fits run in threads, too.
_known: dict[str, dict[Stamp, Found]] = {}


class Ledger:
    """Records in a folder; its faults are told in one warning and never raised: no fit needs it.

    Parameters
    ----------
    path : folder, made by the first record, for its owner only.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._disk = Disk(os.fspath(path))
        self.path = self._disk.path
        self._told = False

    def add(self, record: Record) -> None:
        """Keep a record, durably.

        Raises
        ------
        InputError
            If it holds what no record may.
        """
        line = encode(record)
        try:
            self._require_own()
            self._disk.write(f"run-{record.id}.jsonl", line)
            # One in eight, by chance: of many that write at once few put the same files together.
            if record.id[-1] in "01" and len(self._listed()[0]) > FILES:
                self.compact()
        except (OSError, CheckpointError) as error:
            self._tell(f"the history of past fits cannot be kept: {error}")

    def load(self) -> list[Record]:
        """The records of the last 180 days, the oldest first, at most 20 of a workload and hardware."""
        try:
            found = self._read().values()
            foreign = self._listed()[1]
        except (OSError, CheckpointError) as error:
            self._tell(f"the history of past fits cannot be read: {error}")
            return []
        passed_over = sum((one.passed_over for one in found), Counter({FOREIGN: foreign}))
        if +passed_over:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted((+passed_over).items()))
            self._tell(f"parts of the history of past fits in {self.path} are passed over: {reasons}")
        return bounded((record for one in found for record in one.records), time.time())

    def compact(self) -> None:
        """Put the records of all sound files into one, and remove what is out of date."""
        sound = {stamp: one for stamp, one in self._read().items() if one.sound}
        if len(sound) > 1:
            records = bounded((record for one in sound.values() for record in one.records), time.time())
            self._disk.write(f"runs-{uuid.uuid4().hex}.jsonl", b"".join(map(encode, records)))
            for stamp in sound:
                self._disk.remove(stamp.name)
        self._remove_old()

    def clear(self) -> int:
        """Remove all that this user has kept here; gives the number of files.

        Raises
        ------
        CheckpointError
            If one cannot be removed, or this is no folder.
        """
        try:
            stamps, _ = self._listed()
        except OSError as error:
            raise CheckpointError(
                f"{self.path} is no folder that can be read: {error}. Type: dask.config.set({{'dfit.history': "
                "another_folder})"
            ) from error
        for stamp in stamps:
            self._disk.remove(stamp.name)
        _known.pop(self.path, None)
        return len(stamps)

    def _read(self) -> dict[Stamp, Found]:
        """What the newest files hold. One that goes meanwhile has been put into another: all is listed again."""
        known = _known.get(self.path, {})
        for _ in range(TRIES):
            stamps = _newest(self._listed()[0])
            read = {stamp: known.get(stamp) or self._rows(stamp) for stamp in stamps}
            found = {stamp: one for stamp, one in read.items() if one is not None}
            known = known | found
            if len(found) == len(stamps):
                break
        _known[self.path] = {stamp: one for stamp, one in found.items() if UNREADABLE not in one.passed_over}
        return found

    def _rows(self, stamp: Stamp) -> Found | None:
        """What a file holds; None where it is gone."""
        if stamp.size_bytes > READ_BYTES:
            return Found((), Counter({"files too large": 1}))
        try:
            content = self._disk.read(stamp.name, stamp.size_bytes)
        except KeyError:
            return None
        except CheckpointError:
            return Found((), Counter({UNREADABLE: 1}))
        lines = content.splitlines()
        if len(lines) > ROWS:
            return Found((), Counter({"files of too many rows": 1}))
        records: list[Record] = []
        passed_over: Counter[str] = Counter()
        for line in lines:
            try:
                records.append(decode(line))
            except Newer:
                passed_over["rows of a later dfit"] += 1
            except ValueError:
                passed_over["damaged rows"] += 1
        return Found(tuple(records), passed_over)

    def _listed(self) -> tuple[list[Stamp], int]:
        """Files of this user, and how many of others stand beside them."""
        stamps, foreign = [], 0
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if not NAME.fullmatch(entry.name):
                        continue
                    info = entry.stat(follow_symlinks=False)
                    if info.st_uid == os.geteuid() and stat.S_ISREG(info.st_mode):
                        stamps.append(Stamp(entry.name, info.st_size, info.st_mtime_ns))
                    else:
                        foreign += 1
        except FileNotFoundError:
            return [], 0
        return stamps, foreign

    def _remove_old(self) -> None:
        """Remove what nobody has written to for long: also what is passed over, and what kills have left."""
        now = time.time()
        for stamp in self._listed()[0]:
            if now - stamp.written_ns / 1e9 > DAYS * DAY_S:
                self._disk.remove(stamp.name)
        for left in Path(self.path).glob(f"{TEMPORARY}*"):
            with contextlib.suppress(FileNotFoundError):  # its writer has ended meanwhile
                # A write in another process takes no day.
                if now - left.lstat().st_mtime > DAY_S:
                    left.unlink()

    def _require_own(self) -> None:
        if os.path.isdir(self.path) and os.stat(self.path).st_uid != os.geteuid():
            raise CheckpointError(f"{self.path} belongs to another user")

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            warn(
                f"{what}. Fits go on without it. Type: dfit.history.clear() to begin anew, or "
                'dask.config.set({"dfit.history": False}) to do without, or a folder instead of False'
            )


def bounded(records: Iterable[Record], now: float) -> list[Record]:
    """Those that are kept at `now`, in seconds since 1970: each once, the oldest first."""
    unique = {record.id: record for record in records}.values()
    # A clock may be wrong; what claims to come from next week would stand before all others for ever.
    recent = [record for record in unique if now - DAYS * DAY_S <= record.when <= now + DAY_S]
    seen: Counter[tuple[str, str]] = Counter()
    kept: list[Record] = []
    for record in sorted(recent, key=lambda one: (one.when, one.id), reverse=True):
        key = (record.workload_key, record.hardware_key)
        seen[key] += 1
        if seen[key] <= EACH:
            kept.append(record)
    return kept[:ALL][::-1]


def _newest(stamps: list[Stamp]) -> list[Stamp]:
    """The newest files, as many as a fit may spend its time on."""
    newest = sorted(stamps, key=lambda stamp: stamp.written_ns, reverse=True)[:READ_FILES]
    read = (stamp.size_bytes if stamp.size_bytes <= READ_BYTES else 0 for stamp in newest)
    sizes = itertools.accumulate(read)
    return [stamp for stamp, total in zip(newest, sizes, strict=True) if total <= READ_BYTES]
