"""Maps: one fit for each pixel along the dimensions that are kept, as one lazy array."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from dfit.data.domain import Domain
from dfit.data.inputs import over
from dfit.data.plan import Source, sources_of
from dfit.errors import InputError
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.prepare import tried_recipe
from dfit.reduce.kernels import Recipe
from dfit.reduce.map_job import Guess, MapJob
from dfit.reduce.pixel_answers import PixelJob
from dfit.reduce.pixel_memory import MapPlan, plan_of
from dfit.reduce.pixel_passes import Operands, Passes
from dfit.reduce.pixel_stack import Column
from dfit.reduce.pixel_table import table_columns
from dfit.reduce.pixel_task import fit_chunk
from dfit.reduce.runners import scheduler_of
from dfit.reduce.site import site_of
from dfit.settings import Settings

logger = logging.getLogger("dfit")

IN_MEMORY = MapPlan(None, "the data are in memory", "", "", False)
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
    plan : how it is made, in words.
    passes : where no task can hold the points of a chunk: what must make its table instead, at the call.
    """

    table: da.Array
    kept: tuple[str, ...]
    parameters: Parameters
    lazy: bool
    job: MapJob
    plan: str
    passes: Passes | None

    def settled(self) -> Map:
        """The map with all that passes must make; computed, in this process or in its cluster."""
        if self.passes is None:
            return self
        indexes = self.passes.indexes()
        blocks = np.empty(self.table.numblocks, object)
        for index, block in self.passes.tables(indexes):
            blocks[(*index, 0)] = block
        return replace(self, table=da.block(blocks.tolist()), passes=None)


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
    dims = domain.data.dims
    fitted = tuple(axis for axis, dim in enumerate(dims) if dim not in kept)
    sources = sources_of(domain)
    spread = [(one, over(domain.data, one.values, f"{one.kind} of {one.name}")) for one in beginning.given]
    job = MapJob(
        _of_a_pixel(tried_recipe(model, parameters, domain, settings), domain, settings),
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
    operands = _operands(job, model.constants, sources, domain.data, [values for _, values in spread])
    lazy = domain.data.chunks is not None
    plan = _planned(job, operands, dims, len(parameters.varying)) if lazy else IN_MEMORY
    columns = max(place.stop for place in table_columns(len(parameters.names)).values())
    passes = None if plan.cut is None else Passes(job, operands, plan.cut, columns)
    return Map(_table(job, operands, columns), tuple(kept), parameters, lazy, job, plan.sentence, passes)


def _of_a_pixel(recipe: Recipe, domain: Domain, settings: Settings) -> PixelJob:
    return PixelJob(
        recipe,
        settings.tolerances,
        settings.max_passes,
        domain.sigma if isinstance(domain.sigma, float) else 1.0,
        float(settings.f_scale),
        settings.absolute_sigma,
        settings.cov,
        domain.skipna,
    )


def _planned(job: MapJob, operands: Operands, dims: Sequence[Hashable], varying: int) -> MapPlan:
    """How a map of chunked data is made; says so."""
    arrays = [array for array, _ in operands.columns]
    site = site_of(*scheduler_of(arrays))
    plan = plan_of(job, operands.columns, operands.grid, dims, varying, site)
    told = plan.sentence if plan.cut is not None else f"{plan.sentence}: {plan.need}"
    logger.log(logging.WARNING if plan.costly else logging.INFO, "%s", told)
    if plan.cut is not None and (job.guess is not None or job.neighbours):
        raise InputError(
            f"{'neighbours=True' if job.guess is None else 'a guess of p0'} needs all points of a pixel in one task, "
            f"but {plan.need}. Type {plan.advice or 'numbers for p0'}{' where the data are opened' * bool(plan.advice)}"
        )
    return plan


def _operands(
    job: MapJob,
    constants: Mapping[str, np.ndarray],
    sources: Sequence[Source],
    y: xr.DataArray,
    given: Sequence[xr.DataArray],
) -> Operands:
    grid = _grid(y, job.fitted)

    def cut(values: Any, axes: tuple[int, ...]) -> tuple[da.Array, tuple[int, ...]]:
        return _cut(values, [grid[axis] for axis in axes]), axes

    kept = [axis for axis in range(y.ndim) if axis not in job.fitted]
    labels = [
        y.indexes[y.dims[a]].to_numpy() if y.dims[a] in y.indexes else np.arange(y.shape[a]) for a in kept
    ]
    return Operands(
        [cut(source.array.data, source.axes) for source in sources],
        [cut(values.data, axes) for values, (_, _, axes) in zip(given, job.given, strict=True)],
        [cut(values, (axis,)) for values, axis in zip(labels, kept, strict=True)],
        grid,
        {name: np.array(value) for name, value in constants.items()},  # the user may write to his own
    )


def _table(job: MapJob, operands: Operands, columns: int) -> da.Array:
    last = len(operands.grid)
    kept = [axis for axis in range(last) if axis not in job.fitted]
    return da.blockwise(
        partial(fit_chunk, job),
        (*kept, last),
        operands.constants,
        None,
        *(part for operand in operands.all for part in operand),
        new_axes={last: columns},
        dtype=np.float64,
        meta=np.empty((0,) * (len(kept) + 1)),
        align_arrays=False,
        name=f"dfit-map-{tokenize(job, operands.constants, *(array for array, _ in operands.all))}",
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
