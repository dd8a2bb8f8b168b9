"""Checkpoint: where a fit keeps its state, how often, and what can be done with what is there."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import dask.config
import numpy as np

from dfit.errors import InputError
from dfit.store.folder import Entry, Folder

EVERY_S, KEEP_LAST = 60.0, 3


@dataclass(frozen=True)
class Checkpoint:
    """A folder or URL in which one fit keeps its state.

    The defaults are those of ``dask.config``: ``dfit.checkpoint.path``, ``.every-s``, ``.every-passes``,
    ``.keep-last``.

    Parameters
    ----------
    path : path, or a URL that fsspec knows ("s3://bucket/run1")
        Made when it is first written; one fit at a time may write there.
    every_s : float, optional
        Seconds between two saves, also within a pass; 60 by default.
    every_passes : int, optional
        A save after every so many passes as well; by default only the time counts.
    keep_last : int, optional
        How many saves are kept; 3 by default.
    """

    path: str | PathLike[str]
    every_s: float | None = None
    every_passes: int | None = None
    keep_last: int | None = None

    def __post_init__(self) -> None:
        defaults = {"every_s": EVERY_S, "every_passes": None, "keep_last": KEEP_LAST}
        for name, default in defaults.items():
            if getattr(self, name) is None:
                value = dask.config.get(f"dfit.checkpoint.{name.replace('_', '-')}", default)
                object.__setattr__(self, name, value)
        if not isinstance(self.path, (str, PathLike)) or not str(self.path) or "\0" in str(self.path):
            raise InputError(
                f"checkpoint is {self.path!r}; expected a path or a URL. Type: checkpoint='run1.ckpt'"
            )
        if not (_is_number(self.every_s) and self.every_s is not None and self.every_s >= 0):
            raise InputError(f"every_s is {self.every_s!r}; expected seconds. Type: every_s=60")
        for name in ("every_passes", "keep_last"):
            value = getattr(self, name)
            optional = value is None and name == "every_passes"
            if not optional and not (
                isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 1
            ):
                raise InputError(f"{name} is {value!r}; expected an integer of at least 1")

    def entries(self) -> list[Entry]:
        """All saves, the oldest first, each read and verified."""
        return self.folder.entries()

    def latest(self) -> str | None:
        """Path of the newest sound save; None where there is none.

        Damaged ones are passed over, each with a warning.
        """
        found = self.folder.latest()
        return None if found is None else found[1]

    def validate(self) -> None:
        """Raise CheckpointError that says what is wrong; with nothing where all saves are sound."""
        self.folder.validate()

    def clean(self, keep_last: int | None = None) -> list[str]:
        """Remove what is older than the newest sound saves, and what killed saves left; gives the paths."""
        return self.folder.clean(keep_last or self.keep_last or KEEP_LAST)

    @property
    def folder(self) -> Folder:
        """The saves as the store sees them."""
        return Folder(self.path)


def as_checkpoint(value: Any) -> Checkpoint | None:
    """What a user may give: a `Checkpoint`, a path or URL, False for none, None for what dask.config says."""
    if value is None:
        value = dask.config.get("dfit.checkpoint.path", None)
    if value is None or value is False:
        return None
    return value if isinstance(value, Checkpoint) else Checkpoint(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
