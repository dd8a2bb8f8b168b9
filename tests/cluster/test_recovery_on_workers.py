"""Strategies of a user where the passes run on workers."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from distributed import Client

import dfit
from tests.cluster.faults import wait_until
from tests.test_recovery import bell, fitted, moved, observed, shifted_log, twentyfold

CHUNK = 10_000


@pytest.fixture
def many_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.planning.TASKS_PER_THREAD", 8)


def test_fit_that_a_strategy_moves_on_workers_has_the_bits_of_one_in_this_process(
    client: Client, many_partitions: None
) -> None:
    def followed() -> list[dfit.FitResult]:
        log = observed(shifted_log, 2.0, 12.0, points=200_000).chunk(i=CHUNK)
        hill = observed(bell, 0.5, points=200_000).chunk(i=CHUNK)
        return [
            fitted(shifted_log, log, [1.0, 1.0], recovery=[twentyfold]),
            fitted(bell, hill, [0.0], recovery=[moved]),
        ]

    def tasks() -> set[str]:
        return set(client.run_on_scheduler(lambda dask_scheduler: [str(key) for key in dask_scheduler.tasks]))

    before = tasks()
    on_workers = followed()
    with dask.config.set(scheduler="synchronous"):
        here = followed()
    for there, one in zip(on_workers, here, strict=True):
        assert there.success
        assert there.run.workers > one.run.workers
        assert there.theta.tobytes() == one.theta.tobytes()
        assert there.cost == one.cost
        names = [action["strategy"] for action in there.recovery_actions]
        assert names == [action["strategy"] for action in one.recovery_actions]
        assert {"twentyfold", "moved"} & set(names)
    wait_until(lambda: tasks() <= before)


def test_first_point_that_is_not_finite_is_found_on_a_worker(client: Client) -> None:
    y = observed(shifted_log, 2.0, 12.0).chunk(i=CHUNK)
    with pytest.raises(
        dfit.DataError, match=r"first at t = 0\.1, where y = .* and the model is nan, with a = 1"
    ):
        fitted(shifted_log, y, [1.0, 1.0], validate="full")
    np.testing.assert_allclose(fitted(shifted_log, y, [1.0, 20.0]).theta, [2, 12], rtol=1e-3)
