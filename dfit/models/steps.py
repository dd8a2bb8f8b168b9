"""Steps from one level to another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import erfc

from dfit.errors import InputError
from dfit.models.base import SingleModel
from dfit.models.decays import away_from_zero
from dfit.models.estimates import extent

CENTERS = 12
WIDTHS = (0.1, -0.1, 0.025, -0.025)  # of the step, as shares of the range of x; negative ones fall

FORMS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda u: jnp.clip(u + 0.5, 0.0, 1.0),
    "atan": lambda u: 0.5 + jnp.arctan(u) / math.pi,
    "arctan": lambda u: 0.5 + jnp.arctan(u) / math.pi,
    "erf": lambda u: 0.5 * erfc(-u),
    "logistic": jax.nn.sigmoid,
}


@dataclass(frozen=True)
class StepModel(SingleModel):
    """``f(x) = amplitude * g((x - center) / sigma)`` with g from 0 to 1; a negative sigma turns it round.

    Parameters
    ----------
    form : {"linear", "arctan", "atan", "erf", "logistic"}
        g(u) is u + 1/2 between 0 and 1; 1/2 + arctan(u) / pi; (1 + erf(u)) / 2; 1 / (1 + exp(-u)).

    Parameters of the model
    -----------------------
    amplitude : the height, in the unit of y.
    center, sigma : where half of it is reached, and the width, in the unit of x.
    """

    names = ("amplitude", "center", "sigma")

    form: str = "linear"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise InputError(
                f'form is {self.form!r}; expected {", ".join(map(repr, FORMS))}. Type: StepModel(form="erf")'
            )
        super().__post_init__()

    def evaluate(self, x: Any, amplitude: Any, center: Any, sigma: Any) -> Any:
        """The formula."""
        return amplitude * FORMS[self.form]((x - center) / away_from_zero(sigma))

    def candidates(self, y: jax.Array, valid: jax.Array, *coords: jax.Array) -> jax.Array:
        """Centers over the range of x, each with some widths."""
        low, span = extent(coords[0], valid)
        places = low + span * (jnp.arange(CENTERS) + 0.5) / CENTERS
        widths = span * jnp.array(WIDTHS)
        return jnp.stack([jnp.repeat(places, widths.size), jnp.tile(widths, CENTERS)], axis=-1)
