"""What this process runs on, in numbers and words that tell machines apart."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from dask.system import CPU_COUNT


@dataclass(frozen=True)
class Hardware:
    """What a process computes with.

    Attributes
    ----------
    cpu : model of the processor.
    cores : that the process may use, its control group's quota included.
    caches : sizes by level as the system prints them, such as "32K 512K 16384K".
    """

    cpu: str
    cores: int
    caches: str


def hardware() -> Hardware:
    """Of this process."""
    return Hardware(
        _cpu(Path("/proc/cpuinfo")), CPU_COUNT, _caches(Path("/sys/devices/system/cpu/cpu0/cache"))
    )


def _cpu(info: Path) -> str:
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _caches(folder: Path) -> str:
    levels = sorted(folder.glob("index*"))
    kinds = [(level / "type", level / "size") for level in levels]
    found = [size.read_text().strip() for kind, size in kinds if kind.read_text().strip() != "Instruction"]
    return " ".join(found)
