"""The main job on a small machine: a real data set against its reference, then one larger than memory.

The process limits itself to 2 GB of memory and at most four cores before it starts, so that the second
fit cannot load its 3.2 GB. A second process under the same limit tries to, and shows what becomes of it.
Needs 3.5 GB of free disk for a minute or two; the folder is the current one or the one that is named.

    python examples/main_job.py [FOLDER]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

MEMORY_BYTES = 2_000_000_000
CORES = 4

LOAD_EVERYTHING = """
import sys, xarray
try:
    xarray.open_zarr(sys.argv[1], consolidated=False).signal.load()
except MemoryError as error:
    sys.exit(f"MemoryError: {error}")
"""


def become_small_machine() -> None:
    """Limit this process and its children, before anything counts the cores.

    The kernel enforces the limit on the data segment: an allocation beyond it fails. Unlike a control
    group it needs no rights and leaves nothing behind.
    """
    if sys.platform != "linux":
        raise SystemExit(
            f"the memory limit is one of Linux, this is {sys.platform}; run without it: "
            "python examples/era5_season.py && python examples/beyond_memory.py"
        )
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def try_to_load_everything(path: Path) -> str:
    """What happens to a process that loads the whole array under the same limit; its last words."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_EVERYTHING, str(path)], capture_output=True, text=True, check=False
    )
    words = done.stderr.strip().splitlines()
    return f"exit status {done.returncode}: {words[-1] if words else 'loaded it all'}"


def main() -> None:
    become_small_machine()
    import beyond_memory
    import era5_season

    print("== Real data: ERA5 temperatures against a reference ==", flush=True)
    era5_season.main()

    print("\n== Generated data, larger than memory, against the truth ==", flush=True)
    print(f"Memory limit of this process: {MEMORY_BYTES / 1e9:.1f} GB")
    with tempfile.TemporaryDirectory(
        prefix="dfit-movie-", dir=sys.argv[1] if sys.argv[1:] else "."
    ) as folder:
        path = beyond_memory.write(beyond_memory.movie(), Path(folder))
        result = beyond_memory.fit_movie(path)
        furthest = beyond_memory.compare_with_truth(result)
        print(f"every parameter lies within {furthest:.2f} standard deviations of the truth")
        print(f"Loading the array instead, under the same limit: {try_to_load_everything(path)}")


if __name__ == "__main__":
    main()
