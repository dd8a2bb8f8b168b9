"""Points of one chunk that go into a sample.

*Jittered systematic*: the chunk's usable points, in their order, are cut into as many equal runs as
points are wanted, and one random point of each run is taken, so that a chunk whose data are ordered is
covered evenly and a periodic one is not met in step.  The draw follows from the seed and the chunk
alone: partitions, workers and retries change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dfit.data.leaves import spread

HELD_OUT = 5  # one point of so many
# With fewer chunks than this the held-out ones are too few to speak for the rest.
CHUNKS_TO_HOLD = 20
# Below this every point is needed to determine the parameters.
POINTS_TO_HOLD = 50


@dataclass(frozen=True)
class Groups:
    """Group numbers of a chunk's points along ``axes``; ``least`` points of each at least are drawn."""

    codes: np.ndarray
    axes: tuple[int, ...]
    least: int


@dataclass(frozen=True)
class Share:
    """What one chunk gives to a sample.

    Attributes
    ----------
    number : of the chunk among all chunks of the data.
    partition, chunk : where it is found.
    points : how many are drawn, if as many are usable.
    complete : all points are taken instead, missing ones too.
    skipna : NaN is passed over; otherwise it is drawn, so that it is found.
    """

    number: int
    partition: int
    chunk: int
    points: int
    seed: int
    complete: bool
    groups: Groups | None = None
    skipna: bool = True


@dataclass(frozen=True)
class Drawn:
    """Points of chunk ``number``: an array (k,) per source, by role, and group numbers (k,) or None."""

    number: int
    roles: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    codes: np.ndarray | None


def draw(
    share: Share,
    shape: tuple[int, ...],
    arrays: Sequence[np.ndarray],
    roles: tuple[str, ...],
    axes: Sequence[Sequence[int]],
) -> Drawn:
    """Points of a chunk of this shape, from its arrays, which lie along ``axes``."""
    groups = share.groups
    if share.complete:
        columns = [spread(a, along, shape).reshape(-1) for a, along in zip(arrays, axes, strict=True)]
        codes = None if groups is None else spread(groups.codes, groups.axes, shape).reshape(-1)
        return Drawn(share.number, roles, tuple(columns), codes)
    where = _chosen(share, shape, arrays, roles, axes)
    columns = [_at(a, along, shape, where) for a, along in zip(arrays, axes, strict=True)]
    codes = None if groups is None else _at(groups.codes, groups.axes, shape, where)
    return Drawn(share.number, roles, tuple(columns), codes)


def _chosen(
    share: Share,
    shape: tuple[int, ...],
    arrays: Sequence[np.ndarray],
    roles: tuple[str, ...],
    axes: Sequence[Sequence[int]],
) -> np.ndarray:
    """Places of the drawn points in C order, ascending."""
    size = int(np.prod(shape))
    if share.groups is None:
        where = _systematic(_rng(share), np.array([size]), np.array([share.points]))
        # Where nothing is missing, as mostly, the whole chunk need not be looked through.
        if np.all(
            _usable(
                [_at(a, along, shape, where) for a, along in zip(arrays, axes, strict=True)],
                roles,
                share.skipna,
            )
        ):
            return where
    views = [spread(a, along, shape) for a, along in zip(arrays, axes, strict=True)]
    there = np.flatnonzero(np.broadcast_to(_usable(views, roles, share.skipna), shape))
    if share.groups is None:
        wanted = min(share.points, there.size)
        return there[_systematic(_rng(share), np.array([there.size]), np.array([wanted]))]
    codes = _at(share.groups.codes, share.groups.axes, shape, there)
    _, counts = np.unique(codes, return_counts=True)
    even = proportional(counts, share.points, counts)
    wanted = np.minimum(np.maximum(even, share.groups.least), counts)
    order = np.argsort(codes, kind="stable")
    return np.sort(there[order[_systematic(_rng(share), counts, wanted)]])


def _rng(share: Share) -> np.random.Generator:
    return np.random.default_rng([share.seed, share.number])


def _systematic(rng: np.random.Generator, sizes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Places of one random point in each of ``wanted`` (k,) equal parts of runs of ``sizes`` (k,)."""
    size, parts = np.repeat(sizes, wanted), np.repeat(wanted, wanted)
    part = np.arange(size.size) - np.repeat(np.cumsum(wanted) - wanted, wanted)
    low, high = part * size // parts, (part + 1) * size // parts
    first = np.repeat(np.cumsum(sizes) - sizes, wanted)
    return np.asarray(first + low + (rng.random(size.size) * (high - low)).astype(int))


def _at(array: np.ndarray, axes: Sequence[int], shape: tuple[int, ...], where: np.ndarray) -> np.ndarray:
    """Values (k,) at places of the chunk, of an array that lies along some of its axes."""
    if len(axes) == len(shape):
        return array.reshape(-1)[where]
    index = np.unravel_index(where, shape)
    return np.broadcast_to(array[tuple(index[axis] for axis in axes)], where.shape)


def _usable(arrays: Sequence[np.ndarray], roles: Sequence[str], skipna: bool) -> np.ndarray:
    """Whether a point counts: the kernel's rules, faults left to it."""
    usable: np.ndarray = np.array(True)
    for role, array in zip(roles, arrays, strict=True):
        if role == "where":
            usable = usable & array
        elif skipna and array.dtype.kind in "fc":
            usable = usable & ~np.isnan(array)
        if role == "sigma":
            usable = usable & (array != np.inf)
    return usable


def proportional(weight: np.ndarray, wanted: int, most: np.ndarray) -> np.ndarray:
    """Whole numbers in proportion to ``weight`` (k,), none above ``most`` (k,).

    Their sum is ``wanted``, or that of ``most`` where this is smaller.
    """
    out = np.zeros(len(weight), int)
    while (rest := wanted - int(out.sum())) > 0 and (free := out < most).any():
        goal = np.cumsum(weight[free])
        part = np.diff(np.rint(goal / goal[-1] * rest).astype(int), prepend=0)
        out[free] = np.minimum(out[free] + part, most[free])
    return out


def hold_out(lengths: Sequence[int], seed: int, by_chunk: bool) -> np.ndarray:
    """Which points (n,) of a sample the warm-up does not see: a fifth of them, none of a small sample.

    Parameters
    ----------
    lengths : points of each chunk in order.
    by_chunk : whether whole chunks may be held out, whose noise the rest does not share.
    """
    total = sum(lengths)
    if total < POINTS_TO_HOLD:
        return np.zeros(total, bool)
    if not by_chunk or len(lengths) < CHUNKS_TO_HOLD:
        return _one_of_five(total, seed)
    return np.repeat(_one_of_five(len(lengths), seed), lengths)


def _one_of_five(count: int, seed: int) -> np.ndarray:
    first = np.arange(0, count, HELD_OUT)
    places = first + np.random.default_rng(seed).integers(HELD_OUT, size=first.size)
    held = np.zeros(count, bool)
    held[places[places < count]] = True
    return held
