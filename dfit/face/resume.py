"""`dfit.resume`: go on with a fit from its checkpoint, without telling everything again."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any

from dfit.checkpoint import Checkpoint, as_checkpoint
from dfit.errors import CheckpointError, InputError
from dfit.fitting import fit
from dfit.result import FitResult
from dfit.store.snapshot import Snapshot
from dfit.warm_settings import Warmup


def resume(
    path: str | PathLike[str] | Checkpoint, model: Callable[..., Any], data: Any, **options: Any
) -> FitResult:
    """Go on with a fit that was killed or stopped, from its checkpoint.

    The same as the call of `dfit.fit` that wrote it, with ``checkpoint=path``; what that was told in numbers
    and words need not be told again.

    Parameters
    ----------
    path : path, URL or dfit.Checkpoint
    model, data : as in `dfit.fit`.
    **options
        Arguments of `dfit.fit` that are arrays or functions (`coords`, `sigma`, `where`, `tie`, ...), and those
        that may change: `max_passes`, tolerances, `time_limit`, `retries`, `callback`, `verbose`, `strategy`,
        `memory_limit`, `memory_fraction`, `plan`. Partitions stay as they were when the fit began.

    Returns
    -------
    FitResult

    Raises
    ------
    CheckpointError
        If there is nothing to go on from.
    InputError
        If model, data, p0, bounds or settings are not those of the fit, saying what differs.
    """
    if "checkpoint" in options:
        raise InputError("the path is the checkpoint. Type: dfit.resume(path, model, data)")
    checkpoint = as_checkpoint(path)
    found = None if checkpoint is None else checkpoint.folder.latest()
    if checkpoint is None or found is None:
        raise CheckpointError(
            f"{path} holds no checkpoint to go on from. Type: dfit.fit(model, data, ..., checkpoint={str(path)!r})"
        )
    call = dict(Snapshot.from_tree(*found).call)
    missing = [name for name in call.pop("given") if name not in options]
    if missing:
        raise InputError(
            f"the fit in {path} was given {', '.join(missing)}, which a checkpoint does not hold. Type: "
            f"dfit.resume({str(path)!r}, model, data, {', '.join(f'{name}=...' for name in missing)})"
        )
    if isinstance(call.get("warmup"), dict):
        call["warmup"] = Warmup(**call["warmup"])
    return fit(model, data, **{**call, **options}, checkpoint=checkpoint)
