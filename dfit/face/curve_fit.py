"""`dfit.curve_fit`: SciPy's signature and meaning, on arrays of any size."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from dfit.errors import InputError
from dfit.face import hybrid
from dfit.face.ending import CurveFit, ier_of, pcov_of, require_success, residual_of, warn_failed
from dfit.face.hybrid_config import FIELDS, HybridStreamingConfig, nearest
from dfit.face.scipy_input import Points, as_points, read_nan_policy, refuse_masks
from dfit.face.whitening import fit_whitened
from dfit.fitting import fit
from dfit.model import Model
from dfit.signature import arguments_of
from dfit.typed import read_bounds

METHODS = (None, "lm", "trf", "dogbox", hybrid.METHOD)
DIFFERENCES = ("2-point", "3-point", "cs")
PASSES = ("maxfev", "max_nfev", "max_passes")
# Options of leastsq and least_squares that have no meaning here, and what to do instead.
MEANINGLESS = {
    "args": "'args' is not a supported keyword argument: type constants={'name': array} for arrays of the model",
    "x_scale": "leave it out: parameters of any scale are scaled by their derivatives",
    "diag": "leave it out: parameters of any scale are scaled by their derivatives",
    "factor": "leave it out: the first step is bounded by the size of p0",
    "diff_step": "leave it out: derivatives are exact where JAX can trace the model; or type jac=",
    "epsfcn": "leave it out: derivatives are exact where JAX can trace the model; or type jac=",
    "tr_solver": "leave it out: the step comes from an exact solve of p equations",
    "tr_options": "leave it out: the step comes from an exact solve of p equations",
    "jac_sparsity": "leave it out: no matrix of all points is ever built",
    "Dfun": "type jac=your_function",
    "col_deriv": "leave it out, and let jac return one column for each parameter",
    "workers": "leave it out, and start a dask.distributed.Client for more processes",
    "skipna": 'type nan_policy="omit" to leave NaN out',
    "coords": "the coordinates are xdata",
    "model": "the model is f",
    "data": "the data are ydata",
    "weights": "type sigma=1/weights for weights that multiply the residual, or sigma=1/np.sqrt(weights)",
}
# Options of nlsq's curve_fit_large.
MEMORY = {
    "memory_limit_gb": "type memory_limit='4 GB', of one process; without it what is in force holds",
    "auto_size_detection": "leave it out: memory decides whether data are read in every pass",
    "size_threshold": "leave it out: memory decides; or type strategy='streaming' to read data in every pass",
    "show_progress": "type verbose=1",
}
KNOWN = frozenset((*PASSES, *inspect.signature(fit).parameters))


def curve_fit(
    f: Callable[..., Any],
    xdata: Any,
    ydata: Any,
    p0: Any = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    check_finite: bool | None = None,
    bounds: Any = (-np.inf, np.inf),
    method: str | None = None,
    jac: Callable[..., Any] | str | None = None,
    *,
    full_output: bool = False,
    nan_policy: str | None = None,
    param_names: Sequence[str] | None = None,
    constants: Mapping[str, Any] | None = None,
    config: HybridStreamingConfig | None = None,
    **kwargs: Any,
) -> CurveFit:
    """Nonlinear least squares with the signature and meaning of `scipy.optimize.curve_fit`.

    Parameters
    ----------
    f : callable
        ``f(xdata, a, b, ...)``, applied point by point to arrays.
    xdata : (M,), (k, M) or (M, k) array, NumPy or chunked, or a sequence of k arrays
        Given to `f` as one array, block by block.
    ydata : (M,) array, NumPy, dask or DataArray
        May have more dimensions than one.
    p0 : sequence or mapping, optional
        Initial values; their number is that of the parameters where `f` takes ``*args``.  What is
        missing takes the default in the signature, else 1.
    sigma : number, (M,) or (M, M), optional
        Standard deviations, or in memory up to 10,000 points the covariance matrix of ydata.
    absolute_sigma : bool
        Whether `sigma` is in the unit of y; otherwise pcov is scaled by chi-square / (M - p).
    check_finite : bool, optional
        Whether NaN and infinity are errors; True unless `nan_policy` is given.
    bounds : (lower, upper), scipy.optimize.Bounds or mapping
    method : {"lm", "trf", "dogbox", "hybrid_streaming"}, optional
        Accepted; the solver is always dfit's.  "lm" takes no bounds.  "hybrid_streaming" warms up on a
        sample, and gives `HybridFit`: a fit that fails does not raise, but has ``success`` False.
    jac : callable or str, optional
        ``jac(xdata, a, b, ...)`` giving (M, p) is used.  The names of SciPy's differences are
        accepted: derivatives are exact where JAX can trace `f`, differences elsewhere.
    full_output : bool
        Whether to give infodict (nfev and fvec = (f - y) / sigma, lazy for chunked data), mesg, ier.
    nan_policy : {"raise", "omit"}, optional
    param_names, constants
        As in `dfit.fit`.
    config : HybridStreamingConfig, optional
        Of "hybrid_streaming"; its fields may be given as keywords, too.
    **kwargs
        `maxfev` or `max_nfev` (passes over the data, by default 100 (p + 1)), `ftol`, `xtol`, `gtol`
        (by default None: see `tol` in `dfit.fit`), `loss`, `f_scale` (pcov by the sandwich), and
        the options of `dfit.fit`: `cov`, `where`, `fixed`, `time_limit`, `callback`, `verbose`, `strategy`,
        `memory_limit`, `plan`, ...

    Returns
    -------
    CurveFit
        Unpacks to ``popt, pcov``; `result` is the whole FitResult, `result.plan` how it ran.

    Raises
    ------
    InputError (ValueError)
        For wrong arguments.
    FitFailed (RuntimeError)
        If the fit does not converge.

    Warns
    -----
    scipy.optimize.OptimizeWarning
        If the data do not determine the covariance, which is then infinite, or if a parameter is at
        its bound, which has none: NaN, and the others hold for that bound.

    Examples
    --------
    >>> import dfit, numpy as np, jax.numpy as jnp
    >>> def decay(t, amplitude, tau):
    ...     return amplitude * jnp.exp(-t / tau)
    >>> t = np.linspace(0, 10, 1000)
    >>> popt, pcov = dfit.curve_fit(decay, t, 5 * np.exp(-t / 2), p0=[1, 1])
    >>> popt.round(6)
    array([5., 2.])
    """
    if method == hybrid.METHOD:
        kwargs = hybrid.translate(config, kwargs, KNOWN)
    else:
        hybrid.refuse(config, kwargs)
    options = _options(kwargs)
    names = _parameter_names(f, p0, param_names, constants or ())
    bounds = _bounds(method, bounds, names)
    refuse_masks(xdata=xdata, ydata=ydata, sigma=sigma)
    y = ydata if hasattr(ydata, "chunks") else np.asarray(ydata)
    points = as_points(f, xdata, y)
    skipna = read_nan_policy(points, y, check_finite, nan_policy, options.get("where"))
    options.setdefault("max_passes", 100 * (len(names) + 1))
    options.update(p0=p0, bounds=bounds, skipna=skipna, absolute_sigma=absolute_sigma)
    described = Model.from_callable(
        points.function(f), points.names, names, constants, _derivative(jac, points), points.packed
    )
    spread = _sigma(sigma, absolute_sigma)
    if np.ndim(spread) == 2 and y.ndim == 1:
        result, whiten = fit_whitened(described, points, y, spread, options)
    else:
        result = fit(described, y, points.coords, sigma=spread, **options)
        whiten = None
    streaming = method == hybrid.METHOD
    (warn_failed if streaming else require_success)(result)
    found: tuple[Any, ...] = (np.array(result.known.values), pcov_of(result))
    if full_output:
        infodict = {"nfev": result.nfev, "fvec": residual_of(result, whiten)}
        found = (*found, infodict, result.message, ier_of(result))
    if streaming:
        return hybrid.HybridFit.of(found, result, f, whiten, options["callback"])
    answer = CurveFit(found)
    answer.result = result
    return answer


def curve_fit_large(
    f: Callable[..., Any],
    xdata: Any,
    ydata: Any,
    p0: Any = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    check_finite: bool | None = None,
    bounds: Any = (-np.inf, np.inf),
    method: str | None = hybrid.METHOD,
    **kwargs: Any,
) -> CurveFit:
    """`curve_fit` with ``method="hybrid_streaming"`` unless another is given."""
    for name in kwargs:
        if name in MEMORY:
            raise InputError(f"curve_fit_large does not take {name}=: {MEMORY[name]}")
    return curve_fit(f, xdata, ydata, p0, sigma, absolute_sigma, check_finite, bounds, method, **kwargs)


def _options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Options of SciPy's solvers and of `dfit.fit` as those of `dfit.fit`."""
    for name in kwargs:
        if name in MEANINGLESS:
            raise InputError(f"curve_fit does not take {name}=: {MEANINGLESS[name]}")
        if name not in KNOWN:
            near = nearest(name, (*KNOWN, *FIELDS))
            raise TypeError(f"curve_fit() got an unexpected keyword argument {name!r}{near}")
    options = {name: value for name, value in kwargs.items() if name not in PASSES}
    for name in ("ftol", "xtol", "gtol"):
        options[name] = options.get(name) or None  # SciPy's 0 is never
    if callable(options.get("loss")):
        raise InputError(
            "loss is a function; expected a name: 'linear', 'soft_l1', 'huber', 'cauchy' or 'arctan'"
        )
    given = [kwargs[name] for name in PASSES if kwargs.get(name)]
    if not given and kwargs.get("max_passes") == 0:
        given = [0]
    return {**options, "max_passes": given[0]} if given else options


def _parameter_names(
    f: Callable[..., Any], p0: Any, param_names: Sequence[str] | None, constants: Collection[str]
) -> list[str]:
    """Names of the parameters: as many as p0 has, else all after the first in the signature."""
    if param_names is not None:
        return [param_names] if isinstance(param_names, str) else list(param_names)
    arguments = arguments_of(f)
    named = [p for p in arguments.positional[1:] if p.name not in constants]
    names = [p.name for p in named]
    if p0 is None or isinstance(p0, Mapping) or hasattr(p0, "valuesdict"):
        if not names:
            raise InputError(
                f"Unable to determine number of fit parameters: {arguments.text} does not name them. "
                "Type p0=[1.0, 1.0] with one value for each"
            )
        return names
    count = np.size(p0)
    if count < len(names) and all(p.default is not p.empty for p in named[count:]):
        return names[:count]  # the others keep their default
    if arguments.more_positional:
        names += [f"p{i}" for i in range(len(names), count)]
    return names


def _bounds(method: str | None, bounds: Any, names: Sequence[str]) -> Any:
    """Bounds, None where there are none; checks the method."""
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected {', '.join(map(repr, METHODS[1:]))} or None")
    lower, upper = read_bounds(names, bounds)
    if not (np.isfinite(lower).any() or np.isfinite(upper).any()):
        return None
    if method == "lm":
        raise InputError(
            "Method 'lm' only works for unconstrained problems. Use 'trf' or 'dogbox' instead, or leave method out"
        )
    return bounds


def _derivative(jac: Any, points: Points) -> Callable[..., Any] | None:
    if isinstance(jac, str) and jac not in DIFFERENCES:
        raise InputError(f"jac is {jac!r}; expected a function or None")
    return None if jac is None or isinstance(jac, str) else points.function(jac)


def _sigma(sigma: Any, absolute_sigma: bool) -> Any:
    """Sigma as an array or number; none is 1, in the unit of y where absolute_sigma says so."""
    if sigma is None:
        return 1.0 if absolute_sigma else None
    array = sigma if hasattr(sigma, "chunks") else np.asarray(sigma)
    return array.item() if isinstance(array, np.ndarray) and array.size == 1 else array
