"""Limits of memory as the system and the batch system say them, on files laid out as theirs."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from dfit.limits import Limit, process_limit, total_memory

UNLIMITED_V1 = 9223372036854771712  # what a group of version 1 without a limit says
BATCH = ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE", "PBS_RESC_MEM", "TORQUE_RESC_MEM")


@pytest.fixture(autouse=True)
def no_batch_system(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BATCH:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    """Root folder of a machine: what /proc/self/cgroup says, and files of /sys/fs/cgroup."""

    def laid_out(own: str, files: dict[str, str]) -> Path:
        told = {"proc/self/cgroup": own} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
        for name, text in told.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return laid_out


def without_groups(root: Path) -> tuple[int, str, bool]:
    return process_limit(root / "no such folder")


V1 = "9:name=systemd:/\n4:cpu,memory:/user/job\n1:cpu:/\n0::/\n"
V2 = "0::/user/job\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (V2, {"user/job/memory.max": "1000\n"}, 1000),
        (V2, {"user/job/memory.max": "max\n", "user/memory.max": "2000\n"}, 2000),
        (V2, {"user/job/memory.max": "3000\n", "user/memory.max": "2000\n", "memory.max": "4000\n"}, 2000),
        (V2, {"memory.max": "4000\n"}, 4000),
        ("0::/\n", {"memory.max": "4000\n"}, 4000),
        ("0::/../other\n", {"memory.max": "4000\n"}, 4000),
        (V1, {"memory/user/job/memory.limit_in_bytes": "1000\n"}, 1000),
        (
            V1,
            {
                "memory/user/job/memory.limit_in_bytes": f"{UNLIMITED_V1}\n",
                "memory/user/memory.limit_in_bytes": "2000\n",
                "memory/memory.limit_in_bytes": f"{UNLIMITED_V1}\n",
            },
            2000,
        ),
        (V1, {"memory/memory.limit_in_bytes": "4000\n"}, 4000),
    ],
    ids=[
        *("v2", "v2, max below a limit", "v2, nested", "v2 in a container", "v2 with a namespace"),
        *("v2 beside a namespace", "v1", "v1, nested", "v1 in a container"),
    ],
)
def test_the_smallest_limit_of_nested_control_groups_holds(
    machine: Callable[..., Path], own: str, files: dict[str, str], expected: int
) -> None:
    assert process_limit(machine(own, files)) == (expected, "control group", True)


@pytest.mark.parametrize(
    ("own", "files"),
    [
        (V2, {"user/job/memory.max": "max\n", "memory.max": "max\n"}),
        (V2, {}),
        (V1, {"memory/user/job/memory.limit_in_bytes": f"{UNLIMITED_V1}\n"}),
        (V1, {"memory/other/memory.limit_in_bytes": "1000\n"}),
        ("", {}),
    ],
    ids=["v2, max", "v2, absent", "v1, unlimited", "v1, of others", "none"],
)
def test_groups_without_a_limit_leave_what_else_there_is(
    machine: Callable[..., Path], own: str, files: dict[str, str]
) -> None:
    root = machine(own, files)
    assert process_limit(root) == without_groups(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not read a file")
def test_a_hidden_control_group_says_nothing(machine: Callable[..., Path], tmp_path: Path) -> None:
    root = machine(V2, {"user/job/memory.max": "1000\n"})
    expected = without_groups(root)
    for folder in tmp_path.parents[:3]:
        folder.chmod(0o755)
    (root / "sys/fs/cgroup/user").chmod(0)
    os.seteuid(65534)
    try:
        found = process_limit(root)
    finally:
        os.seteuid(0)
    assert found == expected


def test_without_any_limit_the_machine_is_the_limit(
    machine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert process_limit(machine("", {})) == (total_memory(), "physical memory", True)


def test_total_memory_is_what_the_kernel_counts() -> None:
    told = next(
        line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    assert total_memory() == int(told.split()[1]) * 1024


@pytest.mark.parametrize(
    ("said", "size", "source"),
    [
        ({"SLURM_MEM_PER_NODE": "3"}, 3 << 20, "SLURM_MEM_PER_NODE"),
        ({"SLURM_MEM_PER_CPU": "3", "SLURM_CPUS_ON_NODE": "4"}, 12 << 20, "SLURM_MEM_PER_CPU"),
        ({"PBS_RESC_MEM": "5000000"}, 5_000_000, "PBS_RESC_MEM"),
        ({"TORQUE_RESC_MEM": "6000000"}, 6_000_000, "TORQUE_RESC_MEM"),
        ({"PBS_RESC_MEM": "6000000", "SLURM_MEM_PER_NODE": "2"}, 2 << 20, "SLURM_MEM_PER_NODE"),
    ],
)
def test_limits_of_the_batch_system_hold_without_being_enforced(
    machine: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    said: dict[str, str],
    size: int,
    source: str,
) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert process_limit(machine("", {})) == (size, source, False)


@pytest.mark.parametrize(
    "said",
    [
        {"SLURM_MEM_PER_NODE": "0"},
        {"SLURM_MEM_PER_NODE": "lots"},
        {"SLURM_MEM_PER_NODE": "-5"},
        {"SLURM_MEM_PER_CPU": "3"},
        {"SLURM_MEM_PER_CPU": "0", "SLURM_CPUS_ON_NODE": "4"},
        {"PBS_RESC_MEM": ""},
    ],
)
def test_variables_that_say_nothing_are_passed_over(
    machine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, said: dict[str, str]
) -> None:
    root = machine("", {})
    expected = process_limit(root)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert process_limit(root) == expected


def test_of_equal_limits_the_enforced_one_is_named(
    machine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")
    assert process_limit(machine(V2, {"memory.max": f"{1 << 20}\n"})) == (1 << 20, "control group", True)


def test_budget_is_the_fraction_of_the_limit() -> None:
    assert Limit(1_000_000, "memory_limit", False, 0.3, "default").budget == 300_000
