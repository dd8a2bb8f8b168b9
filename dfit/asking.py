"""What a call asks for: arguments as users give them, checked and named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from dfit.checkpoint import as_checkpoint
from dfit.data.domain import Domain, build_domain, coordinate_names
from dfit.errors import InputError
from dfit.guessing import asked_of, guessed
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.progress import Printer
from dfit.resuming import remembered
from dfit.settings import Settings
from dfit.warm_settings import as_warmup

# Arguments that every call gives anew.
NOT_REMEMBERED = (
    *("model", "data", "callback", "on_partition", "checkpoint", "resume", "verbose", "weights"),
    *("strategy", "memory_limit", "memory_fraction", "plan"),
)


def asked_for(given: Mapping[str, Any]) -> tuple[Model, Parameters, Domain, Settings]:
    """Model, parameters, data and settings from all arguments of `dfit.fit` by name."""
    if given["weights"] is not None:
        raise InputError(
            "weights= is not an argument: type sigma=1/weights for weights that multiply the residual "
            "(lmfit), or sigma=1/np.sqrt(weights) for weights of the squares"
        )
    described = _model(given)
    domain = build_domain(
        described,
        given["data"],
        given["coords"],
        sigma=given["sigma"],
        where=given["where"],
        skipna=given["skipna"],
        time_unit=given["time_unit"],
        time_origin=given["time_origin"],
    )
    p0, bounds, tie = _start(described, domain, given), given["bounds"], given["tie"]
    parameters = Parameters.resolve(described, p0, bounds, given["fixed"], tie)
    kept = {name: value for name, value in given.items() if name not in NOT_REMEMBERED}
    as_given = {field.name: given[field.name] for field in fields(Settings) if field.name in given}
    warmup = given["warmup"]
    changed = {
        "warmup": None if warmup is None else as_warmup(warmup) or False,
        "checkpoint": as_checkpoint(given["checkpoint"]),
        "call": remembered(kept, parameters),
    }
    return described, parameters, domain, Settings(**{**as_given, **changed})


def _model(given: Mapping[str, Any]) -> Model:
    model = given["model"]
    if not callable(model):
        raise InputError(
            f"the model is {type(model).__name__}, not a callable; the order is dfit.fit(model, data, coords)"
        )
    if isinstance(model, Model):  # a door has sorted its arguments
        return model
    names = coordinate_names(model, given["coords"], given["param_names"])
    return Model.from_callable(model, names, given["param_names"], given["constants"], given["jac"])


def _start(model: Model, domain: Domain, given: Mapping[str, Any]) -> Any:
    """Initial values, those that are to be guessed found in the data."""
    p0 = given["p0"]
    asked = asked_of(p0)
    if asked is not None and not asked:
        return p0
    found = guessed(model, domain, given["bounds"], given["tie"] or ())
    found = {name: value for name, value in found.items() if asked is None or name in asked}
    told = ", ".join(f"{k} = {v:.6g}" for k, v in found.items())
    Printer(given["verbose"]).tell(f"p0 from the data: {told}")
    return found if asked is None else {**p0, **found}
