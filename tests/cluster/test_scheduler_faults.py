"""A scheduler that is killed or frozen: a clear error within a minute, and nothing that hangs after it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import dfit
from tests.cluster.faults import PARTITIONS, POINTS, Blow, fit, slow_data, wait_until
from tests.cluster.processes import DEATH_TIMEOUT_S, Processes

READ_S = 0.02
WITHIN_S = 60
SAYS = {signal.SIGKILL: "connection to the scheduler .* is lost", signal.SIGSTOP: "has not answered for"}


@pytest.fixture(autouse=True)
def a_leaf_for_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", POINTS)


class Fault(NamedTuple):
    """How a fit ended after its scheduler did: the error, and the seconds from the blow to it."""

    error: BaseException
    seconds: float


def fit_until_fault(
    cluster: Processes, blow: signal.Signals, after: int, **options: Any
) -> Fault:
    """Strike the scheduler in the second pass of a fit, when so many partitions are finished."""

    def strike(busy: dict[str, int]) -> None:
        os.kill(cluster.scheduler.pid, blow)

    with cluster.client.as_current(), Blow(cluster.client, strike, after, 1) as blown:
        try:
            fit(slow_data(READ_S), callback=blown.count, **options)
        except BaseException as error:
            ended, found = time.monotonic(), error
    blown.require()
    assert blown.struck_at is not None
    return Fault(found, ended - blown.struck_at)


def require_clear_error(fault: Fault, blow: signal.Signals) -> None:
    assert isinstance(fault.error, dfit.WorkerError), fault.error
    fault_text = str(fault.error)
    pytest.raises(dfit.WorkerError, _raise, fault.error).match(SAYS[blow])
    assert "type the same call again" in fault_text and "checkpoint=" in fault_text
    assert fault.seconds < WITHIN_S


def _raise(error: BaseException) -> None:
    raise error


def test_a_killed_scheduler_is_a_clear_error_and_leaves_no_worker(
    tmp_path: Path, source_environment: dict[str, str]
) -> None:
    with Processes(tmp_path, 2, source_environment) as cluster:
        fault = fit_until_fault(cluster, signal.SIGKILL, PARTITIONS // 3)
        require_clear_error(fault, signal.SIGKILL)
        wait_until(lambda: not cluster.left(), DEATH_TIMEOUT_S + 30)


def test_a_frozen_scheduler_is_a_clear_error_and_leaves_no_worker_once_closed(
    tmp_path: Path, source_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.reduce.pulse.ASK_AFTER_S", 1.0)
    monkeypatch.setattr("dfit.reduce.pulse.SILENCE_S", 4.0)
    with Processes(tmp_path, 2, source_environment) as cluster:
        fault = fit_until_fault(cluster, signal.SIGSTOP, PARTITIONS // 3)
        require_clear_error(fault, signal.SIGSTOP)
        assert fault.seconds > 4
        assert len(cluster.left()) == 4
    assert cluster.left() == []
