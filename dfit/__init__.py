"""dfit fits a nonlinear model to an array that does not fit in memory.

Importing dfit registers the `.dfit` and `.fit` accessors on xarray objects and loads nothing else that
is heavy: the public names are resolved on first use, so neither JAX nor distributed is imported before
the first fit.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dfit import history as history
    from dfit import limits as limits
    from dfit import models as models
    from dfit.checkpoint import Checkpoint
    from dfit.errors import (
        CheckpointError,
        DataError,
        DfitError,
        DfitWarning,
        FitFailed,
        InputError,
        ModelError,
        WorkerError,
    )
    from dfit.face.curve_fit import curve_fit, curve_fit_large
    from dfit.face.hybrid_config import HybridStreamingConfig
    from dfit.face.plan import plan
    from dfit.face.resume import resume
    from dfit.fitting import fit
    from dfit.plans import Plan
    from dfit.result import FitResult
    from dfit.telemetry import get_defense_telemetry, reset_defense_telemetry
    from dfit.warm_settings import Warmup

__version__ = "0.1.0.dev0"

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "DataError",
    "DfitError",
    "DfitWarning",
    "FitFailed",
    "FitResult",
    "HybridStreamingConfig",
    "InputError",
    "ModelError",
    "Plan",
    "Warmup",
    "WorkerError",
    "__version__",
    "curve_fit",
    "curve_fit_large",
    "fit",
    "get_defense_telemetry",
    "history",
    "limits",
    "models",
    "plan",
    "reset_defense_telemetry",
    "resume",
]

_HOME = {
    "Checkpoint": "dfit.checkpoint",
    "CheckpointError": "dfit.errors",
    "DataError": "dfit.errors",
    "DfitError": "dfit.errors",
    "DfitWarning": "dfit.errors",
    "FitFailed": "dfit.errors",
    "FitResult": "dfit.result",
    "HybridStreamingConfig": "dfit.face.hybrid_config",
    "InputError": "dfit.errors",
    "ModelError": "dfit.errors",
    "Plan": "dfit.plans",
    "Warmup": "dfit.warm_settings",
    "WorkerError": "dfit.errors",
    "curve_fit": "dfit.face.curve_fit",
    "curve_fit_large": "dfit.face.curve_fit",
    "fit": "dfit.fitting",
    "get_defense_telemetry": "dfit.telemetry",
    "plan": "dfit.face.plan",
    "reset_defense_telemetry": "dfit.telemetry",
    "resume": "dfit.face.resume",
}


importlib.import_module("dfit.face.accessor")  # registers .dfit and .fit


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name in ("history", "limits", "models"):  # the public names that are modules
        return importlib.import_module(f"dfit.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'dfit' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
