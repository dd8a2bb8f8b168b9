"""The chunks of the next leaf are read while one is summed: the same sums, and nothing of it left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import dask.array as da
import pytest
import xarray as xr
from distributed import Client, LocalCluster, get_worker

import dfit
from dfit.data.drawing import Share
from dfit.reduce import reading
from dfit.reduce.task import Report
from dfit.reduce.tree import Done
from tests.one_task import Reads, Task, told

LEAF = 2048
PATIENCE_S = 30.0

pytestmark = pytest.mark.usefixtures("small_leaves")


def line(x, a, b):
    return a + b * x


def compiled_here(x, a, b):
    return a - b * x


meanwhile: list[Callable[[int], None]] = []


def watched(x, a, b):
    """A line that JAX cannot trace; what the test wants done while it is summed is done."""
    for call in meanwhile:
        call(int(x[0]))
    return a + b * x


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    yield
    meanwhile.clear()


told_workers: list[tuple[str, int]] = []  # by reads in threads of a worker


def tell_worker(k: int) -> None:
    told_workers.append((get_worker().address, threading.get_ident()))


def waited(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S), "it did not come about"


@pytest.mark.parametrize(("chunks", "size"), [(4, 3 * LEAF), (40, LEAF // 8), (5, LEAF // 2 + 3)])
@pytest.mark.parametrize("done", [None, Done([range(1, 3)])])
def test_reading_ahead_changes_nothing_that_a_task_finds(chunks: int, size: int, done: Done | None) -> None:
    reads = Reads(chunks, size)
    task = Task(reads.y, line)
    shares = [Share(k, 0, k, 50, k, False) for k in (0, chunks - 1)]
    plain = task.run(False, done, None, shares)
    assert reads.threads == {threading.get_ident()}
    numbers = reads.numbers()
    ahead = task.run(True, done, None, shares)
    assert told(ahead) == told(plain)
    assert plain.leaves > 1 and plain.bytes_read == 8 * size * len(numbers)
    assert reads.numbers() == numbers == sorted(set(numbers))
    assert len(reads.threads) == 2
    assert plain.wait_s >= plain.read_s > 0 and ahead.compute_s >= ahead.compile_s > 0


def test_seconds_of_compiling_are_told_in_the_first_task_alone() -> None:
    task = Task(Reads(4, LEAF).y, compiled_here)
    first, second = task.run(), task.run()
    assert (first.compilations, second.compilations) == (1, 0)
    assert first.compute_s >= first.compile_s > 10 * second.compile_s


def test_value_that_chunks_share_is_computed_once() -> None:
    reads = Reads(6, LEAF)
    shifted = xr.DataArray(da.concatenate([reads.y.data[2 * LEAF :], reads.y.data[: 2 * LEAF]]), dims="i")
    task = Task(reads.y + shifted, line)
    plain = task.run(False)
    assert sorted(reads.numbers()) == list(range(6))
    assert told(task.run()) == told(plain)
    assert sorted(reads.numbers()) == list(range(6))


def test_the_next_chunk_and_no_other_is_read_while_one_is_summed() -> None:
    begun = [threading.Event() for _ in range(5)]
    reads = Reads(5, 2 * LEAF, lambda k: begun[k].set())

    def summed(k: int) -> None:
        if k + 1 < len(begun):
            waited(begun[k + 1])
        assert k + 2 >= len(begun) or not begun[k + 2].is_set()  # one chunk beside this one is held

    meanwhile.append(summed)
    report = Task(reads.y, watched, traceable=False).run()
    assert (report.leaves, report.failure) == (10, None)
    assert reads.numbers() == list(range(5))


@pytest.mark.parametrize("kind", ["in memory", "kept", "one leaf", "switched off"])
def test_no_thread_reads_where_nothing_can_be_read_ahead(kind: str) -> None:
    reads = Reads(1 if kind == "one leaf" else 4, LEAF)
    task = Task(reads.y.compute() if kind == "in memory" else reads.y, line)
    reads.threads.clear()
    task.run(kind != "switched off", store={} if kind == "kept" else None)
    assert reads.threads <= {threading.get_ident()}
    assert kind == "in memory" or reads.numbers()


def main_thread_comes_to(name: str, within_s: float = PATIENCE_S) -> bool:
    """Whether the main thread runs a function of this name of the module that reads."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        found = []
        while frame is not None:
            found += [frame.f_code.co_name] * (frame.f_code.co_filename == reading.__file__)
            frame = frame.f_back
        if name in found:
            return True
        time.sleep(0.001)
    return False


def strike() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def fail() -> None:
    raise ValueError("not today")


@pytest.mark.parametrize(
    ("when", "end", "error"),
    [
        ("computes", fail, dfit.ModelError),
        ("computes", strike, KeyboardInterrupt),
        ("waits", strike, KeyboardInterrupt),
    ],
)
def test_task_that_ends_early_waits_for_the_chunk_in_hand_and_reads_no_other(
    when: str, end: Callable[[], None], error: type[BaseException]
) -> None:
    """Of eight chunks that make the next leaf the first is being read."""
    begun = threading.Event()

    def before(k: int) -> None:
        if k == 8:
            begun.set()
            if when == "waits":
                assert main_thread_comes_to("_arrived")
                end()
                if not main_thread_comes_to("__exit__", PATIENCE_S / 3):
                    end()  # a signal just before a thread begins to wait does not wake it
            assert main_thread_comes_to("__exit__")

    def summed(k: int) -> None:
        waited(begun)
        if when == "computes":
            end()

    meanwhile.append(summed)
    reads = Reads(24, LEAF // 8, before)
    with pytest.raises(error):
        Task(reads.y, watched, traceable=False).run()
    assert reads.numbers() == list(range(9))
    meanwhile.clear()
    again = Reads(4, LEAF)
    assert Task(again.y, line).run().leaves == 4  # the reader is free for the next task
    assert again.numbers() == list(range(4)) and len(again.threads) == 2


def test_read_that_fails_ahead_is_counted_and_named_as_any_other() -> None:
    left = {2: 1, 5: 9}

    def before(k: int) -> None:
        if left.get(k, 0):
            left[k] -= 1
            raise OSError("the disk is away")

    tasks = [Task(Reads(n, LEAF, before).y, line, retries=1) for n in (4, 8)]
    found = []
    for read_ahead in (False, True):
        left.update({2: 1, 5: 9})
        once, lasting = (task.run(read_ahead) for task in tasks)
        assert (once.retries, once.failure) == (1, None)
        assert lasting.failure is not None and lasting.failure.kind == "read"
        assert "chunk (5,) in partition 0, could not be read" in lasting.failure.text
        assert "after 2 tries: OSError: the disk is away" in lasting.failure.text
        found.append([told(once), told(lasting)])
    assert found[0] == found[1]


def test_memory_that_runs_out_ahead_makes_pieces_of_the_same_bits(rereading: None) -> None:
    short = [False]

    def before(k: int) -> None:
        if k == 3 and short[0]:
            short[0] = False
            raise MemoryError("Unable to allocate")

    y = Reads(8, LEAF, before).y
    free = dfit.fit(line, y, "x", p0=[1, 1], warmup=False, max_passes=2)
    short[0] = True
    limited = dfit.fit(line, y, "x", p0=[1, 1], warmup=False, max_passes=2)
    assert not short[0]
    assert any("memory ran out" in action["detail"] for action in limited.recovery_actions)
    assert limited.theta.tobytes() == free.theta.tobytes() and limited.cost == free.cost


def test_task_that_can_start_no_thread_reads_by_itself() -> None:
    found: list[Report] = []
    reads = Reads(4, LEAF)
    task = Task(reads.y, line)
    thread = threading.Thread(target=lambda: found.append(task.run()))
    thread.start()  # whose reader is not there yet
    usual = threading.stack_size(1 << 46)
    try:
        thread.join()
    finally:
        threading.stack_size(usual)
    assert told(found[0]) == told(task.run(False))


def test_read_ahead_knows_its_worker() -> None:
    """As a read in the task's own thread does, which may ask for it."""
    reads = Reads(6, LEAF, tell_worker)
    with (
        LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        report = client.submit(Task(reads.y, line).run, pure=False).result()
        address = cluster.workers[0].address
    assert report.failure is None
    assert [worker for worker, _ in told_workers] == [address] * 6
    assert len({thread for _, thread in told_workers}) == 2
