"""What the passes of a fit will cost: past runs, a dry run on its first leaves, or rules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import xarray as xr

from dfit.data.domain import Domain
from dfit.errors import warn
from dfit.fingerprint import NEW
from dfit.history import ledger
from dfit.learning import Learned, Reliability, contradicted, learned
from dfit.planning import Facts, static_terms, tried_terms
from dfit.reduce.calibrate import DryRun
from dfit.reduce.hardware import hardware
from dfit.reduce.kernels import Recipe
from dfit.reduce.site import Site
from dfit.store.row import Value, key_of
from dfit.terms import Terms

logger = logging.getLogger("dfit")

# A pass over fewer points takes less time than a choice could save, and a dry run would be much of it.
TRY_ABOVE = 1 << 22
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
) -> Costs:
    """Costs from the most certain source there is.

    Parameters
    ----------
    workload : from `workload_of`.
    try_out : runs the dry runs.
    static : whether to go by rules alone, and look at nothing.
    """
    rules = static_terms(facts, site)
    if static or facts.points < TRY_ABOVE:
        return Costs(rules)
    runs = try_out()
    for run in runs:
        if run.failure:
            logger.info("dry run in %s failed: %s", run.process, run.failure)
    tried = tried_terms(runs, site)
    kept = {} if str(workload["model"]).startswith(NEW) else workload
    machine = hardware_of(runs, site)
    known = _known(kept, machine) if kept else None
    if known is None or tried is None:
        return Costs(tried or rules, runs, None, kept, machine)
    if contradicted(known.terms, tried, facts.nbytes / facts.points):
        warn(
            "the history of past fits contradicts a dry run by more than a factor of 3 and is not followed. Where "
            "the machine has changed type: dfit.history.clear()"
        )
        return Costs(tried, runs, None, kept, machine)
    if not known.trusted:
        return Costs(tried, runs, None, kept, machine)
    return Costs(known.terms, runs, known.reliability, kept, machine)


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
    found = runs[0].hardware if runs else hardware()
    return {
        "cpu": found.cpu,
        "cores": found.cores,
        "caches": found.caches,
        "memory_limit": site.limit.bytes,
        "threads": site.threads_each,
        "workers": site.workers,
    }


def versions() -> dict[str, Value]:
    """Packages that decide the speed."""
    return {name: version(name) for name in PACKAGES}


def _known(workload: Mapping[str, Value], machine: Mapping[str, Value]) -> Learned | None:
    kept = ledger()
    return None if kept is None else learned(kept.load(), key_of(workload), key_of(machine))
