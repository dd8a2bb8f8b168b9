"""Compiled kernels of this process, found by content.

A model that is pickled to a worker is a new function object in every task, and ``jax.jit`` would
compile it again each time.  So a task carries a `Recipe`, small bytes with a fingerprint, and the
process keeps what it built from the first one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np

from dfit import fingerprint
from dfit.advice import raised
from dfit.core.differences import differences, without_noise
from dfit.core.kernel import Layout, Leaf, Scalars, as_given, forward, leaf_kernel, row_kernel
from dfit.errors import ModelError, WorkerError
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.precision import float64_on_cpu
from dfit.reduce.plain import PlainModel, placed

KERNELS_KEPT = 64
# Two thirds of the compiler's time, and the code is as fast: loops over a block and small matrices.
COMPILER = {"xla_cpu_use_fusion_emitters": False}

FROM_CALLBACK = "CpuCallback error"  # how JAX reports what a function raised that compiled code calls


@dataclass(frozen=True)
class Recipe:
    """All that a process needs to build a kernel.

    Attributes
    ----------
    fingerprint : content of the model, see `dfit.fingerprint`; a worker checks its own against it.
    model, parameters : pickled `Model` (without constants) and `Parameters`.
    name : the model's name, for messages.
    traceable : whether JAX can trace it; otherwise derivatives are finite differences.
    layout : see `dfit.core.kernel`.
    typical : sizes of the varying parameters, where derivatives are differences by them; else None.
    """

    fingerprint: str
    model: bytes
    parameters: bytes
    name: str
    traceable: bool
    layout: Layout
    typical: tuple[float, ...] | None = None


# Of varying parameters (p,): their sizes, the unit of a step by differences, and the bounds that it keeps to.
Box = tuple[np.ndarray, np.ndarray, np.ndarray]


class Kernel:
    """A compiled leaf kernel.

    Attributes
    ----------
    function : what it compiles.
    temporary_bytes, flops_per_point : as the compiler counts them, once it has compiled; 0 where it does not say.
    """

    def __init__(self, recipe: Recipe, constants: Mapping[str, np.ndarray]) -> None:
        self.recipe = recipe
        self._traces = self._told = 0
        self.temporary_bytes, self.flops_per_point = 0, 0.0
        self._ready = False
        self._model = Model.from_blob(recipe.model, constants)
        self._parameters: Parameters = cloudpickle.loads(recipe.parameters)
        _require_program(recipe, self._model, self._parameters)
        build = row_kernel if recipe.layout.form == "groups" else leaf_kernel
        evaluate = self.evaluate() if recipe.traceable else as_given
        self.function = build(evaluate, recipe.layout)
        self._compiled = jax.jit(self.counted(self.function), compiler_options=COMPILER)
        self._tangent = jax.jit(self._along)
        self._lock = threading.Lock()

    def counted(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its traces counted as compilations."""

        def traced(*operands: Any) -> Any:
            self._traces += 1
            return kernel(*operands)

        return traced

    def evaluate(self) -> Callable[..., Any]:
        """Value and derivatives of a traceable model, see `dfit.core.kernel.Evaluate`."""
        if self._model.jac is None:
            return forward(self._predict)

        def evaluate(theta: Any, coords: Any, given: Any, context: Any) -> Any:
            return self._predict(theta, coords, context), self._jacobian(theta, coords, context)

        return evaluate

    def _predict(self, theta: Any, coords: Sequence[Any], context: Any) -> Any:
        held, constants = context
        try:
            f = self._model(self._parameters.expand(theta, held), coords, constants)
        except Exception as error:  # of this number of points only: it has been tried with others
            raise raised(self._model, error) from error
        return jnp.broadcast_to(jnp.asarray(f), coords[0].shape)

    def _jacobian(self, theta: Any, coords: Sequence[Any], context: Any) -> Any:
        """The user's derivatives by all parameters, made derivatives by those that vary."""
        held, constants = context
        full = self._model.jacobian(self._parameters.expand(theta, held), coords, constants)
        by_varying = jax.jacfwd(lambda at: jnp.stack(self._parameters.expand(at, held)))(theta)
        return (jnp.asarray(full) @ by_varying).T

    def __call__(self, theta: np.ndarray, leaf: Leaf, scalars: Scalars) -> Any:
        """What the kernel of the recipe gives for one leaf, as NumPy arrays."""
        if not self.recipe.traceable:
            leaf = leaf._replace(given=self.by_differences(theta, leaf, scalars.context))
        try:
            with float64_on_cpu(), fingerprint.fresh(self.recipe.fingerprint):
                return self._run(theta, leaf, scalars)
        except ModelError as error:
            raise self._placed(error, theta, leaf, scalars) from error.__cause__
        except (
            jax.errors.JaxRuntimeError,
            ValueError,
        ) as error:  # the second where a thread of JAX's meets it
            if FROM_CALLBACK not in str(error):
                raise
            raise self._placed(raised(self._model, error), theta, leaf, scalars) from error

    def _run(self, theta: np.ndarray, leaf: Leaf, scalars: Scalars) -> Any:
        if self._ready:
            return jax.tree.map(np.asarray, self._compiled(theta, leaf, scalars))
        # Threads that meet here first would each compile.
        with self._lock:
            out = jax.tree.map(np.asarray, self._compiled(theta, leaf, scalars))
            # The program that has just been compiled, and no other.
            self._analyse(self._compiled.lower(theta, leaf, scalars).compile())
            self._ready = True
            return out

    def _analyse(self, compiled: Any) -> None:
        """Keep what the compiler says of a program, where it says something."""
        memory, counts = compiled.memory_analysis(), compiled.cost_analysis()
        if memory is not None:
            self.temporary_bytes = int(memory.temp_size_in_bytes)
        if counts is not None:
            # A loop's body is counted once: it is a block.
            self.flops_per_point = float(counts.get("flops", 0.0)) / self.recipe.layout.block

    def _placed(self, error: ModelError, theta: np.ndarray, leaf: Leaf, scalars: Scalars) -> ModelError:
        full = [float(v) for v in self._parameters.expand(theta, scalars.context[0])]
        return placed(error, self._model, full, [np.asarray(c[: leaf.n], np.float64) for c in leaf.coords])

    def tangent(self, theta: np.ndarray, step: np.ndarray, leaf: Leaf, context: Any) -> np.ndarray:
        """Values f + J step of the model's tangent at theta, at the points of a leaf (S,)."""
        if not self.recipe.traceable:
            f, jacobian = self.by_differences(theta, leaf, context)
            return np.asarray(f + step @ jacobian)
        with float64_on_cpu(), fingerprint.fresh(self.recipe.fingerprint):
            return np.asarray(self._tangent(theta, step, leaf.coords, context))

    def value(self, theta: np.ndarray, leaf: Leaf, context: Any) -> np.ndarray:
        """Values f of the model at the points of a leaf (S,); not compiled."""
        if not self.recipe.traceable:
            return self.by_differences(theta, leaf, context)[0]
        with float64_on_cpu(), fingerprint.fresh(self.recipe.fingerprint):
            return np.asarray(
                self._predict(theta, [jnp.asarray(c, jnp.float64) for c in leaf.coords], context)
            )

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the model's coordinates."""
        return self._model.coords

    def _along(self, theta: Any, step: Any, coords: Sequence[Any], context: Any) -> Any:
        coords = [jnp.asarray(c, jnp.float64) for c in coords]
        # A user's own derivative may be the only one.
        f, jacobian = self.evaluate()(theta, coords, (), context)
        return f + step @ jacobian

    @property
    def traces(self) -> int:
        """Compilations so far; -1 until the first has ended."""
        return self._traces if self._ready else -1

    def new_compilations(self) -> int:
        """Compilations since the last call of this."""
        with self._lock:
            new, self._told = self._traces - self._told, self._traces
            return new

    def by_differences(
        self, theta: np.ndarray, leaf: Leaf, context: Any, box: Box | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Value (S,) and derivatives (p, S) of a model that JAX cannot trace, at the points of a leaf.

        ``box`` where it is not that of the recipe's parameters.
        """
        n, size = leaf.n, leaf.y.size
        valid = np.ones(n, bool) if leaf.where is None else leaf.where[:n].copy()
        coords = [np.asarray(c[:n], np.float64) for c in leaf.coords]
        for c in coords:
            valid &= np.isfinite(c)
        if not valid.any():
            shape = (theta.size, size)
            return np.zeros(size), np.zeros(shape)
        # The same stand-in as in the kernel: the model sees no missing value.
        coords = [np.where(valid, c, c[np.argmax(valid)]) for c in coords]
        held, constants = context
        plain = PlainModel(self._model, constants, coords, self.recipe.layout.is_complex)
        p = self._parameters
        varying = list(p.varying)

        def all_of(at: np.ndarray) -> list[float]:
            return [float(v) for v in p.expand(at, held)]

        box = box or (p.typical[varying], p.lower[varying], p.upper[varying])
        if self._model.jac is None:
            f, jacobian = differences(lambda at: plain.predict(all_of(at)), theta, *box)
        else:
            # Parameters as functions of the varying ones: as smooth as ties are, so differences do.
            full, by_varying = differences(lambda at: np.array(all_of(at)), theta, *box)
            f = plain.predict(full.tolist())
            jacobian = by_varying @ plain.derivatives(full.tolist()).T
        return _padded(f, size), _padded(jacobian, size)


def _require_program(recipe: Recipe, model: Model, parameters: Parameters) -> None:
    """Refuse a copy of the model that is not the client's; a process looks once at each program.

    Once, because a model that keeps a list or a cache changes with every call where it is not unpickled.
    """
    if recipe.fingerprint in _programs or recipe.fingerprint.startswith(fingerprint.NEW):
        return
    if fingerprint.fingerprint(model, parameters, recipe.traceable) != recipe.fingerprint:
        raise WorkerError(
            f"this worker has another {recipe.name} than the client "
            f"(module {getattr(model.func, '__module__', None)!r}): its program or its packages differ. "
            "Update the worker's copy and type: client.restart()"
        )
    _programs.add(recipe.fingerprint)


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    kind = np.complex128 if np.iscomplexobj(values) else np.float64
    out = np.zeros((*values.shape[:-1], size), kind)
    out[..., : values.shape[-1]] = values
    return out


_kernels: OrderedDict[tuple[Any, ...], Kernel] = OrderedDict()
_building = threading.Lock()
_programs: set[str] = set()  # fingerprints that this process's own copies have


def kernel_for(recipe: Recipe, constants: Mapping[str, np.ndarray]) -> Kernel:
    """The process's kernel for a recipe, built on first use.

    Raises
    ------
    WorkerError
        If this process's copy of the model has another fingerprint.
    """
    # Finite differences depend on initial values and bounds, which no fingerprint covers.
    steps = None if recipe.traceable else recipe.parameters
    key = (recipe.fingerprint, recipe.layout, steps)
    with _building:
        if key not in _kernels:
            _kernels[key] = Kernel(recipe, constants)
            while len(_kernels) > KERNELS_KEPT:
                _kernels.popitem(last=False)
        _kernels.move_to_end(key)
        return _kernels[key]


def without_noise_of(
    recipe: Recipe, roots: np.ndarray, theta: np.ndarray, scale2: float, typical: np.ndarray | None = None
) -> np.ndarray:
    """Roots (..., p + 1, p + 1) of points, their derivatives without what only differences have put there.

    ``typical`` sizes of the parameters (p,) where they are not those of the recipe.
    """
    if recipe.typical is None:
        return roots
    jacobians, residuals = roots[..., :-1], roots[..., -1:]
    together = jacobians.reshape(-1, theta.size)
    sizes = np.array(recipe.typical) if typical is None else typical
    projector = without_noise(together, theta, sizes, float(scale2))
    return np.concatenate([jacobians @ projector, residuals], axis=-1)
