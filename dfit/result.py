"""FitResult: the answer of one fit, with lmfit's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import scipy.special
import xarray as xr

from dfit import evaluate, portable, report, statistics
from dfit.chronicle import Chronicle
from dfit.core.covariance import Covariance
from dfit.core.trust_region import Status
from dfit.data.domain import Domain
from dfit.derivative import derivative
from dfit.errors import InputError
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.precision import float64_on_cpu
from dfit.record import Record, estimates_of, merged, record_of
from dfit.statistics import Derived, Estimates, Run, Tallies


@dataclass(frozen=True, eq=False, repr=False)
class FitResult(Chronicle):
    """Parameters with their covariance, statistics and the words that belong to them.

    Attributes
    ----------
    model : None for a result read from a file without `model=`.
    parameters : initial values, bounds, what varies.
    theta : (p,), the varying parameters at the end.
    covariance : of theta.
    cost : half the sum of rho(r^2 / sigma^2); half of chi-square for the linear loss.
    tallies, run : what the passes counted and cost.
    status, message, success : why it ended, in a code, in words, and whether that is good.
    domain : the data; None for a result read from a file.
    loss, f_scale, absolute_sigma, cov_kind : as the fit was asked for.
    groups : number of groups of a clustered covariance.
    relative_offset : size of a full further step in standard errors.
    record : numbers and labels that a file keeps; computed where it is not given.
    warmup, phases, history, faults, shares, recovery_actions : see `Chronicle`.
    """

    model: Model | None
    parameters: Parameters
    theta: np.ndarray
    covariance: Covariance
    cost: float
    tallies: Tallies
    run: Run
    status: Status
    message: str
    success: bool
    domain: Domain | None = None
    loss: str = "linear"
    f_scale: float = 1.0
    absolute_sigma: bool = False
    cov_kind: str | None = None
    groups: int | None = None
    relative_offset: float = float("nan")
    record: Record | None = None

    @cached_property
    def known(self) -> Record:
        """Values of all parameters, their derivatives by theta, and the labels of the data."""
        if self.record is not None:
            return self.record
        return record_of(self.model, self.parameters, self.theta, self.covariance.stderr, self.domain)

    @property
    def var_names(self) -> tuple[str, ...]:
        """Names of the varying parameters, the order of `covar`."""
        return tuple(self.parameters.names[index] for index in self.parameters.varying)

    @cached_property
    def params(self) -> Estimates:
        """All parameters by name: `params["tau"].value`, `.stderr`, `.correl`."""
        return estimates_of(self.parameters, self.known, self.covariance)

    @property
    def best_values(self) -> dict[str, float]:
        """Values of all parameters at the end."""
        return self.params.valuesdict()

    @property
    def init_values(self) -> dict[str, float]:
        """Values of all parameters at the start."""
        return {name: float(v) for name, v in zip(self.parameters.names, self.parameters.init, strict=True)}

    @property
    def covar(self) -> np.ndarray:
        """Covariance (p, p) of the varying parameters."""
        return np.asarray(self.covariance.matrix)

    @property
    def correlation(self) -> pd.DataFrame:
        """Correlation of the varying parameters; NaN where one has no finite standard error."""
        names = pd.Index(self.var_names)
        return pd.DataFrame(statistics.correlation(self.covariance), index=names, columns=names)

    @property
    def chisqr(self) -> float:
        """Weighted sum of squares; for a robust loss the sum of rho."""
        return 2 * float(self.cost)

    @property
    def redchi(self) -> float:
        """chisqr / nfree, NaN without degrees of freedom."""
        return self.chisqr / self.nfree if self.nfree > 0 else float("nan")

    @property
    def ndata(self) -> int:
        """Residuals that took part: one a point, two for complex data."""
        return self.tallies.ndata

    @property
    def nvarys(self) -> int:
        """Number of varying parameters."""
        return len(self.theta)

    @property
    def nfree(self) -> int:
        """Degrees of freedom: residuals minus the rank of the free columns of the Jacobian."""
        return int(self.covariance.nfree)

    @property
    def aic(self) -> float:
        """Akaike's information criterion, lmfit's formula."""
        return self._criteria[0]

    @property
    def bic(self) -> float:
        """Bayesian information criterion, lmfit's formula."""
        return self._criteria[1]

    @property
    def _criteria(self) -> tuple[float, float]:
        return statistics.information_criteria(self.chisqr, self.ndata, self.nvarys)

    @property
    def rsquared(self) -> float:
        """1 - chisqr / (weighted sum of squares of y about its mean); NaN for constant data."""
        return 1 - self.chisqr / self.tallies.tss if self.tallies.tss > 0 else float("nan")

    @property
    def npasses(self) -> int:
        """Full passes over the data."""
        return self.run.npasses

    @property
    def nfev(self) -> int:
        """Evaluations: passes and those of a warm-up."""
        return self.run.nfev

    def conf_interval(self, level: float = 0.95) -> pd.DataFrame:
        """Interval of each parameter, columns lower and upper.

        Student's t with `nfree` degrees of freedom, one less than the groups for a clustered covariance
        (Cameron & Miller 2015); normal where `absolute_sigma` leaves no noise to estimate.
        """
        if not 0 < level < 1:
            raise InputError(f"level={level!r}; expected a probability between 0 and 1. Type: level=0.95")
        factor = self._factor(level)
        table = self.params.to_dataframe()
        width = factor * table["stderr"]
        return pd.DataFrame({"lower": table["value"] - width, "upper": table["value"] + width})

    def derive(self, func: Callable[[Mapping[str, Any]], Any]) -> Derived:
        """Value and standard error of something computed from the parameters.

        `result.derive(lambda p: 2.3548 * p["sigma"])`. The error is infinite where it depends on a
        parameter that the data do not determine, NaN where it depends on one at a bound.
        """
        names, values = self.parameters.names, self.known.values
        errors = np.array([self.params[name].stderr for name in names])

        def of(x: Any) -> Any:
            return func(dict(zip(names, x, strict=True)))

        rows = derivative(of, values, errors) @ self.known.gradient
        stderr = statistics.propagate(rows, self.covariance)
        with float64_on_cpu():
            value = np.asarray(of(values))
        return Derived(value[()], stderr[()])

    def eval(self, params: Any = None, **coords: Any) -> xr.DataArray:
        """Prediction: lazily at the data's own coordinates, or at new ones.

        Parameters
        ----------
        params : values by name, an lmfit.Parameters or another result's `params`; others stay.
        **coords : arrays, times or DataArrays by coordinate. DataArrays keep their dimensions; bare
            arrays of one length pair up point by point.

        Raises
        ------
        InputError
            For unknown or missing names, and without a model (a result from a file).
        """
        theta = self._values(params)
        return self._over(partial(evaluate.predict, theta=theta), coords, self.known.labels.attrs)

    def residual(self) -> xr.DataArray:
        """y minus the prediction, lazy and chunked like y."""
        prediction = self.eval()
        y = self._domain().data
        return prediction.copy(data=y.data - prediction.data)

    def eval_uncertainty(self, params: Any = None, sigma: float = 2, **coords: Any) -> xr.DataArray:
        """Half width of the confidence band of the prediction, as lmfit's.

        `sigma` below 1 is a probability, otherwise a number of standard deviations of a normal
        distribution.  Parameters at a bound are held there; infinite where the prediction depends on a
        parameter that the data do not determine.  For complex data one band each for the real and
        the imaginary part.
        """
        level = sigma if sigma < 1 else float(scipy.special.erf(sigma / np.sqrt(2)))
        compute = partial(
            evaluate.half_width,
            theta=self._values(params),
            varying=np.asarray(self.theta),
            gradient=self.known.gradient,
            covariance=self.covariance,
            factor=self._factor(level),
        )
        units = {key: value for key, value in self.known.labels.attrs.items() if key == "units"}
        return self._over(compute, coords, units, slab=evaluate.SLAB_POINTS // 8)

    def fit_report(self, min_correl: float = 0.1) -> str:
        """The report in lmfit's layout, with what the run cost; correlations below min_correl are left out."""
        return report.fit_report(self, min_correl)

    def to_dataset(self) -> xr.Dataset:
        """The result as numbers, for `to_zarr` and `to_netcdf`; holds no code."""
        return portable.dataset_of(self)

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset, model: Any = None, **options: Any) -> FitResult:
        """The result from `to_dataset`.

        Parameters
        ----------
        model : the callable that was fitted; without it only `eval` and the like are refused.
        **options : `constants` and `jac` of the model, as in `fit`.
        """
        return cls(**portable.fields_of(dataset, model, **options))

    def __repr__(self) -> str:
        head = report.heading(self)
        values = ", ".join(f"{e.name}={e.value:.6g} +/- {e.stderr:.2g}" for e in self.params.values())
        return f"<FitResult: {head}; {values}; {self.message}>"

    def _factor(self, level: float) -> float:
        plain = self.loss == "linear" and self.cov_kind is None
        nfree = self.groups - 1 if self.groups else self.nfree
        return statistics.quantile(level, nfree, self.absolute_sigma and plain)

    def _values(self, params: Any) -> np.ndarray:
        if params is None:
            return self.known.values
        return merged(self.parameters, self.known, params)

    def _model(self) -> Model:
        if self.model is None:
            raise InputError(
                "this result was read from a file, which holds no code, so there is no model to evaluate. "
                "Type: FitResult.from_dataset(ds, model=your_function)"
            )
        return self.model

    def _domain(self) -> Domain:
        if self.domain is None:
            names = ", ".join(f"{name}=..." for name in self.known.labels.coords)
            raise InputError(f"a file holds no data; give the coordinates. Type: result.eval({names})")
        return self.domain

    def _over(self, compute: Any, coords: Mapping[str, Any], attrs: Any, **options: Any) -> xr.DataArray:
        model, labels = self._model(), self.known.labels
        grid = (
            evaluate.new_coordinates(model.coords, coords, labels.time, self.parameters.names)
            if coords
            else evaluate.grid_of(self._domain())
        )
        values = evaluate.over(grid, labels.time, model, compute, labels.dtype, **options)
        return xr.DataArray(values, grid.labels, tuple(grid.sizes), labels.name, attrs)
