"""`HybridStreamingConfig`: settings of a warm-up and its passes under the names of nlsq's hybrid streaming."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

from dfit.checkpoint import Checkpoint
from dfit.errors import CheckpointError, InputError
from dfit.settings import Settings
from dfit.warm_settings import Warmup

# Fields, and what they are called in `Warmup` ...
NAMES = {
    "normalization_strategy": "normalization",
    "warmup_method": "method",
    "warmup_iterations": "iterations",
    "warmup_tolerance": "tolerance",
    "sample_points": "sample_points",
    "seed": "seed",
    "groups": "groups",
    "multistart": "multistart",
    "global_search": "global_search",
}
# ... the four layers: what turns one on, and its thresholds; and in `dfit.fit`.
LAYERS = {
    "enable_warm_start_detection": {"warm_start_threshold": "warm_start_threshold"},
    "enable_adaptive_warmup_lr": {
        "warmup_lr_refinement": "radius_refinement",
        "warmup_lr_careful": "radius_careful",
    },
    "enable_cost_guard": {"cost_increase_tolerance": "cost_increase_tolerance"},
    "enable_step_clipping": {"max_warmup_step_size": "max_step"},
}
PASSES = {"gauss_newton_tol": "tol", "phase2_max_iterations": "max_passes"}
# Of nlsq's fields those that have no meaning here, by what to do instead.
ADVICE = {
    "type warmup_iterations=, the ceiling": "max_warmup_iterations",
    "type phase2_max_iterations=, passes over the data": "gauss_newton_max_iterations",
    "type warmup_tolerance=, a step in the sample's standard errors": (
        "loss_plateau_threshold gradient_norm_threshold active_switching_criteria"
    ),
    "leave it out: a step has the length of a trust radius, which begins at warmup_lr_careful=": (
        "warmup_learning_rate lbfgs_initial_step_size lbfgs_exploration_step_size lbfgs_refinement_step_size "
        "use_learning_rate_schedule lr_schedule_warmup_steps lr_schedule_decay_steps lr_schedule_end_value "
        "trust_region_initial"
    ),
    'leave it out, or type warmup_method="lbfgs"': "lbfgs_history_size lbfgs_line_search",
    "type max_warmup_step_size=": "gradient_clip_value",
    "leave it out: what the data do not determine is named, and nothing is added": "regularization_factor",
    "leave it out: a step is the exact solution of p equations": (
        "cg_max_iterations cg_relative_tolerance cg_absolute_tolerance cg_param_threshold"
    ),
    "type tie={name: lambda p: ...} to curve_fit for parameters that belong together": (
        "enable_group_variance_regularization group_variance_lambda group_variance_indices"
    ),
    "type sigma=1/np.sqrt(weights) to curve_fit": "enable_residual_weighting residual_weights",
    "leave it out: dfit.plan(...) says what is read at once; or type plan=dfit.Plan(partition_points=10**6)": (
        "chunk_size loop_strategy"
    ),
    "leave it out: what is not finite is an error that names the place, and failed reads are tried again": (
        "validate_numerics enable_fault_tolerance max_retries_per_batch min_success_rate"
    ),
    "leave it out: everything is computed in float64": "precision",
    "leave it out, and start a dask.distributed.Client for more processes": "enable_multi_device",
    "type verbose=1 to curve_fit: one line a pass": "verbose log_frequency",
    "type callback=function to curve_fit, which is called after every pass": "callback_frequency",
    "type multistart=10 for that many starts, all tried on the sample": (
        "enable_multistart n_starts multistart_sampler elimination_rounds elimination_fraction "
        "batches_per_round center_on_p0 scale_factor"
    ),
}
INSTEAD = {name: advice for advice, names in ADVICE.items() for name in names.split()}


@dataclass(frozen=True)
class HybridStreamingConfig:
    """How ``method="hybrid_streaming"`` warms up on a sample and passes over the data.

    Defaults are those of `dfit.Warmup` and `dfit.fit`.

    Attributes
    ----------
    normalize : bool
        Whether parameters have a unit other than 1.
    normalization_strategy : {"auto", "bounds", "p0", "none"}
        That unit: the width of the bounds, the size of p0, or 1.
    warmup_method : {"lm", "lbfgs"}
        Levenberg-Marquardt, or L-BFGS before it.
    warmup_iterations : int
        Ceiling of evaluations on the sample.
    warmup_tolerance : float
        The warm-up ends when a Gauss-Newton step, before any clip, is below this part of the sample's
        standard errors.
    sample_points, seed, groups, multistart, global_search
        As in `dfit.Warmup`.
    enable_warm_start_detection, warm_start_threshold : bool, float
        Layer 1: a start whose loss is below this part of the data's variance, or that a Gauss-Newton step
        would hardly move, is not warmed up.
    enable_adaptive_warmup_lr, warmup_lr_refinement, warmup_lr_careful : bool, float
        Layer 2: the first trust radius as a part of the size of p0, |D p0| with D the norms of the columns
        of the Jacobian, where the loss at p0 is below 0.1 of the data's variance, and where it is below 1;
        beyond, the radius is 1.  It doubles with every good step, so small values cost evaluations on the
        sample, some 20 for 1e-6, and change no answer.
    enable_cost_guard, cost_increase_tolerance : bool, float
        Layer 3: the part by which the cost of points held out may rise before the warm-up is given up.
    enable_step_clipping, max_warmup_step_size : bool, float
        Layer 4: longest step of the warm-up, in the unit of the parameters.
    gauss_newton_tol : float
        `tol` of `dfit.fit`: converged when a further step would move no parameter by more than this part of
        its standard error.
    phase2_max_iterations : int, optional
        Most passes over the data, by default 100 (p + 1).
    enable_checkpoints, checkpoint_dir : bool, path or URL
        Where the fit keeps its state, and goes on from when it is called again; by default nowhere.
    checkpoint_frequency : int, optional
        A save after every so many passes; by default one a minute.
    resume_from_checkpoint : path or URL, optional
        The same folder, in which something must be to go on from.

    Raises
    ------
    InputError (ValueError)
        For a field that does not exist, with the nearest that does, and values outside their range.

    Examples
    --------
    >>> import dfit
    >>> dfit.HybridStreamingConfig(warmup_iterations=300).to_warmup().iterations
    300
    """

    normalize: bool = True
    normalization_strategy: str = Warmup.normalization
    warmup_method: str = Warmup.method
    warmup_iterations: int = Warmup.iterations
    warmup_tolerance: float = Warmup.tolerance
    sample_points: int | None = Warmup.sample_points
    seed: int = Warmup.seed
    groups: str | None = Warmup.groups
    multistart: int = Warmup.multistart
    global_search: str | None = Warmup.global_search
    enable_warm_start_detection: bool = True
    warm_start_threshold: float | None = Warmup.warm_start_threshold
    enable_adaptive_warmup_lr: bool = True
    warmup_lr_refinement: float | None = Warmup.radius_refinement
    warmup_lr_careful: float | None = Warmup.radius_careful
    enable_cost_guard: bool = True
    cost_increase_tolerance: float | None = Warmup.cost_increase_tolerance
    enable_step_clipping: bool = True
    max_warmup_step_size: float | None = Warmup.max_step
    gauss_newton_tol: float = Settings.tol
    phase2_max_iterations: int | None = None
    enable_checkpoints: bool = True
    checkpoint_dir: str | PathLike[str] | None = None
    checkpoint_frequency: int | None = None
    resume_from_checkpoint: str | PathLike[str] | None = None
    __signature__: ClassVar[inspect.Signature]

    def __new__(cls, *args: Any, **given: Any) -> Self:
        require_fields(given)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name in ("normalize", "enable_checkpoints", *LAYERS):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}; expected True or False")
        for name, core in _thresholds():
            _check(name, core, lambda given: Warmup(**given), getattr(self, name))
        _check("gauss_newton_tol", "tol", lambda given: Settings(**given).check(), self.gauss_newton_tol)
        if self.phase2_max_iterations is not None:
            passes = self.phase2_max_iterations
            _check("phase2_max_iterations", "max_passes", lambda given: Settings(**given).check(), passes)
        every = self.checkpoint_frequency
        _check("checkpoint_frequency", "every_passes", lambda given: Checkpoint("here", **given), every)
        paths = [path for path in (self.checkpoint_dir, self.resume_from_checkpoint) if path is not None]
        if len({str(path) for path in paths}) > 1:
            raise InputError(
                f"resume_from_checkpoint is {paths[1]!s}, checkpoint_dir {paths[0]!s}; a fit goes on where it "
                "has begun. Type: resume_from_checkpoint= alone"
            )

    @classmethod
    def defense_strict(cls) -> HybridStreamingConfig:
        """Layers that act early, `Warmup.strict`."""
        return cls._of(Warmup.strict())

    @classmethod
    def defense_relaxed(cls) -> HybridStreamingConfig:
        """Layers that act late, `Warmup.relaxed`."""
        return cls._of(Warmup.relaxed())

    @classmethod
    def defense_disabled(cls) -> HybridStreamingConfig:
        """No layer, `Warmup.disabled`."""
        return cls._of(Warmup.disabled())

    @classmethod
    def scientific_default(cls) -> HybridStreamingConfig:
        """For models from physics, `Warmup.scientific`."""
        return cls._of(Warmup.scientific())

    @classmethod
    def _of(cls, warmup: Warmup) -> HybridStreamingConfig:
        given = {name: getattr(warmup, core) for name, core in NAMES.items()}
        for switch, thresholds in LAYERS.items():
            values = {name: getattr(warmup, core) for name, core in thresholds.items()}
            given[switch] = None not in values.values()
            if given[switch]:
                given.update(values)
        return cls(**given)

    def to_warmup(self) -> Warmup:
        """The same as settings of `dfit.fit`."""
        given = {core: getattr(self, name) for name, core in NAMES.items()}
        if not self.normalize:
            given["normalization"] = "none"
        for switch, thresholds in LAYERS.items():
            for name, core in thresholds.items():
                given[core] = getattr(self, name) if getattr(self, switch) else None
        return Warmup(**given)

    def options(self) -> dict[str, Any]:
        """The same as keywords of `dfit.fit`."""
        passes = {core: getattr(self, name) for name, core in PASSES.items()}
        given = {core: value for core, value in passes.items() if value is not None}
        if (checkpoint := self._checkpoint()) is not None:
            given["checkpoint"] = checkpoint
        return {"warmup": self.to_warmup(), **given}

    def _checkpoint(self) -> Checkpoint | None:
        if (path := self.resume_from_checkpoint) is not None:
            if Path(path).is_file():
                raise InputError(
                    f"resume_from_checkpoint is the file {path!s}; expected the folder that it is in. Type: "
                    f"resume_from_checkpoint={str(Path(path).parent)!r}"
                )
            found = Checkpoint(path, every_passes=self.checkpoint_frequency)
            if found.latest() is None:
                raise CheckpointError(
                    f"{path!s} holds no checkpoint to go on from. Type: checkpoint_dir={str(path)!r}"
                )
            return found
        if self.checkpoint_dir is None or not self.enable_checkpoints:
            return None
        return Checkpoint(self.checkpoint_dir, every_passes=self.checkpoint_frequency)


# That of the fields, and not of `__new__`, for whoever asks what can be typed.
_init = inspect.signature(HybridStreamingConfig.__init__)
HybridStreamingConfig.__signature__ = _init.replace(parameters=list(_init.parameters.values())[1:])
FIELDS = tuple(field.name for field in fields(HybridStreamingConfig))


def require_fields(given: Iterable[str]) -> None:
    """Refuse names that are no field, with what to type instead."""
    for name in given:
        if name in INSTEAD:
            raise InputError(f"HybridStreamingConfig has no field {name!r}: {INSTEAD[name]}")
        if name not in FIELDS:
            raise InputError(
                f"HybridStreamingConfig has no field {name!r}{nearest(name, FIELDS) or '.'} Its fields: {', '.join(FIELDS)}"
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """', did you mean ...?' where a known name is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def read_config(config: Any, given: dict[str, Any]) -> HybridStreamingConfig:
    """The config a user gave, its fields replaced by those given as keywords."""
    if config is None:
        return HybridStreamingConfig(**given)
    if not isinstance(config, HybridStreamingConfig):
        raise InputError(
            f"config is {type(config).__name__}; expected dfit.HybridStreamingConfig({', '.join(FIELDS[:3])}, ...)"
        )
    return replace(config, **given)


def _thresholds() -> list[tuple[str, str]]:
    return [*NAMES.items(), *(pair for thresholds in LAYERS.values() for pair in thresholds.items())]


def _check(name: str, core: str, check: Callable[[dict[str, Any]], Any], value: Any) -> None:
    """Refuse a value that the core refuses, under the name that the user typed."""
    try:
        check({core: value})
    except InputError as error:
        raise InputError(str(error).replace(core, name, 1)) from None
