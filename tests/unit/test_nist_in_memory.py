"""All starts of NIST StRD, against answers of 30 digits."""

from itertools import islice

import numpy as np
import pytest

from dfit.core.covariance import covariance
from dfit.core.drive import iterate
from dfit.core.trust_region import Status, Tolerances, start
from tests.unit.nist import PROBLEMS, REFERENCE, digits, evaluator

FREE = (-np.inf, np.inf)


@pytest.mark.parametrize("name", PROBLEMS)
def test_both_starts_reach_eight_digits_of_parameters_and_deviations(name):
    evaluate = evaluator(name)
    for begin in ("start1", "start2"):
        *_, state = islice(iterate(evaluate, start(PROBLEMS[name][begin]), *FREE, Tolerances(1e-10)), 1000)
        assert digits(state.theta, REFERENCE[name]["b"]) >= 8
        assert Status(int(state.status)) in (Status.OFFSET, Status.ROUNDING)
        found = covariance(state.equations, state.theta, *FREE, absolute_sigma=False)
        # Lanczos1's residual is the rounding of its data to 14 digits.
        assert digits(found.stderr, REFERENCE[name]["sd"]) >= (3 if name == "Lanczos1" else 8)
        assert found.nfree == PROBLEMS[name]["dof_true"]
        assert not found.note


@pytest.mark.parametrize("name", PROBLEMS)
def test_default_tolerance_is_met_to_a_millionth_of_a_deviation(name):
    evaluate = evaluator(name)
    truth = np.array([float(number) for number in REFERENCE[name]["b"]])
    *_, state = islice(iterate(evaluate, start(PROBLEMS[name]["start2"]), *FREE, Tolerances()), 1000)
    found = covariance(state.equations, state.theta, *FREE, absolute_sigma=False)
    assert Status(int(state.status)) in (Status.OFFSET, Status.ROUNDING)
    assert digits(state.theta, REFERENCE[name]["b"]) >= 6
    if name != "Lanczos1":
        assert np.max(np.abs(state.theta - truth) / found.stderr) < 1e-6
