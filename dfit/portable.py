"""A result as a dataset of numbers, and back; a file of it holds no code."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dfit.core.covariance import Covariance
from dfit.core.trust_region import Status
from dfit.data.coordinates import TimeAxis
from dfit.errors import InputError
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.partitions import Faults, LeftOut
from dfit.record import Labels, Record
from dfit.statistics import Run, Tallies

if TYPE_CHECKING:
    from dfit.result import FitResult

FORMAT = 1
PACKAGES = ("dfit", "jax", "numpy", "xarray")
OVER_VARYING = ("undetermined", "at_lower", "at_upper")
TALLIES = ("ndata", "wsum", "ymean", "tss", "yy", "lag1")
RUN = (
    "npasses",
    "nfev",
    "points_per_pass",
    "bytes_per_pass",
    "bytes_read",
    "elapsed_s",
    "points_per_s",
    "compilations",
    "peak_bytes",
    "workers",
)
STATISTICS = ("chisqr", "redchi", "aic", "bic", "rsquared", "nvarys", "nfree")


def dataset_of(result: FitResult) -> xr.Dataset:
    """Numbers over `param`, covariance over (`cov_i`, `cov_j`), scalar statistics; words as attributes."""
    params, known, covariance = result.params, result.known, result.covariance
    table = params.to_dataframe()
    over_param = {
        "value": table["value"],
        "stderr": table["stderr"],
        "init": table["init_value"],
        "min": table["min"],
        "max": table["max"],
    }
    variables: dict[str, Any] = {n: ("param", c.to_numpy(dtype=float)) for n, c in over_param.items()}
    variables["vary"] = ("param", table["vary"].to_numpy(dtype=np.int8))
    variables["gradient"] = (("param", "cov_i"), known.gradient)
    variables["covariance"] = (("cov_i", "cov_j"), result.covar)
    variables["stderr_varying"] = ("cov_i", np.asarray(covariance.stderr, dtype=float))
    for name in OVER_VARYING:
        variables[name] = ("cov_i", np.asarray(getattr(covariance, name), dtype=np.int8))
    for source, names in ((result, STATISTICS), (result.tallies, TALLIES), (result.run, RUN)):
        variables |= {name: ((), getattr(source, name)) for name in names}
    single = {
        "cost": result.cost,
        "relative_offset": result.relative_offset,
        "rank": covariance.rank,
        "condition": covariance.condition,
        "groups": result.groups or 0,
        "covariance_redchi": covariance.redchi,
    }
    variables |= {name: ((), value) for name, value in single.items()}
    varying = np.array(result.var_names, dtype=object)
    coords = {"param": np.array(list(params), dtype=object), "cov_i": varying, "cov_j": varying}
    return xr.Dataset(variables, coords, _attributes(result))


def fields_of(
    dataset: xr.Dataset, model: Any = None, constants: Any = None, jac: Any = None
) -> dict[str, Any]:
    """Fields of the FitResult that a dataset from `dataset_of` holds.

    Raises
    ------
    InputError
        If the dataset is none of these, or the model has other parameters.
    """
    attrs = dataset.attrs
    if "dfit_format" not in attrs:
        raise InputError(
            f"the dataset holds {list(dataset.data_vars)[:4]}, not the result of a fit; "
            "expected what result.to_dataset() gave. Type: FitResult.from_dataset(xr.open_zarr(path))"
        )
    if int(attrs["dfit_format"]) > FORMAT:
        raise InputError(
            f"the file has format {attrs['dfit_format']}, this dfit reads up to {FORMAT}. "
            "Type: pip install --upgrade dfit"
        )
    names = tuple(str(name) for name in dataset["param"].values)
    vary = dataset["vary"].values.astype(bool)
    labels = _labels(attrs["labels"])
    words = json.loads(attrs["run"])
    return {
        "model": _model(model, names, labels, constants, jac),
        "parameters": Parameters(
            names,
            init=dataset["init"].values.astype(float),
            lower=dataset["min"].values.astype(float),
            upper=dataset["max"].values.astype(float),
            vary=vary,
        ),
        "theta": dataset["value"].values.astype(float)[vary],
        "covariance": _covariance(dataset),
        "cost": float(dataset["cost"]),
        "tallies": Tallies(
            dropped=json.loads(attrs["dropped"]), **{name: _scalar(dataset, name) for name in TALLIES}
        ),
        "run": Run(
            form=words["form"],
            dims=tuple(words["dims"]),
            notes=tuple(words["notes"]),
            **{name: _scalar(dataset, name) for name in RUN},
        ),
        "status": Status[attrs["status"]],
        "message": attrs["message"],
        "success": bool(attrs["success"]),
        "loss": attrs["loss"],
        "f_scale": float(attrs["f_scale"]),
        "absolute_sigma": bool(attrs["absolute_sigma"]),
        "cov_kind": attrs["cov_kind"] or None,
        "groups": int(dataset["groups"]) or None,
        "relative_offset": float(dataset["relative_offset"]),
        "faults": _faults(attrs.get("faults", "{}")),
        "record": Record(
            dataset["value"].values.astype(float),
            dataset["gradient"].values.astype(float),
            json.loads(attrs["ties"]),
            labels,
        ),
    }


def _attributes(result: FitResult) -> dict[str, Any]:
    words = {name: getattr(result.run, name) for name in ("form", "dims", "notes")}
    return {
        "dfit_format": FORMAT,
        "title": f"result of dfit, 1 fit over {', '.join(str(dim) for dim in result.run.dims)}",
        "message": result.message,
        "status": Status(result.status).name,
        "success": int(result.success),
        "loss": result.loss,
        "f_scale": float(result.f_scale),
        "absolute_sigma": int(result.absolute_sigma),
        "cov_kind": result.cov_kind or "",
        "covariance_note": result.covariance.note,
        "ties": json.dumps(result.known.ties),
        "dropped": json.dumps(result.tallies.dropped),
        "run": json.dumps(words, default=str),
        "labels": json.dumps(asdict(result.known.labels), default=str),
        "partial": int(result.partial),
        "faults": json.dumps(asdict(result.faults)),
        "versions": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def _covariance(dataset: xr.Dataset) -> Covariance:
    flags = {name: dataset[name].values.astype(bool) for name in OVER_VARYING}
    return Covariance(
        matrix=dataset["covariance"].values.astype(float),
        stderr=dataset["stderr_varying"].values.astype(float),
        rank=int(dataset["rank"]),
        nfree=int(dataset["nfree"]),
        redchi=float(dataset["covariance_redchi"]),
        condition=float(dataset["condition"]),
        note=dataset.attrs["covariance_note"],
        **flags,
    )


def _model(func: Any, names: tuple[str, ...], labels: Labels, constants: Any, jac: Any) -> Model | None:
    if func is None:
        return None
    if isinstance(func, Model):
        model = func
    else:
        model = Model.from_callable(func, labels.coords, names, constants, jac, labels.packed)
    if model.param_names != names or model.coords != labels.coords:
        raise InputError(
            f"the model takes {(*model.coords, *model.param_names)}, the file holds "
            f"{(*labels.coords, *names)}; expected the function that was fitted"
        )
    return model


def _labels(text: str) -> Labels:
    words = json.loads(text)
    words["coords"] = tuple(words["coords"])
    words["time"] = {name: TimeAxis(**axis) for name, axis in words["time"].items()}
    return Labels(**words)


def _faults(text: str) -> Faults:
    words = json.loads(text)
    left_out = tuple(
        LeftOut(**{**one, "ranges": {dim: (a, b) for dim, (a, b) in one["ranges"].items()}})
        for one in words.pop("left_out", ())
    )
    return Faults(**words, left_out=left_out)


def _scalar(dataset: xr.Dataset, name: str) -> Any:
    return dataset[name].values.item()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
