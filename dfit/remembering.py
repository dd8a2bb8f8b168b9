"""What a finished fit leaves for the plans of later ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from dfit.cost import Load, at_end, pass_seconds
from dfit.costing import TASK_MS, versions
from dfit.prepare import Prepared
from dfit.reduce.pace import PassCost
from dfit.store.row import Record
from dfit.terms import NAMES, Origin, Terms

# What a task costs beside its work is measured as what is left of a pass: not beyond so many times the usual.
TASK_FACTOR = 4.0


def remember(prepared: Prepared) -> None:
    """Add the record of a fit that has finished; none where its costs are of no use to another."""
    kept, costs = prepared.history, prepared.evaluator.pace.costs
    plan, terms = prepared.plan, prepared.plan.terms
    if kept is None or terms is None or not plan.workload or not costs:
        return
    low, high = plan.interval_s or (None, None)
    predicted = {
        "pass_s": plan.pass_s,
        "first_pass_s": plan.first_pass_s,
        "low_s": low,
        "high_s": high,
        "peak_bytes": float(plan.peak_bytes),
        **numbers(terms),
    }
    settings = {
        "strategy": plan.strategy,
        "partition_points": plan.partition_points,
        "in_flight": plan.in_flight,
        "read_ahead": int(bool(plan.read_ahead)),
    }
    about = {
        "points": plan.points,
        "bytes_per_point": plan.bytes_per_pass / plan.points,
        "model_bytes": len(prepared.evaluator.job_for("normal").recipe.model),
        "block_points": plan.block_points,
        "flops_per_point": plan.flops_per_point,
        "leaf_points": plan.leaf_points,
    }
    kept.add(
        Record(
            plan.workload,
            plan.hardware,
            about,
            versions(),
            settings,
            predicted,
            str(terms.origin),
            measured(costs, prepared),
        )
    )


def measured(costs: Sequence[PassCost], prepared: Prepared) -> dict[str, float | None]:
    """What the passes of a fit have cost, under the names of `Record`.

    Costs are such that the model of a pass gives what its passes took: threads that share cores, memory and a
    disk are slower than one alone, and that belongs to them.
    """
    plan, steady = prepared.plan, [c for c in costs[1:] if not c.compilations]
    terms = _raw(costs, prepared)
    load = Load(plan.points, plan.bytes_per_pass, plan.threads, prepared.cores)
    kept = plan.strategy != "streaming"
    pass_s = median(c.seconds for c in steady) if steady else None
    if pass_s is not None:
        later = replace(load, nbytes=0) if kept else load
        each = math.ceil(plan.points / max(median(c.tasks for c in steady), 1))
        factor = pass_s / pass_seconds(terms, later, each, bool(plan.read_ahead))
        terms = replace(
            terms, point_ns=factor * terms.point_ns, byte_ns=terms.byte_ns * (1 if kept else factor)
        )
    whole = costs[0].points == max(c.points for c in costs)  # an earlier process may have summed some of it
    peak = max(prepared.evaluator.account.peak_bytes.values(), default=0)
    return {
        **numbers(terms),
        # No pass tells it: it comes from the dry run, and no rule is kept as if it had been measured.
        "wait": None if plan.terms is None or plan.terms.origin == Origin.STATIC else terms.wait,
        "pass_s": pass_s,
        "first_pass_s": costs[0].seconds if whole else None,
        "passes": float(len(costs)),
        "points": float(plan.points),
        "peak_bytes": float(peak),
    }


def _raw(costs: Sequence[PassCost], prepared: Prepared) -> Terms:
    """Costs as the tasks have measured them, each on its own thread."""
    plan = prepared.plan
    assert plan.terms is not None
    points, nbytes = sum(c.points for c in costs), sum(c.bytes_read for c in costs)
    read_s, account = sum(c.read_s for c in costs), prepared.evaluator.account
    if not nbytes:  # what a sample has read stays in memory: no pass has read it again
        read_s, nbytes = account.read_s, account.bytes_read
    return Terms(
        1e9 * sum(c.compute_s - c.compile_s for c in costs) / max(points, 1),
        1e9 * read_s / nbytes if nbytes else 0.0,
        plan.terms.wait,
        median(overhead_ms(c, plan.threads, plan.workers > 0) for c in costs),
        median(c.spread for c in [c for c in costs if not c.compilations] or costs),
        Origin.HISTORY,
    )


def overhead_ms(cost: PassCost, threads: int, on_cluster: bool) -> float:
    """Milliseconds by which a task made the pass longer, beside its work: while threads were idle, but at the end."""
    usual = TASK_MS[on_cluster]
    if not cost.tasks:
        return usual
    at_once = min(threads, cost.tasks)
    busy = sum(cost.task_s)
    work = busy / at_once + at_end(cost.spread, busy / cost.tasks, at_once)
    spare = 1e3 * (cost.seconds - work) / cost.tasks
    return min(max(spare, usual / TASK_FACTOR), usual * TASK_FACTOR)


def numbers(terms: Terms) -> dict[str, float | None]:
    """Costs under the names of `Record`."""
    return {name: getattr(terms, name) for name in NAMES}
