"""What Ctrl-C, and an observer that says stop, leave behind: the words for it, and nothing else."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

BY_INTERRUPT = "interrupted"
BY_OBSERVER = "stopped by on_partition"


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Let go of what an interrupted call held: a notebook keeps its traceback, and so tasks and arrays."""
    try:
        yield
    except KeyboardInterrupt as stop:
        traceback.clear_frames(stop.__traceback__)
        raise
