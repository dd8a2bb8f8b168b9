"""Maps: one fit for each pixel along the dimensions that are kept, as one lazy array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from dfit.data.domain import Domain
from dfit.data.inputs import over
from dfit.data.plan import Source, sources_of
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.prepare import tried_recipe
from dfit.reduce.map_job import Guess, MapJob
from dfit.reduce.pixel_answers import PixelJob
from dfit.reduce.pixel_stack import Column
from dfit.reduce.pixel_table import table_columns
from dfit.reduce.pixel_task import fit_chunk
from dfit.settings import Settings

# Of data in memory: enough lanes to be quick, and a few tasks for every thread.
PIXELS_OF_A_TASK = 1 << 14


class Given(NamedTuple):
    """A value that is given pixel by pixel: "p0", "lower", "upper" or "fixed", of a parameter."""

    kind: str
    name: str
    values: xr.DataArray


class Beginning(NamedTuple):
    """Where the pixels of a map begin, beside what all of them have in common.

    Attributes
    ----------
    given : what is given pixel by pixel; the parameters have any value in its place.
    unset : parameters whose start follows from the bounds.
    guess : a start out of each pixel's points.
    neighbours : whether the answers of neighbours are starts, too.
    """

    given: Sequence[Given] = ()
    unset: Sequence[str] = ()
    guess: Guess | None = None
    neighbours: bool = False


@dataclass(frozen=True, eq=False)
class Map:
    """The fits of all pixels, not yet computed.

    Attributes
    ----------
    table : (kept dimensions, columns), see `dfit.reduce.pixel_table`.
    kept : names of the kept dimensions.
    parameters : what all pixels have in common.
    lazy : whether the data are chunked, so that the map is, too.
    job : what its tasks know.
    """

    table: da.Array
    kept: tuple[str, ...]
    parameters: Parameters
    lazy: bool
    job: MapJob


def map_of(
    model: Model,
    parameters: Parameters,
    domain: Domain,
    settings: Settings,
    kept: Sequence[str],
    beginning: Beginning,
    raises: bool,
) -> Map:
    """The fits of all pixels along ``kept``, as a lazy array.

    Parameters
    ----------
    kept : dimensions of y, in its order.
    raises : whether a fit that fails raises when the map is computed.
    """
    settings.check()
    recipe = tried_recipe(model, parameters, domain, settings)
    dims = domain.data.dims
    fitted = tuple(axis for axis, dim in enumerate(dims) if dim not in kept)
    sources = sources_of(domain)
    spread = [(one, over(domain.data, one.values, f"{one.kind} of {one.name}")) for one in beginning.given]
    job = MapJob(
        PixelJob(
            recipe,
            settings.tolerances,
            settings.max_passes,
            domain.sigma if isinstance(domain.sigma, float) else 1.0,
            float(settings.f_scale),
            settings.absolute_sigma,
            settings.cov,
            domain.skipna,
        ),
        tuple(Column(s.role, s.axes, s.time) for s in sources),
        fitted,
        tuple(
            (one.kind, parameters.names.index(one.name), tuple(dims.index(dim) for dim in values.dims))
            for one, values in spread
        ),
        tuple(parameters.names.index(name) for name in beginning.unset),
        tuple(map(str, kept)),
        raises,
        beginning.guess,
        beginning.neighbours,
    )
    table = _table(job, parameters, model.constants, sources, domain.data, [values for _, values in spread])
    return Map(table, tuple(kept), parameters, domain.data.chunks is not None, job)


def _table(
    job: MapJob,
    parameters: Parameters,
    constants: Mapping[str, np.ndarray],
    sources: Sequence[Source],
    y: xr.DataArray,
    given: Sequence[xr.DataArray],
) -> da.Array:
    grid = _grid(y, job.fitted)
    kept = [axis for axis in range(y.ndim) if axis not in job.fitted]
    indexes = [y.indexes[y.dims[a]].values if y.dims[a] in y.indexes else np.arange(y.shape[a]) for a in kept]
    arrays = [
        *((source.array.data, source.axes) for source in sources),
        *((values.data, axes) for values, (_, _, axes) in zip(given, job.given, strict=True)),
        *((labels, (axis,)) for labels, axis in zip(indexes, kept, strict=True)),
    ]
    operands: list[Any] = []
    for values, axes in arrays:
        operands += [_cut(values, [grid[axis] for axis in axes]), axes]
    columns = max(place.stop for place in table_columns(len(parameters.names)).values())
    return da.blockwise(
        partial(fit_chunk, job),
        (*kept, y.ndim),
        dict(constants),
        None,
        *operands,
        new_axes={y.ndim: columns},
        dtype=np.float64,
        meta=np.empty((0,) * (len(kept) + 1)),
        align_arrays=False,
        name=f"dfit-map-{tokenize(job, dict(constants), *(values for values, _ in arrays))}",
    )


def _grid(y: xr.DataArray, fitted: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Chunk lengths along each dimension: y's own, or for data in memory tasks of some pixels each."""
    if y.chunks is not None:
        return y.chunks
    lengths: list[tuple[int, ...]] = [(n,) for n in y.shape]
    room = PIXELS_OF_A_TASK
    for axis in reversed([axis for axis in range(y.ndim) if axis not in fitted]):
        step = max(1, min(room, y.shape[axis]))
        whole, rest = divmod(y.shape[axis], step)
        lengths[axis] = (step,) * whole + ((rest,) if rest else ())
        room //= step
    return tuple(lengths)


def _cut(values: Any, chunks: Sequence[tuple[int, ...]]) -> da.Array:
    if isinstance(values, da.Array):
        return values.rechunk(tuple(chunks))
    return da.from_array(np.asarray(values), chunks=tuple(chunks))
