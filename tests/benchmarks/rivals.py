"""Per-pixel fits as others do them, and dfit's, all behind one call.

An arm is made for a problem and then called as ``fit(data, p0) -> (params (N, p), cost (N,))`` with data
(pixel, x) in memory; cost is half the sum of squares that the arm itself reports, NaN where it reports
none.  Each is set up in its quickest way: astropy in this process (its pool of processes would be paid
for by each call) with derivatives and its quickest fitter, xarray-lmfit without the objects of results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import curve_fit, least_squares, leastsq

from dfit.face.accessor import FitAccessor
from tests.benchmarks.pixel_data import Problem, X

P0 = Mapping[str, float]
Fit = Callable[[xr.DataArray, P0], tuple[np.ndarray, np.ndarray]]


def dfit_map(problem: Problem, tol: float = 1e-8) -> Fit:
    """`.fit` over the points of a pixel, whose dimension of pixels is kept; to `tol` standard errors."""

    def fit(data: xr.DataArray, p0: P0) -> tuple[np.ndarray, np.ndarray]:
        found = FitAccessor(data)("x", problem.traced, p0=dict(p0), errors="ignore", tol=tol)
        found = found.compute()
        params = found.curvefit_coefficients.transpose("pixel", "param").values
        return params, found.curvefit_chisqr.values / 2

    return fit


def xarray_curvefit(problem: Problem) -> Fit:
    """`curvefit` as it comes: MINPACK through SciPy's curve_fit, differences for derivatives."""

    def fit(data: xr.DataArray, p0: P0) -> tuple[np.ndarray, np.ndarray]:
        found = data.curvefit("x", problem.plain, p0=dict(p0), errors="ignore")
        return found.curvefit_coefficients.values, np.full(data.sizes["pixel"], np.nan)

    return fit


def scipy_curve_fit(problem: Problem) -> Fit:
    """A loop over curve_fit as it comes."""

    def one(y: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
        try:
            return curve_fit(problem.plain, X, y, start)[0], np.nan
        except RuntimeError:  # not converged
            return np.full(start.size, np.nan), np.nan

    return _loop(one)


def scipy_least_squares(problem: Problem) -> Fit:
    """A loop over least_squares(method="lm") with derivatives."""

    def one(y: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
        found = least_squares(
            lambda p: problem.plain(X, *p) - y, start, lambda p: problem.jacobian(X, *p), method="lm"
        )
        return (found.x if found.success else np.full(start.size, np.nan)), float(found.cost)

    return _loop(one)


def scipy_leastsq(problem: Problem) -> Fit:
    """A loop over leastsq with derivatives: the least work around MINPACK that SciPy has, no covariance."""

    def one(y: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
        found, ended = leastsq(
            lambda p: problem.plain(X, *p) - y, start, Dfun=lambda p: problem.jacobian(X, *p)
        )
        return (found if ended in (1, 2, 3, 4) else np.full(start.size, np.nan)), np.nan

    return _loop(one)


def xarray_lmfit(problem: Problem) -> Fit:
    """`xlm.modelfit`, parameters and statistics only."""
    import lmfit
    from xarray_lmfit.modelfit import ModelFitDataArrayAccessor

    model = lmfit.Model(problem.plain)

    def fit(data: xr.DataArray, p0: P0) -> tuple[np.ndarray, np.ndarray]:
        modelfit = ModelFitDataArrayAccessor(data)
        found = modelfit("x", model=model, params=dict(p0), errors="ignore", output_result=False)
        return found.modelfit_coefficients.values, found.modelfit_stats.sel(fit_stat="chisqr").values / 2

    return fit


def astropy_parallel(problem: Problem) -> Fit:
    """`parallel_fit_dask` in this process, with derivatives and the quickest fitter, LevMarLSQFitter."""
    from astropy.modeling import Fittable1DModel, Parameter
    from astropy.modeling.fitting import LevMarLSQFitter, parallel_fit_dask

    body: dict[str, Any] = {name: Parameter(default=1.0) for name in problem.names}
    body["evaluate"] = staticmethod(problem.plain)
    body["fit_deriv"] = staticmethod(lambda x, *p: list(problem.jacobian(x, *p).T))
    model = type("Pixel", (Fittable1DModel,), body)

    def fit(data: xr.DataArray, p0: P0) -> tuple[np.ndarray, np.ndarray]:
        found = parallel_fit_dask(
            model=model(**p0),
            fitter=LevMarLSQFitter(),
            data=data.values,
            fitting_axes=1,
            world=(X,),
            scheduler="synchronous",
        )
        params = np.stack([getattr(found, name).value for name in problem.names], axis=1)
        return params, np.full(len(params), np.nan)

    return fit


def _loop(one: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]) -> Fit:
    """A Python loop over the pixels."""

    def fit(data: xr.DataArray, p0: P0) -> tuple[np.ndarray, np.ndarray]:
        start = np.array(list(p0.values()))
        params, cost = zip(*(one(y, start) for y in data.values), strict=True)
        return np.array(params), np.array(cost)

    return fit


ARMS: dict[str, Callable[[Problem], Fit]] = {
    "dfit": dfit_map,
    # As near to the optimum as the rivals' own tests bring them, see the table of what is left.
    "dfit, tol=1e-4": partial(dfit_map, tol=1e-4),
    "xarray.curvefit": xarray_curvefit,
    "scipy.curve_fit": scipy_curve_fit,
    "scipy.least_squares": scipy_least_squares,
    "scipy.leastsq": scipy_leastsq,
    "xarray-lmfit": xarray_lmfit,
    "astropy": astropy_parallel,
}
