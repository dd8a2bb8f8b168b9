"""The cost model: how long a pass takes, and which partitions make it shortest.

With reading R, of which a share w waits for the store and 1 - w decodes, and computing C, both in seconds
of one thread, T tasks at a time on P cores and reads ahead of the computing, a pass takes

    max((R (1 - w) + C) / P, max(R, C) / T) + tasks x overhead + spread x a task,

the last for the threads that wait for the slowest at the end: tasks that are alike end together, unlike ones
anywhere within the last.  Without reading ahead a task takes R + C; with it the chunks of its first leaf are still
waited for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dfit.terms import Terms

# A task shorter than this, or than so many times its overhead, spends its time on being a task; one that
# is longer holds up an interrupt, a save of a checkpoint, and the end of the pass.
SHORTEST_S, OVERHEADS, LONGEST_S = 0.1, 50, 2.0
STARTS = 10  # what a task waits for its first leaf is at most such a part of it
MOST_WAITED = 0.5  # of a task, at the end: however unlike they are, some are done and some have just begun


@dataclass(frozen=True)
class Load:
    """What a pass has to do, and with what.

    Attributes
    ----------
    points, nbytes : of the data; bytes count as decoded, 0 for data in memory.
    threads, cores : tasks at a time, and cores that do their work, in all processes.
    leaf_points : that are read before a task can begin to compute.
    """

    points: int
    nbytes: int
    threads: int
    cores: int
    leaf_points: int = 0


def parts(terms: Terms, load: Load) -> tuple[float, float]:
    """Seconds of one thread for reading and for computing all of the data."""
    return 1e-9 * terms.byte_ns * load.nbytes, 1e-9 * terms.point_ns * load.points


def body(terms: Terms, load: Load, read_ahead: bool = True) -> float:
    """Seconds of a pass without what its tasks cost beside their work."""
    read, compute = parts(terms, load)
    busy = (read * (1 - terms.wait) + compute) / min(load.cores, (1 + read_ahead) * load.threads)
    longest = max(read, compute) if read_ahead else read + compute
    return max(busy, longest / load.threads)


def start(terms: Terms, load: Load, read_ahead: bool = True) -> float:
    """Seconds that a task waits for its first leaf while nothing of it is computed."""
    return read_ahead * terms.wait * min(parts(terms, load)) * load.leaf_points / max(load.points, 1)


def pass_seconds(terms: Terms, load: Load, partition_points: int, read_ahead: bool = True) -> float:
    """Predicted seconds of a pass over partitions of so many points."""
    tasks = -(-load.points // partition_points)
    load = replace(load, threads=min(load.threads, tasks))
    at_once = min(load.threads, load.cores)
    work = work_seconds(terms, load, read_ahead)
    beside = 1e-3 * terms.task_ms + start(terms, load, read_ahead) / at_once
    return work / at_once + at_end(terms.spread, work / tasks, at_once) + beside * tasks


def at_end(spread: float, task_s: float, at_once: int) -> float:
    """Seconds by which a pass is longer for threads that wait for the others' last tasks."""
    return min(spread, MOST_WAITED) * task_s * (1 - 1 / at_once)


def best_partition(terms: Terms, load: Load, read_ahead: bool = True) -> int:
    """Points of a partition by which a pass is predicted to be shortest, its tasks neither too short nor too long."""
    work, waits = work_seconds(terms, load, read_ahead), start(terms, load, read_ahead)
    overhead = max(1e-3 * terms.task_ms, 1e-6)
    shortest = max(SHORTEST_S, OVERHEADS * overhead, STARTS * waits)
    # Where what is waited for at the end costs as much as the overhead of all of them.
    tasks = math.sqrt(at_end(terms.spread, work, load.threads) / overhead)
    least = math.ceil(work / max(LONGEST_S, shortest) / load.threads)
    rounds = max(1, least, round(min(tasks, work / shortest) / load.threads))
    return max(1, -(-load.points // (rounds * load.threads)))


def work_seconds(terms: Terms, load: Load, read_ahead: bool = True) -> float:
    """Seconds that a pass keeps its threads, all of them together."""
    return body(terms, load, read_ahead) * min(load.threads, load.cores)
