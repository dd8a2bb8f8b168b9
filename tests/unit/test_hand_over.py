"""What the first pass at a sample's answer makes of it."""

import numpy as np
import pytest

from dfit.core.hand_over import AGREES, Decision, hand_over
from dfit.core.state import start

SAMPLE, ALL = 1e3, 1e5  # residuals; a step of one standard error of all data is a tenth of the sample's


def after_a_pass(offset, cost=0.5 * ALL, finite=True):
    state = start(np.ones(2))
    at = state.equations._replace(cost=cost, count=ALL, finite=np.bool_(finite))
    return state._replace(equations=at, offset=np.float64(offset))


def handed_over(state):
    sample = state.equations._replace(cost=0.5 * SAMPLE, count=SAMPLE)
    return hand_over(state, sample, cost_at_start=3.0 * SAMPLE)


@pytest.mark.parametrize(
    ("offset", "cost", "decision", "words"),
    [
        (10.0, 0.5 * ALL, Decision.TRUST, "a step of 1 of the sample's standard errors: the sample is like"),
        (9.99 * AGREES, 0.5 * ALL, Decision.TRUST, "like the data"),
        (10.1 * AGREES, 0.5 * ALL, Decision.GO_ON, "a step of 10 of"),
        (10.1 * AGREES, 0.5 * ALL, Decision.GO_ON, "the sample is not like the data"),
        (10.1 * AGREES, 1.0 * ALL, Decision.GO_ON, "the sample is not like the data"),
        (10.1 * AGREES, 1.1 * ALL, Decision.BACK, "not like the data at all; p0 is tried"),
        (1.0, 3.6 * ALL, Decision.TRUST, "like the data"),  # noise of the cost of 1,000 points
        (1.0, 3.8 * ALL, Decision.BACK, "their cost is above the sample's at p0: p0 is tried"),
    ],
)
def test_the_step_that_all_data_ask_for_and_their_cost_decide(offset, cost, decision, words):
    found = handed_over(after_a_pass(offset, cost))
    assert found.decision is decision
    assert words in found.sentence


def test_an_answer_at_which_the_model_is_not_finite_sends_the_fit_back_to_p0():
    found = handed_over(after_a_pass(np.inf, np.inf, finite=False))
    assert found.decision is Decision.BACK
    assert found.sentence == "the model is not finite at the sample's answer: p0 is tried"


def test_an_offset_that_is_not_defined_is_no_agreement():
    assert handed_over(after_a_pass(np.inf)).decision is Decision.GO_ON
