"""Whether a traced model acts on every point by itself, told from its program alone.

A model that mixes its points (``x.max()``, ``len(x)``) would be wrong without a sign, because a fit
evaluates it in blocks.  If every operation of the program takes and gives one number per point, or one
number, it cannot; then nothing need be compiled and tried.  What is not known here is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from dfit.fingerprint import fresh
from dfit.model import Model
from dfit.precision import float64_on_cpu

# Primes, so that no array of the model's own has their length by accident but these two.
SIZES = (7, 11)
# Operations of one number per point on one number per point.
NAMES = """
abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e broadcast_in_dim cbrt ceil clamp
convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igammac
integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow rem round rsqrt
select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
KNOWN = frozenset(NAMES.split())
CALLS = frozenset({"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"})


def acts_pointwise(model: Model) -> bool:
    """True if the program of a model that JAX can trace cannot mix its points; False says nothing.

    Neither complex models nor those with constants are judged.
    """
    if model.constants:
        return False
    programs = [_program(model, size) for size in SIZES]
    if not all(_is_known(p.jaxpr, size) for p, size in zip(programs, SIZES, strict=True)):
        return False
    # The number of points itself may stand in the formula: then the two programs differ.
    first, second = (list(_written(p.jaxpr)) for p in programs)
    return first == second


def _program(model: Model, size: int) -> ClosedJaxpr:
    theta = [jax.ShapeDtypeStruct((), np.float64) for _ in model.param_names]
    coords = [jax.ShapeDtypeStruct((size,), np.float64) for _ in model.coords]
    with float64_on_cpu(), fresh(f"points {size} of {id(model)}"):
        return jax.make_jaxpr(lambda t, c: model(t, c))(theta, coords)


def _is_known(jaxpr: Jaxpr, size: int) -> bool:
    """Whether all operations are known ones on numbers and on one number per point."""
    return all(_is_real(v, ()) for v in jaxpr.constvars) and all(
        equation.primitive.name in KNOWN | CALLS
        and all(_is_real(v, (), (size,)) for v in (*equation.invars, *equation.outvars))
        and all(_is_known(inner, size) for inner in _inner(equation))
        for equation in jaxpr.eqns
    )


def _is_real(variable: Any, *shapes: tuple[int, ...]) -> bool:
    return variable.aval.shape in shapes and variable.aval.dtype.kind != "c"


def _written(jaxpr: Jaxpr) -> Iterator[Any]:
    """Operations and the numbers in them, in order, without shapes."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        yield from (float(v.val) for v in equation.invars if isinstance(v, Literal))
        for inner in _inner(equation):
            yield from _written(inner)


def _inner(equation: Any) -> Iterator[Jaxpr]:
    for value in equation.params.values():
        if isinstance(value, (Jaxpr, ClosedJaxpr)):
            yield value.jaxpr if isinstance(value, ClosedJaxpr) else value
