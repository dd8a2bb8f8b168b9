"""Packages that only some settings need."""

from __future__ import annotations

import importlib
from types import ModuleType

from dfit.errors import InputError


def load(package: str, setting: str) -> ModuleType:
    """A package of the extra "search".

    Raises
    ------
    InputError
        Where it is not installed, with the setting that needs it and the line to type.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f'{setting} needs the package {package}, which is not installed; type: pip install "dfit[search]"'
        ) from error
