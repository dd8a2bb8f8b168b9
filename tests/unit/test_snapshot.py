"""A snapshot comes back from its bytes as it was, to the last bit of the last NaN."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from dfit.core.curvature import Curvature
from dfit.core.state import State, Status, start
from dfit.core.sums import DROPS, FAULTS, Sums
from dfit.errors import CheckpointDamaged, CheckpointError
from dfit.store import snapshot
from dfit.store.image import decode, encode
from dfit.store.snapshot import Running, Snapshot

NAN = np.array([0xFFF8000000000ABC], np.uint64).view(float)[0]
RNG = np.random.default_rng(1)
TABLE = {"cost": np.array([0.5, NAN]), "leaves": np.array([8, 0]), "workers": "node:17\n"}


def sums(rows: int = 3, columns: int = 3, groups: int = 0) -> Sums:
    matrix = RNG.normal(size=(rows, columns))
    matrix[:1, 0] = NAN
    counts = np.zeros(len(DROPS) + len(FAULTS))
    return Sums(
        matrix,
        RNG.uniform(),
        float("inf"),
        7.0,
        RNG.normal(size=2),
        counts,
        RNG.normal(size=5),
        np.arange(groups) * 3,
    )


def state(**changed: Any) -> State:
    begun = start(np.array([1.0, -0.0]), share=0.1)
    return begun._replace(
        equations=begun.equations._replace(root=RNG.normal(size=(3, 3)), cost=np.float64(NAN)),
        status=np.int32(Status.OFFSET),
        **changed,
    )


def whole(**changed: Any) -> Snapshot:
    given: dict[str, Any] = {
        "version": "0.3.1",
        "written": "2025-01-02T03:04:05Z",
        "environment": {"jax": "0.8.0", "processor": "x86_64, avx2"},
        "model": {"program": "ab12"},
        "data": {"a/b (μm)": "cd34"},
        "settings": {"loss": "soft_l1", "f_scale": "0x1.8p+0"},
        "limits": {"tol": 1e-8, "ftol": None},
        "call": {"coords": ["time"], "p0": {"τ": 0.1}},
        "seeds": {"sample": 2**100},
        "plan": {"partition_points": 2**40},
        "names": ("amplitude", "τ", "p[0]"),
        "p0": np.array([1.0, 2.0, NAN]),
        "values": np.array([1.5, 2.5, 0.0]),
        "lower": np.array([-np.inf, 0.0, -np.inf]),
        "upper": np.full(3, np.inf),
        "fixed": np.array([False, False, True]),
        "stage": "solve",
        "form": "normal",
        "table": TABLE,
        "lost": np.array([[3, 24, 32]]),
        "stopped": "time_limit=1 s reached",
        "retract": True,
        "at_p0": state(),
        "sample": state().equations,
        "report": {"unit": [1.0, 0.1 + 0.2], "cost": float("inf")},
        "rough": np.array([1.0, NAN]),
        "state": state(second=Curvature(RNG.normal(size=(2, 2)), RNG.normal(size=(2, 2)))),
        "running": Running(
            np.array([1.0, 3.0]), "normal", {(3, 1): sums(), (0, 17): sums(), (0, 2**40): sums()}, TABLE
        ),
        "survey": sums(),
        "last": sums(),
        "account": {"passes": 4, "read_s": 0.1 + 0.2, "fraction": float(NAN)},
        "history": (
            {"npasses": 1, "params.τ": 0.1, "accepted": True, "reduction": float(NAN)},
            {"npasses": 2, "params.τ": 1 / 3, "accepted": False, "reduction": -0.0},
        ),
        "recovery": ({"partition": 3, "strategy": "fewer leaves", "detail": "64 to 32"},),
    }
    return Snapshot(**{**given, **changed})


def assert_same(found: Any, expected: Any) -> None:
    """Same structure, types, widths and bits."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif is_dataclass(expected):
        for field in fields(expected):
            assert_same(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, tuple):
        assert type(found) is type(expected) and len(found) == len(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert_same(mine, theirs)
    elif isinstance(expected, np.ndarray | np.generic):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, float):
        assert type(found) is float and np.float64(found).tobytes() == np.float64(expected).tobytes()
    else:
        assert type(found) is type(expected) and found == expected


def again(made: Snapshot) -> Snapshot:
    return Snapshot.from_tree(decode(encode(made.to_tree())))


def test_every_field_comes_back_to_the_bit() -> None:
    made = whole()
    assert_same(again(made), made)


def test_fit_that_has_only_begun_comes_back() -> None:
    made = whole(
        state=start(np.array([1.0, 2.0])),
        running=None,
        at_p0=None,
        sample=None,
        rough=None,
        survey=None,
        last=None,
        account={},
        history=(),
    )
    found = again(made)
    assert_same(found, made)
    assert found.state.second is None and found.running is None


def test_pass_without_a_finished_subtree_comes_back() -> None:
    made = whole(running=Running(np.array([1.0, 3.0]), "triangle", {}, TABLE))
    assert_same(again(made), made)


@pytest.mark.parametrize("form", ["sandwich", "groups"])
def test_sums_of_every_form_come_back(form: str) -> None:
    if form == "groups":
        forest = {(0, 0): sums(4, 9, groups=4), (0, 3): sums(0, 9), (2, 1): sums(1, 9, groups=1)}
    else:
        forest = {(0, 0): sums()._replace(matrix=RNG.normal(size=(2, 2, 2)))}
    made = whole(running=Running(np.zeros(2), form, forest, TABLE, complete=True))
    assert_same(again(made), made)


def test_tree_of_a_later_dfit_is_refused_with_the_version_to_install() -> None:
    tree = {"schema": snapshot.SCHEMA + 1, "version": "7.2.0", "other": 1}
    with pytest.raises(CheckpointError, match=r"by dfit 7\.2\.0 .*pip install 'dfit>=7\.2\.0'") as caught:
        Snapshot.from_tree(tree)
    assert caught.type is CheckpointError


def test_older_tree_is_read_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    old = decode(encode(whole().to_tree()))
    del old["seeds"]
    monkeypatch.setattr(snapshot, "SCHEMA", 3)
    monkeypatch.setitem(snapshot.STEPS, 1, lambda tree: {**tree, "drawn": 5})
    monkeypatch.setitem(snapshot.STEPS, 2, lambda tree: {**tree, "seeds": f'{{"sample": {tree["drawn"]}}}'})
    assert Snapshot.from_tree(old).seeds == {"sample": 5}


def test_state_has_the_fields_of_this_schema() -> None:
    # A field more or less needs a schema of its own, and a step from this one.
    assert snapshot.SCHEMA == 1
    assert State._fields == (
        *("theta", "equations", "trial", "radius", "scaling", "slope", "predicted", "full", "polishing"),
        *("damping", "failures", "offset", "evaluations", "status", "second"),
    )
    assert [f for f in Sums._fields if f not in snapshot.ONE_EACH + snapshot.ALIKE + snapshot.BY_ROWS] == []


def without(name: str) -> dict[str, Any]:
    tree = decode(encode(whole().to_tree()))
    del tree[name]
    return tree


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"a": np.zeros(3)},
        without("state"),
        without("schema"),
        whole().to_tree() | {"schema": 0},
        whole().to_tree() | {"state": None},
        whole().to_tree() | {"names": "["},
        whole().to_tree() | {"names": "[" * 100_000},
        whole().to_tree() | {"names": 3},
        whole(p0=np.zeros(4)).to_tree(),
        whole(state=state(second=None)._replace(trial=np.zeros(3))).to_tree(),
        whole().to_tree() | {"history": {"names": '["a"]', "kinds": '["bool"]'}},
        whole().to_tree() | {"history": {"names": "[]", "kinds": '["bool"]', "bool": np.zeros((0, 3), bool)}},
    ],
)
def test_tree_that_is_no_snapshot_is_called_damaged(tree: dict[str, Any]) -> None:
    with pytest.raises(CheckpointDamaged, match="the checkpoint holds no state of a fit"):
        Snapshot.from_tree(tree)
