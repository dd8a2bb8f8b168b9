"""The door of nlsq's hybrid streaming: ``curve_fit(..., method="hybrid_streaming")``.

A translation, and nothing else: what the config says becomes options of `dfit.fit`, and its result answers
under the names of nlsq.  Sums of squares are whole here; `cost` is half of one, as everywhere in dfit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, KeysView, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from dfit.errors import InputError
from dfit.events import PassDone
from dfit.face.ending import CurveFit, residual_of
from dfit.face.hybrid_config import FIELDS, INSTEAD, read_config
from dfit.result import FitResult

METHOD = "hybrid_streaming"
TIMINGS = {
    "phase0_normalization": "normalization",
    "phase1_warmup": "warmup",
    "phase2_gauss_newton": "gauss_newton",
    "phase3_finalize": "covariance",
}


class Watch:
    """A callback that keeps the last pass and hands it on."""

    def __init__(self, callback: Callable[[PassDone], Any] | None) -> None:
        self._callback = callback
        self.last: PassDone | None = None

    def __call__(self, event: PassDone) -> Any:
        self.last = event
        return None if self._callback is None else self._callback(event)


class HybridFit(CurveFit):
    """``popt, pcov``, and a mapping of what nlsq's result holds.

    A fit that failed does not raise here: `success` is False, `message` says why, a warning was given, and
    popt and pcov are those of the best point.

    Keys
    ----
    x, parameters : (p,) values.
    success, message, nfev : as in `FitResult`.
    fun : (f - y) / sigma, computed when it is asked for and not kept; lazy for chunked data.
    cost : half the sum of squares.
    pcov, perr : (p, p) covariance, and the roots (p,) of its diagonal.
    model, strategy : the function that was fitted, "hybrid_streaming".
    streaming_diagnostics : seconds and iterations by stage, and what each of them found.
    """

    _model: Callable[..., Any]
    _whiten: np.ndarray | None
    _last: PassDone | None

    @classmethod
    def of(
        cls,
        found: tuple[Any, ...],
        result: FitResult,
        model: Callable[..., Any],
        whiten: np.ndarray | None,
        watch: Watch,
    ) -> HybridFit:
        """The answer ``found`` for a SciPy user, and what the keys are computed from."""
        fit = cls(found)
        fit.result, fit._model, fit._whiten, fit._last = result, model, whiten, watch.last
        return fit

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in _VALUES:
            raise KeyError(f"{key!r}; the keys are {', '.join(_VALUES)}")
        return _VALUES[key](self)

    def __getattr__(self, name: str) -> Any:
        if name in _VALUES:
            return _VALUES[name](self)
        raise AttributeError(f"a hybrid streaming fit has no {name!r}; it has {', '.join(_VALUES)}")

    def __contains__(self, key: object) -> bool:
        return key in _VALUES if isinstance(key, str) else super().__contains__(key)

    def keys(self) -> KeysView[str]:
        """Names of the values."""
        return _VALUES.keys()

    def items(self) -> Iterator[tuple[str, Any]]:
        """Names and values, each computed when its turn comes."""
        return ((key, self[key]) for key in _VALUES)

    def get(self, key: str, default: Any = None) -> Any:
        """A value, or the default where there is none of this name."""
        return self[key] if key in _VALUES else default


def translate(config: Any, given: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Keywords of `dfit.fit` from a config and from keywords, of which some are fields of the config.

    Parameters
    ----------
    known : keywords that curve_fit takes with any method; they win over the config.
    """
    if "warmup" in given:
        raise InputError(
            f"warmup= and method={METHOD!r} say the same: type config=dfit.HybridStreamingConfig(...), or "
            "leave the method out"
        )
    fields = {name: value for name, value in given.items() if name in FIELDS}
    unknown = [name for name in given if name in INSTEAD and name not in known]
    if unknown:
        raise InputError(f"curve_fit does not take {unknown[0]}=: {INSTEAD[unknown[0]]}")
    rest = {name: value for name, value in given.items() if name not in fields}
    options = {**read_config(config, fields).options(), **rest}
    return {**options, "callback": Watch(options.get("callback"))}


def refuse(config: Any, given: Mapping[str, Any]) -> None:
    """Refuse settings of this door where another method was asked for."""
    ours = [*(["config"] if config is not None else []), *(name for name in given if name in FIELDS)]
    if ours:
        raise InputError(
            f"{ours[0]}= belongs to hybrid streaming: type method={METHOD!r}, or warmup=dfit.Warmup(...)"
        )


def _diagnostics(fit: HybridFit) -> dict[str, Any]:
    """What each stage took and found."""
    result = fit.result
    phases = {phase.name: phase for phase in result.phases}
    return {
        "phase_timings": {key: phases[name].seconds for key, name in TIMINGS.items()},
        "phase_iterations": {
            "phase1": phases["warmup"].iterations,
            "phase2": phases["gauss_newton"].iterations,
        },
        "total_time": result.run.elapsed_s,
        "warmup_diagnostics": _of_warmup(result),
        "gauss_newton_diagnostics": _of_passes(fit),
        "phase_history": [{"phase": k, **asdict(phases[name])} for k, name in enumerate(TIMINGS.values())],
        "telemetry": result.telemetry,
    }


def _of_warmup(result: FitResult) -> dict[str, Any]:
    """The warm-up's report; losses are sums of squares over the sample."""
    report = result.warmup
    if report is None:
        return {}
    losses = {
        "initial_loss": 2 * report.cost_at_start,
        "final_loss": 2 * report.cost,
        "best_loss": 2 * report.cost,
    }
    return {**asdict(report), **losses, "switch_reason": report.reason}


def _of_passes(fit: HybridFit) -> dict[str, Any]:
    """The last pass; costs are sums of squares over the data."""
    result, last = fit.result, fit._last
    nan = float("nan")
    return {
        "final_cost": result.chisqr,
        "best_cost": result.chisqr,
        "residual_variance": result.redchi,
        "relative_offset": result.relative_offset,
        "gradient_norm": nan if last is None else last.gradient_norm,
        "trust_radius": nan if last is None else last.trust_radius,
        "convergence_reason": result.message,
    }


_VALUES: dict[str, Callable[[HybridFit], Any]] = {
    "x": lambda fit: fit.popt,
    "parameters": lambda fit: fit.popt,
    "success": lambda fit: fit.result.success,
    "message": lambda fit: fit.result.message,
    "nfev": lambda fit: fit.result.nfev,
    "fun": lambda fit: residual_of(fit.result, fit._whiten),
    "cost": lambda fit: fit.result.cost,
    "pcov": lambda fit: fit.pcov,
    "perr": lambda fit: np.sqrt(np.diag(fit.pcov)),
    "model": lambda fit: fit._model,
    "strategy": lambda fit: METHOD,
    "streaming_diagnostics": _diagnostics,
}
