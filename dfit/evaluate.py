"""The model over many points: at the data's own coordinates, lazily, or at new ones.

A chunk is evaluated in slabs of a fixed number of points, so that memory beyond the chunk's own
result does not grow with it, and coordinates along one dimension are never built at full size.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import dask
import dask.array as da
import jax
import numpy as np
import xarray as xr

from dfit.core.covariance import Covariance
from dfit.data.coordinates import TimeAxis, as_times
from dfit.data.domain import Domain
from dfit.data.inputs import unknown_name
from dfit.derivative import difference_steps
from dfit.errors import InputError
from dfit.fingerprint import fresh
from dfit.model import Model
from dfit.precision import float64_on_cpu
from dfit.probe import NUMPY_ERRORS
from dfit.statistics import propagate

SLAB_POINTS = 65_536  # 0.5 MiB a coordinate: long enough to hide the call, short enough for caches
Compute = Callable[[Model, Sequence[np.ndarray]], np.ndarray]


class Programs:
    """Prediction and derivatives of a model: compiled, or plain where JAX cannot trace it."""

    def __init__(self, model: Model) -> None:
        def value(theta: Any, coords: Any, constants: Any) -> Any:
            return model(theta, coords, constants)

        self._model = model
        self._key = uuid.uuid4().hex
        self._value, self._slope = jax.jit(value), jax.jit(jax.jacfwd(value))
        self._traceable = True

    def predict(self, theta: np.ndarray, coords: Sequence[np.ndarray]) -> np.ndarray:
        """Prediction (B,) at all parameters theta (p_all,)."""
        found = self._traced(self._value, theta, coords)
        if found is None:
            found = np.asarray(self._model(list(theta), coords))
        return np.broadcast_to(found, coords[0].shape)

    def slopes(self, theta: np.ndarray, coords: Sequence[np.ndarray]) -> np.ndarray | None:
        """Derivatives (B, p_all), or None where only differences can give them."""
        if self._model.jac is not None:
            return np.asarray(self._model.jacobian(list(theta), coords))
        found = self._traced(self._slope, theta, coords)
        return None if found is None else np.broadcast_to(found, (coords[0].size, theta.size))

    def _traced(self, program: Callable[..., Any], theta: np.ndarray, coords: Any) -> np.ndarray | None:
        if not self._traceable:
            return None
        try:
            with fresh(self._key):
                return np.asarray(program(theta, tuple(coords), self._model.constants))
        except NUMPY_ERRORS:
            # The plain call shows whether tracing was the reason: it raises again if not.
            self._traceable = False
            return None


# One program for all slabs of a chunk, and for all chunks that share a process.
programs_of = lru_cache(maxsize=8)(Programs)


def predict(model: Model, coords: Sequence[np.ndarray], theta: np.ndarray) -> np.ndarray:
    """Prediction (B,) at all parameters theta (p_all,) for coordinates of B points."""
    return programs_of(model).predict(theta, coords)


def half_width(
    model: Model,
    coords: Sequence[np.ndarray],
    theta: np.ndarray,
    varying: np.ndarray,
    gradient: np.ndarray,
    covariance: Covariance,
    factor: float,
) -> np.ndarray:
    """`factor` standard errors (B,) of the prediction; of its real and imaginary part if it is complex.

    theta (p_all,) are all parameters, varying (p,) those that were fitted, gradient (p_all, p) the
    derivatives of the first by the second. Parameters at a bound are held there.
    """
    programs = programs_of(model)
    full = programs.slopes(theta, coords)
    if full is not None:
        rows = full @ gradient
    else:
        steps = difference_steps(varying, np.asarray(covariance.stderr))
        moves = [(step, step * along) for step, along in zip(steps, gradient.T, strict=True)]
        sides = [
            (programs.predict(theta + m, coords), programs.predict(theta - m, coords), h) for h, m in moves
        ]
        rows = np.stack([(ahead - behind) / (2 * h) for ahead, behind, h in sides], axis=-1)
    real = factor * propagate(rows.real, covariance, held=True)
    return real + 1j * factor * propagate(rows.imag, covariance, held=True) if np.iscomplexobj(rows) else real


class Grid(NamedTuple):
    """Where to evaluate.

    Attributes
    ----------
    arrays : coordinates in the model's order, each over some of the dimensions.
    sizes : of all dimensions, in the order of the result.
    chunks : of the dimensions; empty where the result need not be lazy for its own sake.
    labels : coordinates of the result.
    """

    arrays: dict[str, xr.Variable]
    sizes: dict[Hashable, int]
    chunks: Mapping[Any, tuple[int, ...]]
    labels: Mapping[Any, Any]


def grid_of(domain: Domain) -> Grid:
    """The data's own coordinates, chunked as y."""
    y = domain.data
    arrays = {name: array.variable for name, array in domain.coords.items()}
    return Grid(arrays, dict(y.sizes), y.chunksizes, y.coords)


def over(
    grid: Grid,
    axes: Mapping[str, TimeAxis],
    model: Model,
    compute: Compute,
    dtype: Any,
    slab: int = SLAB_POINTS,
) -> Any:
    """Array over a grid of what `compute` gives at each point; lazy where the grid is chunked.

    `axes` says how coordinates that are times become numbers, `slab` how many points are
    evaluated together.
    """
    arrays, dims = grid.arrays, tuple(grid.sizes)
    task = partial(
        _block,
        dims=dims,
        own=tuple(variable.dims for variable in arrays.values()),
        axes=tuple(axes.get(name) for name in arrays),
        compute=compute,
        dtype=np.dtype(dtype),
        slab=slab,
    )
    if not grid.chunks and all(variable.chunks is None for variable in arrays.values()):
        lengths = (np.broadcast_to(0.0, size) for size in grid.sizes.values())
        return task(model, *(variable.values for variable in arrays.values()), *lengths)
    index = {dim: position for position, dim in enumerate(dims)}
    pairs: list[Any] = []
    for variable in arrays.values():
        whole = variable.chunk({dim: grid.chunks[dim] for dim in variable.dims if dim in grid.chunks})
        pairs += [da.asarray(whole.data), [index[dim] for dim in variable.dims]]
    for dim, size in grid.sizes.items():
        # Tells a block its length along a dimension that no coordinate lies along.
        pairs += [da.zeros(size, chunks=(grid.chunks.get(dim, size),)), [index[dim]]]
    return da.blockwise(
        partial(_with_model, task),
        list(index.values()),
        *pairs,
        # Delayed: the model and its constants are one value of the graph, not a part of every task.
        model=dask.delayed(model, traverse=False),
        token="model",
        dtype=dtype,
        meta=np.empty((0,) * len(index), dtype),
    )


def _with_model(task: Callable[..., np.ndarray], *blocks: np.ndarray, model: Model) -> np.ndarray:
    return task(model, *blocks)


def _block(
    model: Model,
    *blocks: np.ndarray,
    dims: tuple[Hashable, ...],
    own: tuple[tuple[Hashable, ...], ...],
    axes: tuple[TimeAxis | None, ...],
    compute: Compute,
    dtype: np.dtype,
    slab: int,
) -> np.ndarray:
    shape = tuple(block.size for block in blocks[len(own) :])
    coords = []
    for block, along, axis in zip(blocks, own, axes, strict=False):
        numbers = np.asarray(block if axis is None else axis.offsets(block), dtype=float)
        missing = [position for position, dim in enumerate(dims) if dim not in along]
        order = [along.index(dim) for dim in dims if dim in along]
        numbers = np.expand_dims(numbers.transpose(order), tuple(missing))
        coords.append(np.broadcast_to(numbers, shape).flat)
    out = np.empty(shape, dtype)
    flat = out.reshape(-1)
    with float64_on_cpu():
        for start in range(0, flat.size, slab):
            stop = min(start + slab, flat.size)
            # A power of two, so that ragged chunks share few compiled shapes.
            padding = (0, min(slab, 1 << (stop - start - 1).bit_length()) - (stop - start))
            points = [np.pad(coord[start:stop], padding, mode="edge") for coord in coords]
            flat[start:stop] = compute(model, points)[: stop - start]
    return out


def new_coordinates(
    names: Sequence[str], given: Mapping[str, Any], axes: Mapping[str, TimeAxis], param_names: Sequence[str]
) -> Grid:
    """What the user gave for each coordinate.

    Bare 1-D arrays of one length pair up point by point; DataArrays keep their dimensions.

    Raises
    ------
    InputError
        For an unknown or missing coordinate, values that are no numbers, or arrays that do not pair up.
    """
    for name in given:
        if name not in names:
            line = f" To change a parameter type: params={{{name!r}: value}}" if name in param_names else ""
            raise InputError(unknown_name(name, names, "coordinate", "eval") + line)
    if len(given) < len(names):
        lacking = ", ".join(repr(name) for name in names if name not in given)
        raise InputError(
            f"the model needs the coordinate {lacking} too. "
            f"Type: result.eval({', '.join(f'{name}=...' for name in names)})"
        )
    arrays = {name: _numbers(name, given[name], axes.get(name)) for name in names}
    bare = {n: a for n, a in arrays.items() if not isinstance(a, xr.DataArray) and a.ndim}
    named = any(isinstance(a, xr.DataArray) and a.ndim for a in arrays.values())
    if len({array.shape for array in bare.values()}) > 1 or (bare and named):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InputError(
            f"arrays without dimension names pair up point by point, so expected one shape; got {shapes}. "
            "For every combination name their dimensions: "
            + ", ".join(f"{name}=xr.DataArray({name}, dims={name!r})" for name in bare)
        )
    out: dict[str, Any] = {}
    for name, array in arrays.items():
        if isinstance(array, xr.DataArray):
            out[name] = array.reset_coords(drop=True)
        else:
            only = [name if len(bare) == 1 else "point"]
            out[name] = (only if array.ndim == 1 else [f"dim_{i}" for i in range(array.ndim)], array)
    try:
        points = xr.merge([xr.Dataset(coords={name: value}) for name, value in out.items()], join="exact")
    except ValueError as error:
        raise InputError(f"the coordinates given to eval do not fit each other: {error}") from error
    variables = {name: points[name].variable for name in names}
    sizes = {dim: points.sizes[dim] for variable in variables.values() for dim in variable.dims}
    return Grid(variables, sizes, {}, points.coords)


def _numbers(name: str, value: Any, axis: TimeAxis | None) -> Any:
    lazy = isinstance(value, (xr.DataArray, da.Array))
    array = value if lazy else np.asarray(value) if axis is None else as_times(value)
    if array.dtype.kind not in ("fiub" if axis is None else "fiubmMO"):
        raise InputError(f"eval was given {name} of dtype {array.dtype}; expected real numbers")
    return array
