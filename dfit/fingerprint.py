"""Fingerprints of programs: equal where the program is equal, in any process and after any restart.

`of_traced` hashes what JAX traced (primitives, shapes, parameters, literals, constants); `of_code` hashes
a function that JAX cannot trace, by its bytecode and by everything it reads.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from dfit.digest import Digest
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.precision import float64_on_cpu

# JAX keeps the program of an inner `jax.jit` helper by the identity of its function, so an edited global
# would go unseen.  The value of this context is part of the key under which it is kept.
_PROGRAM = jax.make_user_context(default_value="")

NPOINTS = 7  # of the coordinates that a model is traced with; a prime, so that no shape fits by accident
NEW = "new:"  # begins a fingerprint that no other process can find again


def fresh(key: str) -> contextlib.AbstractContextManager[Any]:
    """Context in which JAX reuses only programs that were traced under the same `key`.

    Every trace of a model must run inside it, with the model's fingerprint as the key: otherwise an
    edited global of a jitted helper goes unseen.
    """
    return _PROGRAM(key)


def of_traced(func: Callable[..., Any], *arguments: Any) -> str:
    """Fingerprint (SHA-256, hex) of the program of `func` for arguments or `jax.ShapeDtypeStruct`.

    Raises what `func` raises while it is traced, JAX's tracer errors among it.
    """
    return _hash(_program_of(func, *arguments))


def of_code(func: Any) -> str:
    """Fingerprint of a callable by bytecode, defaults, closure, and the globals and helpers it reads.

    It begins with ``new:`` and never comes again if something that the callable reads has no content
    to hash, such as an open file.
    """
    return _hash(func)


def of_values(values: Mapping[str, Any]) -> str:
    """Fingerprint of named arrays, by content."""
    return _hash(dict(values))


def fingerprint(model: Model, parameters: Parameters, traceable: bool, versions: bool = True) -> str:
    """Fingerprint of a model with its fixed and tied parameters: the key of a compiled kernel.

    Values of fixed parameters, bounds and initial values do not enter; constants do, by content.
    A worker that computes another one from the unpickled model has another version of a module,
    except if it begins with ``new:``, which no one can compute again.

    Parameters
    ----------
    model : Model
    parameters : Parameters
    traceable : bool
        As `dfit.probe.traced` found.
    versions : bool
        Whether the packages that a model JAX cannot trace calls enter by version.
    """
    if traceable:
        return of_program(program_of(tangents(model, parameters), model, parameters)[0], model)
    layout = [model.packed, model.positional, model.keyword, len(model.coords)]
    mask = [bool(varies) for varies in parameters.vary]
    return _hash(["code", model.func, model.jac, *layout, mask, parameters.ties, model.constants], versions)


def of_program(program: ClosedJaxpr, model: Model) -> str:
    """Fingerprint of what `program_of` traced of a model."""
    return _hash(["traced", program, model.constants])


def program_of(func: Callable[..., Any], model: Model, parameters: Parameters) -> tuple[ClosedJaxpr, Any]:
    """What JAX traces of `predict` or `tangents` of a model, and the shapes that it returns.

    Raises what the model raises while it is traced, JAX's tracer errors among it.
    """
    with float64_on_cpu(), fresh(uuid.uuid4().hex):
        # through a new function: JAX keeps the program of one that it has seen
        trace = jax.make_jaxpr(lambda *given: func(*given), return_shape=True)
        program, shapes = trace(*abstract_arguments(model, parameters))
    return program, shapes


def predict(model: Model, parameters: Parameters) -> Callable[..., Any]:
    """Function (varying, fixed, constants, coords) -> prediction, with ties applied."""

    def prediction(varying: Any, fixed: Any, constants: Any, coords: Any) -> Any:
        return model(parameters.expand(varying, fixed), coords, constants)

    return prediction


def tangents(model: Model, parameters: Parameters) -> Callable[..., Any]:
    """The prediction with what the kernel differentiates: its tangent, or the user's derivatives."""

    def both(varying: Any, fixed: Any, constants: Any, coords: Any) -> Any:
        rest = (fixed, constants, coords)
        prediction = predict(model, parameters)
        if model.jac is not None:
            return prediction(varying, *rest), derivatives_of(model, parameters)(varying, *rest)
        return jax.jvp(lambda theta: prediction(theta, *rest), (varying,), (jnp.ones_like(varying),))

    return both


def derivatives_of(model: Model, parameters: Parameters) -> Callable[..., Any]:
    """Function (varying, fixed, constants, coords) -> the user's derivatives (B, p) by all p parameters."""

    def derivatives(varying: Any, fixed: Any, constants: Any, coords: Any) -> Any:
        return model.jacobian(parameters.expand(varying, fixed), coords, constants)

    return derivatives


def abstract_arguments(model: Model, parameters: Parameters) -> tuple[Any, ...]:
    """Shapes and types of (varying, fixed, constants, coords)."""
    varying = jax.ShapeDtypeStruct((len(parameters.varying),), np.float64)
    fixed = jax.ShapeDtypeStruct((len(parameters.fixed),), np.float64)
    constants = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in model.constants.items()}
    coords = tuple(jax.ShapeDtypeStruct((NPOINTS,), np.float64) for _ in model.coords)
    return varying, fixed, constants, coords


def _program_of(func: Callable[..., Any], *arguments: Any) -> ClosedJaxpr:
    with fresh(uuid.uuid4().hex):
        # through a new function: JAX keeps the program of one that it has seen
        return jax.make_jaxpr(lambda *given: func(*given))(*arguments)


def _hash(value: Any, versions: bool = True) -> str:
    digest = Digest(versions)
    text = digest.of(value)
    return text if digest.complete else NEW + text
