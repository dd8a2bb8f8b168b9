"""Dry runs in the workers of a cluster, before the first pass."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dfit.reduce.calibrate import DryRun
from dfit.reduce.pulse import Pulse
from dfit.reduce.wire import dry_run_pickled

if TYPE_CHECKING:
    from distributed import Client

# Workers in which costs are tried; the others compile while these sum.
MOST_TRIED = 64


def try_on_workers(
    client: Client, blobs: Sequence[bytes], kept: Sequence[Sequence[Any]], **operands: Any
) -> list[DryRun]:
    """What a dry run on pickled works finds in every worker, which has compiled then; none where it was killed.

    Parameters
    ----------
    blobs, kept, **operands : of `dry_run_pickled`.
    """
    from distributed import as_completed

    def look(workers: Mapping[str, Any]) -> None:
        # Where all had gone, those that come later are never given a task meant for one of them.
        if lost := [future for future, address in at.items() if address not in workers]:
            Pulse(client).ask(lambda: client.cancel(lost, asynchronous=True))

    pulse = Pulse(client, look)
    known = pulse.ask(lambda: client.scheduler.identity(n_workers=MOST_TRIED))
    at = {
        client.submit(
            dry_run_pickled,
            blobs,
            kept,
            **operands,
            pure=False,
            workers=[address],
            allow_other_workers=True,  # one that dies is not waited for
            key=f"dfit-try-{uuid.uuid4().hex}",
        ): address
        for address in known["workers"]
    }
    try:
        results = pulse.results(as_completed(at, loop=client.loop))
        return [pickle.loads(blob) for _, blob in results if blob is not None]
    finally:
        for future in at:
            future.release()
