"""`dfit.plan`: how a fit would run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from dfit.asking import asked_for
from dfit.fitting import fit
from dfit.model import Model
from dfit.orchestrate import planned
from dfit.plans import Plan


def plan(model: Callable[..., Any] | Model, data: Any, coords: Any = None, **options: Any) -> Plan:
    """How a fit of these arguments would run, what it would take, and why; nothing is fitted.

    Reads two leaves of the data at most, to try what a pass costs; data below 4 million points are planned by
    rules alone.

    Parameters
    ----------
    model, data, coords, **options
        As for `dfit.fit`.

    Returns
    -------
    Plan
        ``dfit.fit(model, data, coords, ..., plan=plan)`` runs exactly so.

    Raises
    ------
    InputError, ModelError
        As `dfit.fit`.

    Examples
    --------
    >>> import numpy as np, jax.numpy as jnp, dfit
    >>> def decay(time, amplitude, tau):
    ...     return amplitude * jnp.exp(-time / tau)
    >>> t = np.linspace(0, 10, 1000)
    >>> dfit.plan(decay, 5 * np.exp(-t / 2), {"time": t}, p0={"amplitude": 1, "tau": 1}).strategy
    'in_memory'
    """
    try:
        bound = inspect.signature(fit).bind(model, data, coords, **options)
    except TypeError as error:  # which does not say of which function
        raise TypeError(f"dfit.plan() {error}; expected the arguments of dfit.fit") from None
    bound.apply_defaults()
    return planned(*asked_for(bound.arguments))
