"""Snapshot: all that a fit needs to go on as if nothing had happened, to the bit.

As a tree for an image it is arrays and text. Numbers on which the course of the fit depends are arrays,
which keep the bits of NaN, too; words by free names, such as settings, are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dfit.core.curvature import Curvature
from dfit.core.equations import Equations
from dfit.core.state import State
from dfit.core.sums import Sums
from dfit.errors import CheckpointDamaged, CheckpointError
from dfit.store.image import Tree

SCHEMA = 1
# From the schema of a tree to the next one: what a later schema adds, it adds here to older trees.
STEPS: dict[int, Callable[[Tree], Tree]] = {}

TEXT = ("version", "written", "stage", "form", "stopped")
WORDS = ("environment", "model", "data", "settings", "limits", "call", "seeds", "plan", "report")
LISTS = ("names", "recovery")
NUMBERS = ("rough", "lost", "table")  # arrays, or trees of them, as they are
PARAMETERS = ("p0", "values", "lower", "upper", "fixed")
ONE_EACH = ("cost", "psi2", "count")  # of the fields of Sums: numbers,
ALIKE = ("lag", "counts", "moments")  # arrays of one shape,
BY_ROWS = ("matrix", "groups")  # arrays with a number of rows of their own


@dataclass(frozen=True, eq=False)
class Running:
    """The finished part of a pass.

    Attributes
    ----------
    theta : (p,)
        Where the pass evaluates.
    form : one of `dfit.core.sums.FORMS`.
    forest : finished subtrees by (level, index).
    table : arrays and text of what the partitions gave.
    validate : how it checks them.
    not_finite : the first place without finite sums, empty where all are.
    complete : whether nothing of it is left to do.
    """

    theta: np.ndarray
    form: str
    forest: dict[tuple[int, int], Sums]
    table: Tree
    validate: str = "sums"
    not_finite: str = ""
    complete: bool = False


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a checkpoint holds.

    Attributes
    ----------
    version : of the dfit that wrote it.
    written : UTC time, ISO 8601.
    environment : packages and processor, on which the last bits depend.
    model, data : fingerprints, by what they are of.
    settings : those that change a result.
    limits : those that say how far a fit goes, and may change.
    call : arguments that a resume need not be told again.
    seeds : of what is drawn at random.
    plan : how the data were cut into partitions.
    names : of all p_all parameters.
    p0, values, lower, upper : (p_all,)
    fixed : (p_all,) bool
    stage : what comes next.
    state : State
        Of NumPy arrays; a fit that has ended says so in its status.
    form : of sums that the next pass reduces.
    stopped : why no further pass was to follow, empty where the solver or a fault ended it.
    retract : whether the sample has a say in the steps.
    in_memory : whether `survey` and `last` are of the sample, and not of passes.
    at_p0 : State, optional
        After a pass that collected the sample.
    sample : Equations, optional
        Of the sample at its answer, until a pass has judged it.
    report : what the warm-up did; empty without one.
    rough : (p,), optional
        Where sums of squares told that they had lost digits.
    running : Running, optional
        None between two passes.
    survey, last : Sums, optional
        Of the first pass, of the last complete one.
    table : what the partitions gave in the last complete pass.
    lost : (k, 3)
        What is left out: partition, first leaf, the one after the last.
    account : what the fit has cost so far.
    history : a row per pass; the same names in every row, numbers or bools of one type by name.
    recovery : what was done about faults; JSON.
    """

    version: str
    written: str
    environment: dict[str, str]
    model: dict[str, str]
    data: dict[str, str]
    settings: dict[str, str]
    limits: dict[str, Any]
    call: dict[str, Any]
    seeds: dict[str, int]
    plan: dict[str, int]
    names: tuple[str, ...]
    p0: np.ndarray
    values: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    fixed: np.ndarray
    stage: str
    state: State
    form: str
    table: Tree
    lost: np.ndarray
    stopped: str = ""
    retract: bool = False
    in_memory: bool = False
    at_p0: State | None = None
    sample: Equations | None = None
    report: dict[str, Any] = field(default_factory=dict)
    rough: np.ndarray | None = None
    running: Running | None = None
    survey: Sums | None = None
    last: Sums | None = None
    account: dict[str, float] = field(default_factory=dict)
    history: tuple[dict[str, float], ...] = ()
    recovery: tuple[dict[str, Any], ...] = ()

    def to_tree(self) -> Tree:
        """Tree for `dfit.store.image.encode`."""
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in TEXT + PARAMETERS + NUMBERS},
            **{name: json.dumps(getattr(self, name), default=as_number) for name in WORDS + LISTS},
            "flags": np.array([self.retract, self.in_memory]),
            "state": _state_tree(self.state),
            "at_p0": None if self.at_p0 is None else _state_tree(self.at_p0),
            "sample": None if self.sample is None else _arrays(self.sample),
            "running": None if self.running is None else _running_tree(self.running),
            "survey": None if self.survey is None else _stacked([self.survey]),
            "last": None if self.last is None else _stacked([self.last]),
            "account": dict(self.account),
            "history": _table(self.history),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], where: str = "the checkpoint") -> Snapshot:
        """The Snapshot whose `to_tree` a tree is, of this schema or an older one, read from ``where``.

        Raises
        ------
        CheckpointError
            If a later dfit wrote it, naming that one.
        CheckpointDamaged
            If it is no such tree.
        """
        try:
            return cls(**_fields(_current(dict(tree))))
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise CheckpointDamaged(
                f"{where} holds no state of a fit ({type(error).__name__}: {error}). Type: another checkpoint=, or "
                "resume=False to begin again there"
            ) from error


def as_number(value: Any) -> Any:
    """A NumPy number for JSON, which has no word for it; TypeError for anything else."""
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no number")


def _current(tree: Tree) -> Tree:
    """A tree brought to this schema."""
    written = int(tree["schema"])
    if written > SCHEMA:
        raise CheckpointError(
            f"the checkpoint was written by dfit {tree['version']} in schema {written}, this dfit reads "
            f"up to {SCHEMA}. Type: pip install 'dfit>={tree['version']}'"
        )
    for schema in range(written, SCHEMA):
        tree = STEPS[schema](tree)
    return tree


def _fields(tree: Tree) -> dict[str, Any]:
    sizes = {name: tree[name].shape for name in PARAMETERS}
    names = tuple(json.loads(tree["names"]))
    if set(sizes.values()) != {(len(names),)}:
        raise ValueError(f"{len(names)} parameters, arrays of {sizes}")
    survey, last = (None if tree[name] is None else _unstacked(tree[name])[0] for name in ("survey", "last"))
    retract, in_memory = tree["flags"].tolist()
    return {
        **{name: tree[name] for name in TEXT + PARAMETERS + NUMBERS},
        **{name: json.loads(tree[name]) for name in WORDS},
        "names": names,
        "recovery": tuple(json.loads(tree["recovery"])),
        "retract": retract,
        "in_memory": in_memory,
        "state": _state(tree["state"]),
        "at_p0": None if tree["at_p0"] is None else _state(tree["at_p0"]),
        "sample": None if tree["sample"] is None else Equations(**tree["sample"]),
        "running": None if tree["running"] is None else _running(tree["running"]),
        "survey": survey,
        "last": last,
        "account": {name: number.item() for name, number in tree["account"].items()},
        "history": _rows(tree["history"]),
    }


def _state_tree(state: State) -> Tree:
    nested = {"equations": state.equations, "second": state.second}
    return {
        **{name: np.asarray(value) for name, value in state._asdict().items() if name not in nested},
        **{name: None if part is None else _arrays(part) for name, part in nested.items()},
    }


def _arrays(value: Equations | Curvature) -> Tree:
    return {name: np.asarray(part) for name, part in value._asdict().items()}


def _state(tree: Tree) -> State:
    second = None if tree["second"] is None else Curvature(**tree["second"])
    state = State(**{**tree, "equations": Equations(**tree["equations"]), "second": second})
    p = state.theta.size
    if state.trial.shape != (p,) or state.equations.root.shape != (p + 1, p + 1):
        raise ValueError(f"{p} parameters, equations of {state.equations.root.shape}")
    return state


def _running_tree(running: Running) -> Tree:
    # Dozens of subtrees as one stack: HDF5 takes longer for a dataset than for its numbers.
    nodes = sorted(running.forest)
    return {
        "theta": running.theta,
        "form": running.form,
        "nodes": np.array(nodes, np.int64).reshape(-1, 2),
        "sums": _stacked([running.forest[node] for node in nodes]) if nodes else None,
        "table": running.table,
        "validate": running.validate,
        "not_finite": running.not_finite,
        "complete": running.complete,
    }


def _running(tree: Tree) -> Running:
    nodes = [(int(level), int(index)) for level, index in tree["nodes"]]
    sums = _unstacked(tree["sums"]) if nodes else []
    forest = dict(zip(nodes, sums, strict=True))
    words = tree["validate"], tree["not_finite"]
    return Running(tree["theta"], tree["form"], forest, tree["table"], *words, bool(tree["complete"]))


def _stacked(sums: list[Sums]) -> Tree:
    return {
        **{name: np.array([getattr(one, name) for one in sums]) for name in ONE_EACH + ALIKE},
        **{name: np.concatenate([getattr(one, name) for one in sums]) for name in BY_ROWS},
        **{f"{name}_rows": np.array([len(getattr(one, name)) for one in sums]) for name in BY_ROWS},
    }


def _unstacked(tree: Tree) -> list[Sums]:
    columns: dict[str, Any] = {name: tree[name].tolist() for name in ONE_EACH}
    columns |= {name: list(tree[name]) for name in ALIKE}
    for name in BY_ROWS:
        columns[name] = np.split(tree[name], np.cumsum(tree[f"{name}_rows"])[:-1])
    return [Sums(*values) for values in zip(*(columns[name] for name in Sums._fields), strict=True)]


def _table(rows: tuple[dict[str, float], ...]) -> Tree:
    """Rows as one array for all names of a type; names need not be identifiers, so they stand apart."""
    columns = {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    kinds = [str(column.dtype) for column in columns.values()]
    stacks = {
        kind: np.stack([column for column in columns.values() if column.dtype == kind]) for kind in set(kinds)
    }
    return {"names": json.dumps(list(columns)), "kinds": json.dumps(kinds), **stacks}


def _rows(tree: Tree) -> tuple[dict[str, float], ...]:
    names, kinds = json.loads(tree["names"]), json.loads(tree["kinds"])
    columns = [tree[kind][kinds[:k].count(kind)].tolist() for k, kind in enumerate(kinds)]
    return tuple(dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
