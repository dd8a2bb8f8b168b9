"""What records of past fits say of the next one: its cost, and how far such predictions were to be trusted.

Costs are learned and never settings: a plan follows from the costs, so that nothing stays as it is because
it was so once.  The cost of a workload on its hardware is the median over its last runs: three runs of seven
may be wrong by any factor.  A prediction is trusted by what earlier ones of the same kind were worth: with
q = log(measured / predicted) of the last n,

    mean(q) +- t(0.9, n - 1) s(q) sqrt(1 + 1/n)

holds the next one with a probability of 80 % where q is normal (Student's prediction interval; Hahn & Meeker
1991, *Statistical Intervals*, sec. 4.7).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from dfit.store.row import Record
from dfit.terms import NAMES, Origin, Terms

RUNS = 7  # whose median is the cost
WINDOW, LEAST = 10, 5  # last runs whose predictions are judged, and how many it takes
CLOSE = 1.25  # a prediction that came true
THRESHOLD = 0.5  # share of such predictions below which the dry run decides
OFF, MATTERS = 3.0, 0.1  # what a dry run cannot be wrong by, where it is so much of a pass


@dataclass(frozen=True)
class Reliability:
    """What past predictions of one origin were worth.

    Attributes
    ----------
    predictions : how many of the last runs had one.
    confidence : share of them within 25 % of what then happened; None below five.
    interval : factors on predicted seconds between which the next pass lies in 80 % of cases; None below five.
    """

    predictions: int
    confidence: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Learned:
    """What past runs of a workload on its hardware say.

    Attributes
    ----------
    terms : Terms
    runs : how many they are the median of.
    reliability : of predictions from history for this workload.
    """

    terms: Terms
    runs: int
    reliability: Reliability

    @property
    def trusted(self) -> bool:
        """Whether the plan may follow: not where past predictions turned out wrong, and else so at once."""
        confidence = self.reliability.confidence
        return confidence is None or confidence >= THRESHOLD


def learned(records: Iterable[Record], workload_key: str, hardware_key: str) -> Learned | None:
    """What is known of a workload on hardware; None where no run of it was measured.

    Parameters
    ----------
    records : the oldest first, as `Ledger.load` gives them.
    workload_key, hardware_key : from `dfit.store.row.key_of`.
    """
    own = [r for r in records if r.workload_key == workload_key and r.hardware_key == hardware_key]
    rows = [row for record in own if (row := _costs(record)) is not None][-RUNS:]
    if not rows:
        return None
    middle = map(statistics.median, zip(*rows, strict=True))
    terms = Terms(**dict(zip(NAMES, middle, strict=True)), origin=Origin.HISTORY)
    return Learned(terms, len(rows), reliability(own, Origin.HISTORY))


def reliability(records: Sequence[Record], origin: Origin) -> Reliability:
    """Of the predictions from this origin in the last ten of these records of a workload, the oldest first."""
    # Where these predictions are not trusted, runs without them follow, and push them out of the window:
    # they are tried again.
    ratios = [q for r in records[-WINDOW:] if r.predicted_by == origin and (q := _ratio(r)) is not None]
    if len(ratios) < LEAST:
        return Reliability(len(ratios), None, None)
    logs = np.log(ratios)
    close = np.mean(np.abs(logs) <= math.log(CLOSE))
    half = stdtrit(logs.size - 1, 0.9) * np.std(logs, ddof=1) * math.sqrt(1 + 1 / logs.size)
    low, high = np.exp(np.mean(logs) + np.array([-half, half]))
    return Reliability(logs.size, float(close), (float(low), float(high)))


def contradicted(terms: Terms, tried: Terms, bytes_per_point: float) -> bool:
    """Whether a dry run shows terms from elsewhere to be wrong, by more than it can be wrong itself.

    Parameters
    ----------
    terms : from the history.
    tried : from a dry run.
    bytes_per_point : of the data as decoded, by which reading and computing are compared.
    """
    pairs = [
        (terms.point_ns, tried.point_ns),
        (terms.byte_ns * bytes_per_point, tried.byte_ns * bytes_per_point),
    ]
    matters = MATTERS * max(sum(old for old, _ in pairs), sum(new for _, new in pairs))
    return any(max(pair) > OFF * min(pair) and max(pair) > matters for pair in pairs)


def _costs(record: Record) -> tuple[float, ...] | None:
    """Measured terms; None where some are missing or are none."""
    values = [record.measured.get(name) for name in NAMES]
    known = tuple(value for value in values if value is not None)
    if len(known) < len(NAMES):
        return None
    point_ns, _, wait, *_ = known
    return known if point_ns > 0 and wait <= 1 else None


def _ratio(record: Record) -> float | None:
    """Measured seconds of a pass by predicted ones."""
    measured, predicted = record.measured.get("pass_s"), record.predicted.get("pass_s")
    return measured / predicted if measured and predicted else None
