"""The report: a finished fit in words, in lmfit's layout, and what the run cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dfit.statistics import Estimate, Estimates, Run

if TYPE_CHECKING:
    from dfit.result import FitResult

# Correlation of neighbours from which the plain standard errors are misleading, and how many of its own
# standard errors 1 / sqrt(n) it must reach in a small sample.
STRONG_LAG1, SIGNIFICANT = 0.3, 5.0
# Of y's variation about its mean float64 keeps its size beside the mean over 2e-16: less than four digits here.
FLAT = 1e-12
EQUATIONS = {"JtJ": "JtJ (normal equations)", "QR": "QR (triangle, keeps all digits)"}


def fit_report(result: FitResult, min_correl: float = 0.1) -> str:
    """The whole report; correlations below `min_correl` are left out."""
    sections = [
        [heading(result)],
        _fit_statistics(result),
        ["[[Variables]]", *_variables(result.params)],
        _correlations(result.params, min_correl),
        _run(result),
        _notes(result),
    ]
    return "\n".join(line for section in sections for line in section)


def heading(result: FitResult) -> str:
    """'1 fit over time, latitude, longitude'."""
    return f"1 fit over {', '.join(str(dim) for dim in result.run.dims)}"


def notes(result: FitResult) -> tuple[str, ...]:
    """What a reader must know before using the numbers, one sentence each."""
    covariance, names = result.covariance, result.var_names
    found = [*result.run.notes, *([result.faults.note] if result.partial else [])]
    sides = {"lower": covariance.at_lower, "upper": covariance.at_upper}
    for side, flags in sides.items():
        found += [f"{name} is at its {side} bound" for name, at in zip(names, flags, strict=True) if at]
    bounded = np.asarray(covariance.at_lower) | np.asarray(covariance.at_upper)
    if bounded.any() and not bounded.all():
        found.append("the other standard errors hold only if the true value is at that bound")
    blind = [name for name, flag in zip(names, covariance.undetermined, strict=True) if flag]
    if blind:
        found.append(
            f"the data do not determine {_enumerate(blind)}: infinite standard error; "
            f"fix one, for example fixed={{{blind[-1]!r}: {result.best_values[blind[-1]]:.4g}}}"
        )
    if np.isnan(np.asarray(covariance.stderr)[~bounded]).any() and covariance.note:
        found.append(covariance.note)
    tallies = result.tallies
    if 0 < tallies.tss < FLAT**2 * tallies.yy:
        share, mean = math.sqrt(tallies.tss / tallies.yy), math.sqrt(tallies.yy / tallies.wsum)
        found.append(
            f"y varies by only {share:.1g} of its size {mean:.3g}, of which float64 keeps few digits or none, so values "
            "and standard errors may be rounding: subtract a constant from y first, type y - y[0]"
        )
    lag1, n = tallies.lag1, max(result.ndata, 1)
    clustered = "group" in str(result.cov_kind)
    if abs(lag1) > max(STRONG_LAG1, SIGNIFICANT / math.sqrt(n)) and not clustered:
        found.append(
            f"neighbouring residuals are correlated ({lag1:+.2f}), so the standard errors are "
            f'{"too small" if lag1 > 0 else "not right"}; see cov={{"groups": "{result.run.dims[0]}"}}'
        )
    return tuple(dict.fromkeys(found))


def standard_errors(result: FitResult) -> str:
    """Where the standard errors come from, in words."""
    kind = result.cov_kind
    if kind is not None and kind.startswith("groups"):
        count = f", {result.groups} groups" if result.groups else ""
        return f"clustered by {kind.partition(':')[2].strip() or 'group'}{count}"
    if kind is not None:
        return f"robust against unequal variances ({kind})"
    if result.loss != "linear":
        return "from the scatter of the residuals' influence (sandwich)"
    return "from sigma as given" if result.absolute_sigma else "scaled by reduced chi-square"


def number(value: float, length: int = 11) -> str:
    """A number in `length` characters with as many digits as fit, blank for a plus: lmfit's format."""
    exponent = int(math.log10(abs(value))) if value and math.isfinite(value) else 0
    precision = length - 7
    if abs(exponent) > 99:
        return f"{value:{length}.{precision - 1}e}"
    if 0 < exponent < precision + 4:
        return f"{value:{length}.{precision + 4 - exponent}f}"
    if exponent <= 0 and -exponent < precision - 1:
        return f"{value:{length}.{precision + 4}f}"
    return f"{value:{length}.{precision}e}"


def size(count: float) -> str:
    """Bytes in a unit that a reader can compare with a memory limit."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _fit_statistics(result: FitResult) -> list[str]:
    rows = {
        "# fitting method  ": "least_squares (trust region)",
        "# function evals  ": f"{result.nfev}",
        "# data points     ": f"{result.ndata}",
        "# variables       ": f"{result.nvarys}",
        "chi-square        ": number(result.chisqr).strip(),
        "reduced chi-square": number(result.redchi).strip(),
        "Akaike info crit  ": number(result.aic).strip(),
        "Bayesian info crit": number(result.bic).strip(),
        "R-squared         ": number(result.rsquared).strip(),
        "success           ": f"{result.success}, {result.message}",
    }
    if result.loss != "linear":
        rows["loss              "] = (
            f"{result.loss}, f_scale = {result.f_scale:g}; chi-square is the sum of rho"
        )
    rows["standard errors   "] = standard_errors(result)
    return ["[[Fit Statistics]]", *(f"    {label} = {value}" for label, value in rows.items())]


def _variables(params: Estimates) -> list[str]:
    width = max(len(name) for name in params)
    return [f"    {name + ':':{width + 1}} {_variable(estimate)}" for name, estimate in params.items()]


def _variable(estimate: Estimate) -> str:
    if not estimate.vary and estimate.expr is None:
        return f"{estimate.value: .7g} (fixed)"
    known = estimate.value and math.isfinite(estimate.stderr)
    percent = f" ({abs(estimate.stderr / estimate.value):.2%})" if known else ""
    shown = f"{number(estimate.value)} +/-{number(estimate.stderr)}{percent}"
    if estimate.expr is not None:
        return f"{shown} == '{estimate.expr}'"
    return f"{shown} (init = {estimate.init_value:.7g})"


def _correlations(params: Estimates, least: float) -> list[str]:
    pairs: dict[str, float] = {}
    names = list(params)
    for place, name in enumerate(names):
        correl = params[name].correl or {}
        for other in names[place + 1 :]:
            if abs(correl.get(other, 0.0)) > least:
                pairs[f"{name}, {other}"] = correl[other]
    if not pairs:
        return []
    width = max(len(pair) for pair in pairs) + 1
    ranked = sorted(pairs.items(), key=lambda item: -abs(item[1]))
    lines = [f"    C({pair + ')':{width}} = {value:+.4f}" for pair, value in ranked]
    return [f"[[Correlations]] (unreported correlations are < {least:.3f})", *lines]


def _bytes_per_pass(run: Run) -> str:
    if not run.bytes_per_pass:
        return "none, data in memory"
    kept = run.npasses > 1 and run.bytes_read == run.bytes_per_pass
    return size(run.bytes_per_pass) + (", read once and kept in memory" if kept else "")


def _run(result: FitResult) -> list[str]:
    run, dropped = result.run, result.tallies.dropped
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in dropped.items() if count)
    workers = f"{run.workers} worker{'s' if run.workers != 1 else ''}"
    # Pairs and not a dict: a coordinate may have any name, such as "seconds".
    rows = [
        ("passes over the data", f"{run.npasses}"),
        ("points per pass", f"{run.points_per_pass:,}"),
        ("bytes per pass", _bytes_per_pass(run)),
        ("seconds", f"{run.elapsed_s:.3g}"),
        ("points per second", f"{run.points_per_s:,.0f}"),
        ("compilations", f"{run.compilations}"),
        ("dropped points", f"{sum(dropped.values()):,}" + (f" ({reasons})" if reasons else "")),
        ("peak memory", f"{size(run.peak_bytes)} above an idle worker, {workers}"),
        ("equations", EQUATIONS.get(run.form, run.form)),
        *_faults(result),
        *_sample(result),
        *_labels(result),
    ]
    width = max(len(label) for label, _ in rows)
    return ["[[Run]]", *(f"    {label:{width}} = {value}" for label, value in rows)]


def _faults(result: FitResult) -> list[tuple[str, str]]:
    """Reads that were tried again and tasks that failed, where there were any."""
    faults = result.faults
    rows = []
    if faults.retries:
        rows.append(("reads tried again", f"{faults.retries:,}"))
    if faults.failures:
        errors = ", ".join(f"{name}: {count:,}" for name, count in faults.errors.items())
        rows.append(("failed tasks", f"{faults.failures:,} of {faults.tasks:,} ({errors})"))
    return rows


def _sample(result: FitResult) -> list[tuple[str, str]]:
    """What a warm-up read, what came of it, and what all of the data said of that."""
    if result.warmup is None:
        return []
    report = result.warmup
    agreed = [("hand-over", report.hand_over)] if report.hand_over is not None else []
    return [("sample", report.sample), ("warm-up", report.sentence.removeprefix("warm-up: ")), *agreed]


def _labels(result: FitResult) -> list[tuple[str, str]]:
    """y and the coordinates with their units; times with their unit and origin."""
    labels = result.known.labels
    rows = []
    if "units" in labels.attrs:
        rows.append((labels.name or "y", f"in {labels.attrs['units']}"))
    rows += [(name, f"in {unit}") for name, unit in labels.units.items() if name not in labels.time]
    for name, axis in labels.time.items():
        calendar = f" ({axis.calendar} calendar)" if axis.calendar else ""
        rows.append((name, f"in {axis.unit} since {axis.origin}{calendar}"))
    return rows


def _notes(result: FitResult) -> list[str]:
    found = notes(result)
    return ["[[Notes]]", *(f"    {sentence}" for sentence in found)] if found else []


def _enumerate(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
