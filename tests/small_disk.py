"""A small file system of its own, that fills up."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path, limit: str) -> Iterator[Path]:
    """A new folder on a file system with a limit of tmpfs, such as "size=1m"; skips where none can be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", limit, "none", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        why = "a file system of its own cannot be mounted here"
        pytest.fail(f"{why}, as .ci/run can") if "CI" in os.environ else pytest.skip(why)
    yield place
    subprocess.run(["umount", str(place)], check=True)
