"""Settings of the warm-up: the sample, the normalisation and the thresholds of the four defence layers."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np

from dfit.errors import InputError
from dfit.optional import load

# An evaluation takes some 3 ms, and the answer is within a few hundredths of a percent of what noise of 10 %
# leaves undetermined.
SAMPLE_POINTS = 1 << 17
NORMALIZATIONS = ("auto", "bounds", "p0", "none")
METHODS = ("lm", "lbfgs")
SEARCHES = (None, "cmaes")


@dataclass(frozen=True)
class Warmup:
    """How a fit warms up on a sample before its first full pass.

    Attributes
    ----------
    sample_points : int, optional
        Points of the sample, 131,072 if not given. Data of no more points are the sample themselves.
    seed : int
        Of the sample and of further starts.
    groups : str, optional
        A coordinate whose every value gets points; by default that of ``cov={"groups": ...}``.
    normalization : {"auto", "bounds", "p0", "none"}
        Unit of the parameters for `max_step` and L-BFGS: the width of the bounds, the size of p0, or 1;
        "auto" takes the bounds of a parameter that has both, else p0. Where p0 is 0, the change that
        moves the model by as much as the residual. The solver itself needs no unit.
    method : {"lm", "lbfgs"}
        Levenberg-Marquardt, or L-BFGS before it.
    iterations : int
        Ceiling of evaluations on the sample from p0; the stopping test is `tolerance`. Further starts
        have a ceiling of their own.
    tolerance : float
        The warm-up ends when a Gauss-Newton step is below this part of the sample's standard errors.
    warm_start_threshold : float, optional
        Layer 1: p0 is good, and the warm-up skipped, where its loss is below this part of the data's
        variance, or a Gauss-Newton step from it is within a few of the sample's standard errors. None is off.
    radius_refinement, radius_careful : float, optional
        Layer 2: the first trust radius, as a part of the size of p0, where the loss at p0 is below 0.1 of
        the data's variance, and where it is below 1. Worse starts explore: the solver's own first
        radius, 1. None is off.
    cost_increase_tolerance : float, optional
        Layer 3: the part by which the cost of points held out from the warm-up may rise above its
        lowest before the warm-up is given up and the best point kept. None is off.
    max_step : float, optional
        Layer 4: longest step, in the unit of the parameters (of the parameters themselves once they are
        larger); longer ones are clipped, direction kept. None is off.
    multistart : int
        Starts in all, p0 among them, on the sample alone. 0 leaves it to dfit: more are tried where the
        first ends badly and the problem looks hard.
    global_search : {None, "cmaes"}
        How further starts are found: by a Sobol sequence, or by CMA-ES.
    """

    sample_points: int | None = None
    seed: int = 0
    groups: str | None = None
    normalization: str = "auto"
    method: str = "lm"
    iterations: int = 1000
    tolerance: float = 0.01
    warm_start_threshold: float | None = 0.01
    radius_refinement: float | None = 0.01
    radius_careful: float | None = 0.1
    cost_increase_tolerance: float | None = 0.05
    max_step: float | None = 0.1
    multistart: int = 0
    global_search: str | None = None
    __signature__: ClassVar[inspect.Signature]

    def __new__(cls, *_: Any, **given: Any) -> Self:
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise InputError(f"Warmup has no {name!r}; it has {', '.join(names)}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, least in (("sample_points", 2), ("seed", 0), ("iterations", 1), ("multistart", 0)):
            value = getattr(self, name)
            if value is None and name == "sample_points":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise InputError(f"{name} is {value!r}; expected an integer of at least {least}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is None and name != "tolerance":
                continue
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not (number and 0 < value <= most and np.isfinite(value)):
                limit = "" if most == np.inf else f" of at most {most:g}"
                off = "" if name == "tolerance" else ", or None to turn the layer off"
                raise InputError(f"{name} is {value!r}; expected a positive number{limit}{off}")
        if not isinstance(self.groups, str | None):
            raise InputError(f"groups is {self.groups!r}; expected the name of a coordinate, or None")
        for name, known in (
            ("normalization", NORMALIZATIONS),
            ("method", METHODS),
            ("global_search", SEARCHES),
        ):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(repr, known))}"
                )

    @property
    def points(self) -> int:
        """Points that the sample is to have."""
        return SAMPLE_POINTS if self.sample_points is None else self.sample_points

    def check(self, width: np.ndarray, points: int) -> None:
        """Refuse what the data cannot give.

        Parameters
        ----------
        width : (p,)
            Upper less lower bounds of the varying parameters.
        points : of the data.
        """
        if self.method == "lbfgs":
            load("optax", 'method="lbfgs"')
        if self.global_search == "cmaes":
            load("cmaes", 'global_search="cmaes"')
        if self.sample_points is not None and self.sample_points > points:
            raise InputError(
                f"sample_points is {self.sample_points}, and the data have {points} points; type a number of "
                f"2 to {points}, or leave it out"
            )
        if self.normalization == "bounds" and not np.isfinite(width).all():
            raise InputError(
                'normalization is "bounds", and not every parameter has two finite bounds; type '
                'bounds={name: (lower, upper)} for each, or one of "auto", "p0", "none"'
            )

    @classmethod
    def strict(cls) -> Warmup:
        """Layers that act early: for starts that are known to be good."""
        return cls(
            warm_start_threshold=0.05,
            radius_refinement=0.001,
            radius_careful=0.01,
            cost_increase_tolerance=0.02,
            max_step=0.05,
        )

    @classmethod
    def relaxed(cls) -> Warmup:
        """Layers that act late: for poor starts."""
        return cls(
            warm_start_threshold=0.001,
            radius_refinement=0.1,
            radius_careful=1.0,
            cost_increase_tolerance=0.5,
            max_step=1.0,
        )

    @classmethod
    def disabled(cls) -> Warmup:
        """The warm-up without a defence layer."""
        return cls(
            warm_start_threshold=None,
            radius_refinement=None,
            radius_careful=None,
            cost_increase_tolerance=None,
            max_step=None,
        )

    @classmethod
    def scientific(cls) -> Warmup:
        """For models from physics: the default layers, the warm-up carried on to a thousandth of an error."""
        return cls(tolerance=0.001)


# That of the fields, and not of `__new__`, for whoever asks what can be typed.
_init = inspect.signature(Warmup.__init__)
Warmup.__signature__ = _init.replace(parameters=list(_init.parameters.values())[1:])
_MOST = {  # what a positive setting may be
    "tolerance": 1.0,
    "warm_start_threshold": 1.0,
    "radius_refinement": 1.0,
    "radius_careful": 1.0,
    "cost_increase_tolerance": 10.0,
    "max_step": np.inf,
}
PRESETS = {
    "default": Warmup,
    "strict": Warmup.strict,
    "relaxed": Warmup.relaxed,
    "disabled": Warmup.disabled,
    "scientific": Warmup.scientific,
}


def as_warmup(value: Any) -> Warmup | None:
    """Settings from what a user may give: True, a preset's name or a `Warmup`; None for False."""
    if value is False:
        return None
    if value is True:
        return Warmup()
    if isinstance(value, Warmup):
        return value
    if isinstance(value, str) and value in PRESETS:
        return PRESETS[value]()
    raise InputError(
        f"warmup is {value!r}; expected True, False, dfit.Warmup({', '.join(f.name for f in fields(Warmup))}) "
        f"or one of {', '.join(map(repr, PRESETS))}"
    )
