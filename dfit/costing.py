"""What the passes of a fit will cost: past runs, a dry run on its first leaves, or rules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cache
from importlib.metadata import version

import xarray as xr

from dfit.data.domain import Domain
from dfit.fingerprint import NEW
from dfit.learning import Reliability, contradicted, learned
from dfit.planning import Facts
from dfit.reduce.calibrate import DryRun
from dfit.reduce.hardware import hardware
from dfit.reduce.kernels import Recipe
from dfit.reduce.site import Site
from dfit.store.ledger import Ledger
from dfit.store.row import Value, key_of
from dfit.terms import Origin, Terms

logger = logging.getLogger("dfit")

# A pass over fewer points takes less time than a choice could save, and a dry run would be much of it.
TRY_ABOVE = 1 << 22
# ms a task costs beside its work, on threads and on a cluster; ns a byte by codec, as measured on 2 cores.
TASK_MS = {False: 0.5, True: 4.0}
BYTE_NS = {"none": 0.2, "lz4": 0.35, "blosc": 0.4, "zstd": 0.8, "gzip": 3.0, "zlib": 3.0}
USUAL_BYTE_NS = 0.8
STATIC_WAIT = 0.5  # a store may be far away
SPREAD = 0.25  # of tasks that have not been seen: other programs run beside them
GIB = 1 << 30
PACKAGES = ("dfit", "jax", "jaxlib", "numpy", "dask", "zarr", "xarray")


@dataclass(frozen=True)
class Costs:
    """What is known of the costs.

    Attributes
    ----------
    terms : those that the plan follows.
    runs : dry runs.
    reliability : of predictions from history; None where the terms are not from there.
    workload, hardware : what tells workloads and workers from each other in the history; empty where nothing is
        to be kept.
    """

    terms: Terms
    runs: Sequence[DryRun] = ()
    reliability: Reliability | None = None
    workload: Mapping[str, Value] = field(default_factory=dict)
    hardware: Mapping[str, Value] = field(default_factory=dict)


def costs_of(
    facts: Facts,
    workload: Mapping[str, Value],
    site: Site,
    try_out: Callable[[], Sequence[DryRun]],
    static: bool = False,
    history: Ledger | None = None,
) -> Costs:
    """Costs from the most certain source there is.

    Parameters
    ----------
    workload : from `workload_of`.
    try_out : runs the dry runs.
    static : whether to go by rules alone, and look at nothing.
    history : of past fits; None where none is kept.
    """
    rules = static_terms(facts, site)
    if static or facts.points < TRY_ABOVE:
        return Costs(rules)
    runs = try_out()
    for run in runs:
        if run.failure:
            logger.info("dry run in %s failed: %s", run.process, run.failure)
    tried = tried_terms(runs, site)
    unknown = site.workers > 0 and not runs  # what the workers are; there may be none yet
    kept = {} if unknown or str(workload["model"]).startswith(NEW) else workload
    machine = hardware_of(runs, site)
    past = history.load() if kept and history is not None else []
    known = learned(past, key_of(kept), key_of(machine))
    if known is None or tried is None:
        return Costs(tried or rules, runs, None, kept, machine)
    if contradicted(known.terms, tried, facts.nbytes / facts.points):
        # A machine that others keep busy says so as well: no reason to alarm anyone.
        logger.info("a dry run contradicts past fits by more than a factor of 3, and is followed")
        return Costs(tried, runs, None, kept, machine)
    if not known.trusted:
        return Costs(tried, runs, None, kept, machine)
    # Passes do not tell how much of a read waits: what a record says of it comes from a dry run of its own.
    return Costs(replace(known.terms, wait=tried.wait), runs, known.reliability, kept, machine)


def static_terms(facts: Facts, site: Site) -> Terms:
    """Costs by rule, of nothing but the number of parameters and the codec."""
    codec = facts.storage.codec.rpartition(":")[2]
    byte_ns = BYTE_NS.get(codec, USUAL_BYTE_NS) if facts.lazy else 0.0
    point_ns = 10 + 3 * facts.varying + 0.15 * facts.varying**2
    return Terms(
        point_ns,
        byte_ns,
        STATIC_WAIT if facts.lazy else 0.0,
        TASK_MS[bool(site.workers)],
        SPREAD,
        Origin.STATIC,
    )


def tried_terms(runs: Sequence[DryRun], site: Site) -> Terms | None:
    """Costs by dry runs, the middle one of the processes; None where all have failed."""
    good = sorted((run for run in runs if not run.failure), key=lambda run: run.point_ns + run.byte_ns)
    if not good:
        return None
    middle = good[len(good) // 2]
    return Terms(
        middle.point_ns, middle.byte_ns, middle.wait, TASK_MS[bool(site.workers)], SPREAD, Origin.DRY_RUN
    )


def workload_of(
    recipe: Recipe, domain: Domain, facts: Facts, strategy: str, varying: int
) -> dict[str, Value]:
    """What makes the passes of two fits cost the same per point."""
    given = [domain.data, *domain.coords.values(), domain.sigma, domain.where]
    arrays = [array for array in given if isinstance(array, xr.DataArray)]
    kinds = [str(array.dtype) + "*" * (array.chunks is not None) for array in arrays]
    return {
        "model": recipe.fingerprint,
        "parameters": varying,
        "form": f"{recipe.layout.loss}, {'complex' if recipe.layout.is_complex else 'real'}",
        "traced": recipe.traceable,
        "dtypes": " ".join(kinds),
        "store": facts.storage.kind,
        "codec": facts.storage.codec,
        "chunk_bytes": facts.chunk_bytes,
        "strategy": strategy,
    }


def hardware_of(runs: Sequence[DryRun], site: Site) -> dict[str, Value]:
    """What the tasks run on, and with which packages."""
    # Of unlike workers always the same one, whichever has answered first.
    first = min(runs, key=lambda run: (astuple(run.hardware), run.limit), default=None)
    found = hardware() if first is None else first.hardware
    return {
        "cpu": found.cpu,
        "cores": found.cores,
        "caches": found.caches,
        "memory_limit": _whole_gib(site.limit.bytes if first is None else first.limit[0]),
        "threads": site.threads_each,
        "workers": site.workers,
    }


def _whole_gib(size: int) -> int:
    """The size in bytes, rounded up: what a kernel leaves of the same memory differs by its version."""
    return -(-size // GIB) * GIB


@cache  # each is looked for on disk, in a millisecond
def versions() -> dict[str, Value]:
    """Packages that decide the speed."""
    return {name: version(name) for name in PACKAGES}
