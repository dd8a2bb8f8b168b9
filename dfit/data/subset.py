"""The sample's plan: which chunks are read, and how many points each of them gives.

Data have an order, and what lies together is alike.  So the chunks are taken from *strata*, runs of
chunks along the array that hold equally many points, one from each, such that they spread over the
places along every dimension, too; and every stratum gives points in proportion to its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import numpy as np

from dfit.data.drawing import Groups, Share, proportional
from dfit.data.plan import Chunk, Partition, Source

# A run of the data as long as two strata holds a whole one, so what fills a 32nd of ordered data is met
# for certain; and opening so many chunks all over a file costs little beside a pass.
STRATA = 64
# A chunk is asked for at most half of its points where one can choose: the others may be missing.
SPARE = 2
# A group's own level and slope need more points than it has parameters.
FEW_OF_A_GROUP = 8


@dataclass(frozen=True)
class SamplePlan:
    """What is read for a sample.

    Attributes
    ----------
    shares : what every chunk that is read gives, by chunk number.
    seed : of the choice of chunks, of points, and of those held out.
    complete : whether the sample is all of the data, missing points included.
    collect : whether the first pass had better collect it, because every chunk is read for it.
    total, chunks : points and chunks of the data.
    """

    shares: tuple[Share, ...]
    seed: int
    complete: bool
    collect: bool
    total: int
    chunks: int

    @cached_property
    def by_partition(self) -> dict[int, tuple[Share, ...]]:
        """Shares of every partition that is read."""
        return {p: tuple(shares) for p, shares in groupby(self.shares, key=lambda share: share.partition)}

    @property
    def reason(self) -> str:
        """The decision in words."""
        return self.sentence(sum(share.points for share in self.shares))

    def sentence(self, drawn: int) -> str:
        """The decision in words, when so many points were drawn."""
        if self.complete:
            rest = f" that can be read, of {self.total:,}" if drawn < self.total else ""
            return f"all {drawn:,} points{rest}"
        points = f"{drawn:,} of {self.total:,} points"
        if self.collect:
            return f"{points}, collected during the first pass, since they need all {self.chunks:,} chunks"
        return f"{points}, from {len(self.shares):,} of {self.chunks:,} chunks"


def plan_sample(
    partitions: Sequence[Partition],
    wanted: int,
    seed: int,
    groups: Source | None = None,
    reads_again: bool = False,
    skipna: bool = True,
) -> SamplePlan:
    """Plan of a sample of about ``wanted`` points, the same for any partitions of the same chunks.

    Parameters
    ----------
    groups : group numbers of the points, in memory. Every group gets points, even if these are more
        than were wanted.
    reads_again : whether a pass reads again what the sample has read.
    skipna : whether NaN is passed over.
    """
    places = [(p.index, k, chunk) for p in partitions for k, chunk in enumerate(p.chunks)]
    chunks = [chunk for _, _, chunk in places]
    sizes = np.array([chunk.size for chunk in chunks])
    total = int(sizes.sum())
    complete = total <= wanted
    points = sizes if complete else _points(chunks, sizes, wanted, seed, groups)
    shares = [
        Share(number, *places[number][:2], int(points[number]), seed, complete, skipna=skipna)
        for number in np.flatnonzero(points).tolist()
    ]
    if groups is not None:
        least = max(1, min(FEW_OF_A_GROUP, wanted // (int(groups.array.values.max()) + 1)))
        shares = [replace(s, groups=_groups_of(groups, chunks[s.number], least)) for s in shares]
    collect = reads_again and not complete and 2 * len(shares) > len(chunks)
    return SamplePlan(tuple(shares), seed, complete, collect, total, len(chunks))


def _points(
    chunks: Sequence[Chunk], sizes: np.ndarray, wanted: int, seed: int, groups: Source | None
) -> np.ndarray:
    """Points that each chunk gives (chunks,); most give none where there are many."""
    total = sizes.sum()
    strata = max(STRATA, math.ceil(SPARE * wanted * sizes.size / total))
    stratum = ((np.cumsum(sizes) - sizes / 2) * strata / total).astype(int)
    chosen = None
    if 2 * strata <= sizes.size:
        rng = np.random.default_rng(seed)
        chosen = _one_of_each(chunks, sizes, stratum, rng)
        if groups is not None:
            chosen |= _with_groups_beyond(chosen, chunks, groups, rng)
    if chosen is None or 2 * chosen.sum() > sizes.size:  # reading all costs little more
        points = proportional(sizes, wanted, sizes)
        return points if groups is None else np.maximum(points, 1)
    own = stratum[chosen]
    weight = np.bincount(stratum, sizes)[own] / np.bincount(own, sizes[chosen])[own] * sizes[chosen]
    points = np.zeros(sizes.size, int)
    points[chosen] = proportional(weight, wanted, sizes[chosen])
    return points if groups is None else np.where(chosen, np.maximum(points, 1), 0)


def _one_of_each(
    chunks: Sequence[Chunk], sizes: np.ndarray, stratum: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One chunk of each stratum, where the places along the dimensions have been met least so far."""
    index = np.array([chunk.index for chunk in chunks])
    lengths = index.max(axis=0) + 1
    bins = np.minimum(lengths, stratum[-1] + 1)
    place = index * bins // lengths
    met = np.zeros((lengths.size, bins.max()))
    dims = np.arange(lengths.size)
    chosen = np.zeros(len(chunks), bool)
    for members in np.split(np.arange(len(chunks)), np.flatnonzero(np.diff(stratum)) + 1):
        often = met[dims, place[members]].sum(axis=1)
        least = members[often == often.min()]
        one = rng.choice(least, p=sizes[least] / sizes[least].sum())
        chosen[one] = True
        met[dims, place[one]] += 1
    return chosen


def _with_groups_beyond(
    chosen: np.ndarray, chunks: Sequence[Chunk], groups: Source, rng: np.random.Generator
) -> np.ndarray:
    """Random chunks that have the groups of which no chosen chunk has a point."""
    distinct: dict[tuple[int, ...], np.ndarray] = {}
    present = []
    for chunk in chunks:
        at = tuple(chunk.index[axis] for axis in groups.axes)
        if at not in distinct:
            distinct[at] = np.unique(_codes(groups, chunk))
        present.append(distinct[at])
    missing = np.ones(int(groups.array.values.max()) + 1, bool)
    for number in np.flatnonzero(chosen):
        missing[present[number]] = False
    added = np.zeros_like(chosen)
    for number in rng.permutation(np.flatnonzero(~chosen)):
        if missing[present[number]].any():
            missing[present[number]] = False
            added[number] = True
    return added


def _codes(groups: Source, chunk: Chunk) -> np.ndarray:
    """Group numbers of a chunk's points, along the dimensions that they have."""
    box = tuple(slice(chunk.start[a], chunk.start[a] + chunk.shape[a]) for a in groups.axes)
    return np.asarray(groups.array.values[box])


def _groups_of(groups: Source, chunk: Chunk, least: int) -> Groups:
    return Groups(_codes(groups, chunk), groups.axes, least)
