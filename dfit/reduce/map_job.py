"""What every task of a map must know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dfit.reduce.pixel_answers import PixelJob
from dfit.reduce.pixel_stack import Column


@dataclass(frozen=True)
class Guess:
    """A start that is found in the points of each pixel.

    Attributes
    ----------
    function : the user's ``guess(y, *coords)``; None for the model's own `start`.
    numbers : of the varying parameters that begin there.
    """

    function: Callable[..., Any] | None
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class MapJob:
    """What every task of a map must know.

    Attributes
    ----------
    pixels : of the fits.
    columns, fitted : the arrays, and which of y's dimensions are fitted over.
    given : what is given pixel by pixel: ("p0", "lower", "upper" or "fixed", number of the parameter, y's
        dimensions that it has).
    unset : numbers of the parameters whose start follows from the bounds.
    kept : names of the kept dimensions.
    raises : whether a fit that fails raises.
    guess : a start out of each pixel's points.
    neighbours : whether the answers of a pixel's neighbours are starts, too.
    """

    pixels: PixelJob
    columns: tuple[Column, ...]
    fitted: tuple[int, ...]
    given: tuple[tuple[str, int, tuple[int, ...]], ...]
    unset: tuple[int, ...]
    kept: tuple[str, ...]
    raises: bool
    guess: Guess | None = None
    neighbours: bool = False
