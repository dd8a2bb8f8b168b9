"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Keep no history of tests, and let Ctrl-C reach them.

    A shell starts what it runs in the background with Ctrl-C ignored.
    """
    os.environ["DASK_DFIT__HISTORY"] = "false"  # read when dask is imported, here and in other processes
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def source_environment() -> dict[str, str]:
    """Environment for scripts in processes of their own: they import dfit from this tree."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # The second is what dask's nannies leave behind in the process that starts them.
    unwanted = {"PYTHONDONTWRITEBYTECODE", "MALLOC_TRIM_THRESHOLD_"}
    return {name: value for name, value in os.environ.items() if name not in unwanted} | {"PYTHONPATH": path}


@pytest.fixture
def rereading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data are too large to be kept, so a sample of all chunks is collected by the first pass."""
    monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 1e-9)


@pytest.fixture
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves of 2,048 points, summed one after the other: small data stand for large ones."""
    import dask  # unit tests do without it

    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 2048)
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def chunk_partitions() -> Iterator[None]:
    """Every group of chunks that share a leaf is a partition."""
    import dask

    with dask.config.set({"dfit.partition-bytes": "1 B"}):
        yield


@pytest.fixture
def leaf_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves of 2,048 points and all schedulers, so that small data have many."""
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 2048)
    monkeypatch.setattr("dfit.data.first.LEAF_POINTS", 2048)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small data are tried, and remembered, as large ones are."""
    monkeypatch.setattr("dfit.costing.TRY_ABOVE", 0)
