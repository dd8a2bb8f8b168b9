"""From the arrays of a fit to its plan, and from the plan to what runs the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import dask
import dask.local
import dask.threaded
import numpy as np

from dfit.costing import costs_of, workload_of
from dfit.data.domain import Domain
from dfit.data.first import first_of
from dfit.data.graph import Upstream, on_cluster
from dfit.data.plan import (
    LEAF_POINTS,
    Chunk,
    Source,
    bytes_per_point,
    chunk_grid,
    chunks_in_order,
    leaf_size,
    sources_of,
)
from dfit.data.storage import storage_of
from dfit.errors import InputError
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.plan_warnings import as_of_now, warnings_of
from dfit.planning import Facts, decide, fits_as_given, keep_room, strategy_of
from dfit.plans import CHOICES, Plan
from dfit.reduce.calibrate import DryRun
from dfit.reduce.cluster import ClusterRunner
from dfit.reduce.job import Job, Point
from dfit.reduce.kernels import Recipe
from dfit.reduce.runners import LocalRunner, Runner, scheduler_of
from dfit.reduce.site import Site, site_of
from dfit.settings import Settings
from dfit.store.ledger import Ledger


@dataclass(frozen=True)
class Cut:
    """How the arrays of a pass are cut: the grid of chunks, those that hold points, and the points of a leaf."""

    sources: tuple[Source, ...]
    grid: tuple[tuple[int, ...], ...]
    chunks: list[Chunk]
    leaf: int

    @property
    def lazy(self) -> bool:
        return any(source.array.chunks is not None for source in self.sources)


def cut_of(domain: Domain, group: Source | None) -> Cut:
    sources = sources_of(domain) + (() if group is None else (group,))
    grid = chunk_grid(domain)
    chunks = list(chunks_in_order(grid))
    return Cut(sources, grid, chunks, leaf_size(chunks))


def facts_of(
    domain: Domain, settings: Settings, cut: Cut, recipe: Recipe, varying: int, sample_points: int
) -> Facts:
    per_point = bytes_per_point(cut.sources, domain.data.ndim)
    lazy = [source for source in cut.sources if source.array.chunks is not None]
    largest = max(chunk.size for chunk in cut.chunks)
    return Facts(
        domain.data.size,
        sum(source.array.nbytes for source in lazy),
        per_point,
        max(min(LEAF_POINTS, domain.data.size), largest) * per_point,
        largest * per_point,
        cut.leaf,
        recipe.layout.block,
        varying,
        storage_of(domain.data),
        sample_points,
        settings.checkpoint is not None,
        recipe.traceable,
    )


def planned(
    model: Model,
    parameters: Parameters,
    domain: Domain,
    settings: Settings,
    cut: Cut,
    facts: Facts,
    job: Job,
    history: Ledger | None,
) -> tuple[Site, Plan]:
    """Where the fit runs, and how."""
    wanted = settings.wanted_for(cut.lazy)
    get, client = scheduler_of([domain.data.data] if domain.data.chunks is not None else [])
    if not cut.lazy or wanted.strategy == "in_memory":  # fitted in this process
        get, client = (get if get is dask.local.get_sync else None), None
    limits = settings.memory_limit, settings.memory_fraction
    site = site_of(get, client, *limits)
    if client is None and any(on_cluster(source.array.data) for source in cut.sources):
        raise InputError(
            "the data are persisted on a cluster, and the fit is to run in this process (by strategy='in_memory', or "
            "dask's scheduler): type strategy='cached' where the client is in use, or data = data.compute()"
        )
    strategy, reason = strategy_of(wanted.strategy, facts, site)

    def try_out() -> Sequence[DryRun]:
        shared = first_of(cut.sources, cut.grid)
        if shared is None:
            return ()
        runner = runner_of(shared, model.constants, site, Plan("streaming"), keep_room(site))
        varying, held = (parameters.init[list(which)] for which in (parameters.varying, parameters.fixed))
        try:
            return runner.try_out(job, Point(varying, held, survey=False))
        finally:
            runner.close()

    workload = workload_of(job.recipe, domain, facts, strategy, len(parameters.varying))
    if fits_as_given(wanted, facts, site) and wanted.workload in ({}, workload):
        return site, as_of_now(wanted, facts)
    costs = costs_of(facts, workload, site, try_out, settings.plan == "static", history)
    plan = decide(facts, wanted.choices(), strategy, reason, site, costs.terms, costs.runs, costs.reliability)
    told = warnings_of(plan, facts, site, wanted)
    sized = dask.config.get("dfit.partition-bytes", None) is not None
    asked = tuple(n for n in CHOICES if getattr(wanted, n) is not None or (sized and n == "partition_points"))
    return site, replace(plan, warnings=told, workload=costs.workload, hardware=costs.hardware, asked=asked)


def as_planned(job: Job, plan: Plan, site: Site) -> Job:
    """The job, with what the plan says of each process; local threads are as many as the plan has."""
    fewer = site.client is not None and (plan.in_flight or 0) < site.threads_each
    return replace(job, read_ahead=bool(plan.read_ahead), in_flight=(plan.in_flight or 0) if fewer else 0)


def runner_of(
    shared: Upstream,
    constants: Mapping[str, np.ndarray],
    site: Site,
    plan: Plan,
    room: int,
    tasks: int = 0,
) -> Runner:
    """What runs tasks at a site by a plan.

    Parameters
    ----------
    room : bytes that may be kept of what several partitions need.
    tasks : as in `Pieces`.
    """
    keep = plan.strategy != "streaming"
    if site.client is not None:
        return ClusterRunner(shared, constants, site.client, keep and plan.kept_bytes > 0, room, tasks)
    get = site.get if plan.strategy == "in_memory" else site.get or dask.threaded.get
    return LocalRunner(shared, constants, get, keep, room, plan.in_flight or site.threads, tasks)
