"""Record: what of a fit outlives its code and its data; a file holds it, a report needs nothing else."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dfit.core.covariance import Covariance
from dfit.data.coordinates import TimeAxis
from dfit.data.domain import Domain
from dfit.data.inputs import unknown_name
from dfit.derivative import derivative
from dfit.errors import InputError
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.statistics import Estimate, Estimates, correlation, propagate
from dfit.typed import number_of


@dataclass(frozen=True)
class Labels:
    """Names and units of the data.

    Attributes
    ----------
    coords, packed : as in `Model`.
    name, attrs : of y; only attributes that are text or numbers.
    dtype : of predictions, "float64" or "complex128".
    units : of the coordinates, by name.
    time : how those that are times became numbers.
    """

    coords: tuple[str, ...] = ()
    packed: str | None = None
    name: str | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float64"
    units: dict[str, str] = field(default_factory=dict)
    time: dict[str, TimeAxis] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Record:
    """Numbers of all p_all parameters and the labels of the data.

    Attributes
    ----------
    values : (p_all,)
    gradient : (p_all, p)
        Derivatives by the varying parameters, from which ties and `derive` get standard errors.
    ties : text of each tie, by the name of the tied parameter.
    labels : Labels
    """

    values: np.ndarray
    gradient: np.ndarray
    ties: dict[str, str]
    labels: Labels


def record_of(
    model: Model | None,
    parameters: Parameters,
    theta: np.ndarray,
    stderr: np.ndarray,
    domain: Domain | None,
) -> Record:
    """Record of a fit at theta (p,) with standard errors (p,)."""
    with np.errstate(all="ignore"):
        values = np.array([float(value) for value in parameters.expand(list(theta))])
        gradient = np.zeros((values.size, theta.size))
        gradient[list(parameters.varying), range(theta.size)] = 1.0
        if parameters.ties:
            tied = [index for index, _ in parameters.ties]
            gradient[tied] = derivative(lambda x: _at(parameters.expand(x), tied), theta, stderr)
    ties = {parameters.names[index]: tie_text(tie) for index, tie in parameters.ties}
    return Record(values, gradient, ties, labels_of(model, domain))


def _at(values: list[Any], places: list[int]) -> list[Any]:
    return [values[place] for place in places]


def labels_of(model: Model | None, domain: Domain | None) -> Labels:
    """Names and units of the data of a fit."""
    labels = Labels() if model is None else Labels(model.coords, model.packed)
    if domain is None:
        return labels
    y = domain.data
    return replace(
        labels,
        name=None if y.name is None else str(y.name),
        attrs={str(k): v for k, v in y.attrs.items() if isinstance(v, (str, int, float))},
        dtype="complex128" if y.dtype.kind == "c" else "float64",
        units={n: str(a.attrs["units"]) for n, a in domain.coords.items() if "units" in a.attrs},
        time=dict(domain.time),
    )


def estimates_of(parameters: Parameters, known: Record, covariance: Covariance) -> Estimates:
    """All parameters with their standard errors and correlations."""
    stderr = propagate(known.gradient, covariance)
    varying = [parameters.names[index] for index in parameters.varying]
    table = correlation(covariance).tolist()
    correl = {
        name: {other: value for other, value in zip(varying, row, strict=True) if other != name}
        for name, row in zip(varying, table, strict=True)
    }
    return Estimates(
        [
            Estimate(
                name,
                float(known.values[index]),
                float(stderr[index]),
                float(parameters.init[index]),
                float(parameters.lower[index]),
                float(parameters.upper[index]),
                name in correl,
                known.ties.get(name),
                correl.get(name),
            )
            for index, name in enumerate(parameters.names)
        ]
    )


def tie_text(tie: Callable[..., Any]) -> str:
    """What a tie computes, from its source; its name where that cannot be found."""
    name = getattr(tie, "__name__", type(tie).__name__)
    if name != "<lambda>":
        return f"{name}(p)"
    try:
        source = textwrap.dedent(inspect.getsource(tie)).strip().rstrip(",")
    except (OSError, TypeError):
        return "a function of the others"
    # Python gives the line that a lambda stands on, which may be the inside of a call or of a dict.
    for text in (source, f"f({source})", f"{{{source}}}"):
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
        if len(found) == 1:
            return ast.unparse(found[0].body)
    return "a function of the others"


def merged(parameters: Parameters, known: Record, params: Any) -> np.ndarray:
    """Values (p_all,) of all parameters after those in `params` have replaced the fitted ones.

    Tied parameters follow, unless they are given themselves.
    """
    if not isinstance(params, Mapping):
        raise InputError(
            f"params is a {type(params).__name__}; expected values by name. Type: params={{'a': 1}}"
        )
    unknown = [name for name in params if name not in parameters.names]
    if unknown:
        raise InputError(unknown_name(str(unknown[0]), parameters.names, "parameter", "params"))
    given = {name: number_of(getattr(value, "value", value), name) for name, value in params.items()}
    values = np.array(
        [given.get(name, old) for name, old in zip(parameters.names, known.values, strict=True)]
    )
    free = [name for name in known.ties if name not in given]
    if not free:
        return values
    if not parameters.ties:
        raise InputError(
            f"a file holds no code, so {free[0]!r} (= {known.ties[free[0]]}) cannot follow. "
            f"Type: params={{..., {free[0]!r}: value}}"
        )
    followed = parameters.expand(list(values[list(parameters.varying)]), list(values[list(parameters.fixed)]))
    places = {name: index for index, name in enumerate(parameters.names)}
    for name in free:
        values[places[name]] = float(followed[places[name]])
    return values
