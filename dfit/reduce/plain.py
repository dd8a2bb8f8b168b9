"""A user's function that is called from Python on the points of a leaf: what it gives, or an error with its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dfit.advice import raised
from dfit.errors import ModelError
from dfit.model import Model
from dfit.precision import float64_on_cpu
from dfit.probe import require_derivatives, require_prediction


class PlainModel(NamedTuple):
    """A model, its constants, and the coordinates (k arrays (n,)) of the points it is called on."""

    model: Model
    constants: Any
    coords: Sequence[np.ndarray]
    complex_data: bool

    def predict(self, theta: Sequence[float]) -> np.ndarray:
        """Prediction (n,) at all parameters theta.

        Raises
        ------
        ModelError
            With the parameters and the ranges of the coordinates: where the function raises, or does not
            return one number per point.
        """
        n = self.coords[0].size
        f = self._called(self.model, theta, self.coords)
        try:
            require_prediction(self.model, f, n, self.coords, self.complex_data)
        except ModelError as error:
            raise self._placed(error, theta) from None
        if np.shape(f) == (n,) or n == 1:
            return np.asarray(f).reshape(n).astype(complex if self.complex_data else float)
        # One number for all points is right of a constant, wrong of what has looked at some of them.
        halves = [self._called(self.model, theta, [c[part] for c in self.coords]) for part in _halves(n)]
        if not all(np.array_equal(half, f, equal_nan=True) for half in halves):
            wrong = ModelError(
                f"the model {self.model.name} returned a single number for {n} points and another one for half "
                f"of them: return one number per point, an array of shape ({n},) for {n} points"
            )
            raise self._placed(wrong, theta)
        return np.broadcast_to(np.asarray(f), (n,))

    def derivatives(self, theta: Sequence[float]) -> np.ndarray:
        """The user's own derivatives (n, p) at all parameters theta.

        Raises
        ------
        ModelError
            As `predict`.
        """
        found = self._called(self.model.jacobian, theta, self.coords)
        try:
            require_derivatives(self.model, found, self.coords[0].size)
        except ModelError as error:
            raise self._placed(error, theta) from None
        return np.asarray(found)

    def _called(self, function: Any, theta: Sequence[float], coords: Sequence[np.ndarray]) -> Any:
        try:
            with float64_on_cpu():  # it may call jax.numpy
                return function(theta, coords, self.constants)
        except MemoryError:  # no fault of the model: the task is tried with less
            raise
        except Exception as error:
            raise self._placed(raised(self.model, error), theta) from error

    def _placed(self, error: ModelError, theta: Sequence[float]) -> ModelError:
        return placed(error, self.model, theta, self.coords)


def placed(
    error: ModelError, model: Model, theta: Sequence[float], coords: Sequence[np.ndarray]
) -> ModelError:
    """The error with all parameters theta and the ranges of the coordinates, k arrays (n,)."""
    values = ", ".join(f"{name} = {v:.6g}" for name, v in zip(model.param_names, theta, strict=True))
    ranges = ", ".join(
        f"{name} = {np.nanmin(c):.6g} to {np.nanmax(c):.6g}"
        for name, c in zip(model.coords, coords, strict=True)
    )
    return ModelError(f"{error}\nat {values}\nfor {coords[0].size} points with {ranges}")


def _halves(n: int) -> tuple[slice, slice]:
    return slice(n // 2), slice(n // 2, n)
