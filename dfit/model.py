"""Model: the prediction f(coordinates, theta), the names of its parameters and its constants."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np

from dfit.captured import captured, inner_function
from dfit.errors import InputError
from dfit.precision import float64_on_cpu
from dfit.signature import lay_out, name_of

MAX_BLOB_BYTES = 1_000_000  # it travels in every task; arrays go once per worker, as constants


@dataclass(frozen=True, eq=False)
class Model:
    """A callable with its arguments sorted into coordinates, parameters and constants.

    Attributes
    ----------
    func : callable
        The user's function, taken out of `jax.jit` where it was jitted (a jitted one keeps a stale
        program after a global has changed).
    coords : tuple of str
        Names of the coordinates, in the order of the arguments.
    param_names : tuple of str
        Names of all p parameters, in the order of theta.
    packed : {None, "tuple", "array"}
        None: one argument per coordinate.  Otherwise the first argument takes all k of them: as a
        tuple, or stacked into one array (k, B).
    constants : dict of str to ndarray
        Arrays that the function takes under these names beside the parameters.
    jac : callable or None
        Derivatives (B, p) with the same arguments as `func`, scipy's meaning.
    defaults : dict of str to float
        Initial values that the signature gives.
    positional, keyword
        What follows the coordinates in a call: indices of parameters and names of constants.
    """

    func: Callable[..., Any]
    coords: tuple[str, ...]
    param_names: tuple[str, ...]
    packed: str | None
    constants: dict[str, np.ndarray]
    jac: Callable[..., Any] | None
    defaults: dict[str, float]
    positional: tuple[int | str, ...]
    keyword: tuple[tuple[str, int | str], ...]

    @classmethod
    def from_callable(
        cls,
        func: Callable[..., Any],
        coords: str | Sequence[str],
        param_names: Sequence[str] | None = None,
        constants: Mapping[str, Any] | None = None,
        jac: Callable[..., Any] | None = None,
        packed: str | None = None,
    ) -> Model:
        """Model of a callable ``f(coordinates..., parameters...)``.

        Parameters
        ----------
        func : callable
            Function, partial, method, object with ``__call__``, ufunc or jitted function.
        coords : str or sequence of str
            Names of the coordinates: the first arguments, one each.
        param_names : sequence of str, optional
            Names of the parameters where the signature does not tell (``*args``), names other than
            the signature's, or those that are fitted while the rest keep their defaults.
        constants : mapping of str to array_like, optional
            Arrays that the function takes by these names; they are not parameters.
        jac : callable, optional
            Derivatives (B, p), with the arguments of `func`.
        packed : {"tuple", "array"}, optional
            The first argument takes all coordinates at once.  Found out by itself ("tuple") if
            `param_names` leaves only one argument for several coordinates.

        Raises
        ------
        InputError
            If names and signature do not fit.
        """
        _require_callable(func, "the model")
        if jac is not None:
            _require_callable(jac, "jac")
        coords = (coords,) if isinstance(coords, str) else tuple(coords)
        names = (param_names,) if isinstance(param_names, str) else param_names
        arrays = {str(name): _constant(name, value) for name, value in (constants or {}).items()}
        func = unwrap(func)
        layout = lay_out(func, coords, names, tuple(arrays), packed)
        return cls(
            func=func,
            coords=coords,
            param_names=layout.param_names,
            packed=layout.packed,
            constants=arrays,
            jac=None if jac is None else unwrap(jac),
            defaults=layout.defaults,
            positional=layout.positional,
            keyword=layout.keyword,
        )

    @property
    def name(self) -> str:
        """Name of the function."""
        return name_of(self.func)

    def __call__(
        self, theta: Sequence[Any], coords: Sequence[Any], constants: Mapping[str, Any] | None = None
    ) -> Any:
        """Prediction (B,) at theta (p,) for coordinates (k arrays of B points), as `func` returns it."""
        return self._call(self.func, theta, coords, constants)

    def jacobian(
        self, theta: Sequence[Any], coords: Sequence[Any], constants: Mapping[str, Any] | None = None
    ) -> Any:
        """Derivatives (B, p) as the user's `jac` gives them; a model without `jac` has none."""
        if self.jac is None:
            raise InputError(f"the model {self.name} was given no jac: type jac=your_function")
        return self._call(self.jac, theta, coords, constants)

    def _call(self, func: Callable[..., Any], theta: Any, coords: Any, constants: Any) -> Any:
        known = self.constants if constants is None else constants

        def value(slot: int | str) -> Any:
            return known[slot] if isinstance(slot, str) else theta[slot]

        positional = [value(slot) for slot in self.positional]
        keyword = {name: value(slot) for name, slot in self.keyword}
        return func(*self._leading(coords), *positional, **keyword)

    def _leading(self, coords: Sequence[Any]) -> tuple[Any, ...]:
        if self.packed is None:
            return tuple(coords)
        if self.packed == "tuple":
            return (tuple(coords),)
        plain = all(isinstance(c, np.ndarray) for c in coords)
        return (np.stack(coords) if plain else jnp.stack(coords),)

    def to_blob(self) -> bytes:
        """Pickle of the model without its constants, small enough to travel in every task.

        Raises
        ------
        InputError
            If it is larger than 1 MB; the message names the largest array that the function holds.
        """
        blob: bytes = cloudpickle.dumps(replace(self, constants={}))
        if len(blob) > MAX_BLOB_BYTES:
            raise InputError(self._too_large(len(blob)))
        _PICKLED_HERE[blob] = self
        return blob

    @staticmethod
    def from_blob(blob: bytes, constants: Mapping[str, np.ndarray]) -> Model:
        """Model from `to_blob`, with its constants given back.

        In the process that pickled it, the model itself: to load a class of ``__main__`` there would
        replace the methods of the user's own class by copies that no longer see its globals.
        """
        model = _PICKLED_HERE.get(blob)
        if model is None:
            with float64_on_cpu():  # a captured float64 array would come back as float32
                model = cloudpickle.loads(blob)
        return replace(model, constants=dict(constants))

    def _too_large(self, size: int) -> str:
        arrays = [(getattr(v, "nbytes", 0), name) for name, v in captured(self.func)]
        largest, name = max(arrays, default=(0, ""))
        holds = f", of which {name!r} is {largest / 1e6:.1f} MB" if largest > 0.1 * size else ""
        key = name.rpartition(".")[2] if holds and name.rpartition(".")[2].isidentifier() else "name"
        return (
            f"the model {self.name} pickles to {size / 1e6:.1f} MB{holds}; more than 1 MB is refused: make the "
            f"array an argument of the model and type constants={{{key!r}: {key if holds else 'array'}}}"
        )


_PICKLED_HERE: weakref.WeakValueDictionary[bytes, Model] = weakref.WeakValueDictionary()


def unwrap(func: Callable[..., Any]) -> Callable[..., Any]:
    """The Python function inside `jax.jit`, also under a partial or a bound method."""
    if isinstance(func, functools.partial):
        return functools.partial(unwrap(func.func), *func.args, **func.keywords)
    if isinstance(func, types.MethodType):
        return types.MethodType(unwrap(func.__func__), func.__self__)
    inner = inner_function(func) if isinstance(func, jax.stages.Wrapped) else None
    return func if inner is None else unwrap(inner)


def _require_callable(func: object, what: str) -> None:
    if callable(func):
        return
    inner = getattr(func, "func", None)
    line = (
        "pass its function, model.func"
        if callable(inner)
        else "def model(x, a, b): return a * jnp.exp(-x / b)"
    )
    raise InputError(f"{what} is {type(func).__name__}, not a callable: {line}")


def _constant(name: object, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise InputError(
            f"constants[{name!r}] has dtype {array.dtype}, expected numbers: "
            f"type constants={{{name!r}: np.asarray({name}, dtype=float)}}"
        )
    return array
