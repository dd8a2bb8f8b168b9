"""What `.fit` does: arguments of xarray's curvefit in, its variables out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import numpy as np
import xarray as xr

from dfit.checkpoint import as_checkpoint
from dfit.data.inputs import unknown_name
from dfit.errors import InputError
from dfit.face.ending import full_covariance, require_success
from dfit.fitting import fit
from dfit.following import stopped_by_user
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
    given = [coords] if isinstance(coords, (str, xr.DataArray)) else list(coords)
    options = {
        **options,
        "p0": _numbers(options["p0"], "p0"),
        "bounds": _numbers(options["bounds"], "bounds"),
    }
    options["param_names"] = _packed_names(func, len(given), options)
    named = [(None, data)] if isinstance(data, xr.DataArray) else list(data.data_vars.items())
    if not named:
        raise InputError("the Dataset has no variable to fit")
    for _, variable in named:
        _check_dims(variable, given, reduce_dims)
    parts = [xr.Dataset(coords={name: c.variable for name, c in data.coords.items() if c.ndim == 0})]
    for name, variable in named:
        checkpoint = _checkpoint_of(name, options.get("checkpoint"))
        result = fit(func, variable, given, **{**options, "checkpoint": checkpoint})
        if errors == "raise":
            require_success(result)
        parts.append(_variables("" if name is None else f"{name}_", result, variable.attrs))
    return xr.merge(parts, compat="no_conflicts", join="outer").assign_attrs(data.attrs)


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


def _check_dims(variable: xr.DataArray, coords: Sequence[Any], reduce_dims: Any) -> None:
    """Refuse dimensions that are neither fitted over by name nor by a coordinate along them alone."""
    if reduce_dims is ...:
        return
    several = isinstance(reduce_dims, Sequence | set | frozenset) and not isinstance(reduce_dims, str)
    named: list[Hashable] = [] if reduce_dims is None else list(reduce_dims) if several else [reduce_dims]
    what = "the data" if variable.name is None else repr(variable.name)
    for dim in named:
        if dim not in variable.dims:
            raise InputError(f"{what}: {unknown_name(str(dim), variable.dims, 'dimension', 'reduce_dims')}")
    fitted = set(named)
    for coord in coords:
        if isinstance(coord, str) and coord not in variable.coords and coord not in variable.dims:
            known = [*variable.coords, *variable.dims]
            raise InputError(f"{what}: {unknown_name(coord, known, 'coordinate', 'coords')}")
        array = variable[coord] if isinstance(coord, str) else coord
        fitted |= set(getattr(array, "dims", ())) if np.ndim(array) == 1 else set()
    kept = [dim for dim in variable.dims if dim not in fitted]
    if kept:
        listed = ", ".join(repr(dim) for dim in (*named, *kept))
        raise InputError(
            f"{what} would be fitted for each point along {', '.join(map(str, kept))}; fits per pixel over kept "
            f"dimensions are not there yet. For one fit over every dimension type: reduce_dims=... "
            f"(the three dots), or reduce_dims=({listed}{',' if len(named) + len(kept) == 1 else ''})"
        )


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
            f"{what} is a DataArray over {', '.join(map(str, value.dims))}; one fit takes one number, because fits "
            "per pixel are not there yet. Type: float(array.mean())"
        )
    return float(value)
