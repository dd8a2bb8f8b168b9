"""What a plan warns of."""

from __future__ import annotations

from dataclasses import replace

from dask.utils import format_bytes

from dfit.data.storage import lock_advice
from dfit.planning import Facts
from dfit.plans import Plan
from dfit.reduce.site import Site

# A fit of so many minutes is worth a checkpoint; it takes so many passes, after a warm-up and without one.
LONG_S, PASSES_AFTER_WARMUP, PASSES = 1800.0, 3, 12
LONG_TO_WAIT_S = 30.0  # shorter fits need no advice
KEEP = "type checkpoint='fit.ckpt'"


def warnings_of(plan: Plan, facts: Facts, site: Site, wanted: Plan) -> tuple[str, ...]:
    """What had better be changed, with the line to type.

    Parameters
    ----------
    wanted : what the user has decided of the plan.
    """
    found = []
    passes = PASSES_AFTER_WARMUP if facts.sample_points else PASSES
    seconds = plan.first_pass_s + (passes - 1) * plan.pass_s
    if seconds > LONG_S and not facts.checkpoint:
        found.append(
            f"this fit is predicted to take {seconds / 60:.0f} minutes ({passes} passes): {KEEP}, "
            "and after any kill the same call goes on from there"
        )
    advice = lock_advice(facts.storage, plan.in_flight or 1)
    if advice is not None and plan.strategy == "streaming":
        found.append(advice)
    if not facts.traced and (plan.in_flight or 1) > 1 and seconds > LONG_TO_WAIT_S:
        found.append(
            "the model is plain Python, of which one thread of a process runs at a time: type "
            "from dask.distributed import Client; Client(processes=True, threads_per_worker=1)"
        )
    if wanted.in_flight is None and (plan.in_flight or 1) < site.threads_each:
        found.append(
            f"memory for {plan.in_flight} of {site.threads_each} partitions at a time in a process: type smaller "
            "chunks where the data are opened, chunks={...}, or give the processes more memory"
        )
    if site.used + plan.peak_bytes > site.limit.budget and plan.smallest_limit <= site.limit.bytes:
        found.append(
            f"{plan.in_flight} partitions at a time need {format_bytes(site.used + plan.peak_bytes)} in a process, of "
            f"{format_bytes(site.limit.budget)} that it may take: type fewer, plan=dfit.Plan(in_flight=...), or "
            "leave it to dfit"
        )
    return tuple(found)


def as_of_now(plan: Plan, facts: Facts) -> Plan:
    """A plan that was made before, without what the call has changed since: its warm-up and its checkpoint."""
    kept = tuple(text for text in plan.warnings if not (facts.checkpoint and KEEP in text))
    return replace(plan, sample_points=facts.sample_points, warnings=kept)
