"""Everything before the first pass: checks, names, partitions, and what travels to the workers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cloudpickle
import dask
import dask.utils
import numpy as np
import xarray as xr

from dfit.core.kernel import Layout, block_points
from dfit.core.loss import LOSSES
from dfit.data.domain import Domain
from dfit.data.graph import upstream
from dfit.data.plan import (
    LEAF_POINTS,
    Chunk,
    Partition,
    Source,
    bytes_per_point,
    chunk_grid,
    chunks_in_order,
    largest_leaf,
    partitions_of,
    sources_of,
)
from dfit.errors import InputError
from dfit.events import TaskDone
from dfit.fingerprint import fingerprint
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.probe import check, traceable
from dfit.reduce.evaluators import PassEvaluator
from dfit.reduce.kernels import Recipe
from dfit.reduce.memory import Memory, memory_of
from dfit.reduce.runners import ClusterRunner, LocalRunner, scheduler_of
from dfit.reduce.task import Job

logger = logging.getLogger("dfit")

PARTITION_BYTES = 128 << 20  # some 0.3 s of work; read and held at once by each thread of a worker
TASKS_PER_THREAD = 4  # fewer leave threads idle at the end of a pass
SMALLEST_LEAF = 256  # small data share one compiled shape


# Programs that passed `dfit.probe.check` in this process, which costs two compilations.
_tried: set[tuple[str, bool]] = set()


@dataclass(frozen=True)
class Settings:
    """How a fit is to be done, as `dfit.fit` documents it."""

    loss: str = "linear"
    f_scale: float = 1.0
    absolute_sigma: bool = False
    cov: Any = None
    tol: float = 1e-8
    ftol: float | None = None
    xtol: float | None = None
    gtol: float | None = None
    max_passes: int = 100
    time_limit: float | None = None
    retries: int = 3
    callback: Callable[[Any], Any] | None = None
    verbose: int = 0

    def check(self) -> None:
        """Refuse values that no fit can use."""
        if self.loss not in LOSSES:
            raise InputError(f"unknown loss {self.loss!r}; known: {', '.join(LOSSES)}")
        if not self.f_scale > 0 or not np.isfinite(self.f_scale):
            raise InputError(f"f_scale is {self.f_scale}; expected a positive number, in units of sigma")
        for name in ("tol", "ftol", "xtol", "gtol", "time_limit"):
            value = getattr(self, name)
            given = value is not None or name == "tol"  # the one test that is always made
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if given and not (number and 0 < value < np.inf):
                raise InputError(f"{name} is {value!r}; expected a positive number")
        for name, least in (("max_passes", 1), ("retries", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise InputError(f"{name} is {value!r}; expected an integer of at least {least}")


@dataclass(frozen=True)
class Prepared:
    """A fit that is ready for its first pass."""

    model: Model
    parameters: Parameters
    domain: Domain
    evaluator: PassEvaluator
    close: Callable[[], None]
    partitions: list[Partition]
    memory: Memory
    groups: int
    complex_data: bool


def prepare(
    model: Model,
    parameters: Parameters,
    domain: Domain,
    settings: Settings,
    on_task: Callable[[TaskDone], None],
) -> Prepared:
    """Check what can be checked, cut the data into partitions and start the runner."""
    settings.check()
    if settings.absolute_sigma and domain.sigma is None:
        raise InputError("absolute_sigma=True without sigma; type sigma=your_standard_deviations")
    varying = list(parameters.varying)
    complex_data = domain.data.dtype.kind == "c"
    residuals = domain.data.size * (2 if complex_data else 1)
    if residuals < len(varying):
        raise InputError(
            f"{residuals} points cannot determine {len(varying)} parameters; fix some with fixed={{name: value}}"
        )
    is_traceable = traceable(model, parameters)
    program = fingerprint(model, parameters, is_traceable)
    trial = (program, complex_data)
    if trial not in _tried:
        check(model, parameters, sample_coordinates(domain), is_traceable, complex_data)
        _tried.add(trial)
    sources = sources_of(domain)
    groups = group_source(domain, settings.cov)
    if groups is not None:
        sources = (*sources, groups[0])
    grid = chunk_grid(domain)
    chunks = list(chunks_in_order(grid))
    get, client = scheduler_of([domain.data.data] if domain.data.chunks is not None else [])
    lazy = any(s.array.chunks is not None for s in sources)
    client = client if lazy else None
    per_point = bytes_per_point(sources, domain.data.ndim)
    memory = memory_of(get, client, per_point * domain.data.size if lazy else 0)
    points = partition_points(per_point, domain.data.size, memory.threads)
    partitions = partitions_of(chunks, points)
    size = leaf_size(chunks)
    recipe = Recipe(
        program,
        model.to_blob(),
        cloudpickle.dumps(parameters),
        model.name,
        is_traceable,
        Layout("normal", settings.loss, min(block_points(len(varying)), size), complex_data),
    )
    job = Job(
        uuid.uuid4().hex,
        domain.skipna,
        settings.retries,
        recipe,
        tuple((s.role, s.axes, s.time) for s in sources),
        size,
        1.0 if not isinstance(domain.sigma, float) else domain.sigma,
        float(settings.f_scale),
        bool(dask.config.get("dfit.tune-allocator", True)),
    )
    shared = upstream(sources, grid, partitions)
    memory = memory.with_partition(max(p.points for p in partitions) * per_point, size, len(varying))
    logger.info("%s", memory.sentence(len(partitions), domain.data.size))
    runner: Any
    if client is not None:
        runner = ClusterRunner(shared, model.constants, client, memory.keep, memory.room)
    else:
        runner = LocalRunner(shared, model.constants, get, memory.keep, memory.room)
    evaluator = PassEvaluator(
        runner,
        job,
        partitions,
        parameters.init[list(parameters.fixed)],
        lambda partition, chunks: describe(domain, partition, chunks),
        on_task,
    )
    return Prepared(
        model,
        parameters,
        domain,
        evaluator,
        runner.close,
        partitions,
        memory,
        0 if groups is None else groups[1],
        complex_data,
    )


def leaf_size(chunks: list[Chunk]) -> int:
    """Padded points of a leaf: the power of two that holds the largest one."""
    return min(LEAF_POINTS, max(SMALLEST_LEAF, 1 << (largest_leaf(chunks) - 1).bit_length()))


def partition_points(per_point: int, total: int, threads: int) -> int:
    """Points of a partition: a bounded number of bytes, and tasks for every thread."""
    limit = dask.utils.parse_bytes(dask.config.get("dfit.partition-bytes", PARTITION_BYTES))
    return max(1, min(limit // max(per_point, 1), -(-total // (TASKS_PER_THREAD * threads))))


def sample_coordinates(domain: Domain) -> list[np.ndarray]:
    """Coordinates (n,) of a few points along every dimension, to try the model on; y is not read.

    Of a chunked coordinate only the first chunk is read.
    """
    few = {}
    for dim, size in domain.data.sizes.items():
        chunked = [c.chunksizes[dim][0] for c in domain.coords.values() if c.chunks and dim in c.dims]
        few[dim] = np.unique(np.linspace(0, min([size, *chunked]) - 1, 5).astype(int))
        if domain.data.ndim == 1:
            few[dim] = np.unique(np.linspace(0, min([size, *chunked]) - 1, 49).astype(int))
    shape = tuple(index.size for index in few.values())
    template = xr.DataArray(np.zeros(shape), dims=list(few))
    out = []
    for name, array in domain.coords.items():
        values = array.isel({d: few[d] for d in array.dims}).compute()
        numbers = values.copy(data=domain.numeric(name, values.values))
        out.append(numbers.broadcast_like(template).transpose(*few).values.ravel().astype(float))
    valid = np.all([np.isfinite(c) for c in out], axis=0)
    return [c[valid] for c in out] if valid.any() else [np.ones(1) for _ in out]


def group_source(domain: Domain, cov: Any) -> tuple[Source, int] | None:
    """Group numbers of the points for a covariance clustered by groups, and how many there are."""
    if cov is None or cov in ("hc0", "hc1"):
        return None
    if not (isinstance(cov, Mapping) and set(cov) == {"groups"}):
        raise InputError(f'cov is {cov!r}; expected None, "hc0", "hc1" or {{"groups": "day"}}')
    wanted, data = cov["groups"], domain.data
    if not isinstance(wanted, xr.DataArray) and (
        not isinstance(wanted, str) or wanted not in (*data.coords, *data.dims)
    ):
        known = ", ".join(map(str, dict.fromkeys((*data.coords, *data.dims))))
        raise InputError(f"unknown groups {wanted!r} in cov; known coordinates and dimensions: {known}")
    array = wanted if isinstance(wanted, xr.DataArray) else data[wanted]
    if not set(array.dims) <= set(data.dims):
        raise InputError(f"the groups lie along {array.dims}, y along {data.dims}")
    if array.chunks is not None:
        raise InputError("the groups are a chunked array; type: .compute() on them first")
    _, codes = np.unique(array.values, return_inverse=True)
    count = int(codes.max()) + 1
    if count < 2:
        raise InputError("cov by groups needs at least two groups; with one there is nothing to compare")
    coded = array.copy(data=codes.reshape(array.shape)).transpose(*(d for d in data.dims if d in array.dims))
    return Source("group", coded, tuple(data.dims.index(d) for d in coded.dims)), count


def describe(domain: Domain, partition: Partition, chunks: range) -> str:
    """A partition and the ranges of dimensions and coordinates that some of its chunks span, in words."""
    data = domain.data
    places = [partition.chunks[k] for k in chunks]
    box = {}
    ranges = []
    for axis, dim in enumerate(data.dims):
        start = min(place.start[axis] for place in places)
        stop = max(place.start[axis] + place.shape[axis] for place in places)
        box[dim] = slice(start, stop)
        text = f"{dim}[{start}:{stop}]"
        if dim in data.indexes:
            text += f" = {data.indexes[dim][start]} to {data.indexes[dim][stop - 1]}"
        ranges.append(text)
    for name, array in domain.coords.items():
        if name not in data.indexes and array.chunks is None:
            values = array.isel({dim: box[dim] for dim in array.dims}).values
            ranges.append(f"{name} = {np.min(values)} to {np.max(values)}")
    return f"partition {partition.index} ({', '.join(ranges)})"
