"""Everything before the first pass: checks, partitions, and what travels to the workers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cloudpickle
import dask
import dask.utils

from dfit.core.jackknife import table_columns
from dfit.core.kernel import Layout, block_points
from dfit.data.domain import Domain
from dfit.data.graph import upstream
from dfit.data.groups import group_source
from dfit.data.plan import (
    LEAF_POINTS,
    Chunk,
    Partition,
    Source,
    bytes_per_point,
    chunk_grid,
    chunks_in_order,
    describe,
    leaf_size,
    partitions_of,
    sources_of,
)
from dfit.data.resolution import warn_of_resolution
from dfit.data.trial import trial_coordinates
from dfit.errors import InputError
from dfit.events import PartitionDone
from dfit.fingerprint import fingerprint
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.probe import check, traced
from dfit.reduce.cluster import ClusterRunner
from dfit.reduce.evaluators import PassEvaluator
from dfit.reduce.job import Job
from dfit.reduce.kept import with_retries
from dfit.reduce.kernels import Recipe
from dfit.reduce.memory import Memory, memory_of
from dfit.reduce.runners import Get, LocalRunner, Runner, scheduler_of
from dfit.settings import Settings

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger("dfit")

# Some 0.2 s of work, against 2 ms that a task costs client and scheduler; memory follows from the chunks.
PARTITION_BYTES = 256 << 20
TASKS_PER_THREAD = 4  # fewer leave threads idle at the end of a pass
GROUP_TABLE_BYTES = 256 << 20  # every leaf may hold one of this size, and the jackknife some ten at the end

# Programs that passed `dfit.probe.check` in this process, which costs two compilations.
_tried: set[tuple[str, bool]] = set()


@dataclass(frozen=True)
class Prepared:
    """A fit that is ready for its first pass."""

    model: Model
    parameters: Parameters
    domain: Domain
    evaluator: PassEvaluator
    partitions: list[Partition]
    partition_points: int  # that a partition was meant to have
    memory: Memory
    groups: Source | None  # of points that share their noise, for a clustered covariance

    def close(self) -> None:
        """Let go of what is kept in memory between passes."""
        self.evaluator.close()


def prepare(
    model: Model,
    parameters: Parameters,
    domain: Domain,
    settings: Settings,
    on_partition: Callable[[PartitionDone], None],
    partition_points: int | None = None,
) -> Prepared:
    """Check what can be checked and cut the data into partitions; nothing of y is read.

    ``partition_points`` are those of an earlier process, whose partitions are taken over.
    """
    _check_arguments(parameters, domain, settings)
    warn_of_resolution(domain)
    recipe = tried_recipe(model, parameters, domain, settings)
    group = group_source(domain, settings.cov)
    if group is not None:
        _check_group_table(group, len(parameters.varying))
    sources = sources_of(domain) + (() if group is None else (group,))
    grid = chunk_grid(domain)
    chunks = list(chunks_in_order(grid))
    size = leaf_size(chunks)
    block = min(recipe.layout.block, size)
    recipe = replace(recipe, layout=recipe.layout._replace(block=block))
    get, client, memory = _place(domain, sources, chunks, len(parameters.varying))
    per_point = bytes_per_point(sources, domain.data.ndim)
    wanted = points_of_partition(per_point, domain.data.size, memory.threads)
    points = partition_points or wanted
    tasks = -(-domain.data.size // wanted)  # an earlier process may have had fewer threads
    partitions = partitions_of(chunks, points)
    logger.info("%s", memory.sentence(len(partitions), domain.data.size))

    def start_runner() -> Runner:
        shared = with_retries(upstream(sources, grid, partitions), settings.retries)
        if client is not None:
            return ClusterRunner(shared, model.constants, client, memory.keep, memory.room, tasks)
        return LocalRunner(shared, model.constants, get, memory.keep, memory.room, tasks)

    evaluator = PassEvaluator(
        start_runner,
        _job(recipe, domain, settings, sources, size),
        partitions,
        parameters.init[list(parameters.varying)],
        parameters.init[list(parameters.fixed)],
        lambda partition, some: describe(domain, partition, some),
        parameters.in_words,
        on_partition,
        settings.min_success_rate,
    )
    return Prepared(model, parameters, domain, evaluator, partitions, points, memory, group)


def _check_arguments(parameters: Parameters, domain: Domain, settings: Settings) -> None:
    settings.check()
    if settings.absolute_sigma and domain.sigma is None:
        raise InputError("absolute_sigma=True without sigma; type sigma=your_standard_deviations")
    residuals = domain.data.size * (2 if domain.is_complex else 1)
    varying = len(parameters.varying)
    if residuals < varying:
        raise InputError(
            f"{residuals} points cannot determine {varying} parameters; fix some with fixed={{name: value}}"
        )


def _check_group_table(group: Source, varying: int) -> None:
    groups = int(group.array.max()) + 1
    size = 8 * groups * table_columns(varying)
    if size > GROUP_TABLE_BYTES:
        most = GROUP_TABLE_BYTES // (8 * table_columns(varying))
        raise InputError(
            f"{groups} groups of {varying} parameters need a table of {dask.utils.format_bytes(size)}; "
            f"type coarser groups, at most {most}"
        )


def tried_recipe(model: Model, parameters: Parameters, domain: Domain, settings: Settings) -> Recipe:
    """Recipe of a model that runs: it has been traced, and tried on a few points."""
    program = traced(model, parameters)
    is_traceable = program is not None
    key = program or fingerprint(model, parameters, False)
    trial = (key, domain.is_complex)
    if trial not in _tried:
        check(model, parameters, trial_coordinates(domain), is_traceable, domain.is_complex)
        _tried.add(trial)
    if not is_traceable:  # a model that keeps a list or a cache has changed by being tried
        key = fingerprint(model, parameters, False)
    return Recipe(
        key,
        model.to_blob(),
        cloudpickle.dumps(parameters),
        model.name,
        is_traceable,
        Layout("normal", settings.loss, block_points(len(parameters.varying)), domain.is_complex),
        None if is_traceable or model.jac else tuple(parameters.typical[list(parameters.varying)].tolist()),
    )


def _place(
    domain: Domain, sources: Sequence[Source], chunks: list[Chunk], varying: int
) -> tuple[Get | None, Client | None, Memory]:
    """The scheduler in force, a local one or a client, and the memory that a fit takes there."""
    per_point = bytes_per_point(sources, domain.data.ndim)
    lazy = any(s.array.chunks is not None for s in sources)
    get, client = scheduler_of([domain.data.data] if domain.data.chunks is not None else [])
    if not lazy:  # what is in this process's memory is fitted in this process
        client = None
    memory = memory_of(get, client, per_point * domain.data.size if lazy else 0)
    largest = max(LEAF_POINTS, *(chunk.size for chunk in chunks)) * per_point
    return get, client, memory.with_chunk(largest, leaf_size(chunks), varying)


def _job(recipe: Recipe, domain: Domain, settings: Settings, sources: Sequence[Source], size: int) -> Job:
    return Job(
        uuid.uuid4().hex,
        domain.skipna,
        settings.retries,
        recipe,
        tuple((s.role, s.axes, s.time) for s in sources),
        size,
        domain.sigma if isinstance(domain.sigma, float) else 1.0,
        float(settings.f_scale),
        bool(dask.config.get("dfit.tune-allocator", True)),
        tuple(s.label for s in sources),
        settings.validate,
    )


def points_of_partition(per_point: int, total: int, threads: int) -> int:
    """Points of a partition: a bounded number of bytes, and as many tasks for every thread."""
    limit = dask.utils.parse_bytes(dask.config.get("dfit.partition-bytes", PARTITION_BYTES))
    rounds = max(TASKS_PER_THREAD, -(-total * per_point // (limit * threads)))
    return max(1, -(-total // (rounds * threads)))
