"""`dfit.fit`: one fit over every dimension of an array, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

from dfit.asking import asked_for
from dfit.checkpoint import Checkpoint
from dfit.events import PartitionDone, PassDone
from dfit.model import Model
from dfit.orchestrate import run
from dfit.plans import Plan
from dfit.recovery import Strategy
from dfit.result import FitResult
from dfit.warm_settings import Warmup


def fit(
    model: Callable[..., Any] | Model,
    data: Any,
    coords: Any = None,
    *,
    p0: Any = None,
    bounds: Any = None,
    fixed: Mapping[str, float] | Sequence[str] | None = None,
    tie: Mapping[str, Callable[..., Any]] | None = None,
    param_names: Sequence[str] | None = None,
    constants: Mapping[str, Any] | None = None,
    jac: Callable[..., Any] | None = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    where: Any = None,
    skipna: bool = True,
    loss: str = "linear",
    f_scale: float = 1.0,
    cov: str | Mapping[str, Any] | None = None,
    tol: float = 1e-8,
    ftol: float | None = None,
    xtol: float | None = None,
    gtol: float | None = None,
    max_passes: int = 100,
    time_limit: float | None = None,
    time_unit: str = "s",
    time_origin: Any = None,
    retries: int = 3,
    min_success_rate: float = 1.0,
    callback: Callable[[PassDone], Any] | None = None,
    on_partition: Callable[[PartitionDone], Any] | None = None,
    verbose: int = 0,
    warmup: Warmup | bool | str | None = None,
    checkpoint: Checkpoint | str | PathLike[str] | bool | None = None,
    resume: bool = True,
    validate: str = "sums",
    recovery: Sequence[Strategy] = (),
    strategy: str | None = None,
    memory_limit: str | float | None = None,
    memory_fraction: float | None = None,
    plan: Plan | str = "auto",
    weights: None = None,
) -> FitResult:
    """One nonlinear least-squares fit across every chunk of an array.

    Parameters
    ----------
    model : callable
        ``f(coordinates..., parameters...)``, applied point by point to arrays.  Written with
        ``jax.numpy`` it is compiled and differentiated; anything else runs with finite differences.
    data : DataArray, dask array or array
        The measured y, of any number of dimensions, chunked along any of them.
    coords : str, array, sequence or mapping
        Coordinates in the order of the model's first arguments: names of `data`'s coordinates, or
        arrays.  They are spread over the dimensions they lack block by block, never at full size.
    p0 : mapping, sequence, lmfit.Parameters or "guess", optional
        Initial values; what is missing takes the default in the model's signature, else 1.  "guess" finds
        them in the data, for a model of `dfit.models`: in at most 65,536 points of 64 chunks; by name,
        ``{"tau": "guess", "c": 1}``, for some parameters.
    bounds : mapping or pair, optional
        ``{"tau": (0, 50)}`` or scipy's ``(lower, upper)``; None or inf for no bound.  A model of `dfit.models`
        has bounds of its own, which hold for the parameters that a mapping does not name.
    fixed : mapping or sequence of str, optional
        Parameters that are not fitted, with their values or at their initial ones.
    tie : mapping of str to callable, optional
        ``{"b": lambda p: 1 - p["a"]}``.
    param_names : sequence of str, optional
        Where the signature does not tell them (``*args``).
    constants : mapping of str to array, optional
        Arrays that the model takes by name; each worker receives them once.
    jac : callable, optional
        Derivatives (n, p), with the arguments of `model`.
    sigma : number, array or chunked array, optional
        Standard deviation of y, in its unit; inf leaves a point out.
    absolute_sigma : bool
        Whether `sigma` is in the unit of y (scipy's meaning) or only relative.
    where : boolean array, optional
        True for the points to fit.
    skipna : bool
        Whether NaN in y, a coordinate or sigma leaves the point out; otherwise it is an error.
    loss, f_scale : str, float
        scipy's robust losses: linear, soft_l1, huber, cauchy, arctan; covariance by the sandwich.
    cov : {"hc0", "hc1"} or {"groups": name}, optional
        Covariance robust against unequal variances (White 1982), or against noise that is shared by
        the points of a group (jackknife over groups, CR3: Bell & McCaffrey 2002).
    tol : float
        Converged when a further step would move no parameter by more than `tol` of its standard
        error (relative offset, Bates & Watts 1981).
    ftol, xtol, gtol : float, optional
        MINPACK's tests, beside `tol` where given.
    max_passes, time_limit : int, float (seconds), optional
        Where to stop with the best point and ``success=False``, looked at after each pass; a warm-up is
        not interrupted.
    time_unit, time_origin : str, date, optional
        How times become numbers: in "s", "h", ... since the origin (default: the first value).
    retries : int
        How often a failed read of a partition is tried again.
    min_success_rate : float
        Share of the partitions that must be readable. By default one that stays unreadable ends the fit;
        below 1 so many may be left out, and the result is labelled: `partial`, `left_out`, its message.
    callback : callable, optional
        Called with `PassDone` after each pass; False or StopIteration stops.
    on_partition : callable, optional
        Called with `PartitionDone` as each partition of a pass ends; False or StopIteration stops at once.
        The best values of the passes before are returned, with ``success=False``.
    verbose : int
        1 prints progress to standard output.
    warmup : bool, str or dfit.Warmup, optional
        Whether a solve on a sample precedes the passes: True, False, a preset ("strict", "relaxed",
        "disabled", "scientific") or settings. By default data of more than 33 million points are warmed
        up: compiling it takes as long as some passes over fewer. ``max_passes=0`` ends with the sample's
        answer.
    checkpoint : path, URL or dfit.Checkpoint, optional
        Where the fit keeps its state while it runs. The same call goes on from there after any kill, with
        the same bits; False is none, None what ``dask.config`` says under ``dfit.checkpoint`` (none).
    resume : bool
        Whether to go on from what is there; False begins again.
    validate : {"sums", "full", "none"}
        Whether sums and steps must be finite and passes must read the same data; "full" looks at more of
        the data in every pass, and names the first point that is not finite.
    recovery : sequence of callable, optional
        ``(theta, bounds, event, rng) -> theta``, each asked once, in this order, for another start where the
        fit stalls or the model is not finite at its start: see `dfit.recovery`.
    strategy : {"in_memory", "cached", "streaming"}, optional
        Where the data are between passes: in this process, in the workers' memory, or in their store, to be read
        by every pass. By default memory decides; ``dask.config`` may say under ``dfit.strategy``.
    memory_limit : str or number, optional
        Memory of one process, each worker or this one: "4 GB", or bytes. By default what is in force, see
        `dfit.limits`; ``dfit.memory-limit`` in ``dask.config``.
    memory_fraction : float, optional
        Part of the limit that the fit may take (0.75); ``dfit.memory-fraction`` in ``dask.config``.
    plan : {"auto", "static"} or dfit.Plan, optional
        "auto" plans by what past fits and a dry run have cost, "static" by rules alone; what a `Plan` says holds,
        such as that of `dfit.plan`.

    Returns
    -------
    FitResult

    Raises
    ------
    InputError, ModelError, DataError, WorkerError
        For wrong arguments, a wrong model, values no fit can use, and partitions that are lost.

    Examples
    --------
    >>> import numpy as np, jax.numpy as jnp, dfit
    >>> def decay(time, amplitude, tau):
    ...     return amplitude * jnp.exp(-time / tau)
    >>> t = np.linspace(0, 10, 1000)
    >>> result = dfit.fit(decay, 5 * np.exp(-t / 2), {"time": t}, p0={"amplitude": 1, "tau": 1})
    >>> round(result.best_values["tau"], 6)
    2.0
    """
    return run(*asked_for(locals()))
