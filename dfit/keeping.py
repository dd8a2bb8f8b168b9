"""Keeping: a fit's state goes to its checkpoint while it runs, and comes back from there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dfit.checkpoint import Checkpoint
from dfit.errors import CheckpointError, DataError, InputError, ModelError, warn
from dfit.identity import Identity, changes, content_of, has_other_values
from dfit.prepare import Prepared
from dfit.store.snapshot import Snapshot

logger = logging.getLogger("dfit")

SLOW_SAVE_S = 2.0


class Keeper:
    """Saves a fit as often as its `Checkpoint` asks for, and knows what an earlier process has saved.

    Attributes
    ----------
    folder : of the checkpoints.
    found : what is there; None for nothing, or where the fit is to begin again.
    where : path of it.
    """

    def __init__(self, checkpoint: Checkpoint, resume: bool) -> None:
        self._checkpoint = checkpoint
        self.folder = checkpoint.folder
        self._last = time.monotonic()
        self._passes_saved = 0
        self._warned: set[str] = set()
        self._state: Callable[[str], Snapshot | None] = lambda stopped: None
        self.found: Snapshot | None = None
        self.where = str(self.folder.path)
        latest = self.folder.latest() if resume else None
        if latest is not None:
            tree, self.where = latest
            self.found = Snapshot.from_tree(tree, self.where)

    @property
    def partition_points(self) -> int | None:
        """Points of a partition as the earlier process has cut them."""
        return None if self.found is None else self.found.plan["partition_points"]

    @property
    def warmed_up(self) -> bool:
        """Whether the earlier process had a warm-up."""
        return self.found is not None and self.found.settings.get("warmup", "off") != "off"

    def require_same(self, now: Identity) -> None:
        """Refuse to go on from what another fit has left, saying what differs."""
        if self.found is None:
            return
        told = changes(self.found, now)
        if told:
            raise InputError(
                f"{self.where} is of another fit: {'; '.join(told)}. Type: resume=False to begin again there, "
                "or checkpoint= another path, or what it was before"
            )

    def has_seen(self, now: Identity) -> bool:
        """Whether lazy data are the very ones, by dask's name for them, so that none need be read to tell."""
        return self.found is not None and self.found.data.get("tokens") == now.data["tokens"]

    def require_content(self, prepared: Prepared, now: Identity) -> None:
        """Look at some of the values of lazy data; refuse others than an earlier process has seen."""
        now.data["content"] = content_of(prepared)
        before = None if self.found is None else self.found.data.get("content")
        if before is not None and has_other_values(before, now.data["content"]):
            raise InputError(
                f"{self.where} is of other data: their shape is the same, the values in their first, middle or "
                "last chunk are not. Type: resume=False to begin again there, or checkpoint= another path"
            )

    @contextmanager
    def keeping(self, state: Callable[[str], Snapshot | None]) -> Iterator[None]:
        """Within it ``state`` is saved when it is time; it is told why no further pass follows, and
        gives None at a moment from which a fit could not go on.

        What ends the fit from outside leaves a last save behind; a model or data that are wrong do not.
        """
        self._state, self._last = state, time.monotonic()
        try:
            yield
        except (InputError, DataError, ModelError):
            raise
        except BaseException:
            self.save()
            raise

    def due(self) -> None:
        """Save if it is time."""
        if time.monotonic() - self._last >= (self._checkpoint.every_s or 0.0):
            self.save()

    def passed(self, npasses: int) -> None:
        """Save after a pass, if it is time or every so many passes are asked for."""
        every = self._checkpoint.every_passes
        if every is not None and npasses - self._passes_saved >= every:
            self.save()
            self._passes_saved = npasses
        else:
            self.due()

    def save(self, stopped: str = "") -> None:
        """Save now; a fit does not end because its store is full, it says so once."""
        began, snapshot = time.monotonic(), self._state(stopped)
        if snapshot is None:
            return
        try:
            self.folder.save(snapshot.to_tree(), self._checkpoint.keep_last or 1)
        except CheckpointError as error:
            self._tell("failed", f"the fit goes on without a new checkpoint: {error}")
        self._last = time.monotonic()
        if self._last - began > SLOW_SAVE_S:
            self._tell(
                "slow",
                f"a checkpoint took {self._last - began:.1f} s to save in {self.folder.path}. "
                "Type: dfit.Checkpoint(path, every_s=600), or a path on a faster disk",
            )

    def _tell(self, what: str, text: str) -> None:
        if what in self._warned:
            logger.info("%s", text)
        else:
            self._warned.add(what)
            warn(text)
