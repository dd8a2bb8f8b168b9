"""The points of many pixels as columns, whatever the chunks look like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfit.core.kernel import Leaf
from dfit.data.coordinates import TimeAxis
from dfit.data.leaves import spread
from dfit.data.loading import missing_as_nan, plain


@dataclass(frozen=True)
class Column:
    """How one array lies in a stack: its role, y's dimensions that it has, ascending, and its times."""

    role: str  # as of `Source`
    axes: tuple[int, ...]
    time: TimeAxis | None = None


class Stack:
    """Pixels of one chunk along the kept dimensions, with all of their points.

    Parameters
    ----------
    columns : of the arrays.
    parts : arrays of each chunk along the fitted dimensions, one per column, cut like y.
    fitted : which of y's dimensions are fitted over.

    Attributes
    ----------
    points : of a pixel.
    shape : of the kept dimensions.
    """

    def __init__(
        self, columns: Sequence[Column], parts: Sequence[Sequence[np.ndarray]], fitted: tuple[int, ...]
    ) -> None:
        self._columns = columns
        shapes = [part[0].shape for part in parts]
        kept = [axis for axis in range(len(shapes[0])) if axis not in fitted]
        self.shape = tuple(shapes[0][axis] for axis in kept)
        self.points = sum(math.prod(shape[axis] for axis in fitted) for shape in shapes)
        self._order = [*fitted, *kept]
        self._views = [
            [self._view(column, part[k], shape) for part, shape in zip(parts, shapes, strict=True)]
            for k, column in enumerate(columns)
        ]
        self._shared = [
            self._whole(views) if set(column.axes) <= set(fitted) and column.role != "y" else None
            for column, views in zip(columns, self._views, strict=True)
        ]

    @property
    def size(self) -> int:
        """How many pixels there are."""
        return math.prod(self.shape)

    @property
    def shared(self) -> tuple[bool, ...]:
        """Which columns are the same for all pixels."""
        return tuple(values is not None for values in self._shared)

    def _view(self, column: Column, values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        array = missing_as_nan(values)
        numbers = plain(array if column.time is None else column.time.offsets(array))
        return np.transpose(spread(numbers, column.axes, shape), self._order)

    def _whole(self, views: Sequence[np.ndarray]) -> np.ndarray:
        """Values (points,) of what all pixels share."""
        first: Any = (0,) * len(self.shape)
        return np.concatenate([view[(Ellipsis, *first)].ravel() for view in views])

    def columns(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Values (points, k) of some pixels by column; (points,) of what all of them share."""
        places: Any = np.unravel_index(pixels, self.shape)
        out = []
        for views, whole in zip(self._views, self._shared, strict=True):
            if whole is not None:
                out.append(whole)
                continue
            taken = [view[(Ellipsis, *places)].reshape(-1, pixels.size) for view in views]
            out.append(taken[0] if len(taken) == 1 else np.concatenate(taken))
        return out

    def leaf(self, columns: Sequence[Any], n: int) -> Leaf:
        """Columns as a `Leaf`, y first, then the coordinates, sigma and the mask where there are."""
        found: dict[str, list[Any]] = {"y": [], "coordinate": [], "sigma": [None], "where": [None]}
        for column, values in zip(self._columns, columns, strict=True):
            found[column.role].append(values)
        return Leaf(
            found["y"][0], tuple(found["coordinate"]), found["sigma"][-1], found["where"][-1], (), np.int64(n)
        )
