"""What `.fit` does where dimensions are kept: a map of parameters under xarray's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dask
import numpy as np
import xarray as xr

from dfit.data.domain import build_domain, coordinate_names
from dfit.errors import InputError
from dfit.face.map_input import common, resolved
from dfit.model import Model
from dfit.pixel_status import SUCCESS, attributes
from dfit.pixels import Beginning, Map, map_of
from dfit.reduce.pixel_table import STATISTICS, table_columns
from dfit.settings import Settings

# Options of `dfit.fit` that mean the same for every pixel; the others are of one fit.
OF_THE_DATA = ("sigma", "where", "skipna", "time_unit", "time_origin")
OF_THE_FIT = ("loss", "f_scale", "absolute_sigma", "cov", "tol", "ftol", "xtol", "gtol", "max_passes")
OF_THE_MODEL = ("param_names", "constants", "jac")
OF_PARAMETERS = ("p0", "bounds", "fixed", "tie", "neighbours")
COUNTS = ("nfev", "ndata", "nfree")


def fit_map(
    variable: xr.DataArray,
    coords: Sequence[Any],
    func: Callable[..., Any],
    kept: Sequence[Any],
    options: Mapping[str, Any],
    *,
    errors: str,
) -> Map:
    """The fits of all pixels of one variable, not yet computed."""
    known = (*OF_THE_DATA, *OF_THE_FIT, *OF_THE_MODEL, *OF_PARAMETERS)
    for name, value in options.items():
        if name not in known and value is not None:
            raise InputError(
                f"{name}= is for one fit over all dimensions, and {', '.join(map(str, kept))} would be kept: leave it "
                "out, or type reduce_dims=... (the three dots)"
            )
    model = _model(func, coords, options)
    these = common(*(options.get(name) for name in ("p0", "bounds", "fixed")))
    domain = build_domain(
        model, variable, list(coords), **{name: options[name] for name in OF_THE_DATA if name in options}
    )
    start = resolved(model, these, options.get("tie"), domain.is_complex)
    settings = Settings(**{name: options[name] for name in OF_THE_FIT if name in options}, warmup=False)
    for one in these.given:
        for dim in one.values.dims:
            if dim not in kept:
                raise InputError(
                    f"{one.kind} of {one.name} lies along {dim!r}, which is fitted over or not in the data; expected "
                    f"dimensions that are kept: {', '.join(map(str, kept))}. Type for example: .isel({dim}=0)"
                )
    beginning = Beginning(these.given, start.unset, start.guess, bool(options.get("neighbours")))
    return map_of(model, start.parameters, domain, settings, list(kept), beginning, errors == "raise")


def _model(func: Any, coords: Sequence[Any], options: Mapping[str, Any]) -> Model:
    if isinstance(func, Model):
        return func
    if not callable(func):
        raise InputError(f"the model is {type(func).__name__}, not a callable")
    param_names = options.get("param_names")
    names = coordinate_names(func, list(coords), param_names)
    return Model.from_callable(func, names, param_names, options.get("constants"), options.get("jac"))


def map_dataset(found: Map, variable: xr.DataArray, prefix: str) -> xr.Dataset:
    """A map under curvefit's names, with the coordinates of the kept dimensions."""
    names = list(found.parameters.names)
    kept, p = found.kept, len(names)
    places = table_columns(p)
    (table,) = (found.table,) if found.lazy else dask.compute(found.table)
    parts = {name: table[..., place] for name, place in places.items()}
    square = parts["covariance"].reshape((*table.shape[:-1], p, p))
    status = parts["status"][..., 0]
    variables: dict[str, Any] = {
        "coefficients": ((*kept, "param"), parts["coefficients"], dict(variable.attrs)),
        "covariance": ((*kept, "cov_i", "cov_j"), square),
        "stderr": ((*kept, "param"), parts["stderr"]),
        "success": (kept, _among(status)),
        "status": (kept, status.astype(np.int8), attributes()),
        "nvarys": ((), len(found.parameters.varying)),
    }
    for name in STATISTICS:
        values = parts[name][..., 0]
        variables[name] = (kept, values.astype(np.int64) if name in COUNTS else values)
    labels = dict.fromkeys(("param", "cov_i", "cov_j"), names)
    own = {name: c.variable for name, c in variable.coords.items() if set(c.dims) <= set(kept)}
    return xr.Dataset(
        {f"{prefix}curvefit_{name}": value for name, value in variables.items()}, {**own, **labels}
    )


def _among(status: Any) -> Any:
    """Whether codes are among those of success."""
    found = status == min(SUCCESS)
    for code in sorted(SUCCESS)[1:]:
        found = found | (status == code)
    return found
