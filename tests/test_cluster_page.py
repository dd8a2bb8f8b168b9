"""The page on clusters: its file runs, and its job script asks Slurm for the right things."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "cluster" / "same_fit.py"


def same_fit(source_environment: dict[str, str], *arguments: str) -> str:
    """Standard output of cluster/same_fit.py."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env=source_environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def job_script(source_environment: dict[str, str]) -> str:
    return same_fit(
        source_environment,
        *("--cluster", "slurm", "--job-script", "--queue", "normal"),
        *("--cores", "6", "--memory", "12GB", "--walltime", "00:45:00"),
    )


def test_job_script_asks_slurm_for_what_was_said(job_script: str) -> None:
    directives = dict(re.findall(r"^#SBATCH (-{1,2}[\w-]+)[ =](.+)$", job_script, re.MULTILINE))
    assert job_script.startswith("#!/usr/bin/env bash\n")
    assert directives["-p"] == "normal"
    assert directives["-n"] == "1"
    assert directives["--cpus-per-task"] == "6"
    assert directives["--mem"] == "12G"
    assert directives["-t"] == "00:45:00"


def test_job_script_starts_one_process_per_core_that_ends_with_its_scheduler(job_script: str) -> None:
    (command,) = [line for line in job_script.splitlines() if "dask_worker" in line]
    words = shlex.split(command)
    value = {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("--")}
    assert words[1:3] == ["-m", "distributed.cli.dask_worker"]
    assert (value["--nworkers"], value["--nthreads"]) == ("6", "1")
    assert value["--death-timeout"] == "60"
    assert "--nanny" in words
    before = job_script[: job_script.index(command)].splitlines()
    assert "unset PYTHONDONTWRITEBYTECODE" in before


def test_local_cluster_gives_the_reference(source_environment: dict[str, str]) -> None:
    report = same_fit(source_environment, "--cluster", "local")
    assert report.splitlines()[0].startswith("Dashboard: http")
    assert float(re.search(r"T0:?\s+([-\d.]+)", report)[1]) == pytest.approx(280.77497, abs=1e-4)
    assert float(re.search(r"period:?\s+([-\d.]+)", report)[1]) == pytest.approx(23.995729, abs=1e-4)


def test_page_names_every_setting_of_the_file() -> None:
    page = (ROOT / "cluster" / "README.md").read_text()
    named = re.findall(r'"(distributed\.[\w.-]+)": "?(\w+)', SCRIPT.read_text())
    assert len(named) == 4
    assert [key for key, _ in named if key not in page] == []
    assert all(value.removesuffix("s") in page for _, value in named)
