"""History: what past fits cost, kept for the plans of later ones."""

from __future__ import annotations

import os
from pathlib import Path

import dask.config
import platformdirs

from dfit.errors import InputError
from dfit.store.ledger import Ledger


def ledger() -> Ledger | None:
    """Where history is kept, as ``dask.config`` says under ``dfit.history``; None where it is off.

    True is the user's state folder (the default), False off, a path another folder.

    Raises
    ------
    InputError
        If the setting is none of these.
    """
    setting = dask.config.get("dfit.history", True)
    if setting is None or setting is True or setting == 1:
        folder = platformdirs.user_state_path("dfit", appauthor=False) / "history"
        # A user without a home, as in some containers, has none.
        return Ledger(folder) if folder.is_absolute() else None
    if setting is False or setting == 0:
        return None
    if not isinstance(setting, (str, os.PathLike)) or not str(setting) or "://" in str(setting):
        raise InputError(
            f"dfit.history is {setting!r} in dask.config; expected True, False or a folder. "
            'Type: dask.config.set({"dfit.history": False})'
        )
    return Ledger(Path(setting).expanduser())
