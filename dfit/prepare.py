"""Everything before the first pass: checks, partitions, and what travels to the workers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cloudpickle
import dask
import dask.utils

from dfit.core.jackknife import table_columns
from dfit.core.kernel import Layout, block_points
from dfit.data.domain import Domain
from dfit.data.graph import upstream
from dfit.data.groups import group_source
from dfit.data.plan import Partition, Source, describe, partitions_of
from dfit.data.resolution import warn_of_resolution
from dfit.data.trial import trial_coordinates
from dfit.errors import InputError
from dfit.events import PartitionDone
from dfit.fingerprint import fingerprint
from dfit.history import ledger
from dfit.model import Model
from dfit.parameters import Parameters
from dfit.planned import as_planned, cut_of, facts_of, planned, runner_of
from dfit.planning import keep_room
from dfit.plans import Plan
from dfit.probe import check, traced
from dfit.reduce.evaluators import PassEvaluator
from dfit.reduce.job import Job
from dfit.reduce.kept import with_retries
from dfit.reduce.kernels import Recipe
from dfit.reduce.runners import Runner
from dfit.settings import Settings
from dfit.store.ledger import Ledger

logger = logging.getLogger("dfit")

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
    plan: Plan
    cores: int  # that do the tasks' work
    groups: Source | None  # of points that share their noise, for a clustered covariance
    history: Ledger | None  # one for planning and remembering: its faults are told once

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
    sample_points: int = 0,
) -> Prepared:
    """Check what can be checked, plan, and cut the data into partitions; of y a dry run reads two leaves at most.

    Parameters
    ----------
    partition_points : those of an earlier process, whose partitions are taken over.
    sample_points : of the warm-up, 0 without one.
    """
    _check_arguments(parameters, domain, settings)
    warn_of_resolution(domain)
    recipe = tried_recipe(model, parameters, domain, settings)
    group = group_source(domain, settings.cov)
    if group is not None:
        _check_group_table(group, len(parameters.varying))
    cut = cut_of(domain, group)
    block = min(recipe.layout.block, cut.leaf)
    recipe = replace(recipe, layout=recipe.layout._replace(block=block))
    facts = facts_of(domain, settings, cut, recipe, len(parameters.varying), sample_points)
    job = _job(recipe, domain, settings, cut.sources, cut.leaf)
    history = ledger()
    site, plan = planned(model, parameters, domain, settings, cut, facts, job, history)
    wanted = plan.partition_points or 1
    points = partition_points or wanted
    partitions = partitions_of(cut.chunks, points)
    plan = replace(plan, partition_points=points, partitions=len(partitions))
    logger.info("%s", plan.decision)
    for text in plan.warnings:
        logger.warning("%s", text)

    def start_runner() -> Runner:
        shared = with_retries(upstream(cut.sources, cut.grid, partitions), settings.retries)
        tasks = -(-domain.data.size // wanted)  # an earlier process may have had fewer threads
        return runner_of(shared, model.constants, site, plan, keep_room(site) - plan.kept_bytes, tasks)

    evaluator = PassEvaluator(
        start_runner,
        as_planned(job, plan, site),
        partitions,
        parameters.init[list(parameters.varying)],
        parameters.init[list(parameters.fixed)],
        lambda partition, some: describe(domain, partition, some),
        parameters.in_words,
        on_partition,
        settings.min_success_rate,
    )
    return Prepared(model, parameters, domain, evaluator, partitions, plan, site.cores, group, history)


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
