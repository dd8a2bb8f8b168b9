"""Shelf: the sample of a fit beside its checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from dfit.errors import CheckpointError, warn
from dfit.reduce.draw import Sample
from dfit.store.folder import Folder

logger = logging.getLogger("dfit")

NAME = "sample"
ARRAYS = ("y", "sigma", "where", "codes", "held")
NUMBERS = ("total", "chunks", "chunks_read", "bytes_read", "read_s", "complete")


class Shelf:
    """Where the sample is kept, so that no pass is spent on it again; for the fit of one identity only.

    A fit that is to begin again (``resume=False``) draws its own.
    """

    def __init__(self, folder: Folder, identity: str, resume: bool) -> None:
        self._folder = folder
        self._identity = identity
        self._resume = resume

    def load(self) -> Sample | None:
        """The sample, if it is there, sound, and of this fit."""
        if not self._resume:
            return None
        try:
            tree = self._folder.get(NAME)
        except CheckpointError as error:
            warn(f"the sample is drawn again: {error}")
            return None
        return None if tree is None or tree["identity"] != self._identity else _sample(tree)

    def save(self, sample: Sample) -> None:
        """Keep a sample; one that cannot be kept is drawn again after a resume."""
        try:
            self._folder.put(NAME, {"identity": self._identity, **_tree(sample)})
        except CheckpointError as error:
            logger.warning("the sample is not kept beside the checkpoints: %s", error)


def _tree(sample: Sample) -> dict[str, Any]:
    arrays = {name: getattr(sample, name) for name in ARRAYS}
    arrays |= {f"coord{k}": c for k, c in enumerate(sample.coords)}
    raw = {name: None if a is None else np.ascontiguousarray(a).view(np.uint8) for name, a in arrays.items()}
    kinds = {f"{name}_dtype": "" if a is None else a.dtype.str for name, a in arrays.items()}
    return {**raw, **kinds, **{name: getattr(sample, name) for name in (*NUMBERS, "reason")}}


def _sample(tree: Mapping[str, Any]) -> Sample:
    def array(name: str) -> Any:
        return None if tree[name] is None else tree[name].view(np.dtype(tree[f"{name}_dtype"]))

    count = sum(name.startswith("coord") and not name.endswith("_dtype") for name in tree)
    numbers = {name: np.asarray(tree[name]).item() for name in NUMBERS}
    arrays = {name: array(name) for name in ARRAYS}
    coords = tuple(array(f"coord{k}") for k in range(count))
    return Sample(**arrays, coords=coords, **numbers, reason=tree["reason"])
