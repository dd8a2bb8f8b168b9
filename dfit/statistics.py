"""Statistics of a finished fit: what follows from theta, its covariance and the sums of a pass.

With theta the p varying parameters, C their covariance and G = d(all parameters)/d(theta) (a row of
the unit matrix for a varying parameter, zero for a fixed one, the derivative of the tie for a tied
one), any quantity q of the parameters has to first order the variance (the delta method)

    var q = (dq/dall G) C (dq/dall G)^T.

Derivatives are JAX's where the function can be traced, else central differences.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.special

from dfit.core.covariance import Covariance


@dataclass(frozen=True)
class Tallies:
    """What the passes counted.

    Attributes
    ----------
    ndata : residuals that took part: finite, inside `where`, sigma finite; complex data give two a point.
    dropped : number of points left out, by reason.
    wsum, ymean : sum of the weights, weighted mean of y.
    tss, yy : weighted sum of squares of y about its mean, about zero.
    lag1 : correlation of neighbouring residuals, NaN if unknown.
    """

    ndata: int
    dropped: dict[str, int]
    wsum: float
    ymean: float
    tss: float
    yy: float
    lag1: float = float("nan")


@dataclass(frozen=True)
class Run:
    """What the fit cost.

    Attributes
    ----------
    npasses : full passes over the data.
    nfev : evaluations in all, those of a warm-up included.
    bytes_per_pass, bytes_read : what the first pass read, and all of them; 0 for data in memory.
    peak_bytes : largest memory of a worker above an idle one.
    form : "JtJ" or "QR": what a pass adds up.
    dims : the fitted dimensions.
    notes : sentences that must stand in the report.
    """

    npasses: int
    nfev: int
    points_per_pass: int
    bytes_per_pass: int
    bytes_read: int
    elapsed_s: float
    points_per_s: float
    compilations: int
    peak_bytes: int
    form: str
    workers: int
    dims: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phase:
    """A stage of a fit: its seconds, evaluations and passes, and why it ended."""

    name: str
    seconds: float
    iterations: int
    passes: int
    reason: str


class Clock:
    """Seconds of stages that follow each other."""

    def __init__(self) -> None:
        self.began = self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def ended(self, stage: str) -> None:
        """The stage has ended, and the next begins."""
        now = time.monotonic()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


class Derived(NamedTuple):
    """A quantity computed from the parameters, with its standard error."""

    value: Any
    stderr: Any


@dataclass(frozen=True)
class Estimate:
    """One parameter after the fit, with lmfit's names.

    Attributes
    ----------
    value, init_value : at the end, at the start.
    stderr : NaN at a bound, infinite where the data do not determine it, 0 if fixed.
    min, max : bounds.
    vary : False for a fixed or tied parameter.
    expr : how a tied parameter is computed, None for others.
    correl : correlation with the other varying parameters, None where this one does not vary.
    """

    name: str
    value: float
    stderr: float
    init_value: float
    min: float
    max: float
    vary: bool
    expr: str | None = None
    correl: dict[str, float] | None = None

    def __float__(self) -> float:
        return self.value


class Estimates(Mapping[str, Estimate]):
    """All parameters after the fit by name, fixed and tied ones included."""

    def __init__(self, estimates: list[Estimate]) -> None:
        self._by_name = {estimate.name: estimate for estimate in estimates}

    def __getitem__(self, name: str) -> Estimate:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def valuesdict(self) -> dict[str, float]:
        """Values by name."""
        return {name: estimate.value for name, estimate in self.items()}

    def to_dataframe(self) -> pd.DataFrame:
        """Table with one row per parameter."""
        columns = ("value", "stderr", "init_value", "min", "max", "vary", "expr")
        rows = [[getattr(estimate, column) for column in columns] for estimate in self.values()]
        return pd.DataFrame(rows, index=pd.Index(list(self), name="param"), columns=list(columns))

    def __repr__(self) -> str:
        return self.to_dataframe().to_string()


def propagate(rows: np.ndarray, covariance: Covariance, held: bool = False) -> np.ndarray:
    """Standard errors (...) of quantities with derivatives rows (..., p) by the varying parameters.

    Infinite where a quantity depends on a parameter that the data do not determine, NaN where it
    depends on one without a standard error; with `held`, parameters at a bound count as constants.
    """
    at_bound = np.asarray(covariance.at_lower) | np.asarray(covariance.at_upper)
    stderr = np.where(at_bound & held, 0.0, covariance.stderr)
    unknown = ~np.isfinite(stderr) | at_bound
    inner = np.where(unknown[:, None] | unknown, 0.0, covariance.matrix)
    variance = ((rows @ inner) * rows).sum(-1)
    out = np.sqrt(np.maximum(variance, 0.0))
    touched = rows != 0
    out = np.where((touched & np.isinf(stderr)).any(-1), np.inf, out)
    return np.where((touched & np.isnan(stderr)).any(-1), np.nan, out)


def correlation(covariance: Covariance) -> np.ndarray:
    """Correlation matrix (p, p); NaN for parameters without a finite standard error."""
    spread = np.where(np.isfinite(covariance.stderr), covariance.stderr, np.nan)
    matrix = np.where(np.isfinite(covariance.matrix), covariance.matrix, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return matrix / (spread[:, None] * spread)


def quantile(level: float, nfree: int, absolute_sigma: bool) -> float:
    """Half width, in standard errors, of the interval that holds the truth with probability `level`.

    Student's t with the degrees of freedom that estimated the noise; normal where sigma is
    absolute, because then nothing was estimated.  NaN without degrees of freedom.
    """
    upper = 0.5 * (1 + level)
    if absolute_sigma:
        return float(scipy.special.ndtri(upper))
    return float(scipy.special.stdtrit(nfree, upper)) if nfree > 0 else float("nan")


def information_criteria(chisqr: float, count: int, nvarys: int) -> tuple[float, float]:
    """Akaike's and the Bayesian criterion, up to a constant, with lmfit's formulas."""
    deviance = count * np.log(max(chisqr / count, 1e-250)) if count else float("nan")
    return float(deviance + 2 * nvarys), float(deviance + np.log(max(count, 1)) * nvarys)
