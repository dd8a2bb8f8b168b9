"""What the benchmarks share: CPU seconds, interleaved measurement, tables.

Times are CPU seconds of the process with its threads, children added where they do the work, because
other people's load on the machine moves wall time more than what is measured.  What is claimed is the
ratio of two things measured in turn, never a time.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


def cpu_seconds(call: Callable[[], Any]) -> float:
    """CPU seconds of this process, all threads, during one call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def interleaved(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """CPU seconds (rounds,) of each call, measured in turn after one call each that does not count.

    The order turns round every time, so that what one leaves in the caches hurts no one in particular.
    """
    for call in calls.values():
        call()
    gc.collect()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for k in range(rounds):
        for name in list(calls)[:: 1 if k % 2 else -1]:
            found[name].append(cpu_seconds(calls[name]))
    return {name: np.array(seconds) for name, seconds in found.items()}


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float, float]:
    """Median and quartiles of the pairs' ratios."""
    low, middle, high = np.quantile(numerator / denominator, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print columns, the first to the left and the others to the right."""
    text = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    for row in text:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([row[0].ljust(len(first)), *rest]), flush=True)
