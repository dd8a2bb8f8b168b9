"""Every example runs as a user runs it, and its numbers agree with its reference."""

from __future__ import annotations

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    """Import an example by name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


def output(script: str, environment: dict[str, str], *arguments: str, timeout: int = 240) -> str:
    """Standard output of an example."""
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def compared(text: str) -> dict[str, list[float]]:
    """Table of a comparison: by name value, reference, digits, and the same of the standard deviation."""
    number = r"\s+(-?[\d.]+(?:e[-+]?\d+)?)"
    rows = re.findall(rf"^(\w+){number * 6}$", text, re.MULTILINE)
    return {name: [float(value) for value in values] for name, *values in rows}


@pytest.mark.parametrize(("script", "count"), [("era5_season.py", 7), ("zpeak_h5.py", 5)])
def test_example_agrees_with_its_reference(script: str, count: int, source_environment) -> None:
    table = compared(output(script, source_environment))
    assert len(table) == count
    for name, (value, reference, digits, stderr, expected, _) in table.items():
        assert value == pytest.approx(reference, rel=1e-6), name
        assert digits >= 6, name
        assert stderr == pytest.approx(expected, rel=1e-4), name


def test_days_of_weather_are_not_independent_hours(example) -> None:
    result = example("era5_season").clustered_by_day()
    assert result.params["T0"].value == pytest.approx(280.77497, abs=1e-5)
    assert result.params["T0"].stderr == pytest.approx(0.1839, abs=1e-4)  # jackknife over 31 days


def test_generated_movie_gives_back_its_truth(example, tmp_path: Path) -> None:
    movie = example("beyond_memory")
    data = movie.movie(shape=(60, 80, 90), chunks=(20, 30, 90))
    result = movie.fit_movie(movie.write(data, tmp_path), verbose=0)
    assert result.success
    assert result.ndata == 60 * 80 * 90
    assert movie.compare_with_truth(result) < 4


def test_movie_without_room_says_how_much_it_needs(example, tmp_path: Path, monkeypatch) -> None:
    movie = example("beyond_memory")
    monkeypatch.setattr(
        movie.shutil, "disk_usage", lambda folder: movie.shutil._ntuple_diskusage(9, 8, 10**9)
    )
    with pytest.raises(SystemExit, match=r"1\.0 GB free, the movie needs 3\.5 GB; name a folder"):
        movie.write(movie.movie(), tmp_path)


def test_tensors_of_voxels_agree_with_scipy_and_tell_fluid_from_fibres(source_environment) -> None:
    text = output("diffusion_tensor.py", source_environment)
    assert "1000 voxels converged" in text
    (away,) = re.findall(r"worst voxel \(x=\d, y=\d, z=\d\): (\S+) standard errors from SciPy", text)
    (excess,) = re.findall(r"chi-square above SciPy's by a share of (\S+) at most", text)
    assert float(away) < 1e-4
    assert float(excess) < 1e-10
    assert "160 voxels of fluid: 3.07 um^2/ms" in text  # free water at 37 degrees Celsius: 3.0
    assert "96 voxels of fibres: 1.65 um^2/ms along, 0.17 and 0.35 across" in text
    assert "differ by 5.5 degrees (median; by chance 60)" in text


def test_lines_of_the_readme_on_maps_give_the_truth(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8").split("\n## Maps")[1]
    (lines,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)

    def decay(time, amplitude, tau, offset):
        return amplitude * jnp.exp(-time / tau) + offset

    time = xr.DataArray(np.linspace(0, 10, 40), dims="time")
    tau = xr.DataArray([[2.0, 3.0, 4.0]], dims=("y", "x"))
    y = (5 * np.exp(-time / tau) + 1).assign_coords(time=time).chunk(x=2, time=20)
    script, found = tmp_path / "lines.py", []
    script.write_text(re.sub(r"^maps = .*", r"\g<0>\nfound.append(maps)", lines, flags=re.MULTILINE))
    runpy.run_path(str(script), {"y": y, "decay": decay, "found": found})
    assert len(found) == 6
    for maps in found:
        np.testing.assert_allclose(maps.curvefit_coefficients.isel(param=1), tau, rtol=1e-6)
    assert (tmp_path / "map.zarr").is_dir()


@pytest.mark.long
def test_plan_follows_rules_then_a_dry_run_then_the_history(source_environment) -> None:
    text = output("plan_and_history.py", source_environment)
    assert "strategy         = in_memory: 45.78 MiB of data fit the" in text
    row = r"^(static|cold|warm \d) +(static|dry run|history) +(\d+) +([\d.]+) .*?([\d.]+) +([\d.]+)$"
    rows = re.findall(row, text, re.MULTILINE)
    assert [name for name, *_ in rows] == ["static", "cold", *(f"warm {k}" for k in range(1, 7))]
    static, cold, *warm = (costs for _, costs, *_ in rows)
    assert (static, cold) == ("static", "dry run")
    assert "history" in warm  # not all: on a busy machine a dry run may overrule it
    for name, _, partitions, predicted, took, ratio in rows:
        assert 1 <= int(partitions) <= 23, name  # leaves of the data
        assert float(ratio) == pytest.approx(float(took) / float(predicted), rel=0.05), name
    listed = re.findall(r"streaming  6,000,000  [\d.]+ s.* +[\d.]+ s +(history|dry run)$", text, re.MULTILINE)
    assert listed == [*reversed(warm), "dry run"]  # rules leave no record
    assert "removed 7 files" in text


@pytest.mark.slow
def test_main_job_fits_more_than_its_memory(source_environment, tmp_path: Path) -> None:
    text = output("main_job.py", source_environment, str(tmp_path), timeout=1200)
    (furthest,) = re.findall(r"within ([\d.]+) standard deviations of the truth", text)
    assert float(furthest) < 4
    assert re.search(r"Loading the array instead.*exit status 1: MemoryError", text)
    assert list(tmp_path.iterdir()) == []
