"""The cost model: what a pass is predicted to take, and which partitions make it shortest."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from dfit.cost import LONGEST_S, OVERHEADS, SHORTEST_S, Load, best_partition, body, pass_seconds, work_seconds
from dfit.terms import Origin, Terms

SECOND = 10**9  # of points that take 1 ns each


def terms(
    point_ns: float = 1.0, byte_ns: float = 0.0, wait: float = 0.0, task_ms: float = 1.0, spread: float = 0.25
) -> Terms:
    return Terms(point_ns, byte_ns, wait, task_ms, spread, Origin.DRY_RUN)


def test_computing_alone_is_shared_by_the_threads() -> None:
    assert body(terms(), Load(SECOND, 0, 4, 4)) == pytest.approx(0.25)


def test_more_threads_than_cores_compute_no_faster() -> None:
    assert body(terms(), Load(SECOND, 0, 16, 4)) == pytest.approx(0.25)


@pytest.mark.parametrize(("wait", "expected"), [(0.0, 2.0), (0.5, 1.5), (1.0, 1.0)])
def test_one_thread_that_reads_ahead_hides_what_waits_and_not_what_decodes(
    wait: float, expected: float
) -> None:
    load = Load(SECOND, SECOND, 1, 1)
    assert body(terms(byte_ns=1.0, wait=wait), load) == pytest.approx(expected)


def test_without_reading_ahead_a_task_reads_and_then_computes() -> None:
    load = Load(SECOND, SECOND, 1, 4)
    assert body(terms(byte_ns=1.0, wait=1.0), load, read_ahead=False) == pytest.approx(2.0)
    assert body(terms(byte_ns=1.0, wait=1.0), load, read_ahead=True) == pytest.approx(1.0)


def test_decoding_ahead_takes_a_core_that_is_free() -> None:
    load = Load(SECOND, SECOND, 1, 2)
    assert body(terms(byte_ns=1.0), load) == pytest.approx(1.0)
    assert body(terms(byte_ns=1.0), replace(load, cores=1)) == pytest.approx(2.0)


def test_what_waits_needs_threads_and_not_cores() -> None:
    waiting = terms(point_ns=0.1, byte_ns=4.0, wait=1.0)
    seconds = [body(waiting, Load(SECOND, SECOND, threads, 1)) for threads in (1, 2, 4)]
    assert seconds == pytest.approx([4.0, 2.0, 1.0])


def test_a_pass_costs_its_tasks_beside_its_work() -> None:
    alone = Load(SECOND, 0, 1, 1)
    assert pass_seconds(terms(task_ms=10), alone, SECOND // 50) == pytest.approx(1 + 50 * 0.010)


@pytest.mark.parametrize(("spread", "waited"), [(0.0, 0.0), (0.1, 0.1), (0.5, 0.5), (3.0, 0.5)])
def test_threads_wait_at_the_end_as_long_as_tasks_are_unlike(spread: float, waited: float) -> None:
    free = terms(task_ms=0, spread=spread)
    assert pass_seconds(free, Load(SECOND, 0, 2, 2), SECOND // 10) == pytest.approx(0.5 + waited * 0.1 / 2)
    assert pass_seconds(free, Load(SECOND, 0, 1, 1), SECOND // 10) == pytest.approx(1.0)


def test_one_task_takes_as_long_on_many_threads_as_on_one() -> None:
    assert pass_seconds(terms(task_ms=0), Load(SECOND, 0, 8, 8), SECOND) == pytest.approx(1.0)


def test_no_more_reads_are_waited_for_at_a_time_than_there_are_tasks() -> None:
    waiting = terms(point_ns=0.0, byte_ns=1.0, wait=1.0, task_ms=0)
    assert pass_seconds(waiting, Load(SECOND, SECOND, 8, 2), SECOND // 2, read_ahead=False) >= 0.5


CASES = [
    (terms(point_ns, byte_ns, wait, task_ms, spread), Load(points, 8 * points, threads, threads))
    for point_ns, byte_ns, (wait, task_ms, spread), points, threads in itertools.product(
        (5.0, 200.0), (0.2, 3.0), ((0.0, 0.5, 0.05), (0.9, 4.0, 0.5)), (10**7, 10**10), (1, 2, 64)
    )
]


@pytest.mark.parametrize(("costs", "load"), CASES)
def test_a_task_is_neither_shorter_nor_longer_than_it_should_be(costs: Terms, load: Load) -> None:
    points = best_partition(costs, load)
    tasks = -(-load.points // points)
    each = work_seconds(costs, load) / tasks
    shortest = max(SHORTEST_S, OVERHEADS * 1e-3 * costs.task_ms)
    assert each <= 1.01 * max(LONGEST_S, shortest) or tasks == load.points
    # Every thread has a task, even where the work is too little for tasks of the shortest length.
    assert each >= 0.99 * shortest / 2 or tasks <= load.threads


@pytest.mark.parametrize(("costs", "load"), CASES)
def test_no_partition_within_the_bounds_makes_a_pass_much_shorter(costs: Terms, load: Load) -> None:
    chosen = pass_seconds(costs, load, best_partition(costs, load))
    work, shortest = work_seconds(costs, load), max(SHORTEST_S, OVERHEADS * 1e-3 * costs.task_ms)
    most = max(load.threads, int(work / shortest))
    least = max(load.threads, int(work / LONGEST_S))
    others = {least, most, *(round(least * (most / least) ** (k / 9)) for k in range(10))}
    best = min(pass_seconds(costs, load, -(-load.points // tasks)) for tasks in others)
    assert chosen <= 1.15 * best


def test_threads_get_as_many_tasks_each() -> None:
    load = Load(10**9, 0, 6, 6)
    tasks = -(-load.points // best_partition(terms(30.0), load))
    assert tasks % 6 == 0 and tasks >= 4 * 6


def test_tasks_that_are_alike_are_few_and_unlike_ones_are_many() -> None:
    load = Load(2 * SECOND, 0, 2, 2)
    tasks = [-(-load.points // best_partition(terms(spread=spread), load)) for spread in (0.0, 0.02, 0.5)]
    assert tasks == sorted(tasks) and tasks[0] == 2 and tasks[-1] > 4 * tasks[0]


def test_dearer_points_come_in_smaller_partitions() -> None:
    load = Load(10**9, 0, 4, 4)
    sizes = [best_partition(terms(point_ns), load) for point_ns in (10.0, 100.0, 1000.0)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 5 * sizes[-1]


def test_a_pass_of_nothing_to_do_has_a_partition() -> None:
    assert best_partition(terms(0.0, task_ms=0.0), Load(10, 0, 4, 4)) >= 1
