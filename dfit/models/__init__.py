"""Models by name, with parameters and conventions as in lmfit, each with its bounds and a start from the data.

>>> import numpy as np, dfit
>>> from dfit.models import ConstantModel, ExponentialModel
>>> model = ExponentialModel() + ConstantModel()
>>> model.param_names
('amplitude', 'decay', 'c')
>>> t = np.linspace(0, 10, 1000)
>>> result = dfit.fit(model, 5 * np.exp(-t / 2) + 1, {"x": t}, p0="guess")
>>> round(result.best_values["decay"], 6)
2.0

Not in lmfit: `StretchedExponentialModel` (amplitude, decay, beta) and `DampedSineModel` (amplitude, frequency,
shift, decay).  No model has a parameter that its namesake in lmfit lacks; gamma of `VoigtModel` is free, where
lmfit's follows sigma unless it is told not to.
"""

from __future__ import annotations

from dfit.models.base import CompositeModel, LibraryModel
from dfit.models.decays import ExponentialModel, PowerLawModel, StretchedExponentialModel
from dfit.models.peaks import (
    DampedOscillatorModel,
    Gaussian2dModel,
    GaussianModel,
    LognormalModel,
    LorentzianModel,
    MoffatModel,
    PseudoVoigtModel,
    SkewedGaussianModel,
    VoigtModel,
)
from dfit.models.polynomials import ConstantModel, LinearModel, PolynomialModel, QuadraticModel
from dfit.models.steps import StepModel
from dfit.models.waves import DampedSineModel, SineModel

__all__ = [
    "CompositeModel",
    "ConstantModel",
    "DampedOscillatorModel",
    "DampedSineModel",
    "ExponentialModel",
    "Gaussian2dModel",
    "GaussianModel",
    "LibraryModel",
    "LinearModel",
    "LognormalModel",
    "LorentzianModel",
    "MoffatModel",
    "PolynomialModel",
    "PowerLawModel",
    "PseudoVoigtModel",
    "QuadraticModel",
    "SineModel",
    "SkewedGaussianModel",
    "StepModel",
    "StretchedExponentialModel",
    "VoigtModel",
]
