"""Predicted memory of a process that sums, above what it takes idle."""

from __future__ import annotations

from dataclasses import dataclass

# Reading holds a chunk in compressed form, decoded, and as the array of the leaf in hand.
COPIES_WHILE_READING = 2.5
# JAX, its compiler and the code of a kernel in a process that has not used them before.
FIRST_USE_BYTES = 250 << 20


@dataclass(frozen=True)
class Footprint:
    """Bytes that a process takes.

    Attributes
    ----------
    base : once, however many tasks run.
    task : for each task at a time.
    ahead : for each task that reads ahead, beside that.
    """

    base: int
    task: int
    ahead: int

    def peak(self, tasks: int, read_ahead: bool, kept: int) -> int:
        """With so many tasks at a time and so many bytes kept between passes."""
        return self.base + tasks * (self.task + self.ahead * read_ahead) + kept


def footprint_of(
    chunk_bytes: int, leaf_points: int, columns: int, reads: bool, base: int | None = None
) -> Footprint:
    """Footprint of a fit.

    Parameters
    ----------
    chunk_bytes : decoded bytes of the chunks that a leaf is made of, of all arrays; the largest.
    leaf_points : of a padded leaf.
    columns : varying parameters.
    reads : whether tasks read, or have their data in memory.
    base : as a dry run has measured it.
    """
    # A leaf's arrays are copied into aligned ones, and a block holds its value and derivatives.
    leaf = leaf_points * 8 * 6 + (columns + 16) * 8 * (1 << 15)
    read = int(COPIES_WHILE_READING * chunk_bytes) if reads else 0
    return Footprint(FIRST_USE_BYTES if base is None else base, leaf + read, chunk_bytes if reads else 0)


def client_peak(partitions: int, columns: int) -> int:
    """Predicted memory of the client, above what it takes idle: reports and unfinished parts of the sum."""
    return partitions * (2048 + 16 * (columns + 2) ** 2)
