"""Which limit of memory holds: the strongest who says one, never more than the system lets a process have."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from dask.utils import parse_bytes

import dfit
from dfit.limits import Limit, limit_in_force, process_limit, require_room, total_memory
from tests.memory_group import memory_group

ROOT = Path(__file__).resolve().parents[1]
REAL = (8_000_000_000, "memory_limit of a worker", True)
SAID = (8_000_000_000, "SLURM_MEM_PER_NODE", False)

TELL = "from dfit.limits import process_limit, limit_in_force as f; l = f(); "
TELL += "print([process_limit(), (l.bytes, l.source, l.enforced, l.fraction, l.fraction_source)])"


def told(environment: dict[str, str], *before: str) -> list[Any]:
    """What a new process says of its limits."""
    command = [*before, sys.executable, "-c", TELL]
    found = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert found.returncode == 0, found.stderr
    return list(ast.literal_eval(found.stdout))


def test_ulimit_of_a_process_is_its_limit(source_environment: dict[str, str]) -> None:
    kib = 3 << 20
    for option in "v", "d":
        process, fit = told(source_environment, "sh", "-c", f'ulimit -{option} {kib}; exec "$@"', "sh")
        assert process == (kib << 10, f"ulimit -{option}", True)
        assert fit == (kib << 10, f"ulimit -{option}", True, 0.75, "default")


def test_the_control_group_of_a_process_is_its_limit(source_environment: dict[str, str]) -> None:
    with memory_group(1 << 30) as inside:
        process, fit = told(source_environment, *inside)
    assert process == (1 << 30, "control group", True)
    assert fit == (1 << 30, "control group", True, 0.75, "default")


def test_each_who_says_a_limit_overrules_the_next(source_environment: dict[str, str]) -> None:
    """Slurm over the machine, dask's environment over Slurm."""
    slurm = {"SLURM_MEM_PER_NODE": "2000"}
    mine = {"DASK_DFIT__MEMORY_LIMIT": "3 GB", "DASK_DFIT__MEMORY_FRACTION": "0.5"}
    assert process_limit()[0] > 3_000_000_000, "this test needs a machine of 4 GB"
    by_slurm, by_me = (told(source_environment | said)[1] for said in (slurm, slurm | mine))
    assert by_slurm == (2000 << 20, "SLURM_MEM_PER_NODE", False, 0.75, "default")
    assert by_me == (
        *(3_000_000_000, "dask.config dfit.memory-limit", False),
        *(0.5, "dask.config dfit.memory-fraction"),
    )


def test_an_argument_overrules_dasks_configuration() -> None:
    with dask.config.set({"dfit.memory-limit": "2 GB", "dfit.memory-fraction": 0.5}):
        configured = limit_in_force(found=REAL)
        given = limit_in_force("1 GB", 0.25, found=REAL)
    assert (configured.bytes, configured.source, configured.budget) == (
        *(2_000_000_000, "dask.config dfit.memory-limit"),
        1_000_000_000,
    )
    assert (given.bytes, given.source, given.budget) == (1_000_000_000, "memory_limit", 250_000_000)


@pytest.mark.parametrize(
    ("value", "size"),
    [("4 GB", 4 * 10**9), ("4GiB", 4 << 30), ("4e9", 4 * 10**9), (4e9, 4 * 10**9), (np.int64(5), 5), (5, 5)],
)
def test_a_limit_is_a_text_with_a_unit_or_bytes(value: Any, size: int) -> None:
    assert limit_in_force(value, found=REAL).bytes == size


@pytest.mark.parametrize(
    "value",
    ["-4 GB", -4, 0, "0", 0.5, True, np.True_, "", "GB", "4 apples", "lots", "9e400 GB", np.nan, np.inf, [4]],
)
def test_a_limit_that_is_no_size_is_refused_with_the_line_to_type(value: Any) -> None:
    with pytest.raises(
        dfit.InputError, match=r"memory_limit=.*: expected a size of memory above 0"
    ) as caught:
        limit_in_force(value, found=REAL)
    assert repr(value) in str(caught.value) and 'memory_limit="4 GB"' in str(caught.value)
    with (
        dask.config.set({"dfit.memory-limit": value}),
        pytest.raises(dfit.InputError, match=r"dask.config dfit.memory-limit="),
    ):
        limit_in_force(found=REAL)


@pytest.mark.parametrize("value", [0, -0.5, 1.5, 75, np.nan, True, "0.75", [0.5]])
def test_a_fraction_outside_0_to_1_is_refused(value: Any) -> None:
    with pytest.raises(dfit.InputError, match=r"above 0 and at most 1, such as memory_fraction=0\.75"):
        limit_in_force(None, value, found=REAL)
    with (
        dask.config.set({"dfit.memory-fraction": value}),
        pytest.raises(dfit.InputError, match=r"dask.config dfit.memory-fraction="),
    ):
        limit_in_force(found=REAL)


def test_the_whole_limit_may_be_taken() -> None:
    assert limit_in_force("1 GB", 1, found=REAL).budget == 1_000_000_000


def test_more_than_the_system_enforces_is_warned_about_and_does_not_hold() -> None:
    with pytest.warns(
        dfit.DfitWarning, match="memory_limit='100 GB' is more than a process can have here"
    ) as all_of:
        limit = limit_in_force("100 GB", found=REAL)
    assert (limit.bytes, limit.source, limit.enforced) == REAL
    assert "7.45 GiB (memory_limit of a worker)" in str(all_of[0].message)
    assert all_of[0].filename == __file__


def test_more_than_a_variable_says_holds_silently() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limit = limit_in_force("100 GB", found=SAID)
    assert (limit.bytes, limit.source, limit.enforced) == (100_000_000_000, "memory_limit", False)


def test_more_than_the_machine_does_not_hold_where_a_variable_says_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "500")
    assert process_limit()[1] == "SLURM_MEM_PER_NODE"
    with pytest.warns(dfit.DfitWarning, match="the limit is"):
        limit = limit_in_force(2 * total_memory())
    monkeypatch.delenv("SLURM_MEM_PER_NODE")
    assert (limit.bytes, limit.source, limit.enforced) == process_limit()


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.75, 0.9, 1.0])
def test_the_smallest_limit_that_is_named_works_and_little_less_does_not(fraction: float) -> None:
    little = Limit(1, "memory_limit", False, fraction, "memory_fraction")
    for need in (12_345, 4_096_000, 300_000_000, 2_222_222_222, 7_500_000_000, 10**12 + 1):
        with pytest.raises(dfit.InputError, match="is the smallest that works") as caught:
            require_room(need, little, "one block of the model")
        named = str(caught.value).split("memory_limit='")[1].split("'")[0]
        found = (10**15, "physical memory", True)
        require_room(need, limit_in_force(named, fraction, found=found), "one block of the model")
        less = int(0.9 * parse_bytes(named))
        with pytest.raises(dfit.InputError, match="one block of the model needs"):
            require_room(need, limit_in_force(less, fraction, found=found), "one block of the model")


def test_what_an_enforced_limit_has_no_room_for_asks_for_a_larger_process_or_fraction() -> None:
    limit = limit_in_force(found=REAL)
    require_room(6_000_000_000, limit, "a chunk")
    with pytest.raises(
        dfit.InputError, match=r"a process that may have 8667 MB .*, or memory_fraction=0\.82$"
    ):
        require_room(6_500_000_000, limit, "a chunk")
    require_room(6_500_000_000, limit_in_force(None, 0.82, found=REAL), "a chunk")
    with pytest.raises(
        dfit.InputError, match=r"a process that may have 12 GB \(a larger worker, job or machine\)$"
    ):
        require_room(9_000_000_000, limit, "a chunk")


def test_a_limit_prints_who_says_it_and_what_a_fit_may_take() -> None:
    assert str(limit_in_force("4 GiB", found=REAL)) == (
        "4.00 GiB (memory_limit), of which a fit may take 0.75 (default): 3.00 GiB"
    )


def test_limits_are_public_and_in_bytes() -> None:
    assert dfit.limits.total_memory() == total_memory() >= dfit.limits.process_limit()[0] > 1 << 20
