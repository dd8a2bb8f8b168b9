"""Going on under other packages, other tolerances, more passes: what counts is the model and the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dfit
from dfit import captured, digest, identity
from tests.resumed import differences
from tests.warmed import T, Y, decay

pytestmark = pytest.mark.usefixtures("small_leaves")

P0 = {"a": 2.0, "tau": 1.5, "c": 0.8}


def plain(t, a, tau, c):
    return a * np.exp(-t / tau) + c


def other(t, a, tau, c):
    return a * np.exp(-t / tau) + 2 * c


@pytest.fixture
def other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every package has been updated since."""
    then = captured.version
    monkeypatch.setattr(digest, "version", lambda name: f"{then(name)}.9")
    monkeypatch.setattr(identity, "environment", lambda: {"numpy": "99.9", "dfit": "1", "jax": "99.9"})


@pytest.mark.filterwarnings("ignore:.*finite differences")
def test_numpy_model_goes_on_under_other_packages(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    dfit.fit(plain, Y, {"t": T}, p0=P0, checkpoint=tmp_path, max_passes=2)
    request.getfixturevalue("other_packages")
    found = dfit.fit(plain, Y, {"t": T}, p0=P0, checkpoint=tmp_path)
    assert found.success and found.history[0].npasses == 1 and found.npasses == len(found.history) > 2


@pytest.mark.filterwarnings("ignore:.*finite differences")
def test_other_numpy_model_is_refused_under_other_packages(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dfit.fit(plain, Y, {"t": T}, p0=P0, checkpoint=tmp_path, max_passes=2)
    request.getfixturevalue("other_packages")
    with pytest.raises(dfit.InputError, match="the model computes something else"):
        dfit.fit(other, Y, {"t": T}, p0=P0, checkpoint=tmp_path)


def test_pass_for_the_covariance_is_none_of_the_solver(tmp_path: Path) -> None:
    options = {"p0": P0, "loss": "huber", "f_scale": 0.1}
    expected = dfit.fit(decay, Y, {"t": T}, max_passes=5, **options)
    dfit.fit(decay, Y, {"t": T}, max_passes=3, checkpoint=tmp_path, **options)
    found = dfit.fit(decay, Y, {"t": T}, max_passes=5, checkpoint=tmp_path, **options)
    assert set(differences(found, expected)) <= {"words"}  # it was asked for its covariance twice
    assert [event.npasses for event in found.history] == [event.npasses for event in expected.history]


def test_looser_tolerance_is_met_by_what_is_there(tmp_path: Path) -> None:
    stopped = dfit.fit(decay, Y, {"t": T}, p0=P0, max_passes=3, checkpoint=tmp_path)
    assert not stopped.success
    found = dfit.fit(
        decay, Y, {"t": T}, p0=P0, max_passes=3, tol=2 * stopped.relative_offset, checkpoint=tmp_path
    )
    assert found.success and found.npasses == 3
    assert found.theta.tobytes() == stopped.theta.tobytes()


def test_change_of_the_warm_up_is_told_in_words(tmp_path: Path) -> None:
    options = {"p0": P0, "checkpoint": tmp_path, "max_passes": 2}
    dfit.fit(decay, Y, {"t": T}, warmup=dfit.Warmup(sample_points=2000), **options)
    with pytest.raises(dfit.InputError, match="seed of warmup: 0, now 7"):
        dfit.fit(decay, Y, {"t": T}, warmup=dfit.Warmup(sample_points=2000, seed=7), **options)
    with pytest.raises(dfit.InputError, match="warmup: on, now off"):
        dfit.fit(decay, Y, {"t": T}, warmup=False, **options)
