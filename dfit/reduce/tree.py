"""The reduction tree: fixed by leaf, so that nothing else can change a bit of the result.

Node (level, i) stands for leaves i 2^level to (i + 1) 2^level.  Two finished siblings are combined, left
before right, into their parent.  Whoever holds leaves combines what it can and hands on the rest, so
the same additions happen whatever partitions, workers, retries or a resume brought the leaves
together, and in whatever order they came.
"""

from __future__ import annotations

from collections.abc import Iterable

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


def leaves(forest: Forest) -> list[range]:
    """Runs of leaves that a forest covers, ascending."""
    return sorted((range(i << level, (i + 1) << level) for level, i in forest), key=lambda r: r.start)


def covers(forest: Forest, leaf: int) -> bool:
    """Whether a leaf is in the forest."""
    return any((level, leaf >> level) in forest for level in {level for level, _ in forest})
