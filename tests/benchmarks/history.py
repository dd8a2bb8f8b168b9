"""What it costs to ask the history: loading it, and a prediction from what is loaded.

python -m tests.benchmarks.history [--records 2000] [--rounds 15]

Beside the bare json.loads of the same bytes.  Records are of a hundred workloads, after they have been put
together into one file; loaded as by the first fit of a process, and as by the next one.  CPU milliseconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np

from dfit.learning import learned
from dfit.store import ledger, row
from dfit.store.ledger import Ledger
from dfit.store.row import Record, encode
from tests.benchmarks.measure import interleaved, ratio, table

WORKLOADS = 100
NAMES = ("pass_s", "low_s", "high_s", "peak_bytes", "point_ns", "byte_ns", "task_ms")
HARDWARE = {"cpu": "AMD EPYC 7763 64-Core Processor", "cores": 8, "caches": "32K 512K 32768K", "threads": 8}
PACKAGES = ("dfit", "jax", "jaxlib", "numpy", "dask", "zarr", "xarray")


def record(number: int, when: float, rng: np.random.Generator) -> Record:
    """One with as many words and numbers as a fit leaves."""
    values = {name: float(rng.lognormal(3, 2)) for name in NAMES} | {
        "wait": float(rng.uniform()),
        "spread": 0.1,
    }
    workload = {
        "model": f"{number % WORKLOADS:064x}",
        "parameters": 3,
        "form": "linear, real",
        "traced": True,
        "dtypes": "float64* float64",
        "store": "zarr",
        "codec": "blosc",
        "chunk_bytes": 8 << 20,
        "strategy": "streaming",
    }
    return Record(
        workload,
        HARDWARE,
        {"points": 10**8, "bytes_per_point": 8, "model_bytes": 1234, "block_points": 8192},
        dict.fromkeys(PACKAGES, "2025.11.0"),
        {"strategy": "streaming", "partition_points": 1 << 20, "in_flight": 8, "read_ahead": True},
        values,
        "history",
        values | {"first_pass_s": 3.5, "spread": 0.1, "passes": 4, "points": 10**8},
        when=when,
    )


def measure(records: int, rounds: int) -> tuple[dict[str, np.ndarray], int]:
    """CPU seconds (rounds,) of each, and bytes of the file."""
    rng, now = np.random.default_rng(0), time.time()
    content = b"".join(encode(record(k, now - 60 * k, rng)) for k in range(records))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"runs-{uuid.uuid4().hex}.jsonl").write_bytes(content)

        def load(first: bool) -> list[Record]:
            if first:
                ledger._known.clear()
                for cache in (row._key, row._parts, row._are_names):
                    cache.cache_clear()
            return Ledger(folder).load()

        loaded = load(True)
        assert len(loaded) == records, f"{len(loaded)} of {records} records"
        key = loaded[0].workload_key, loaded[0].hardware_key
        calls = {
            "json.loads": lambda: [json.loads(line) for line in content.splitlines()],
            "load, first fit": lambda: load(True),
            "load, next fit": lambda: load(False),
            "predict": lambda: learned(loaded, *key),
        }
        return interleaved(calls, rounds), len(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    spent, size = measure(asked.records, asked.rounds)
    print(f"{asked.records} records, {size / 1e6:.2f} MB")
    rows = []
    for name, seconds in spent.items():
        middle, low, high = ratio(seconds, spent["json.loads"])
        rows.append((name, float(np.median(seconds) * 1e3), f"{middle:.3f} ({low:.3f} to {high:.3f})"))
    table(("", "CPU ms", "by json.loads"), rows)


if __name__ == "__main__":
    main()
