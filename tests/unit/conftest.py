"""A finished fit without the machinery of one: scipy's optimum and the library's own covariance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize

from dfit.core.covariance import covariance
from dfit.core.equations import Equations
from dfit.core.trust_region import Status
from dfit.data.domain import build_domain, coordinate_names
from dfit.derivative import derivative
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.precision import float64_on_cpu
from dfit.result import FitResult, Run, Tallies


def finish(
    func: Callable[..., Any], data: Any, coords: Any, absolute_sigma: bool = False, **options: Any
) -> FitResult:
    """FitResult at the least-squares optimum of a small problem in memory."""
    of_data = {k: options.pop(k) for k in ("sigma", "where", "time_unit", "time_origin") if k in options}
    changed = options.pop("changed", {})
    names = coordinate_names(func, coords, options.get("param_names"))
    of_model = {k: options.pop(k) for k in ("param_names", "constants", "jac") if k in options}
    model = Model.from_callable(func, names, **of_model)
    domain = build_domain(model, data, coords, **of_data)
    parameters = Parameters.resolve(model, **options)
    varying = list(parameters.varying)
    y = domain.data.values.ravel()
    arrays = {name: domain.numeric(name, array.values) for name, array in domain.coords.items()}
    points = [
        np.broadcast_to(
            arrays[name].reshape([domain.data.sizes[d] if d in array.dims else 1 for d in domain.data.dims]),
            domain.data.shape,
        ).ravel()
        for name, array in domain.coords.items()
    ]
    sigma = np.broadcast_to(1.0 if domain.sigma is None else domain.sigma, domain.data.shape).ravel()

    def predict(theta: Any) -> Any:
        return model(parameters.expand(theta), points)

    def parts(values: Any) -> np.ndarray:
        weighted = (np.asarray(values).T / sigma).T
        return np.concatenate([weighted.real, weighted.imag]) if np.iscomplexobj(weighted) else weighted

    def residual(theta: np.ndarray) -> np.ndarray:
        with float64_on_cpu():
            return parts(y - np.asarray(predict(theta)))

    box = (parameters.lower[varying], parameters.upper[varying])
    fit = scipy.optimize.least_squares(
        residual, parameters.init[varying], "3-point", box, x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    theta = np.where(fit.active_mask > 0, box[1], np.where(fit.active_mask < 0, box[0], fit.x))
    r = residual(theta)
    jacobian = parts(derivative(predict, theta))
    root = np.linalg.qr(np.column_stack([jacobian, r]), mode="r")
    cost = 0.5 * float(r @ r)
    equations = Equations(root, cost, 2 * cost, float(np.vdot(y, y).real), r.size, np.bool_(True))
    weight = 1 / sigma**2
    mean = np.average(y, weights=weight)
    fields = {
        "model": model,
        "parameters": parameters,
        "theta": theta,
        "covariance": covariance(equations, theta, *box, absolute_sigma=absolute_sigma),
        "cost": cost,
        "tallies": Tallies(
            r.size,
            {"y is NaN": 3, "outside where": 0},
            float(weight.sum()),
            float(mean.real),
            float((weight * np.abs(y - mean) ** 2).sum()),
            float((weight * np.abs(y) ** 2).sum()),
            0.01,
        ),
        "run": Run(
            5, 7, y.size, 8 * y.size, 8 * y.size, 0.5, 2.0 * y.size, 1, 3 << 20, "JtJ", 2, domain.data.dims
        ),
        "status": Status.OFFSET,
        "message": "a further step would change no parameter by more than 1e-8 of its standard error",
        "success": True,
        "domain": domain,
        "absolute_sigma": absolute_sigma,
        "relative_offset": 3e-10,
    }
    return FitResult(**{**fields, **changed})


@pytest.fixture(name="finish", scope="session")
def _finish() -> Callable[..., FitResult]:
    return finish
