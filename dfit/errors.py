"""Errors and warnings of dfit, each saying what was got, what was expected and the line to type instead.

::

    Exception
    └── DfitError                     catches everything below
        ├── InputError (ValueError)   misuse, found before the first task
        ├── ModelError                the model raises, or returns something of the wrong shape
        ├── DataError (ValueError)    what only the values of a partition tell
        ├── WorkerError (RuntimeError)  a worker or the scheduler failed, after the retries
        │   └── ReadFailed            a chunk of the data cannot be read
        ├── CheckpointError           a checkpoint cannot be written, or not be read by this dfit
        │   └── CheckpointDamaged     it is not what was written: the one before it is taken
        └── FitFailed (RuntimeError)  no answer, where the caller asked for one or an error
    UserWarning
    └── DfitWarning                   the result is changed, or costs more than twice

All of them cross process boundaries: their text and attributes survive pickling.  A pickled error
loses its ``__cause__``, as Python's own do, so the text of a cause stands in the message.
"""

from __future__ import annotations

import sys
import warnings
from types import FrameType

# Not the user's: the package, the scheduler that calls it back, and the frame of a context that decorates one
# of its functions.
_NOT_THE_USERS = ("dfit", "dask", "distributed", "contextlib")


class DfitError(Exception):
    """Base of all errors that dfit raises on purpose.

    Attributes
    ----------
    best_values : values of all parameters by name after the last complete pass, where an error ends a fit
        later than that; None else.
    """

    best_values: dict[str, float] | None = None


class InputError(DfitError, ValueError):
    """A wrong argument; nothing has been computed yet."""


class ModelError(DfitError):
    """The model raised an exception (the cause) or returned something of the wrong shape."""


class DataError(DfitError, ValueError):
    """Values of a partition that no fit can use, such as an infinity.

    Parameters
    ----------
    message : str
    partition : int, optional
        The partition that holds them.
    """

    def __init__(self, message: str, *, partition: int | None = None) -> None:
        super().__init__(message)
        self.partition = partition


class WorkerError(DfitError, RuntimeError):
    """A partition could not be computed after all retries, through no fault of model or data.

    Parameters
    ----------
    message : str
    partition : int, optional
        The partition that was lost.
    worker : str, optional
        Address of the worker that had it last.
    """

    def __init__(self, message: str, *, partition: int | None = None, worker: str | None = None) -> None:
        super().__init__(message)
        self.partition = partition
        self.worker = worker


class ReadFailed(WorkerError):
    """A chunk of the data could not be read, however often it was tried.

    Parameters
    ----------
    message : str
    partition, worker : optional
        As of a `WorkerError`.
    array : str
        What was read there: y, a coordinate, sigma or the mask, and its name.
    key : str
        Key of the chunk in the dask graph.
    path : str
        The file or URL that it is read from, where the graph tells.
    chunk : tuple of int
        Index of the chunk in the grid of y's chunks.
    number : int
        Its number among the chunks of the partition.
    tries : int
    error, reason : str
        Type of the last exception, and its text.
    """

    def __init__(
        self,
        message: str,
        *,
        partition: int | None = None,
        array: str = "",
        key: str = "",
        path: str = "",
        chunk: tuple[int, ...] = (),
        number: int = 0,
        tries: int = 0,
        error: str = "",
        reason: str = "",
        worker: str | None = None,
    ) -> None:
        super().__init__(message, partition=partition, worker=worker)
        self.array, self.key, self.path, self.chunk, self.number = array, key, path, chunk, number
        self.tries, self.error, self.reason = tries, error, reason


class CheckpointError(DfitError):
    """A checkpoint cannot be written, or not be read by this dfit; the fit itself is sound."""


class CheckpointDamaged(CheckpointError):
    """What a file holds is not what a save wrote: cut short, changed, or made by somebody else."""


class FitFailed(DfitError, RuntimeError):
    """The fit ended without an answer."""


class DfitWarning(UserWarning):
    """Something that changes the result or costs more than twice."""


def warn(text: str, category: type[Warning] = DfitWarning) -> None:
    """Warn at the user's line: the nearest one outside of dfit, whichever door it came in by."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _package_of(frame) in _NOT_THE_USERS:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
