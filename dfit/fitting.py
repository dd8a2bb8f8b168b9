"""`dfit.fit`: one fit over every dimension of an array. The one orchestrator."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dfit import telemetry
from dfit.core.equations import gradient_norm
from dfit.core.state import State, Status
from dfit.core.trust_region import start
from dfit.data.domain import Domain, build_domain, coordinate_names
from dfit.errors import InputError
from dfit.events import PassDone
from dfit.interrupted import BY_INTERRUPT, nothing_kept
from dfit.model import Model
from dfit.outcome import finish
from dfit.parameters import Parameters
from dfit.passes import Passes
from dfit.precision import one_blas_thread
from dfit.prepare import Prepared, prepare
from dfit.progress import Printer
from dfit.result import FitResult
from dfit.settings import Settings
from dfit.statistics import Clock
from dfit.warm_settings import Warmup, as_warmup

logger = logging.getLogger("dfit")

# Compiling the warm-up takes some 1.5 s, as much as several passes over this many points in memory.
WARM_UP_ABOVE = 1 << 25
BY_CALLBACK = "stopped by the callback"


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
    callback: Callable[[PassDone], Any] | None = None,
    verbose: int = 0,
    warmup: Warmup | bool | str | None = None,
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
    p0 : mapping, sequence or lmfit.Parameters, optional
        Initial values; what is missing takes the default in the model's signature, else 1.
    bounds : mapping or pair, optional
        ``{"tau": (0, 50)}`` or scipy's ``(lower, upper)``; None or inf for no bound.
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
    callback : callable, optional
        Called with `PassDone` after each pass; False or StopIteration stops.
    verbose : int
        1 prints progress to standard output.
    warmup : bool, str or dfit.Warmup, optional
        Whether a solve on a sample precedes the passes: True, False, a preset ("strict", "relaxed",
        "disabled", "scientific") or settings. By default data of more than 33 million points are warmed
        up: compiling it takes as long as some passes over fewer. ``max_passes=0`` ends with the sample's
        answer.

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
    if weights is not None:
        raise InputError(
            "weights= is not an argument: type sigma=1/weights for weights that multiply the residual "
            "(lmfit), or sigma=1/np.sqrt(weights) for weights of the squares"
        )
    if not callable(model):
        raise InputError(
            f"the model is {type(model).__name__}, not a callable; the order is dfit.fit(model, data, coords)"
        )
    if isinstance(model, Model):  # a door has sorted its arguments
        described = model
    else:
        names = coordinate_names(model, coords, param_names)
        described = Model.from_callable(model, names, param_names, constants, jac)
    parameters = Parameters.resolve(described, p0, bounds, fixed, tie)
    domain = build_domain(
        described,
        data,
        coords,
        sigma=sigma,
        where=where,
        skipna=skipna,
        time_unit=time_unit,
        time_origin=time_origin,
    )
    settings = Settings(
        loss=loss,
        f_scale=f_scale,
        absolute_sigma=absolute_sigma,
        cov=cov,
        tol=tol,
        ftol=ftol,
        xtol=xtol,
        gtol=gtol,
        max_passes=max_passes,
        time_limit=time_limit,
        retries=retries,
        callback=callback,
        verbose=verbose,
        warmup=None if warmup is None else as_warmup(warmup) or False,
    )
    return run(described, parameters, domain, settings)


@nothing_kept()
def run(model: Model, parameters: Parameters, domain: Domain, settings: Settings) -> FitResult:
    """A fit from what the doors have checked and named."""
    clock = Clock()
    printer = Printer(settings.verbose, settings.loss)
    warmup = _warmup_for(parameters, domain, settings)
    prepared = prepare(model, parameters, domain, settings, printer.task)
    printer.begin(prepared.memory.sentence(len(prepared.partitions), domain.data.size))
    try:
        with one_blas_thread():
            clock.ended("preparation")
            passes = Passes(prepared, settings, warmup, printer, clock)
            state, stopped = _follow(passes, prepared, settings, printer, clock.began)
            clock.ended("gauss_newton")
            result = finish(prepared, passes, settings, state, stopped, clock)
    finally:
        prepared.close()
    if result.warmup is not None:
        telemetry.count(result.warmup)
    printer.end(result)
    return result


def _warmup_for(parameters: Parameters, domain: Domain, settings: Settings) -> Warmup | None:
    """How this fit warms up, None for not at all."""
    settings.check()
    size = domain.data.size
    if isinstance(settings.warmup, Warmup):
        varying = list(parameters.varying)
        settings.warmup.check(parameters.upper[varying] - parameters.lower[varying], size)
        return settings.warmup
    wanted = settings.warmup is None and (size > WARM_UP_ABOVE or settings.max_passes == 0)
    return Warmup() if wanted else None


def _follow(
    passes: Passes, prepared: Prepared, settings: Settings, printer: Printer, began: float
) -> tuple[State, str | None]:
    """Pass after pass until the solver ends, or something else does: the last state, and what it was."""
    p, account = prepared.parameters, prepared.evaluator.account
    state = start(p.init[list(p.varying)])
    cost = np.inf
    try:
        for state in passes.states():
            if settings.max_passes == 0:
                return state, "max_passes=0: this is the sample's answer"
            event = _pass_done(account.passes, p, state, cost, time.monotonic() - began)
            cost = event.cost
            logger.info(
                "pass %d: cost %.10g, relative offset %.2g", event.npasses, cost, event.relative_offset
            )
            printer.passed(event)
            stopped = _told_to_stop(settings, event)
            if state.status != Status.RUNNING:  # converged or failed, whatever the callback said
                return state, None
            if stopped is not None:
                return state, stopped
    except KeyboardInterrupt:
        if np.isinf(cost):  # before the end of the first pass there is nothing to return
            raise
        return state, BY_INTERRUPT
    return state, None


def _pass_done(npasses: int, p: Parameters, state: State, before: float, elapsed_s: float) -> PassDone:
    """What observers are told of a state; ``before`` is the cost of the state before it."""
    varying = list(p.varying)
    cost = float(state.equations.cost)
    return PassDone(
        npasses,
        p.by_name(state.theta),
        cost,
        float(state.offset),
        cost < before,
        elapsed_s,
        gradient_norm(state.equations, np.asarray(state.theta), p.lower[varying], p.upper[varying]),
        before - cost if np.isfinite(before) else float("nan"),
        float(state.radius),
    )


def _told_to_stop(settings: Settings, event: PassDone) -> str | None:
    """Why no further pass may follow, or None."""
    if settings.callback is not None:
        try:
            if settings.callback(event) is False:
                return BY_CALLBACK
        except StopIteration:
            return BY_CALLBACK
    if event.npasses >= settings.max_passes:
        return f"max_passes={settings.max_passes} reached"
    if settings.time_limit is not None and event.elapsed_s >= settings.time_limit:
        return f"time_limit={settings.time_limit} s reached"
    return None


def stopped_by_user(result: FitResult) -> bool:
    """Whether the callback or Ctrl-C ended the fit, so that its best point so far is what the user wants."""
    return not result.success and any(words in result.message for words in (BY_CALLBACK, BY_INTERRUPT))
