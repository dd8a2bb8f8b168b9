"""What a warm-up cannot use is refused before anything is read, with the line to type instead."""

from __future__ import annotations

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import dfit
from dfit.errors import InputError
from tests.warmed import P0, Reads, decay, numpy_decay

INTEGER = "expected an integer of at least"
OFF = "expected a positive number.*, or None to turn the layer off"
FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"sample_points": 1}, f"sample_points is 1; {INTEGER} 2"),
    ({"sample_points": 2.5}, f"sample_points is 2.5; {INTEGER} 2"),
    ({"sample_points": True}, f"sample_points is True; {INTEGER} 2"),
    ({"sample_points": "all"}, f"sample_points is 'all'; {INTEGER} 2"),
    ({"seed": -1}, f"seed is -1; {INTEGER} 0"),
    ({"seed": None}, f"seed is None; {INTEGER} 0"),
    ({"iterations": 0}, f"iterations is 0; {INTEGER} 1"),
    ({"multistart": -1}, f"multistart is -1; {INTEGER} 0"),
    ({"tolerance": 0}, "tolerance is 0; expected a positive number"),
    ({"tolerance": None}, "tolerance is None; expected a positive number"),
    ({"tolerance": "1e-3"}, "tolerance is '1e-3'; expected a positive number"),
    ({"warm_start_threshold": 0}, f"warm_start_threshold is 0; {OFF}"),
    ({"radius_refinement": -0.1}, f"radius_refinement is -0.1; {OFF}"),
    ({"radius_careful": np.nan}, f"radius_careful is nan; {OFF}"),
    ({"cost_increase_tolerance": np.inf}, f"cost_increase_tolerance is inf; {OFF}"),
    ({"max_step": True}, f"max_step is True; {OFF}"),
    ({"normalization": "width"}, "expected one of 'auto', 'bounds', 'p0', 'none'"),
    ({"normalization": None}, "normalization is None; expected one of"),
    ({"method": "adam"}, "method is 'adam'; expected one of 'lm', 'lbfgs'"),
    ({"global_search": "pso"}, "global_search is 'pso'; expected one of None, 'cmaes'"),
    ({"groups": 3}, "groups is 3; expected the name of a coordinate, or None"),
]


@pytest.mark.parametrize(("field", "said"), FIELDS, ids=str)
def test_settings_out_of_range_are_refused_with_what_is_expected(field: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        dfit.Warmup(**field)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(InputError, match=r"no 'sample_size'; it has sample_points, seed, groups"):
        dfit.Warmup(sample_size=100)


CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "more points than the data have": (
        {"warmup": dfit.Warmup(sample_points=20_001)},
        "sample_points is 20001, and the data have 20000 points; type a number of 2 to 20000, or leave it out",
    ),
    "bounds without bounds": (
        {"warmup": dfit.Warmup(normalization="bounds"), "bounds": {"a": (0, 9), "tau": (0, 9)}},
        "not every parameter has two finite bounds; type bounds={name: (lower, upper)} for each",
    ),
    "an unknown preset": (
        {"warmup": "strikt"},
        "warmup is 'strikt'; expected True, False, dfit.Warmup(sample_points, seed,",
    ),
    "the presets by name": ({"warmup": 1}, "'default', 'strict', 'relaxed', 'disabled', 'scientific'"),
    "a mapping": ({"warmup": {"seed": 1}}, "warmup is {'seed': 1}; expected True"),
    "unknown groups": (
        {"warmup": dfit.Warmup(groups="day")},
        "unknown groups 'day' in warmup=dfit.Warmup(groups=...); known coordinates and dimensions: t, i",
    ),
    "no pass and no warm-up": (
        {"warmup": False, "max_passes": 0},
        "max_passes is 0; expected an integer of at least 1",
    ),
    "fewer than no pass": ({"max_passes": -1}, "max_passes is -1; expected an integer of at least 0"),
}


@pytest.mark.parametrize("what", CALLS)
def test_calls_that_no_warm_up_can_follow_are_refused_before_a_chunk_is_read(what: str) -> None:
    options, said = CALLS[what]
    array = (reads := Reads()).array()
    with pytest.raises(InputError, match=re.escape(said)):
        dfit.fit(decay, array, "t", p0=P0, **options)
    assert reads == []


@pytest.mark.filterwarnings("ignore::dfit.DfitWarning")
def test_lbfgs_refuses_a_model_of_plain_numpy_before_a_chunk_is_read() -> None:
    array = (reads := Reads()).array()
    with pytest.raises(InputError, match='type: method="lm"'):
        dfit.fit(numpy_decay, array, "t", p0=P0, warmup=dfit.Warmup(method="lbfgs"))
    assert reads == []


@pytest.mark.parametrize("value", [np.int64(100), 100])
def test_numbers_of_numpy_are_settings_too(value: Any) -> None:
    made = dfit.Warmup(sample_points=value, multistart=value, tolerance=np.float32(0.5))
    assert (made.points, made.multistart, made.tolerance) == (100, 100, 0.5)


def test_a_group_coordinate_with_one_value_is_no_error_for_a_sample() -> None:
    def level(t, c):
        return c + 0 * jnp.asarray(t)

    y = Reads().array().assign_coords(g=("i", np.zeros(20_000)))
    found = dfit.fit(level, y, "t", p0=[1.0], warmup=dfit.Warmup(sample_points=500, groups="g"))
    assert found.success and found.warmup.points == 500
