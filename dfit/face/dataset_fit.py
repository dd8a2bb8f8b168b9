"""What `.fit` does: arguments of xarray's curvefit in, its variables out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import numpy as np
import xarray as xr

from dfit.checkpoint import as_checkpoint
from dfit.errors import InputError
from dfit.face.ending import full_covariance, require_success
from dfit.face.map_fit import fit_map, map_dataset, map_part
from dfit.face.map_input import kept_dims
from dfit.fitting import fit
from dfit.following import stopped_by_user
from dfit.map_layout import in_regions
from dfit.map_store import path_for, stored
from dfit.result import FitResult
from dfit.signature import arguments_of

STATISTICS = ("npasses", "nfev", "ndata", "nvarys", "nfree", "chisqr", "redchi", "aic", "bic", "rsquared")


def fit_dataset(
    data: xr.DataArray | xr.Dataset,
    coords: Any,
    func: Callable[..., Any],
    *,
    reduce_dims: Any,
    errors: str,
    kwargs: Any,
    to: Any,
    options: dict[str, Any],
) -> xr.Dataset:
    """One fit of each variable, as the accessor documents it; what can be refused is refused before the first."""
    if errors not in ("raise", "ignore"):
        raise InputError(f'errors is {errors!r}; expected "raise" or "ignore"')
    if kwargs is not None:
        raise InputError(
            "kwargs= would go to SciPy, which does not run here: type its entries as keywords of this call "
            "(max_passes=200), and arrays that the model needs as constants={'name': array}"
        )
    if not (isinstance(coords, Iterable) or hasattr(coords, "dtype")):
        raise InputError(
            f'coords is {coords!r}; expected the name of a coordinate, an array, or several. Type: coords="time"'
        )
    given = [coords] if isinstance(coords, str) or hasattr(coords, "dtype") else list(coords)
    options["param_names"] = _packed_names(func, len(given), options)
    named = [(None, data)] if isinstance(data, xr.DataArray) else list(data.data_vars.items())
    if not named:
        raise InputError("the Dataset has no variable to fit")
    kept = {name: kept_dims(variable, given, reduce_dims) for name, variable in named}
    if to is not None:
        _require_maps(kept)
        to = path_for(to)
    parts = [xr.Dataset(coords={name: c.variable for name, c in data.coords.items() if c.ndim == 0})]
    written, plans = [], dict[str, str]()
    for name, variable in named:
        prefix = "" if name is None else f"{name}_"
        if kept[name]:
            variable = variable if to is None else in_regions(variable, kept[name])
            fitted = fit_map(variable, given, func, kept[name], options, errors=errors)
            found = fitted.found.settled() if to is None else fitted.found
            parts.append(map_dataset(found, variable, prefix, to is None and not found.lazy))
            if found.lazy and to is None:  # of a store it would not be true any more
                plans[f"{prefix}dfit_plan"] = found.plan
            written += [] if to is None else [map_part(fitted, variable, prefix)]
        else:
            parts.append(_one_fit(name, variable, given, func, options, prefix, errors))
    merged = xr.merge(parts, compat="no_conflicts", join="outer").assign_attrs({**data.attrs, **plans})
    return merged if to is None else stored(to, merged, written)


def _require_maps(kept: Mapping[Hashable | None, Sequence[Any]]) -> None:
    """Refuse to write region by region what has no regions."""
    for name, dims in kept.items():
        if not dims:
            of = "" if name is None else f" of {name!r}"
            raise InputError(
                f"to= writes a map region by region, and the fit{of} over all dimensions has none: leave it out, and "
                "type .to_zarr(path) after the fit; checkpoint='run1.ckpt' keeps its state meanwhile"
            )


def _one_fit(
    name: Hashable | None,
    variable: xr.DataArray,
    coords: Sequence[Any],
    func: Callable[..., Any],
    options: Mapping[str, Any],
    prefix: str,
    errors: str,
) -> xr.Dataset:
    """One fit over all dimensions of a variable."""
    if options.get("neighbours"):
        raise InputError("neighbours= is for maps, and this is one fit over all dimensions: leave it out")
    options = {key: value for key, value in options.items() if key != "neighbours"}
    numbers = {key: _numbers(options[key], key) for key in ("p0", "bounds")}
    checkpoint = _checkpoint_of(name, options.get("checkpoint"))
    result = fit(func, variable, coords, **{**options, **numbers, "checkpoint": checkpoint})
    if errors == "raise":
        require_success(result)
    return _variables(prefix, result, variable.attrs)


def _variables(prefix: str, result: FitResult, attrs: Mapping[Any, Any]) -> xr.Dataset:
    """The result under curvefit's names; NaN where the fit failed."""
    names = list(result.parameters.names)
    stderr = np.array([estimate.stderr for estimate in result.params.values()])
    values, matrix = result.known.values, full_covariance(result)
    if not (result.success or stopped_by_user(result)):
        values, stderr, matrix = (np.full_like(array, np.nan) for array in (values, stderr, matrix))
    said = {**attrs, "message": result.message, "fit_report": result.fit_report()}
    found: dict[str, Any] = {
        "coefficients": ("param", values, said),
        "covariance": (("cov_i", "cov_j"), matrix),
        "stderr": ("param", stderr),
        "success": bool(result.success),
        "status": int(result.status),
        **{name: getattr(result, name) for name in STATISTICS},
    }
    coords = dict.fromkeys(("param", "cov_i", "cov_j"), names)
    return xr.Dataset({f"{prefix}curvefit_{name}": value for name, value in found.items()}, coords)


def _checkpoint_of(name: Hashable | None, given: Any) -> Any:
    """Where the fit of one variable keeps its state: a folder of its own, by its name, for those of a Dataset."""
    checkpoint = as_checkpoint(given)
    if checkpoint is None:
        return False
    if name is None:
        return checkpoint
    folder = quote(str(name), safe="").replace(".", "%2E")  # a name of dots would be another folder
    return replace(checkpoint, path=f"{checkpoint.path}/{folder}")


def _packed_names(func: Callable[..., Any], count: int, options: Mapping[str, Any]) -> Sequence[str] | None:
    """Names of the parameters of ``func((x, y), a, b)``: the first argument takes several coordinates.

    Told from ``func(x, y, a, b)`` by p0 or bounds, which name an argument that would be a coordinate.
    """
    if options["param_names"] is not None or count < 2:
        return options["param_names"]
    arguments = [
        p.name for p in arguments_of(func).positional if p.name not in (options.get("constants") or ())
    ]
    typed = {n for key in ("p0", "bounds") if isinstance(options[key], Mapping) for n in options[key]}
    return arguments[1:] if typed & set(arguments[1:count]) else None


def _numbers(given: Any, what: str) -> Any:
    """p0 or bounds with 0-dimensional DataArrays as numbers; refuses arrays over dimensions."""
    if not isinstance(given, Mapping):
        return given
    return {name: _number(value, f"{what}[{name!r}]") for name, value in given.items()}


def _number(value: Any, what: str) -> Any:
    if isinstance(value, tuple | list):
        return tuple(_number(item, what) for item in value)
    if not isinstance(value, xr.DataArray):
        return value
    if value.ndim:
        raise InputError(
            f"{what} is a DataArray over {', '.join(map(str, value.dims))}; one fit over all dimensions takes one "
            "number. Type: float(array.mean())"
        )
    return float(value)
