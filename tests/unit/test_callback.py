"""How a user watches a fit and ends it."""

from __future__ import annotations

import itertools
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import dfit

T = np.linspace(0, 10, 200)
Y = 5 * np.exp(-T / 2) + 1 + 0.1 * np.random.default_rng(0).normal(size=T.size)
START = {"amplitude": 1, "tau": 1, "offset": 0}


def decay(time, amplitude, tau, offset):
    return amplitude * jnp.exp(-time / tau) + offset


def cost_at(values) -> float:
    return 0.5 * float(np.sum((Y - np.asarray(decay(T, **values), float)) ** 2))


def fit(**options):
    return dfit.fit(decay, Y, {"time": T}, p0=START, **options)


@pytest.mark.parametrize("way", ["returns False", "raises StopIteration"])
def test_the_callback_stops_the_fit_at_its_best_point(way: str) -> None:
    seen = []

    def callback(done):
        seen.append(done)
        if done.npasses == 3:
            if way == "returns False":
                return False
            raise StopIteration
        return None

    result = fit(callback=callback)
    assert [done.npasses for done in seen] == [1, 2, 3]
    assert result.success is False
    assert "stopped by the callback" in result.message and "p0=result.best_values" in result.message
    assert result.best_values == seen[-1].params
    assert seen[-1].cost == min(done.cost for done in seen)
    assert cost_at(result.best_values) == pytest.approx(seen[-1].cost, rel=1e-6)


@pytest.mark.parametrize("answer", [None, True, 0])
def test_other_answers_of_the_callback_go_on(answer) -> None:
    assert fit(callback=lambda done: answer).success is True


def test_a_callback_that_says_stop_after_convergence_leaves_it_a_success() -> None:
    result = fit(callback=lambda done: False if done.relative_offset < 1e-8 else None)
    assert result.success is True
    assert result.message.startswith("converged")


def test_an_exception_in_the_callback_ends_the_fit_with_its_traceback() -> None:
    def callback(done):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        fit(callback=callback)
    assert caught.traceback[-1].name == "callback"


def test_the_callback_is_told_the_state_after_every_pass() -> None:
    seen = []
    result = fit(callback=seen.append)
    assert [done.npasses for done in seen] == list(range(1, result.npasses + 1))
    assert seen[0].params == {name: float(value) for name, value in START.items()}
    assert seen[-1].params == result.best_values
    assert seen[-1].relative_offset == result.relative_offset
    costs = [done.cost for done in seen]
    # a polishing step may move the cost by its rounding
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(costs))


def test_the_callback_is_told_gradient_reduction_and_trust_radius() -> None:
    seen = []
    fit(callback=seen.append)
    costs = [done.cost for done in seen]
    assert np.isnan(seen[0].reduction)
    assert [done.reduction for done in seen[1:]] == [a - b for a, b in itertools.pairwise(costs)]
    for done in (seen[0], seen[2]):
        residual = Y - np.asarray(decay(T, **done.params), float)
        e = np.exp(-T / done.params["tau"])
        columns = [e, done.params["amplitude"] * T / done.params["tau"] ** 2 * e, np.ones_like(T)]
        cosines = [abs(c @ residual) / np.linalg.norm(c) / np.linalg.norm(residual) for c in columns]
        assert done.gradient_norm == pytest.approx(max(cosines), rel=1e-4)
    assert seen[-1].gradient_norm < 1e-8 < seen[0].gradient_norm
    assert all(done.trust_radius > 0 for done in seen)


def test_a_parameter_pressed_to_its_bound_has_no_part_in_the_gradient() -> None:
    seen = []
    fit(bounds={"offset": (0, 0.5)}, callback=seen.append)
    assert seen[-1].params["offset"] == 0.5
    assert seen[-1].gradient_norm < 1e-8


def test_a_fit_goes_on_from_where_it_was_stopped() -> None:
    whole = fit()
    part = fit(max_passes=3)
    assert part.success is False and "max_passes=3" in part.message
    rest = dfit.fit(decay, Y, {"time": T}, p0=part.best_values)
    assert rest.success is True
    for name, estimate in whole.params.items():
        assert abs(rest.params[name].value - estimate.value) < 1e-6 * estimate.stderr


def test_a_time_limit_ends_with_the_best_point() -> None:
    result = fit(time_limit=1e-9)
    assert (result.success, result.npasses) == (False, 1)
    assert "time_limit" in result.message
    assert result.best_values == {name: float(value) for name, value in START.items()}


def test_verbose_prints_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    result = fit(verbose=1)
    out, err = capsys.readouterr()
    assert f"pass {result.npasses}: sum of squares {result.chisqr:.7g}" in out
    assert "1 fit over dim_0" in out and result.message in out
    assert err == ""


def test_a_quiet_fit_prints_nothing_and_logs_every_pass(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="dfit"):
        result = fit()
    assert capsys.readouterr() == ("", "")
    passes = [record for record in caplog.records if record.getMessage().startswith("pass ")]
    assert {record.name for record in passes} == {"dfit"}
    assert len(passes) == result.npasses


HELD = """
import threading

import numpy as np

state, released = {"hold": False}, threading.Event()


def decay(time, amplitude, tau, offset):
    if state["hold"]:
        print("in a pass", flush=True)
        released.wait(60)
    return amplitude * np.exp(-np.asarray(time) / tau) + offset


def hold(done):
    state["hold"] = done.npasses == 3
"""

INTERRUPTED = """
import json
import signal
import dask.array
import numpy as np
import dfit, held

# A shell that starts jobs in the background has them ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

t = np.linspace(0, 10, 200)
y = 5 * np.exp(-t / 2) + 1 + 0.01 * np.sin(40 * t)
y = dask.array.from_array(y, chunks=50) if CHUNKED else y
best = {}

def callback(done):
    best.update(done.params)
    held.hold(done)

result = dfit.fit(held.decay, y, {"time": t}, p0=(1, 1, 0), callback=callback)
held.released.set()
print(json.dumps([result.success, result.message, result.best_values == best, np.isfinite(result.covar).all().item()]))
"""


@pytest.mark.parametrize("chunked", [False, True])
def test_ctrl_c_returns_the_last_accepted_state(
    chunked: bool, tmp_path: Path, source_environment: dict[str, str]
) -> None:
    (tmp_path / "held.py").write_text(HELD)
    (tmp_path / "program.py").write_text(INTERRUPTED.replace("CHUNKED", str(chunked)))
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "program.py"],
        cwd=tmp_path,
        env=source_environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in a pass\n"
        child.send_signal(signal.SIGINT)
        lines = child.stdout.read().splitlines()
    assert child.returncode == 0
    success, message, is_best, finite = json.loads(lines[-1])
    assert (success, is_best, finite) == (False, True, True)
    assert "interrupted" in message and "p0=result.best_values" in message
