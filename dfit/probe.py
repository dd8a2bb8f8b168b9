"""Trying a model before the fit: can JAX trace it, does it return one value per point?"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from dfit.advice import raised, warn_float32, warn_narrow, warn_untraceable
from dfit.elementwise import acts_pointwise
from dfit.errors import ModelError
from dfit.fingerprint import NEW, NPOINTS, derivatives_of, fresh, of_program, predict, program_of, tangents
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.precision import float64_on_cpu

# Of JAX's errors, those that say "this Python code needs the values".
TRACER_ERRORS = (
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.UnexpectedTracerError,
)
# What else NumPy code raises when it meets a tracer; a bug of the user's may raise them too.
NUMPY_ERRORS = (TypeError, ValueError, AttributeError, IndexError, NotImplementedError)
SAMPLE = 48  # points of the sample that the model is tried on
# Two blocks of a right model may differ by rounding, which cancellation in the model may amplify; a
# model that mixes its points differs by far more.
POINTWISE_TOLERANCE = 1e-6
# Fingerprints by the program of the prediction alone, whose trace costs half of one with derivatives.
_differentiated: dict[str, str] = {}


def traced(model: Model, parameters: Parameters) -> str | None:
    """Fingerprint of a model that JAX can trace and differentiate, so that it runs compiled; None of another.

    Warns
    -----
    DfitWarning
        Where it cannot: with the line of the model that stands in the way, its `jnp` form and the cost; and
        for a captured float32 JAX array, which limits a float64 fit.

    Raises
    ------
    ModelError
        If the model raises anything but JAX's tracer errors, or if its prediction has not the shape
        (B,) or () for B points.
    """
    warn_float32(model)
    try:
        prediction, shape = program_of(predict(model, parameters), model, parameters)
    except TRACER_ERRORS as error:
        warn_untraceable(model, parameters, error)
        return None
    except NUMPY_ERRORS as error:
        _require_numpy(model, parameters, error)
        return None
    except Exception as error:
        raise raised(model, error) from error
    require_prediction(model, shape, NPOINTS)
    outline = _outline(model, prediction)
    if outline not in _differentiated:
        key = _differentiable(model, parameters)
        if outline is None or key is None:
            return key
        _differentiated[outline] = key
    return _differentiated[outline]


def _differentiable(model: Model, parameters: Parameters) -> str | None:
    """Fingerprint of a model whose prediction JAX has traced, None where it cannot trace the derivatives."""
    try:
        program, _ = program_of(tangents(model, parameters), model, parameters)
    except NUMPY_ERRORS as error:
        _require_numpy(model, parameters, error)
        return None
    except Exception as error:
        raise raised(model, error) from error
    if "custom_lin" in set(_primitives(program.jaxpr)):
        warn_untraceable(model, parameters, NotImplementedError("jax.custom_vjp has no forward derivative"))
        return None
    return of_program(program, model)


def _outline(model: Model, prediction: ClosedJaxpr) -> str | None:
    """Hash of a prediction's program where it tells the derivatives; None where they are the user's own."""
    if model.jac is not None or any(name.startswith("custom_") for name in _primitives(prediction.jaxpr)):
        return None
    key = of_program(prediction, model)
    return None if key.startswith(NEW) else key


def _require_numpy(model: Model, parameters: Parameters, error: Exception) -> None:
    """Judge an exception raised under tracing that is none of the tracer errors: only warn if it is JAX's.

    NumPy code meets tracers in more ways than JAX has errors for (``y[y < 0] = 0`` is a TypeError).  If
    the same model runs on plain arrays, tracing was the reason; if not, the exception is the user's.
    """
    points = [np.linspace(1.0, 2.0, NPOINTS) for _ in model.coords]
    theta = parameters.expand(parameters.init[list(parameters.varying)].tolist())
    try:
        with float64_on_cpu(), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(theta, points)
            if model.jac is not None:
                model.jacobian(theta, points)
    except Exception as own:
        raise raised(model, own) from own
    warn_untraceable(model, parameters, error)


def _primitives(jaxpr: Jaxpr) -> Iterator[str]:
    """Names of the primitives of a program and of all programs inside it."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
                if isinstance(inner, Jaxpr):
                    yield from _primitives(inner)


def check(
    model: Model,
    parameters: Parameters,
    coords: Sequence[np.ndarray],
    is_traceable: bool,
    complex_data: bool = False,
) -> None:
    """Try the model at its initial values on a sample of points.

    Parameters
    ----------
    model : Model
    parameters : Parameters
    coords : k arrays (n,)
        Coordinates of some valid points.
    is_traceable : bool
        Whether to run it compiled.
    complex_data : bool, optional
        Whether a complex prediction is expected.

    Raises
    ------
    ModelError
        If it raises; if it does not return one real (or complex) number per point; or if its value at
        a point depends on which other points stand in the array, as with ``x.max()``: it would be
        wrong without a sign, because a fit evaluates it in blocks.
    """
    if is_traceable and model.jac is None and acts_pointwise(model):
        return
    count = len(coords[0])
    chosen = np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(int))
    points = [np.asarray(c, dtype=np.float64)[chosen] for c in coords]
    run = _runner(model, predict(model, parameters), parameters, is_traceable)
    whole = run(points)
    require_prediction(model, whole, len(chosen), points, complex_data)
    if model.jac is not None:
        derivatives = _runner(model, derivatives_of(model, parameters), parameters, is_traceable)(points)
        require_derivatives(model, derivatives, len(chosen))
    elif not is_traceable:
        warn_narrow(model, np.asarray(whole).dtype)
    whole = np.broadcast_to(np.asarray(whole), (len(chosen),))
    # what one rounding of the coordinates does, towards their middle to stay where the model is defined
    nudged = run([np.nextafter(c, np.median(c)) for c in points])
    noise = np.abs(np.broadcast_to(np.asarray(nudged), whole.shape) - whole)
    third = len(chosen) // 3
    for start in (0, third, len(chosen) - third) if third else ():
        block = slice(start, start + third)
        alone = run([c[block] for c in points])
        _check_pointwise(
            model, alone, whole[block], np.max(noise[np.isfinite(noise)], initial=0.0), points, block
        )


def _runner(
    model: Model, func: Callable[..., Any], parameters: Parameters, is_traceable: bool
) -> Callable[[Sequence[np.ndarray]], Any]:
    """Function coords -> what `func` gives at the initial values, compiled if possible."""
    varying = parameters.init[list(parameters.varying)]
    fixed = parameters.init[list(parameters.fixed)]
    compiled, key = jax.jit(lambda *given: func(*given)), uuid.uuid4().hex

    def run(points: Sequence[np.ndarray]) -> Any:
        try:
            if not is_traceable:
                with float64_on_cpu():  # it may call jax.numpy
                    return func(varying, fixed, model.constants, points)
            with float64_on_cpu(), fresh(key):
                return np.asarray(compiled(varying, fixed, model.constants, tuple(points)))
        except Exception as error:
            raise raised(model, error) from error

    return run


def require_derivatives(model: Model, derivatives: Any, npoints: int) -> None:
    """Refuse derivatives (n, p) of a user's own `jac` that have another shape."""
    shape = np.shape(derivatives)
    expected = (npoints, len(model.param_names))
    if shape != expected:
        raise ModelError(
            f"jac of the model {model.name} returned shape {shape} for {npoints} points, expected {expected}, "
            f"one column for each of {', '.join(model.param_names)}: type return np.stack([...], axis=-1)"
        )


def require_prediction(
    model: Model,
    result: Any,
    npoints: int,
    points: Sequence[np.ndarray] | None = None,
    complex_data: bool = True,
) -> None:
    """Refuse a prediction that is not one floating-point number for each of `npoints` points."""
    sample = "" if points is None else "; tried with " + _shown(model, points)
    advice = f"return one number per point, an array of shape ({npoints},) for {npoints} points"
    if result is None:
        raise ModelError(f"the model {model.name} returned None: end it with a return statement")
    is_abstract = isinstance(result, jax.ShapeDtypeStruct)
    if points is None and not is_abstract:
        raise ModelError(
            f"the model {model.name} returned a {type(result).__name__}, expected an array: "
            f"type return jnp.stack([...]), or jnp.sum(jnp.stack([...]), axis=0)"
        )
    if isinstance(result, np.ma.MaskedArray):
        raise ModelError(
            f"the model {model.name} returned a masked array{sample}: type .filled(value), "
            "or leave points out by where="
        )
    if not is_abstract:
        result = np.asarray(result)
    if result.shape not in ((npoints,), ()):
        raise ModelError(
            f"the model {model.name} returned shape {tuple(result.shape)} for {npoints} points{sample}: {advice}"
        )
    kind = np.dtype(result.dtype).kind
    if kind in "biu":
        raise ModelError(
            f"the model {model.name} returned values of dtype {result.dtype}{sample}: whole numbers do not follow "
            "a small change of the parameters, so a fit sees no effect of them. Type return 1.0 * (...) where "
            "they are meant, else leave out what rounds"
        )
    if kind not in "fc":
        raise ModelError(f"the model {model.name} returned values of dtype {result.dtype}{sample}: {advice}")
    if kind == "c" and not complex_data:
        raise ModelError(
            f"the model {model.name} returned complex values for real data{sample}: "
            "type return jnp.real(...) or jnp.abs(...)"
        )


def _check_pointwise(
    model: Model,
    alone: Any,
    expected: np.ndarray,
    noise: float,
    points: Sequence[np.ndarray],
    block: slice,
) -> None:
    """Refuse a model whose values change when other points are left out."""
    found = np.broadcast_to(np.asarray(alone), expected.shape)
    finite = np.isfinite(found) & np.isfinite(expected)
    scale = np.max(np.abs(expected[finite]), initial=0.0)
    wrong = np.abs(found[finite] - expected[finite]) > POINTWISE_TOLERANCE * scale + 100 * noise
    if wrong.any() or not np.array_equal(np.isnan(found), np.isnan(expected)):
        raise ModelError(
            f"the model {model.name} gives other values at the same points when other points are left out "
            f"({_shown(model, [c[block] for c in points])}: {expected[0]:.6g} among {len(points[0])} points, "
            f"{found[0]:.6g} among {len(expected)}): a fit evaluates it in blocks, so numbers that all points "
            "share (a maximum, a mean, a length, the first point) must come from outside, type "
            "constants={'name': value}"
        )


def _shown(model: Model, points: Sequence[np.ndarray]) -> str:
    """First points of a sample, for a message."""
    lists = [", ".join(f"{v:.6g}" for v in c[:3]) + (", ..." if len(c) > 3 else "") for c in points]
    return ", ".join(f"{name} = [{text}]" for name, text in zip(model.coords, lists, strict=True))
