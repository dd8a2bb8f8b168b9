"""A scheduler that is killed or frozen: a clear error within a minute, and nothing that hangs after it."""

from __future__ import annotations

import logging
import os
import re
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

import dfit
from tests.cluster.faults import PARTITIONS, POINTS, Blow, bits, fit, slow_data, wait_until
from tests.cluster.processes import DEATH_TIMEOUT_S, Processes

READ_S = 0.01
WITHIN_S = 60
SAYS = {signal.SIGKILL: "connection to the scheduler .* is lost", signal.SIGSTOP: "has not answered for"}


@pytest.fixture(autouse=True)
def long_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaf for each chunk, and every pass reads, so that there is time to strike in the midst of one."""
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", POINTS)
    monkeypatch.setattr("dfit.planning.KEEP_FRACTION", 0.0)


class Fault(NamedTuple):
    """How a fit ended after its scheduler did: the error, and the seconds from the blow to it."""

    error: dfit.WorkerError
    seconds: float


def fit_until_fault(cluster: Processes, blow: signal.Signals, after: int, **options: Any) -> Fault:
    """Strike the scheduler in the second pass of a fit, when so many partitions are finished."""

    def strike(busy: dict[str, int]) -> None:
        os.kill(cluster.scheduler.pid, blow)

    with cluster.client.as_current(), Blow(cluster.client, strike, after, 1) as blown:
        with pytest.raises(dfit.WorkerError) as caught:
            fit(slow_data(READ_S), callback=blown.count, **options)
        ended = time.monotonic()
    blown.require()
    assert blown.struck_at is not None
    return Fault(caught.value, ended - blown.struck_at)


@pytest.fixture(scope="module")
def undisturbed() -> tuple[bytes, ...]:
    """Bits of a fit on threads, where they are those of any cluster."""
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="threads"):
        patch.setattr("dfit.data.plan.LEAF_POINTS", POINTS)
        return bits(fit(slow_data(0.0)))


def resume(client: Client, checkpoint: dfit.Checkpoint, caplog: pytest.LogCaptureFixture) -> dfit.FitResult:
    """The same call on another cluster; it goes on in the midst of the second pass."""
    caplog.clear()
    with client.as_current(), caplog.at_level(logging.INFO, "dfit"):
        found = fit(slow_data(0.0), checkpoint=checkpoint.path)
    told = re.search(rf"resuming: pass 2, (\d+) of {PARTITIONS} partitions", caplog.text)
    assert told is not None
    assert 0 < int(told[1]) < PARTITIONS
    return found


def require_clear_error(fault: Fault, blow: signal.Signals) -> None:
    said = str(fault.error)
    assert re.search(SAYS[blow], said)
    assert "type the same call again: with checkpoint=" in said
    assert fault.seconds < WITHIN_S


@pytest.mark.long
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


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, source_environment: dict[str, str]
) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("cluster"), 2, source_environment) as found:
        yield found


@pytest.fixture
def frozen(cluster: Processes) -> Iterator[Callable[..., None]]:
    """Freezes the scheduler until the test ends, or for so many seconds."""
    timers: list[threading.Timer] = []
    pid = cluster.scheduler.pid

    def freeze(for_s: float | None = None) -> None:
        os.kill(pid, signal.SIGSTOP)
        if for_s is not None:
            timers.append(threading.Timer(for_s, os.kill, (pid, signal.SIGCONT)))
            timers[-1].start()

    yield freeze
    for timer in timers:
        timer.join()
    os.kill(pid, signal.SIGCONT)


@pytest.mark.long
def test_a_scheduler_that_answers_late_is_not_given_up(
    cluster: Processes, frozen: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.reduce.pulse.ASK_AFTER_S", 0.5)
    with cluster.client.as_current():
        expected = fit(slow_data(0.0), max_passes=2)
        with Blow(cluster.client, lambda busy: frozen(4.0), PARTITIONS // 2, 1) as blow:
            found = fit(slow_data(READ_S), max_passes=2, callback=blow.count)
            ended = time.monotonic()
    blow.require()
    assert blow.struck_at is not None and ended - blow.struck_at >= 4
    assert bits(found) == bits(expected)


def test_ctrl_c_ends_a_fit_whose_scheduler_is_frozen_and_nothing_runs_on(
    cluster: Processes, frozen: Callable[..., None]
) -> None:
    def strike(busy: dict[str, int]) -> None:
        frozen()
        os.kill(os.getpid(), signal.SIGINT)

    with cluster.client.as_current(), Blow(cluster.client, strike, PARTITIONS // 4) as blow:
        with pytest.raises(KeyboardInterrupt):
            fit(slow_data(READ_S))
        ended = time.monotonic()
    blow.require()
    assert blow.struck_at is not None and ended - blow.struck_at < WITHIN_S
    os.kill(cluster.scheduler.pid, signal.SIGCONT)
    wait_until(lambda: not cluster.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))


def test_a_fit_on_a_frozen_scheduler_ends_before_it_begins(
    cluster: Processes, frozen: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.reduce.pulse.ASK_AFTER_S", 0.5)
    monkeypatch.setattr("dfit.reduce.pulse.SILENCE_S", 2.0)
    frozen()
    with cluster.client.as_current(), pytest.raises(dfit.WorkerError, match=SAYS[signal.SIGSTOP]):
        fit(slow_data(READ_S))


# The last one on this cluster: nothing is left of it.
@pytest.mark.long
def test_a_killed_scheduler_is_a_clear_error_leaves_no_worker_and_fewer_workers_go_on(
    cluster: Processes, tmp_path: Path, undisturbed: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = dfit.Checkpoint(tmp_path / "fit.ckpt", every_s=0.02)
    fault = fit_until_fault(cluster, signal.SIGKILL, PARTITIONS // 2, checkpoint=checkpoint)
    require_clear_error(fault, signal.SIGKILL)
    wait_until(lambda: not cluster.left(), DEATH_TIMEOUT_S + 30)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as smaller,
        Client(smaller, set_as_default=False) as client,
    ):
        assert bits(resume(client, checkpoint, caplog)) == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_ten_schedulers_lost_are_ten_clear_errors_and_three_workers_go_on(
    blow: signal.Signals,
    tmp_path: Path,
    source_environment: dict[str, str],
    undisturbed: tuple[bytes, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rng = np.random.default_rng(10)
    seconds = []
    for turn in range(10):
        folder = tmp_path / str(turn)
        folder.mkdir()
        checkpoint = dfit.Checkpoint(folder / "fit.ckpt", every_s=0.02)
        with Processes(folder, 2, source_environment) as cluster:
            fault = fit_until_fault(
                cluster, blow, int(rng.integers(PARTITIONS // 4, PARTITIONS - 20)), checkpoint=checkpoint
            )
            require_clear_error(fault, blow)
            seconds.append(fault.seconds)
            if blow == signal.SIGKILL:
                wait_until(lambda cluster=cluster: not cluster.left(), DEATH_TIMEOUT_S + 30)
        assert cluster.left() == []
        (folder / "more").mkdir()
        with Processes(folder / "more", 3, source_environment) as larger:
            assert bits(resume(larger.client, checkpoint, caplog)) == undisturbed
    print(
        f"\n10 schedulers ended by {blow.name}: 10 clear errors, after {statistics.median(seconds):.1f} s in "
        f"the median, {max(seconds):.1f} s at most; no worker process left; 10 fits with the same bits on 3 workers"
    )
