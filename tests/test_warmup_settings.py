"""Every setting of the warm-up changes what a fit does, and none changes its answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import dask
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.warm_settings import SAMPLE_POINTS

N, CHUNK = 30_000, 1500
SAMPLE = 1000
P0 = {"a": 1.0, "tau": 1.0, "c": 0.0}
NEAR = {"a": 2.9, "tau": 2.1, "c": 1.02}  # loss below a hundredth of the variance


def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c


def data(noise: float = 0.05) -> xr.DataArray:
    rng = np.random.default_rng(7)
    t = np.linspace(0, 9, N)
    y = 3 * np.exp(-t / 2) + 1 + rng.normal(0, noise, N)
    station = np.where(np.arange(N) % 1000 == 0, 1, 0)
    return xr.DataArray(y, dims="i", coords={"t": ("i", t), "station": ("i", station)}).chunk(i=CHUNK)


DATA = data()


pytestmark = pytest.mark.usefixtures("small_leaves")


def sampled(
    p0: Any = P0, y: xr.DataArray = DATA, options: dict[str, Any] | None = None, **fields: Any
) -> Any:
    """The sample's answer; nothing of the rest is read."""
    settings = dfit.Warmup(**{"sample_points": SAMPLE, **fields})
    return dfit.fit(decay, y, "t", p0=p0, warmup=settings, max_passes=0, **(options or {}))


def told(found: Any) -> dict[str, Any]:
    """What the report of a fit says, and where it ended."""
    report = vars(found.warmup) | {"unit": found.warmup.unit.tolist()}
    return report | {"theta": found.theta.tolist()}


BOUNDS = {"bounds": {"a": (0, 50), "tau": (0.01, 9), "c": (-1, 10)}}
CAREFUL = {"a": 2.0, "tau": 1.0, "c": 1.0}  # between a tenth and the whole of the variance
# What all fits of a test have in common, what the second changes, and what must then differ.
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "sample_points": ({}, {"sample_points": 500}, ("points", "theta")),
    "seed": ({}, {"seed": 1}, ("theta",)),
    "groups": ({}, {"groups": "station"}, ("theta",)),
    "normalization by p0": ({"options": BOUNDS}, {"normalization": "p0"}, ("unit", "clips")),
    "normalization by bounds": (
        {"options": BOUNDS, "normalization": "p0"},
        {"normalization": "bounds"},
        ("unit", "clips"),
    ),
    "no normalization": ({"options": BOUNDS}, {"normalization": "none"}, ("unit", "clips")),
    "method": ({}, {"method": "lbfgs"}, ("evaluations", "clips")),
    "iterations": ({}, {"iterations": 4}, ("theta", "reason")),
    "tolerance": ({}, {"tolerance": 1e-9}, ("theta", "evaluations")),
    "warm_start_threshold": ({"p0": CAREFUL}, {"warm_start_threshold": 1.0}, ("skipped", "mode")),
    "layer 1 off": ({"p0": NEAR}, {"warm_start_threshold": None}, ("skipped", "mode")),
    "radius_refinement": (
        {"p0": NEAR, "warm_start_threshold": 1e-9},
        {"radius_refinement": 0.9},
        ("evaluations",),
    ),
    "radius_careful": ({"p0": CAREFUL}, {"radius_careful": 1e-4}, ("evaluations",)),
    "layer 2 off": ({"p0": CAREFUL}, {"radius_refinement": None, "radius_careful": None}, ("mode",)),
    "cost_increase_tolerance": (
        {"max_step": None},
        {"cost_increase_tolerance": 9.0},
        ("guarded", "theta"),
    ),
    "layer 3 off": ({"max_step": None}, {"cost_increase_tolerance": None}, ("guarded", "theta")),
    "max_step": ({}, {"max_step": 0.01}, ("clips", "evaluations")),
    "layer 4 off": ({}, {"max_step": None}, ("clips", "evaluations")),
    "multistart": ({}, {"multistart": 4}, ("starts",)),
    "global_search": ({"multistart": 4}, {"global_search": "cmaes"}, ("starts",)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_setting_changes_what_a_warm_up_does(what: str) -> None:
    common, changed, names = CHANGES[what]
    before, after = told(sampled(**common)), told(sampled(**{**common, **changed}))
    assert [name for name in names if before[name] == after[name]] == []


def test_every_setting_has_a_test_of_its_own() -> None:
    shown = {name for _, changed, _ in CHANGES.values() for name in changed}
    assert shown == {field.name for field in dataclasses.fields(dfit.Warmup)}


@pytest.mark.parametrize(
    ("p0", "mode"), [({**NEAR, "a": 2.6}, "refinement"), (CAREFUL, "careful"), (P0, "exploration")]
)
def test_the_mode_follows_from_the_loss_at_p0(p0: Any, mode: str) -> None:
    assert sampled(p0).warmup.mode == mode


NORMALIZATIONS = ("auto", "bounds", "p0", "none")


@pytest.fixture(scope="module")
def by_normalization() -> dict[str, Any]:
    with dask.config.set(scheduler="synchronous"):
        settings = {kind: dfit.Warmup(sample_points=SAMPLE, normalization=kind) for kind in NORMALIZATIONS}
        return {
            kind: dfit.fit(decay, DATA, "t", p0=P0, warmup=settings[kind], **BOUNDS)
            for kind in NORMALIZATIONS
        }


@pytest.mark.parametrize("kind", NORMALIZATIONS[1:])
def test_no_normalization_changes_the_answer_or_its_covariance(
    kind: str, by_normalization: dict[str, Any]
) -> None:
    usual, found = by_normalization["auto"], by_normalization[kind]
    errors = np.sqrt(np.diag(usual.covar))
    assert np.abs((found.theta - usual.theta) / errors).max() < 1e-7
    np.testing.assert_allclose(found.covar, usual.covar, rtol=1e-10)


PRESETS = ("strict", "relaxed", "disabled", "scientific")


def test_presets_are_settings_by_name() -> None:
    layers = ("warm_start_threshold", "radius_refinement", "radius_careful", "cost_increase_tolerance")
    made = {name: getattr(dfit.Warmup, name)() for name in PRESETS}
    assert len({dfit.Warmup(), *made.values()}) == 5
    assert all(getattr(made["disabled"], name) is None for name in (*layers, "max_step"))
    for name in (*layers[1:], "max_step"):
        assert getattr(made["strict"], name) < getattr(dfit.Warmup(), name) < getattr(made["relaxed"], name)
    for name in PRESETS:
        by_name = dfit.fit(decay, DATA[:2000], "t", p0=P0, warmup=name, max_passes=0)
        by_value = dfit.fit(decay, DATA[:2000], "t", p0=P0, warmup=made[name], max_passes=0)
        assert told(by_name) == told(by_value)


@pytest.mark.parametrize(
    ("warmup", "warmed"), [(True, True), ("default", True), (False, False), (None, False)]
)
def test_warm_ups_are_on_where_they_are_asked_for(warmup: Any, warmed: bool) -> None:
    found = dfit.fit(decay, DATA[:2000], "t", p0=P0, warmup=warmup)
    assert (found.warmup is not None) is warmed
    if warmed:
        assert found.warmup.complete and found.warmup.points == 2000


def test_large_data_are_warmed_up_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfit.orchestrate.WARM_UP_ABOVE", N - 1)
    assert dfit.fit(decay, DATA, "t", p0=P0).warmup.points == min(N, SAMPLE_POINTS)
    assert dfit.fit(decay, DATA, "t", p0=P0, warmup=False).warmup is None


def test_every_group_is_in_a_sample_by_groups() -> None:
    def shifted(t, s, a, tau, c, d):
        return a * jnp.exp(-t / tau) + c + d * s

    y = DATA + 0.5 * DATA.station
    options = {"p0": {**P0, "d": 0.0}, "max_passes": 0}
    errors = [
        dfit.fit(
            shifted, y, ("t", "station"), warmup=dfit.Warmup(sample_points=300, groups=groups), **options
        )
        .params["d"]
        .stderr
        for groups in (None, "station")
    ]
    assert errors[1] == pytest.approx(0.05 / np.sqrt(30), rel=0.5)  # all of its 30 points
    assert not errors[0] < 2 * errors[1]
