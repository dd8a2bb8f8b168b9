"""Compares a fit with published or independently computed numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def digits(value: float, reference: float) -> float:
    """Number of decimal digits in which value agrees with reference."""
    distance = abs(value - reference) / abs(reference)
    return 16.0 if distance == 0 else -math.log10(distance)


def compare(result: Any, reference: Mapping[str, tuple[float, float]], chisqr: float) -> float:
    """Print a fit beside its reference and return the smallest number of digits of the parameters.

    reference gives value and standard deviation by name; chisqr is the weighted residual sum of squares.
    """
    print(f"{'':8}{'dfit':>17}{'reference':>17}{'digits':>8}{'std. dev.':>15}{'reference':>15}{'digits':>8}")
    fewest = math.inf
    for name, (value, stderr) in reference.items():
        mine = result.params[name]
        agreeing = digits(mine.value, value)
        fewest = min(fewest, agreeing)
        print(
            f"{name:8}{mine.value:17.10g}{value:17.10g}{agreeing:8.1f}"
            f"{mine.stderr:15.8g}{stderr:15.8g}{digits(mine.stderr, stderr):8.1f}"
        )
    print(f"{'chisqr':8}{result.chisqr:17.12g}{chisqr:17.12g}{digits(result.chisqr, chisqr):8.1f}")
    print(f"parameters agree with the reference to {fewest:.1f} digits or more")
    return fewest
