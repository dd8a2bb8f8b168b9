"""What `import dfit` costs and leaves behind, each seen in a fresh process."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import dfit

ROOT = Path(__file__).resolve().parents[1]


def run(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter from the root of the project."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_import_loads_nothing_heavy() -> None:
    out = run("import dfit, json, sys; print(json.dumps(sorted(sys.modules)))").stdout
    loaded = {name.split(".")[0] for name in json.loads(out)}
    assert loaded & {"bokeh", "distributed", "jax", "jaxlib", "matplotlib", "scipy"} == set()


def test_import_is_silent_and_leaves_the_environment_alone() -> None:
    code = "import os; before = dict(os.environ); import dfit; assert dict(os.environ) == before"
    done = run(code, "-W", "always::DeprecationWarning:dfit", "-W", "always::UserWarning")
    assert (done.stdout, done.stderr) == ("", "")


def test_import_costs_little_more_than_xarray_and_dask() -> None:
    code = "import time; start = time.process_time(); import {}; print(time.process_time() - start)"

    def seconds(modules: str) -> float:
        return float(run(code.format(modules)).stdout)

    seconds("dfit, xarray, dask.array")  # writes the byte code that the others read
    pairs = [(seconds("dfit, xarray, dask.array"), seconds("xarray, dask.array")) for _ in range(7)]
    ours, theirs = zip(*pairs, strict=True)
    ratio = min(statistics.median(a / b for a, b in pairs), min(ours) / min(theirs))
    assert ratio <= 1.10, f"import dfit costs {ratio:.2f} times import xarray, dask.array"


def test_accessors_are_registered_by_the_import() -> None:
    assert run(
        "import dfit, xarray as xr; print(*(hasattr(xr.DataArray, n) for n in ('fit', 'dfit')))"
    ).stdout == ("True True\n")


def test_an_occupied_fit_accessor_stays_as_it_is() -> None:
    code = "import xarray as xr; xr.DataArray.fit = 'mine'; import dfit; print(xr.DataArray.fit, xr.DataArray.dfit)"
    assert run(code, "-W", "error").stdout.startswith("mine <class")


@pytest.mark.parametrize("name", sorted(set(dfit.__all__) - {"__version__"}))
def test_every_public_name_resolves(name: str) -> None:
    found = getattr(dfit, name)
    assert getattr(found, "__module__", found.__name__).split(".")[0] == "dfit"
    assert name in dir(dfit)


@pytest.mark.parametrize("name", sorted(dfit._HOME))
def test_no_module_takes_a_public_name(name: str) -> None:
    """Importing the submodule would put it in the place of the function of the same name."""
    assert not (ROOT / "dfit" / f"{name}.py").exists()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="curve_fit"):
        _ = dfit.fitt
