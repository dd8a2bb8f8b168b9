"""What `.fit` does where dimensions are kept: a map of parameters under xarray's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import dask
import numpy as np
import xarray as xr

from dfit.data.domain import build_domain, coordinate_names
from dfit.errors import InputError
from dfit.face.map_checks import (
    require_given,
    require_options,
    require_order,
    require_origin,
    require_own_names,
)
from dfit.face.map_input import asks_neighbours, common, resolved
from dfit.map_identity import identity_of_map
from dfit.map_layout import Part
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


class Fitted(NamedTuple):
    """The map of one variable, not yet computed.

    Attributes
    ----------
    found : its table.
    identity : what it is made of, beside coordinates that it has.
    """

    found: Map
    identity: Callable[[Mapping[Any, xr.DataArray]], dict[str, dict[str, str]]]


def fit_map(
    variable: xr.DataArray,
    coords: Sequence[Any],
    func: Callable[..., Any],
    kept: Sequence[Any],
    options: Mapping[str, Any],
    *,
    errors: str,
) -> Fitted:
    """The fits of all pixels of one variable, not yet computed."""
    known = (*OF_THE_DATA, *OF_THE_FIT, *OF_THE_MODEL, *OF_PARAMETERS)
    require_options(options, known, kept)
    require_own_names(coords, kept)
    model = _model(func, coords, options)
    these = common(*(options.get(name) for name in ("p0", "bounds", "fixed")))
    domain = build_domain(
        model, variable, list(coords), **{name: options[name] for name in OF_THE_DATA if name in options}
    )
    require_origin(domain, kept, options.get("time_origin"))
    require_given(these.given, domain.data, kept)
    start = resolved(model, these, options.get("tie"), domain.is_complex)
    settings = Settings(**{name: options[name] for name in OF_THE_FIT if name in options}, warmup=False)
    guessed = () if start.guess is None else (start.parameters.names[i] for i in start.guess.numbers)
    require_order(these.given, domain.data, start.parameters, {*start.unset, *guessed})
    beginning = Beginning(these.given, start.unset, start.guess, asks_neighbours(options.get("neighbours")))
    found = map_of(model, start.parameters, domain, settings, list(kept), beginning, errors == "raise")
    return Fitted(found, partial(identity_of_map, found, model, domain, settings, these.given))


def _model(func: Any, coords: Sequence[Any], options: Mapping[str, Any]) -> Model:
    if isinstance(func, Model):
        return func
    if not callable(func):
        raise InputError(f"the model is {type(func).__name__}, not a callable")
    param_names = options.get("param_names")
    names = coordinate_names(func, list(coords), param_names)
    return Model.from_callable(func, names, param_names, options.get("constants"), options.get("jac"))


def map_dataset(found: Map, variable: xr.DataArray, prefix: str, computed: bool) -> xr.Dataset:
    """A map under curvefit's names, with the coordinates of the kept dimensions."""
    names = list(found.parameters.names)
    (table,) = dask.compute(found.table) if computed else (found.table,)
    trailing = {"coefficients": ("param",), "covariance": ("cov_i", "cov_j"), "stderr": ("param",)}
    attrs = {"coefficients": dict(variable.attrs), "status": attributes()}
    variables: dict[str, Any] = {
        name: ((*found.kept, *trailing.get(name, ())), values, attrs.get(name))
        for name, values in variables_of(table, len(names)).items()
    }
    variables["nvarys"] = ((), len(found.parameters.varying))
    labels = dict.fromkeys(("param", "cov_i", "cov_j"), names)
    own = {name: c.variable for name, c in own_coords(variable, found.kept).items()}
    return xr.Dataset(
        {f"{prefix}curvefit_{name}": value for name, value in variables.items()}, {**own, **labels}
    )


def map_part(fitted: Fitted, variable: xr.DataArray, prefix: str) -> Part:
    """What a store must know of a map."""
    found = fitted.found
    cut = partial(variables_of, parameters=len(found.parameters.names))
    made_of = fitted.identity(own_coords(variable, found.kept))
    return Part(prefix, found.table, cut, found.job.raises, made_of, found.passes)


def own_coords(variable: xr.DataArray, kept: Sequence[Any]) -> dict[Any, xr.DataArray]:
    """Coordinates along the kept dimensions."""
    return {name: c for name, c in variable.coords.items() if set(c.dims) <= set(kept)}


def variables_of(table: Any, parameters: int) -> dict[str, Any]:
    """Values by variable out of a table, (kept dimensions, columns), of NumPy or dask."""
    parts = {name: table[..., place] for name, place in table_columns(parameters).items()}
    status = parts["status"][..., 0]
    found = {
        "coefficients": parts["coefficients"],
        "covariance": parts["covariance"].reshape((*table.shape[:-1], parameters, parameters)),
        "stderr": parts["stderr"],
        "success": _among(status),
        "status": status.astype(np.int8),
    }
    for name in STATISTICS:
        values = parts[name][..., 0]
        found[name] = values.astype(np.int64) if name in COUNTS else values
    return found


def _among(status: Any) -> Any:
    """Whether codes are among those of success."""
    found = status == min(SUCCESS)
    for code in sorted(SUCCESS)[1:]:
        found = found | (status == code)
    return found
