"""What Ctrl-C leaves behind: the word for it, and nothing else."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

BY_INTERRUPT = "interrupted"


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Let go of what an interrupted call held: a notebook keeps its traceback, and so tasks and arrays."""
    try:
        yield
    except KeyboardInterrupt as stop:
        traceback.clear_frames(stop.__traceback__)
        raise
