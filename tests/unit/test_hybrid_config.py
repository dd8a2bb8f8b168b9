"""`HybridStreamingConfig`: every field reaches a setting of the core, and no other field exists."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest

import dfit
from dfit.face.hybrid_config import ADVICE, FIELDS, INSTEAD, LAYERS, NAMES
from dfit.warm_settings import Warmup


@pytest.mark.parametrize(
    ("field", "value", "core", "expected"),
    [
        ("normalize", False, "normalization", "none"),
        ("normalization_strategy", "p0", "normalization", "p0"),
        ("warmup_method", "lbfgs", "method", "lbfgs"),
        ("warmup_iterations", 300, "iterations", 300),
        ("warmup_tolerance", 0.1, "tolerance", 0.1),
        ("sample_points", 100, "sample_points", 100),
        ("seed", 7, "seed", 7),
        ("groups", "site", "groups", "site"),
        ("multistart", 5, "multistart", 5),
        ("global_search", "cmaes", "global_search", "cmaes"),
        ("enable_warm_start_detection", False, "warm_start_threshold", None),
        ("warm_start_threshold", 0.2, "warm_start_threshold", 0.2),
        ("enable_adaptive_warmup_lr", False, "radius_refinement", None),
        ("warmup_lr_refinement", 1e-7, "radius_refinement", 1e-7),
        ("warmup_lr_careful", 1e-6, "radius_careful", 1e-6),
        ("enable_cost_guard", False, "cost_increase_tolerance", None),
        ("cost_increase_tolerance", 0.02, "cost_increase_tolerance", 0.02),
        ("enable_step_clipping", False, "max_step", None),
        ("max_warmup_step_size", 0.3, "max_step", 0.3),
    ],
)
def test_each_field_of_the_warm_up_reaches_its_setting(
    field: str, value: Any, core: str, expected: Any
) -> None:
    warmup = dfit.HybridStreamingConfig(**{field: value}).to_warmup()
    assert getattr(warmup, core) == expected
    assert getattr(dfit.HybridStreamingConfig().to_warmup(), core) != expected


def test_every_field_is_translated_and_every_default_is_the_core_s() -> None:
    thresholds = [name for names in LAYERS.values() for name in names]
    passes = ["gauss_newton_tol", "phase2_max_iterations"]
    keeping = ["enable_checkpoints", "checkpoint_dir", "checkpoint_frequency", "resume_from_checkpoint"]
    assert sorted(FIELDS) == sorted(["normalize", *NAMES, *LAYERS, *thresholds, *passes, *keeping])
    assert dfit.HybridStreamingConfig().to_warmup() == Warmup()


def test_a_checkpoint_is_where_the_config_says_and_off_by_default(tmp_path: Path) -> None:
    def checkpoint(**given: Any) -> Any:
        return dfit.HybridStreamingConfig(**given).options().get("checkpoint")

    assert checkpoint() is None
    assert checkpoint(checkpoint_dir="run") == dfit.Checkpoint("run")
    assert checkpoint(checkpoint_dir="run", checkpoint_frequency=5) == dfit.Checkpoint("run", every_passes=5)
    assert checkpoint(checkpoint_dir="run", enable_checkpoints=False) is None
    path = Path(dfit.Checkpoint(tmp_path).folder.save({"a": 1}))
    assert checkpoint(resume_from_checkpoint=tmp_path) == dfit.Checkpoint(tmp_path)
    with pytest.raises(dfit.InputError, match=f"Type: resume_from_checkpoint='{tmp_path}'"):
        checkpoint(resume_from_checkpoint=path)
    with pytest.raises(dfit.CheckpointError, match="nothing holds no checkpoint to go on from"):
        checkpoint(resume_from_checkpoint=tmp_path / "nothing")


@pytest.mark.parametrize(
    ("preset", "core"),
    [
        ("defense_strict", Warmup.strict()),
        ("defense_relaxed", Warmup.relaxed()),
        ("defense_disabled", Warmup.disabled()),
        ("scientific_default", Warmup.scientific()),
    ],
)
def test_a_preset_is_the_core_s_with_its_switches(preset: str, core: Warmup) -> None:
    config = getattr(dfit.HybridStreamingConfig, preset)()
    assert config.to_warmup() == core
    assert {getattr(config, switch) for switch in LAYERS} == {preset != "defense_disabled"}


def test_a_config_is_a_value_that_shows_its_fields() -> None:
    config = dfit.HybridStreamingConfig(seed=3)
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)
    assert config != dfit.HybridStreamingConfig()
    assert list(inspect.signature(dfit.HybridStreamingConfig).parameters) == list(FIELDS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"warmup_iteration": 3}, "no field 'warmup_iteration'; did you mean 'warmup_iterations'"),
        ({"zzz": 3}, "no field 'zzz'. Its fields: normalize, "),
        ({"warmup_iterations": 0}, "warmup_iterations is 0; expected an integer of at least 1"),
        ({"max_warmup_step_size": -1.0}, "max_warmup_step_size is -1.0; expected a positive number"),
        ({"normalization_strategy": "scale"}, "normalization_strategy is 'scale'; expected one of 'auto'"),
        ({"gauss_newton_tol": 0.0}, "gauss_newton_tol is 0.0; expected a positive number"),
        ({"phase2_max_iterations": -1}, "phase2_max_iterations is -1; expected an integer of at least 0"),
        ({"enable_cost_guard": 1}, "enable_cost_guard is 1; expected True or False"),
        ({"checkpoint_frequency": 0}, "checkpoint_frequency is 0; expected an integer of at least 1"),
        (
            {"checkpoint_dir": "a", "resume_from_checkpoint": "b"},
            "resume_from_checkpoint is b, checkpoint_dir a",
        ),
    ],
)
def test_what_no_config_has_is_refused_under_the_name_that_was_typed(given: dict, said: str) -> None:
    with pytest.raises(dfit.InputError) as caught:
        dfit.HybridStreamingConfig(**given)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", sorted(INSTEAD))
def test_a_field_of_nlsq_without_meaning_is_refused_with_what_to_do_instead(name: str) -> None:
    with pytest.raises(dfit.InputError) as caught:
        dfit.HybridStreamingConfig(**{name: 1})
    assert str(caught.value) == f"HybridStreamingConfig has no field {name!r}: {INSTEAD[name]}"
    advised = [word.rstrip("=,:") for word in INSTEAD[name].split() if word.rstrip(",:").endswith("=")]
    assert set(advised) <= set(FIELDS)


def test_no_advice_is_given_twice() -> None:
    names = " ".join(ADVICE.values()).split()
    assert len(names) == len(set(names)) and not set(names) & set(FIELDS)
