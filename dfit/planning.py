"""Planning: from what the data, the machine and past costs are to how a fit runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import dask
import dask.local
from dask.utils import format_bytes

from dfit.cost import Load, best_partition, body, pass_seconds
from dfit.data.storage import Storage
from dfit.errors import InputError, warn
from dfit.learning import Reliability
from dfit.limits import as_bytes, require_room, rounded_up
from dfit.plans import Plan
from dfit.reduce.calibrate import DryRun
from dfit.reduce.footprint import BASE_BYTES, Footprint, client_peak, footprint_of, kept_each, programs_of
from dfit.reduce.site import Site
from dfit.terms import Origin, Terms

# Of what a fit may take, data kept between passes may be this part: dask spills from 0.6 of a worker's limit
# on, workers get unlike shares, and a pass needs room beside them.
KEEP_FRACTION = 0.53
# Without costs: some 0.2 s of work, against 2 ms that a task costs client and scheduler.
PARTITION_BYTES = 256 << 20
TASKS_PER_THREAD = 4  # fewer leave threads idle at the end of a pass
# Threads that wait for a store are no load: there may be so many more. What saves less than 5 % is not done.
MORE_THREADS, WORTH = 4, 0.95


@dataclass(frozen=True)
class Facts:
    """What a plan must know of a fit.

    Attributes
    ----------
    points : of the data.
    nbytes : of the chunked arrays, as decoded; 0 for data in memory.
    per_point : bytes that a point of a partition has.
    leaf_bytes, chunk_bytes : of the chunks that make a leaf, and of one, of all arrays; the largest.
    leaf_points, block_points : as fixed by chunks and model.
    varying : parameters.
    storage : of y.
    sample_points : of the warm-up; 0 without one.
    checkpoint : whether the fit keeps its state.
    traced : whether JAX compiles the model.
    """

    points: int
    nbytes: int
    per_point: int
    leaf_bytes: int
    chunk_bytes: int
    leaf_points: int
    block_points: int
    varying: int
    storage: Storage
    sample_points: int = 0
    checkpoint: bool = False
    traced: bool = True

    @property
    def lazy(self) -> bool:
        """Whether there is something to read."""
        return self.nbytes > 0


def strategy_of(wanted: str | None, facts: Facts, site: Site) -> tuple[str, str]:
    """Strategy and its reason.

    Raises
    ------
    InputError
        If the wanted one cannot run.
    """
    if not facts.lazy:
        if wanted not in (None, "in_memory"):
            raise InputError(
                f"strategy={wanted!r} reads chunked data, and these are in memory: type strategy='in_memory', or "
                "chunk them, data.chunk(...)"
            )
        return "in_memory", "the data are in memory"
    room = keep_room(site)
    size, where = format_bytes(facts.nbytes), f"{format_bytes(max(room, 0))} that may be kept in {site.words}"
    fits = facts.nbytes <= room
    if wanted == "streaming":
        return wanted, f"asked for; {size} of data are read in every pass"
    if wanted is not None:
        if not fits:
            free = facts.nbytes / KEEP_FRACTION / site.processes
            least = math.ceil((free + site.used + (BASE_BYTES if site.workers else 0)) / site.limit.fraction)
            raise InputError(
                f"strategy={wanted!r}: {size} of data are more than {where}: type strategy='streaming', or "
                f"memory_limit={rounded_up(least)!r} for each process if there is so much"
            )
        if wanted == "cached" and not site.keeps:
            raise InputError(
                "strategy='cached': dask's multiprocessing scheduler keeps nothing between passes: type "
                "strategy='streaming', or from dask.distributed import Client; Client()"
            )
        return wanted, f"asked for; {size} of data fit the {where}"
    if not site.keeps:
        return "streaming", "this scheduler of dask keeps nothing between passes"
    if not fits:
        return "streaming", f"{size} of data are more than the {where}"
    if not _fits(_footprint(facts, site), kept_each(facts.nbytes, site.processes), site, 1, False):
        return "streaming", f"{size} of data and a partition are more than there is room for in {site.words}"
    return "cached" if site.workers else "in_memory", f"{size} of data fit the {where}"


def fits_as_given(plan: Plan, facts: Facts, site: Site) -> bool:
    """Whether a complete plan is of these data and these processes.

    Raises
    ------
    InputError
        If it is of other data.
    """
    if not plan.complete:
        return False
    of, now = (
        (plan.points, plan.leaf_points, plan.block_points),
        (facts.points, facts.leaf_points, facts.block_points),
    )
    if of != now:
        raise InputError(
            f"the plan is for {of[0]:,} points in leaves of {of[1]:,} and blocks of {of[2]:,}, these are {now[0]:,}, "
            f"{now[1]:,} and {now[2]:,}: type plan=dfit.plan(...) with the arguments of this fit"
        )
    each = _at_a_time(plan.in_flight or 1, site)
    return (plan.workers, plan.threads, plan.limit) == (site.workers, each * site.processes, site.limit)


def keep_room(site: Site) -> int:
    """Bytes of data that all processes together may keep between passes."""
    # Of a worker's small limit an idle one and JAX take most: measured, 1 GiB spilled where they were not counted.
    free = site.limit.budget - site.used - (BASE_BYTES if site.workers else 0)
    return int(KEEP_FRACTION * max(free, 0) * site.processes)


def decide(
    facts: Facts,
    wanted: Plan,
    strategy: str,
    reason: str,
    site: Site,
    terms: Terms,
    runs: Sequence[DryRun] = (),
    reliability: Reliability | None = None,
) -> Plan:
    """The whole plan, but for its warnings.

    Parameters
    ----------
    wanted : what the user has decided.
    runs : what dry runs have found, if there were any.
    reliability : what past predictions like this one were worth.

    Raises
    ------
    InputError
        If the user's limit is less than one partition needs.
    """
    keeps = facts.nbytes if strategy != "streaming" else 0
    good = [run for run in runs if not run.failure]
    footprint = _footprint(facts, site, good)
    kept = kept_each(keeps, site.processes)
    _require_least(footprint, kept, facts, site)
    fits = partial(_fits, footprint, kept, site)
    in_flight, ahead = at_once(wanted, facts, site, terms, strategy == "streaming", fits)
    load = _load(facts, site, in_flight)
    points = wanted.partition_points or partition_points(facts, terms, load, ahead)
    partitions = -(-facts.points // points)
    tasks = min(in_flight, -(-partitions // site.processes))
    later = load if strategy == "streaming" else replace(load, nbytes=0)
    # A task has at least the chunks of a leaf.
    each = max(points, facts.leaf_bytes // max(facts.per_point, 1))
    pass_s = pass_seconds(terms, later, each, ahead)
    plan = Plan(
        strategy,
        points,
        in_flight,
        ahead,
        points=facts.points,
        partitions=partitions,
        leaf_points=facts.leaf_points,
        block_points=facts.block_points,
        bytes_per_pass=facts.nbytes,
        kept_bytes=keeps,
        workers=site.workers,
        threads=in_flight * site.processes,
        limit=site.limit,
        peak_bytes=footprint.peak(tasks, ahead, kept),
        client_bytes=client_peak(partitions, facts.varying, facts.sample_points > 0),
        smallest_limit=math.ceil((site.used + footprint.peak(1, False, kept)) / site.limit.fraction),
        first_pass_s=pass_seconds(terms, load, each, ahead),
        pass_s=pass_s,
        sample_points=facts.sample_points,
        terms=terms,
        flops_per_point=max((run.flops_per_point for run in good), default=0.0),
        storage=f"{facts.storage.kind}, {facts.storage.codec}",
        reason=reason,
    )
    if reliability is not None and reliability.interval is not None:
        low, high = reliability.interval
        plan = replace(plan, interval_s=(low * pass_s, high * pass_s), confidence=reliability.confidence)
    return plan


def _footprint(facts: Facts, site: Site, runs: Sequence[DryRun] = ()) -> Footprint:
    """Memory that the fit takes, as far as dry runs have found it theirs."""
    return footprint_of(
        facts.leaf_bytes,
        facts.chunk_bytes,
        facts.leaf_points,
        facts.varying,
        facts.storage.kind if facts.lazy else None,
        max((run.base_bytes for run in runs), default=None),
        programs=0 if site.workers else programs_of(facts.varying, facts.sample_points > 0),
        temporaries=max((run.temporary_bytes for run in runs), default=0),
    )


def partition_points(facts: Facts, terms: Terms, load: Load, read_ahead: bool) -> int:
    """Points of a partition: what costs say, or where they are not known a rule of bytes."""
    given = dask.config.get("dfit.partition-bytes", None)
    if given is None and terms.origin != Origin.STATIC:
        return best_partition(terms, load, read_ahead)
    limit = PARTITION_BYTES if given is None else as_bytes(given, "dask.config dfit.partition-bytes")
    nbytes = facts.points * facts.per_point
    rounds = max(TASKS_PER_THREAD, -(-nbytes // (limit * load.threads)))
    return max(1, -(-facts.points // (rounds * load.threads)))


def _require_least(footprint: Footprint, kept: int, facts: Facts, site: Site) -> None:
    """Refuse a limit that the user has set too low; warn of one that is there."""
    need = site.used + footprint.peak(1, False, kept)
    what = f"one partition at a time of chunks of {format_bytes(facts.chunk_bytes)}, beside what is there already,"
    if site.limit.enforced:
        try:
            require_room(need, site.limit, what)
        except InputError as error:
            warn(str(error))
    else:
        require_room(need, site.limit, what)


def _at_a_time(in_flight: int, site: Site) -> int:
    """Of so many partitions in a process, those that run: only local threads are as many as asked for."""
    fixed = site.workers or site.get is dask.local.get_sync
    return min(in_flight, site.threads_each) if fixed else in_flight


def at_once(
    wanted: Plan,
    facts: Facts,
    site: Site,
    terms: Terms,
    streams: bool,
    fits: Callable[[int, bool], bool],
) -> tuple[int, bool]:
    """Partitions at a time in a process, and whether they read ahead: what is quickest of what memory has room for.

    Parameters
    ----------
    streams : whether every pass reads.
    fits : whether so many at a time, reading ahead or not, do.
    """
    each = site.threads_each
    most = each * MORE_THREADS if streams and site.flexible else each
    counts = (
        [_at_a_time(wanted.in_flight, site)]
        if wanted.in_flight
        else [*range(each, most + 1), *range(each - 1, 0, -1)]
    )
    # Where nothing waits reading ahead is predicted to give nothing, and gave a tenth in measurements.
    aheads = ([True, False] if streams else [False]) if wanted.read_ahead is None else [wanted.read_ahead]
    choices = [(n, ahead) for n in counts for ahead in aheads if fits(n, ahead)] or [(counts[-1], aheads[0])]
    seconds = [body(terms, _load(facts, site, n), ahead) for n, ahead in choices]
    # Memory of further threads is spent only where it saves something.
    return next(c for c, s in zip(choices, seconds, strict=True) if s * WORTH <= min(seconds))


def _load(facts: Facts, site: Site, in_flight: int) -> Load:
    return Load(facts.points, facts.nbytes, in_flight * site.processes, site.cores, facts.leaf_points)


def _fits(footprint: Footprint, kept: int, site: Site, in_flight: int, ahead: bool) -> bool:
    return site.used + footprint.peak(in_flight, ahead, kept) <= site.limit.budget
