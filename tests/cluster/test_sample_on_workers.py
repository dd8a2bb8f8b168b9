"""The sample on a cluster: the same points, read once where they stay, tried again where a read fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from dfit.errors import WorkerError
from dfit.reduce.draw import Gathering
from tests.sampling import CHUNK, CHUNKS, THETA, N, bits, in_memory, plan_of, ready, values

WANTED = 5000


class Stored:
    """y over t on disk; its chunks leave a line in a file whenever they are read, from any process.

    The first read of each of the chunks ``broken`` fails.
    """

    def __init__(self, folder: Path, broken: range = range(0)) -> None:
        self.log, self.file, self.broken = folder / "reads.txt", folder / "y.npy", broken
        np.save(self.file, values()[1])
        self.log.touch()

    def read(self, block_info: Any = None) -> np.ndarray:
        start = block_info[None]["array-location"][0][0]
        with self.log.open("a") as log:
            log.write(f"{start // CHUNK}\n")
        if start // CHUNK in self.broken and self.reads()[start // CHUNK] == 1:
            raise OSError("the disk is away")
        return np.array(np.load(self.file, mmap_mode="r")[start : start + CHUNK])

    def reads(self) -> Counter[int]:
        return Counter(map(int, self.log.read_text().split()))

    def array(self) -> xr.DataArray:
        lazy = da.map_blocks(self.read, chunks=((CHUNK,) * CHUNKS,), dtype="f4", meta=np.empty(0, "f4"))
        return xr.DataArray(lazy, dims="i", coords={"t": ("i", values()[0])})


@pytest.fixture(autouse=True)
def _small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 8192)  # on the client, which plans


@pytest.fixture(scope="module")
def expected() -> tuple[bytes, ...]:
    with dask.config.set(scheduler="synchronous"):
        fit = ready(in_memory().chunk(i=CHUNK))
        return bits(fit.evaluator.sample(plan_of(fit, WANTED)))


@pytest.fixture(scope="module", params=[1, 2])
def workers(request: pytest.FixtureRequest) -> Iterator[Client]:
    with (
        LocalCluster(n_workers=request.param, threads_per_worker=2, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        dask.config.set({"dfit.partition-bytes": "64 kiB"}),
    ):
        yield client


@pytest.mark.parametrize("keep", [True, False])
def test_workers_change_no_point_and_read_no_more_than_they_must(
    keep: bool,
    workers: Client,
    tmp_path: Path,
    expected: tuple[bytes, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not keep:
        monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 0.0)
    stored = Stored(tmp_path)
    fit = ready(stored.array())
    plan = plan_of(fit, WANTED)
    found = fit.evaluator.sample(plan)
    assert len(fit.partitions) > 4 and bits(found) == expected
    if not keep:
        assert stored.reads() == Counter(share.number for share in plan.shares)
        assert found.bytes_read == 64 * CHUNK * 4
    fit.evaluator(THETA)
    fit.evaluator(THETA)
    account = fit.evaluator.account
    assert account.first_bytes == N * 4
    if keep:
        assert stored.reads() == Counter(range(CHUNKS))
        assert account.bytes_read == N * 4
    else:
        assert account.bytes_read == found.bytes_read + 2 * N * 4
    fit.close()


def test_first_pass_on_workers_collects_the_points_and_keeps_its_bits(
    workers: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 0.0)
    monkeypatch.setattr("dfit.reduce.cluster.COMBINE_ABOVE", 2)
    stored = Stored(tmp_path)
    fit, plain = ready(stored.array()), ready(stored.array())
    plan = plan_of(fit, 100_000)
    assert plan.collect and len(plan.by_partition) > 4
    gathering = Gathering(plan)
    equations = fit.evaluator(THETA, collect=gathering)
    assert stored.reads() == Counter(range(CHUNKS))
    assert bits(gathering.sample()) == bits(ready(in_memory().chunk(i=CHUNK)).evaluator.sample(plan))
    np.testing.assert_array_equal(equations.root, plain.evaluator(THETA).root)


def test_read_that_fails_on_a_worker_is_tried_again(
    client: Client, tmp_path: Path, expected: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 0.0)
    stored = Stored(tmp_path, broken=range(20))
    fit = ready(stored.array(), retries=1)
    plan = plan_of(fit, WANTED)
    assert bits(fit.evaluator.sample(plan)) == expected
    assert stored.reads() == {s.number: 2 if s.number < 20 else 1 for s in plan.shares}
    hopeless = ready(stored.array(), retries=0)
    stored.log.write_text("")
    with pytest.raises(WorkerError, match="OSError: the disk is away"):
        hopeless.evaluator.sample(plan)
