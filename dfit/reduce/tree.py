"""The reduction tree: fixed by leaf, so that nothing else can change a bit of the result.

Node (level, i) stands for leaves i 2^level to (i + 1) 2^level.  Two finished siblings are combined, left
before right, into their parent.  Whoever holds leaves combines what it can and hands on the rest, so
the same additions happen whatever partitions, workers, retries or a resume brought the leaves
together, and in whatever order they came.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from dfit.core.sums import Sums, combine

Node = tuple[int, int]  # level, index
Forest = dict[Node, Sums]


def insert(forest: Forest, node: Node, sums: Sums, form: str) -> None:
    """Add a finished node, and every parent that it completes."""
    level, index = node
    while (sibling := (level, index ^ 1)) in forest:
        other = forest.pop(sibling)
        sums = combine(other, sums, form) if index & 1 else combine(sums, other, form)
        level, index = level + 1, index >> 1
    forest[level, index] = sums


def merge(forests: Iterable[Forest], form: str) -> Forest:
    """One forest from disjoint ones."""
    out: Forest = {}
    for forest in forests:
        for node, sums in forest.items():
            insert(out, node, sums, form)
    return out


def root(forest: Forest, form: str) -> Sums:
    """Sums of a complete forest: its trees from left to right."""
    ordered = [forest[node] for node in sorted(forest, key=lambda node: node[1] << node[0])]
    total = ordered[0]
    for sums in ordered[1:]:
        total = combine(total, sums, form)
    return total


class Done:
    """Leaves that need no task, as disjoint runs, ascending.

    Parameters
    ----------
    runs : in any order; they may touch and overlap.
    """

    def __init__(self, runs: Iterable[range] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for run in sorted(runs, key=lambda run: run.start):
            if self._stops and run.start <= self._stops[-1]:
                self._stops[-1] = max(self._stops[-1], run.stop)
            else:
                self._starts.append(run.start)
                self._stops.append(run.stop)

    @property
    def runs(self) -> list[range]:
        return [range(*ends) for ends in zip(self._starts, self._stops, strict=True)]

    def covers(self, run: range) -> bool:
        """Whether every leaf of a run is among them."""
        at = bisect_right(self._starts, run.start) - 1
        return at >= 0 and run.stop <= self._stops[at]

    def within(self, run: range) -> Done:
        """Those of a run."""
        first, last = bisect_right(self._stops, run.start), bisect_left(self._starts, run.stop)
        ends = zip(self._starts[first:last], self._stops[first:last], strict=True)
        return Done(range(max(start, run.start), min(stop, run.stop)) for start, stop in ends)


def leaves(forest: Iterable[Node]) -> Iterator[range]:
    """Runs of leaves that the nodes of a forest stand for."""
    return (range(i << level, (i + 1) << level) for level, i in forest)
