"""Data on disk that change while a cluster fits them are refused, naming the partition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client

import dfit
from tests.cluster.faults import decay

CHUNK, CHUNKS = 20_000, 8
OPTIONS = {"p0": [2, 1, 0], "warmup": False}


def written(path: Path) -> None:
    t = np.linspace(0, 6, CHUNK * CHUNKS)
    y = 3 * np.exp(-t / 2) + 1 + np.random.default_rng(0).normal(0, 0.1, t.size)
    data = xr.Dataset({"y": ("i", y)}, {"t": ("i", t)}).chunk(i=CHUNK)
    data.to_zarr(path, consolidated=False, encoding={"y": {"compressors": None}})


def fit(path: Path, **options: Any) -> dfit.FitResult:
    y = xr.open_zarr(path, consolidated=False).y
    with dask.config.set({"dfit.partition-bytes": "1 B"}):
        return dfit.fit(decay, y, "t", **OPTIONS, **options)


@pytest.mark.usefixtures("rereading", "client")
@pytest.mark.parametrize("when", ["between two passes", "before a resume"])
def test_one_changed_value_is_refused_naming_the_partition(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", CHUNK)
    path, partition = tmp_path / "data.zarr", int(np.random.default_rng().choice([1, 2, 3, 5, 6]))
    written(path)

    def change() -> None:
        file = path / f"y/c/{partition}"
        values = np.fromfile(file)
        values[CHUNK // 3] += 1e-6
        values.tofile(file)

    def between(event: Any) -> Any:
        if event.npasses == 2:
            change()
            return when != "before a resume"
        return None

    keeping = {"checkpoint": tmp_path / "run"}
    if when == "before a resume":
        assert not fit(path, callback=between, **keeping).success
    place = rf"i\[{partition * CHUNK}:{(partition + 1) * CHUNK}\].* holds other values than the pass before"
    with pytest.raises(dfit.DataError, match=place) as refused:
        fit(path, callback=between if when == "between two passes" else None, **keeping)
    assert refused.value.partition == partition


@pytest.mark.usefixtures("rereading")
def test_a_fit_of_one_cluster_goes_on_without_it(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", CHUNK)
    path = tmp_path / "data.zarr"
    written(path)
    expected = fit(path)
    seen: list[Any] = []

    def stop(event: Any) -> bool:
        seen.append(event)
        return len(seen) < CHUNKS + CHUNKS // 2

    fit(path, on_partition=stop, checkpoint=tmp_path / "run")
    with dask.config.set(scheduler="threads", num_workers=1):
        found = fit(path, checkpoint=tmp_path / "run")
    assert found.theta.tobytes() == expected.theta.tobytes()
    assert found.covar.tobytes() == expected.covar.tobytes()
    assert found.run.workers == 1 and expected.run.workers == 2
