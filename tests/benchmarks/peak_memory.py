"""Memory of a process that sums: predicted before the fit, measured, and how it varies over the partitions.

python -m tests.benchmarks.peak_memory FOLDER [--points POINTS] [--only WORDS] [--where WORDS]

Every fit of `tests.benchmarks.workloads` runs in processes of its own, on two workers with one thread, on one
worker with two, and in one process with dask's threads, its data read in every pass or kept.  Measured is the
kernel's own account of the highest resident memory (VmHWM, begun anew when the process has imported all that it
needs); the promise is 1 to 1.3 times that.  "variation" is the range of resident memory over the tasks of the
second half of a fit, by the memory of the whole process; "told" what the result says; "client" what it took above its idle state, the
workers being others.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.benchmarks.workloads import Workload

MIB = 1 << 20
PLACES = {
    "2 workers, 1 thread": (2, 1),
    "1 worker, 2 threads": (1, 2),
    "1 process, 2 threads": (0, 2),
}
STRATEGIES = ("streaming", "cached")
WORKER_LIMIT = "8 GiB"


def settle() -> int:
    """Import all that tasks need, give freed memory back, and let the peak begin; resident bytes."""
    from dfit.reduce.allocator import reset_peak, resident_bytes

    for name in ("dfit.reduce.wire", "xarray", "zarr", "h5netcdf"):
        importlib.import_module(name)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    return resident_bytes()[0]


def peak_now() -> int:
    """Highest resident memory of this process since `settle`."""
    from dfit.reduce.allocator import resident_bytes

    return resident_bytes()[1]


def variation(resident: list[int]) -> float:
    """Range of the second half of a series, by its largest."""
    later = resident[len(resident) // 2 :]
    return (max(later) - min(later)) / max(later)


def _fit(work: Workload, strategy: str, **options: Any) -> Any:
    import dfit

    found = dfit.fit(work.model, work.data, work.coords, p0=work.p0, strategy=strategy, **options)
    distance = max(abs(found.params[k].value - v) / found.params[k].stderr for k, v in work.truth.items())
    if not found.success or distance > 5:
        raise SystemExit(f"{work.name}: {distance:.1f} standard errors from the truth")
    return found


def in_process(work: Workload, strategy: str, threads: int) -> dict[str, Any]:
    """One fit in this process."""
    import dask

    from dfit.reduce.allocator import resident_bytes

    seen: list[int] = []
    in_memory = "in_memory" if strategy == "cached" else strategy
    idle = settle()
    with dask.config.set(scheduler="threads", num_workers=threads):
        found = _fit(work, in_memory, on_partition=lambda _: seen.append(resident_bytes()[0]))
    measured = peak_now() - idle
    return _row(found, measured, variation(seen), measured)


def on_cluster(work: Workload, strategy: str, workers: int, threads: int) -> dict[str, Any]:
    """One fit on a cluster; the largest figures of its workers."""
    from distributed import Client, LocalCluster, Worker, WorkerPlugin

    from dfit.reduce.allocator import resident_bytes

    class Watch(WorkerPlugin):
        name = "watch"

        def setup(self, worker: Worker) -> None:
            self.seen: list[int] = []

        def transition(self, key: Any, start: str, finish: str, **more: Any) -> None:
            if finish == "memory" and str(key).startswith("dfit-partition"):
                self.seen.append(resident_bytes()[0])

    def seen(dask_worker: Worker) -> list[int]:
        return dask_worker.plugins["watch"].seen

    setup: dict[str, Any] = {
        "threads_per_worker": threads,
        "memory_limit": WORKER_LIMIT,
        "dashboard_address": None,
    }
    with LocalCluster(workers, **setup) as cluster, Client(cluster) as client:
        client.register_plugin(Watch())
        idle, here = client.run(settle), settle()
        found = _fit(work, strategy)
        peaks, series = client.run(peak_now), client.run(seen)
        client_bytes = peak_now() - here
    measured = max(peak - idle[worker] for worker, peak in peaks.items())
    return _row(found, measured, max(map(variation, series.values())), client_bytes)


def _row(found: Any, measured: int, varies: float, client_bytes: int) -> dict[str, Any]:
    return {
        "predicted": found.plan.peak_bytes / MIB,
        "measured": measured / MIB,
        "ratio": found.plan.peak_bytes / measured,
        "told": found.run.peak_bytes / MIB,
        "variation": varies,
        "client": client_bytes / MIB,
        "client predicted": found.plan.client_bytes / MIB,
    }


def measured_apart(
    name: str, folder: Path, points: int | None, strategy: str, place: str
) -> dict[str, float]:
    """One measurement in a process of its own, which has compiled nothing before: the data are written here."""
    from tests.benchmarks.workloads import build

    build(name, folder, points)
    asked = [str(folder), "--do", json.dumps([name, points, strategy, place])]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.peak_memory", *asked],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    if done.returncode:
        raise SystemExit(f"{name}, {strategy}, {place} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def do(folder: Path, name: str, points: int | None, strategy: str, place: str) -> dict[str, Any]:
    """One measurement in this process."""
    from tests.benchmarks.workloads import build

    work = build(name, folder, points)
    workers, threads = PLACES[place]
    if workers:
        return on_cluster(work, strategy, workers, threads)
    return in_process(work, strategy, threads)


def cases(only: str, where: str) -> list[tuple[str, str, str]]:
    """Workload, strategy and place of all that is measured; data in memory know one of each."""
    from tests.benchmarks.workloads import KINDS

    found = []
    for name, kind in KINDS.items():
        in_memory = kind.store == "memory"
        for place in PLACES:
            for strategy in STRATEGIES:
                fits = not in_memory or (place == "1 process, 2 threads" and strategy == "cached")
                if fits and only in name and where in f"{strategy}, {place}":
                    found.append((name, strategy, place))
    return found


def report(folder: Path, points: int | None, only: str, where: str, tell: Callable[[str], None]) -> None:
    """Measure and print all cases."""
    from tests.benchmarks.measure import table

    rows = []
    for name, strategy, place in cases(only, where):
        tell(f"{name}: {strategy}, {place}")
        found = measured_apart(name, folder, points, strategy, place)
        rows.append((name, f"{strategy}, {place}", *found.values()))
    head = ("predicted", "measured", "ratio", "told", "variation", "client", "client predicted")
    print("MiB above an idle process")
    table(("workload", "how", *head), rows)
    ratios = [row[4] for row in rows]
    print(f"ratio {min(ratios):.2f} to {max(ratios):.2f}, 1 to 1.3 promised")
    print(f"variation at most {max(row[6] for row in rows):.1%}, 10 % promised")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, help="of every workload, instead of its own")
    parser.add_argument("--only", default="", help="workloads whose names have these words")
    parser.add_argument("--where", default="", help="strategies and places that have these words")
    parser.add_argument("--do", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.do:
        print(json.dumps(do(asked.folder, *asked.do)))
    else:
        report(asked.folder, asked.points, asked.only, asked.where, lambda text: print(text, file=sys.stderr))


if __name__ == "__main__":
    main()
