"""Zarr larger than memory: what a pass costs beside a bare read, and what memory it takes.

python -m tests.benchmarks.out_of_core [--points 100000000] [--limit-bytes 2000000000] [--uncompressed]

y and x lie in chunks of 10^6 with known truth, 16 bytes a point before compression, under --folder
(default: the temporary one), and are removed afterwards.  All measuring happens in a process whose data
segment, and that of each worker it starts, the kernel limits (RLIMIT_DATA); a control that loads
everything dies of it.  Times are CPU seconds of the worker; one worker, one thread.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

CHUNK = 10**6
TRUTH = {"amplitude": 5.0, "tau": 2.0, "offset": 1.0}
START = {"amplitude": 2.0, "tau": 5.0, "offset": 0.0}
NOISE = 0.1
MIB = 1 << 20


def write(folder: Path, points: int, compressed: bool) -> Path:
    """Store x and y chunk by chunk."""
    import zarr

    need, free = 1.1 * 16 * points, shutil.disk_usage(folder).free
    if free < need:
        raise SystemExit(
            f"{folder} has {free / 1e9:.1f} GB free, {need / 1e9:.1f} GB are needed; type --folder PATH"
        )
    path = folder / f"{points}.zarr"
    group = zarr.open_group(path, mode="w")
    options = {} if compressed else {"compressors": None}
    x, y = (
        group.create_array(
            name,
            shape=(points,),
            chunks=(min(CHUNK, points),),
            dtype="f8",
            dimension_names=["point"],
            **options,
        )
        for name in ("x", "y")
    )
    amplitude, tau, offset = TRUTH.values()
    for start in range(0, points, CHUNK):
        at = slice(start, min(start + CHUNK, points))
        here = np.arange(at.start, at.stop) * (10 / points)
        noise = np.random.default_rng(start).standard_normal(here.size)
        x[at], y[at] = here, amplitude * np.exp(-here / tau) + offset + NOISE * noise
    return path


def open_data(path: Path):
    """The stored y with x beside it, lazy."""
    import xarray as xr

    return xr.open_zarr(path, consolidated=False, chunks={}).set_coords("x").y


def decay(x, amplitude, tau, offset):
    """Decay with a constant."""
    import jax.numpy as jnp

    return amplitude * jnp.exp(-x / tau) + offset


def limited(arguments: list[str], limit_bytes: int) -> subprocess.CompletedProcess[str]:
    """Run a part of this script in a process of its own, whose data segment the kernel limits."""
    limit = ["--limit-bytes", str(limit_bytes)]
    command = [sys.executable, "-m", "tests.benchmarks.out_of_core", *arguments, *limit]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])


def load_everything(path: Path) -> None:
    """The control: what a fit in memory has to do first."""
    x, y = (np.asarray(a) for a in (open_data(path).x.compute(), open_data(path).compute()))
    jacobian = np.empty((x.size, len(TRUTH)))
    jacobian[:] = y[:, None]
    print(json.dumps({"loaded": int(x.size)}))


def measure_memory(path: Path, limit_bytes: int) -> dict:
    """A fit under the limit: peak of the worker above its idle state, and how far the truth is."""
    from distributed import Client, LocalCluster

    import dfit
    from dfit import planning

    planning.KEEP_FRACTION = 0.0  # so that small data are read in every pass, as large ones are
    with (
        LocalCluster(1, threads_per_worker=1, memory_limit=limit_bytes, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        result = dfit.fit(decay, open_data(path), "x", p0=START)
    distance = max(abs(result.params[k].value - v) / result.params[k].stderr for k, v in TRUTH.items())
    return {
        "success": result.success,
        "passes": result.npasses,
        "peak_mib": result.run.peak_bytes / MIB,
        "distance": distance,
    }


def measure_passes(path: Path, limit_bytes: int, rounds: int) -> dict[str, list[float]]:
    """CPU nanoseconds a point of a pass, a bare read, one under dask's own allocator settings, a kernel."""
    import dask
    from distributed import Client, LocalCluster

    from dfit import planning
    from dfit.reduce.allocator import tune_allocator
    from tests.benchmarks.evaluators import evaluator_of, read_chunk

    data = open_data(path)
    part = data[: min(data.size, 30 * CHUNK)]  # small enough to be kept
    setup = {"threads_per_worker": 1, "memory_limit": limit_bytes, "dashboard_address": None}
    theta, chunks = np.array(list(TRUTH.values())), len(data.chunks[0])
    with (
        LocalCluster(1, **setup) as default,
        LocalCluster(1, **setup) as tuned,
        Client(default, set_as_default=False) as plain,
        Client(tuned) as client,
        dask.config.set(scheduler=client),
    ):
        client.run(tune_allocator)
        planning.KEEP_FRACTION, kept = 0.0, planning.KEEP_FRACTION
        whole = evaluator_of(decay, data, "x", START)
        planning.KEEP_FRACTION = kept
        in_memory = evaluator_of(decay, part, "x", START)

        def bare(where: Client) -> None:
            where.gather(
                where.map(read_chunk, [str(path)] * chunks, [CHUNK] * chunks, range(chunks), pure=False)
            )

        calls = {
            "pass": (client, lambda: whole(theta), data.size),
            "bare read": (client, lambda: bare(client), data.size),
            "kernel in memory": (client, lambda: in_memory(theta), part.size),
            "bare read, dask's settings": (plain, lambda: bare(plain), data.size),
        }
        found: dict[str, list[float]] = {name: [] for name in calls}
        for k in range(-1, rounds):  # the first round compiles and fills the caches
            for name, (where, call, points) in calls.items():
                before = sum(where.run(time.process_time).values())
                call()
                spent = sum(where.run(time.process_time).values()) - before
                if k >= 0:
                    found[name].append(spent / points * 1e9)
    return found


def last_json(done: subprocess.CompletedProcess[str]) -> dict:
    """What a measuring process printed last."""
    if done.returncode:
        raise SystemExit(f"{' '.join(done.args)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def report(path: Path, smaller: Path, limit_bytes: int, rounds: int) -> None:
    """Measure in limited processes and print."""
    from tests.benchmarks.measure import table

    options = ["--rounds", str(rounds)]
    passes = last_json(limited(["--do", "passes", "--path", str(path), *options], limit_bytes))
    found = {name: float(np.median(values)) for name, values in passes.items()}
    sum_of_both = found["bare read"] + found["kernel in memory"]
    print("CPU nanoseconds a point, in the worker")
    table(("", "ns"), list(found.items()))
    print(f"pass / (bare read + kernel): {found['pass'] / sum_of_both:.2f}, at most 1.1 expected")
    default = found["bare read, dask's settings"]
    print(f"pass / bare read under dask's settings: {found['pass'] / default:.2f}, at most 1 expected")
    rows = []
    for one in (smaller, path):
        fit = last_json(limited(["--do", "memory", "--path", str(one), *options], limit_bytes))
        rows.append((one.stem, fit["peak_mib"], fit["passes"], fit["distance"], fit["success"]))
    print("\nOne fit under the limit: peak of the worker above idle")
    table(("points", "MiB", "passes", "distance / standard error", "success"), rows)
    growth = rows[1][1] - rows[0][1]
    print(f"growth {growth:.0f} MiB, at most {max(64, 0.15 * rows[0][1]):.0f} expected")
    control = limited(["--do", "load", "--path", str(path)], limit_bytes)
    end = (control.stderr.strip().splitlines() or [""])[-1]
    print(f"\ncontrol that loads everything: exit {control.returncode}, {end or control.stdout.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10**8)
    parser.add_argument("--limit-bytes", type=int, default=2 * 10**9)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--uncompressed", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--do", choices=("passes", "memory", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.do:  # inherited by the workers
        resource.setrlimit(resource.RLIMIT_DATA, (asked.limit_bytes, asked.limit_bytes))
    if asked.do == "passes":
        print(json.dumps(measure_passes(asked.path, asked.limit_bytes, asked.rounds)))
    elif asked.do == "memory":
        print(json.dumps(measure_memory(asked.path, asked.limit_bytes)))
    elif asked.do == "load":
        load_everything(asked.path)
    else:
        with tempfile.TemporaryDirectory(prefix="dfit-benchmark-", dir=asked.folder) as folder:
            smaller, larger = (
                write(Path(folder), n, not asked.uncompressed) for n in (asked.points // 10, asked.points)
            )
            report(larger, smaller, asked.limit_bytes, asked.rounds)


if __name__ == "__main__":
    main()
