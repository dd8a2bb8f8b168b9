"""A control group of its own for a process, with a limit of memory."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MOUNT = Path("/sys/fs/cgroup")


@contextmanager
def memory_group(limit: int) -> Iterator[list[str]]:
    """Begin of a command line that runs what follows with so many bytes; skips where no group can be made."""
    parent, name = _parent()
    group = parent / f"dfit-{uuid.uuid4().hex}"
    try:
        group.mkdir()
        (group / name).write_text(str(limit))
    except OSError as error:
        if group.exists():
            group.rmdir()
        why = f"a control group with a limit of memory cannot be made here ({error})"
        pytest.fail(f"{why}, as .ci/run can") if "CI" in os.environ else pytest.skip(why)
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        group.rmdir()


def _parent() -> tuple[Path, str]:
    """Where a group is made, and its file of the limit: below this process's group, or the root of version 2.

    There a group that has processes can have no groups with limits, but for the root.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return MOUNT / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
    return MOUNT, "memory.max"
