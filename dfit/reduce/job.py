"""What a pass asks of every task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dfit.reduce.kernels import Recipe


@dataclass(frozen=True)
class Job:
    """What is the same for every task of a fit.

    ``sources`` are (role, axes, time axis or None) of the arrays that `load` gives; ``leaf_size`` the
    padded length of a leaf; ``sigma`` and ``f_scale`` scalars; ``tune`` allows `tune_allocator`;
    ``labels`` name the sources in errors; ``read_ahead`` lets a task read while it computes;
    ``in_flight`` are the tasks at a time that a worker's memory has room for, 0 for one in each of its threads.
    """

    fit: str
    skipna: bool
    retries: int

    recipe: Recipe
    sources: tuple[tuple[str, tuple[int, ...], Any], ...]
    leaf_size: int
    sigma: float
    f_scale: float
    tune: bool
    labels: tuple[str, ...]
    validate: str = "sums"
    read_ahead: bool = True
    in_flight: int = 0

    @property
    def roles(self) -> tuple[str, ...]:
        """Role of each source."""
        return tuple(role for role, _, _ in self.sources)

    @property
    def axes(self) -> list[tuple[int, ...]]:
        """Axes of y that each source lies along."""
        return [axes for _, axes, _ in self.sources]


@dataclass(frozen=True)
class Point:
    """Where a pass wants its sums: theta (p,), fixed values, and whether to survey the data.

    ``basis`` (p, q): coordinates in which a table of groups is summed.
    """

    theta: np.ndarray
    held: np.ndarray
    survey: bool
    basis: np.ndarray | None = None
