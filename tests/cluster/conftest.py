"""Real clusters: worker processes of their own, with nannies, as users have them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import Client, LocalCluster


@pytest.fixture(scope="session")
def two_workers() -> Iterator[Client]:
    """Client of a cluster of two worker processes with one thread each."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit="2GiB"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def client(two_workers: Client) -> Iterator[Client]:
    """The cluster of two workers, used by default within the test."""
    with two_workers.as_current():
        yield two_workers
