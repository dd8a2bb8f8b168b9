"""How much memory a fit may take in one process, and who says so.

Strongest first: the argument ``memory_limit=``; dask's configuration ``dfit.memory-limit``, in the environment
``DASK_DFIT__MEMORY_LIMIT``; what the process runs under (the memory limit of a dask worker, control groups,
``ulimit``, Slurm, PBS); the memory of the machine.  Of the limit that holds, a fit may take ``memory_fraction=``
(``dfit.memory-fraction``, ``DASK_DFIT__MEMORY_FRACTION``; 0.75 where nobody says).  All sizes are in bytes.

>>> limit = limit_in_force("4 GB", 0.5, found=(16_000_000_000, "physical memory", True))
>>> limit.budget
2000000000
>>> print(limit)
3.73 GiB (memory_limit), of which a fit may take 0.5 (memory_fraction): 1.86 GiB
"""

from __future__ import annotations

import math
import os
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import dask
from dask.utils import format_bytes, parse_bytes

from dfit.errors import InputError, warn

__all__ = ["Limit", "limit_in_force", "process_limit", "require_room", "total_memory"]

# The rest is for what no prediction sees: fragments of freed memory, other libraries, the user's own arrays.
# A dask worker spills from 0.7 of its limit on, and takes no new task from 0.8.
FRACTION = 0.75
# By what they are called: the limit, and what /proc/self/status calls the memory that it counts (getrlimit(2)).
ULIMITS = {"ulimit -v": (resource.RLIMIT_AS, "VmSize"), "ulimit -d": (resource.RLIMIT_DATA, "VmData")}


@dataclass(frozen=True)
class Limit:
    """Memory that one process may take.

    Attributes
    ----------
    bytes : int
        The limit that holds.
    source : str
        Who says so, such as ``"memory_limit"`` or ``"control group"``.
    enforced : bool
        Whether the system says so: a process that takes more is killed, or refused memory.
    fraction : float
        Part of it that a fit may take, in (0, 1].
    fraction_source : str
    """

    bytes: int
    source: str
    enforced: bool
    fraction: float
    fraction_source: str

    @property
    def budget(self) -> int:
        """Bytes that a fit may take in one process, with all that the process holds already."""
        return round(self.fraction * self.bytes)

    def __str__(self) -> str:
        part = f"{self.fraction:g} ({self.fraction_source}): {format_bytes(self.budget)}"
        return f"{format_bytes(self.bytes)} ({self.source}), of which a fit may take {part}"


def total_memory() -> int:
    """Physical memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def process_limit(root: Path = Path("/")) -> tuple[int, str, bool]:
    """Smallest limit of memory that this process runs under.

    Parameters
    ----------
    root : Path, optional
        Folder that holds ``proc/self/cgroup`` and ``sys/fs/cgroup``.

    Returns
    -------
    size : int
        In bytes.
    source : str
        Who says so.
    enforced : bool
        Whether the system does, or only a variable that the batch system has set.
    """
    return _smallest(_limits(root))


def limit_in_force(
    memory_limit: str | float | None = None,
    memory_fraction: float | None = None,
    found: tuple[int, str, bool] | None = None,
) -> Limit:
    """Limit that holds for each process of a fit, and the part of it that the fit may take.

    Parameters
    ----------
    memory_limit : str or number, optional
        Of one process: such as "4 GB", or in bytes.  One larger than what the system enforces is warned about
        and does not hold, as a process that took it would be killed.
    memory_fraction : float, optional
        In (0, 1].
    found : (int, str, bool), optional
        What the processes that do the work run under, as `process_limit` gives it; this process by default.

    Raises
    ------
    InputError
        The limit is no positive size, or the fraction is outside (0, 1].
    """
    fraction, fraction_source = _said("memory_fraction", memory_fraction)
    part = (
        (FRACTION, "default") if fraction is None else (_fraction(fraction, fraction_source), fraction_source)
    )
    limits = list(_limits(Path("/"))) if found is None else [found]
    wanted, source = _said("memory_limit", memory_limit)
    if wanted is None:
        return Limit(*_smallest(limits), *part)
    size = as_bytes(wanted, source)
    enforced = [limit for limit in limits if limit[2]]
    if enforced and size > _smallest(enforced)[0]:
        real = Limit(*_smallest(enforced), *part)
        warn(
            f"{source}={wanted!r} is more than a process can have here: the limit is "
            f"{format_bytes(real.bytes)} ({real.source}), and holds instead"
        )
        return real
    return Limit(size, source, False, *part)


def require_room(need: int, limit: Limit, what: str) -> None:
    """Refuse a limit below what one process needs.

    Parameters
    ----------
    need : int
        Bytes that a process takes at least.
    limit : Limit
    what : str
        What takes them: "one block of the model".

    Raises
    ------
    InputError
        With the smallest limit that works.
    """
    if need <= limit.budget:
        return
    smallest = rounded_up(math.ceil(need / limit.fraction))
    if not limit.enforced:
        remedy = f"memory_limit={smallest!r} is the smallest that works"
    else:
        remedy = f"it takes a process that may have {smallest} (a larger worker, job or machine)"
        if need <= limit.bytes:
            remedy += f", or memory_fraction={math.ceil(100 * need / limit.bytes) / 100:g}"
    raise InputError(f"{what} needs {format_bytes(need)} in one process; the limit is {limit}: {remedy}")


def _said(name: str, argument: Any) -> tuple[Any, str]:
    """What the user says, and where: the argument, else dask's configuration, else None."""
    if argument is not None:
        return argument, name
    key = f"dfit.{name.replace('_', '-')}"
    return dask.config.get(key, None), f"dask.config {key}"


def as_bytes(value: Any, source: str) -> int:
    """Bytes that a size of a user means.

    Raises
    ------
    InputError
        If it is no size above 0.
    """
    expected = f'{source}={value!r}: expected a size of memory above 0, such as {source}="4 GB" or its bytes'
    if isinstance(value, str) and re.search(r"\d", value):  # "GB" alone is one for dask
        try:
            size = parse_bytes(value)
        except (ValueError, OverflowError) as error:
            raise InputError(f"{expected} ({error})") from error
    elif not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value):
        size = int(float(value))
    else:
        raise InputError(expected)
    if size <= 0:
        raise InputError(expected)
    return size


def _fraction(value: Any, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= 1:
        raise InputError(
            f"{source}={value!r}: expected the part of the limit that a fit may take, above 0 and at most 1, "
            f"such as memory_fraction={FRACTION}"
        )
    return float(value)


def rounded_up(size: int) -> str:
    """So many bytes or a little more, as a size that can be typed."""
    unit, name = next(((u, n) for u, n in ((10**9, "GB"), (10**6, "MB")) if size >= 10 * u), (1000, "kB"))
    return f"{-(-size // unit)} {name}"


def _smallest(limits: Iterator[tuple[int, str, bool]] | list[tuple[int, str, bool]]) -> tuple[int, str, bool]:
    """The limit that is met first; of equal ones, one that the system enforces."""
    return min(limits, key=lambda limit: (limit[0], not limit[2]))


def _limits(root: Path) -> Iterator[tuple[int, str, bool]]:
    """All limits of this process: bytes, who says so, whether the system does."""
    yield total_memory(), "physical memory", True
    for name, (kind, _) in ULIMITS.items():
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY:
            yield soft, name, True
    for size in _cgroup_limits(root):
        yield size, "control group", True
    for size, name in _batch_limits():
        yield size, name, False


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Limits of this process's control group and those above it, versions 1 and 2.

    In a container the path of a group may be the host's, of which only the mount itself is to be seen: a file
    that is absent says nothing, and the walk goes on above it.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            text = _text(folder / name)
            if text.isdecimal():  # and not "max"
                yield int(text)
            if folder == mount:
                break


def _text(file: Path) -> str:
    """What a file of the system says, "" where it is absent or hidden from this process."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _batch_limits() -> Iterator[tuple[int, str]]:
    """What variables of Slurm, PBS and Torque say of this job's memory on this machine.

    Slurm counts in MiB, and 0 means all there is.  PBS itself sets no such variable; Torque and the hooks of
    PBS sites set the ones below, in bytes.  Source: man sbatch, "OUTPUT ENVIRONMENT VARIABLES".
    """
    processors = _number("SLURM_CPUS_ON_NODE")
    said = {
        "SLURM_MEM_PER_NODE": _number("SLURM_MEM_PER_NODE") << 20,
        "SLURM_MEM_PER_CPU": (_number("SLURM_MEM_PER_CPU") << 20) * processors,
        "PBS_RESC_MEM": _number("PBS_RESC_MEM"),
        "TORQUE_RESC_MEM": _number("TORQUE_RESC_MEM"),
    }
    return ((size, name) for name, size in said.items() if size)


def _number(variable: str) -> int:
    """Whole number in an environment variable, 0 where there is none."""
    text = os.environ.get(variable, "").strip()
    return int(text) if text.isdecimal() else 0
