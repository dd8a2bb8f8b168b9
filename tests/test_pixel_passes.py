"""Maps whose pixels have more points than a task may hold: fitted in passes, with the answers of whole tasks."""

from __future__ import annotations

import ast
import json
import logging
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.limits import process_limit
from dfit.reduce import pixel_memory, pixel_passes
from dfit.reduce.allocator import resident_bytes

POINTS, PIXELS, FEW = (
    400,
    300,
    20,
)  # the first number of pixels begins with sums of squares, the second does not
ROOM = 7 << 20  # less than a task of all points takes, more than the states of all pixels
TIME = np.linspace(0, 8, POINTS)
RNG = np.random.default_rng(7)
A, TAU, C = RNG.uniform(3, 7, PIXELS), RNG.uniform(1.3, 2.7, PIXELS), RNG.uniform(0.5, 1.5, PIXELS)
VALUES = A * np.exp(-TIME[:, None] / TAU) + C + 0.1 * RNG.standard_normal((POINTS, PIXELS))
SIGMA = RNG.uniform(0.05, 0.2, VALUES.shape)
EASY = {"a": 4.0, "tau": 2.0, "c": 0.5}


def decay(time, a, tau, c):
    return a * jnp.exp(-time / tau) + c


def chunked(values: np.ndarray, **sizes: int) -> xr.DataArray:
    return xr.DataArray(values, {"time": TIME, "x": np.arange(values.shape[1]) / 2}, ("time", "x")).chunk(
        {"time": 150, "x": -1, **sizes}
    )


def gaps() -> np.ndarray:
    """Values of which some points are missing, with a pixel without any and one that cannot be used."""
    values = VALUES.copy()
    values[RNG.random(values.shape) < 0.2] = np.nan
    values[:, 5], values[9, 11] = np.nan, np.inf
    return values


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Leave so many bytes to tasks of maps."""

    def leave(room: int) -> None:
        free = process_limit()[0] - resident_bytes()[0] - pixel_memory.FIRST_USE_BYTES
        monkeypatch.setattr(pixel_memory, "TASK_FRACTION", room / free)

    return leave


def require_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Parameters within 1e-10 or 1e-6 standard errors, and the rest accordingly."""
    found, expected = found.compute(), expected.compute()
    np.testing.assert_array_equal(found.curvefit_status, expected.curvefit_status)
    np.testing.assert_array_equal(found.curvefit_ndata, expected.curvefit_ndata)
    gap = abs(found.curvefit_coefficients - expected.curvefit_coefficients)
    near = np.maximum(1e-10 * abs(expected.curvefit_coefficients), 1e-6 * expected.curvefit_stderr)
    assert bool(((gap <= near) | expected.curvefit_coefficients.isnull()).all())
    for name in ("covariance", "chisqr", "rsquared"):
        values = (one[f"curvefit_{name}"] for one in (found, expected))
        np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-12, equal_nan=True)
    assert int(expected.curvefit_success.sum()) >= expected.sizes["x"] - 2


CASES: dict[str, Callable[[], tuple[xr.DataArray, Any, dict[str, Any]]]] = {
    "sigma, gaps, starts by pixel": lambda: (
        chunked(gaps()),
        "time",
        {
            "sigma": chunked(SIGMA),
            "p0": {**EASY, "tau": xr.DataArray(TAU * 1.5, dims="x")},
            "errors": "ignore",
        },
    ),
    "hard starts": lambda: (chunked(VALUES), "time", {"p0": {"a": 0.5, "tau": 8.0, "c": 0.0}}),
    "coordinate by pixel, robust": lambda: (
        chunked(VALUES),
        xr.DataArray(TIME[:, None] * np.linspace(1, 1.2, PIXELS), dims=("time", "x")).chunk(time=150),
        {"p0": EASY, "loss": "huber", "reduce_dims": "time", "param_names": ["a", "tau", "c"]},
    ),
}


LONG_CASES = {"sigma, gaps, starts by pixel", "hard starts"}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.long) if c in LONG_CASES else c for c in CASES]
)
def test_passes_give_the_map_that_whole_tasks_give(case, little_room):
    data, coords, options = CASES[case]()
    expected = data.fit(coords, decay, **options)
    little_room(ROOM)
    found = data.fit(coords, decay, **options)
    assert "lazy" in expected.attrs["dfit_plan"] and "passes" in found.attrs["dfit_plan"]
    require_same(found, expected)


def test_uneven_chunks_and_pixels_in_bands_give_the_same_map(little_room):
    data = chunked(VALUES, x=170)
    few = data.isel(x=slice(0, 200)).chunk(time=(10, 333, 57), x=(130, 70))
    expected = few.fit("time", decay, p0=EASY)
    little_room(1)  # one chunk a task, as few pixels at a time as there are lanes
    found = few.fit("time", decay, p0=EASY)
    assert found.curvefit_stderr.chunks == expected.curvefit_stderr.chunks
    require_same(found, expected)


def test_model_that_is_not_traceable_gives_the_same_map(little_room):
    def plain(time, a, tau, c):
        return a * np.exp(-np.asarray(time) / tau) + c

    few = chunked(VALUES[:, :FEW])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dfit.DfitWarning)  # that it is not
        expected = few.fit("time", plain, p0=EASY).compute()
        little_room(1)
        found = few.fit("time", plain, p0=EASY)
    require_same(found, expected)


def test_tasks_that_run_twice_give_the_same_map(little_room, monkeypatch):
    few = chunked(VALUES[:, :FEW])
    expected = few.fit("time", decay, p0=EASY, cov="hc1").compute()

    def twice(task, *given):
        task(*given)
        return task(*given)

    for name in ("begun", "sums_of", "added", "advanced", "ended"):
        monkeypatch.setattr(pixel_passes, name, partial(twice, getattr(pixel_passes, name)))
    little_room(1)
    require_same(few.fit("time", decay, p0=EASY, cov="hc1"), expected)


def test_failing_fit_raises_at_the_call_and_names_its_pixel(little_room):
    values = VALUES[:, :FEW].copy()
    values[3, 7] = np.inf
    little_room(1)
    with pytest.raises(dfit.FitFailed, match=r"x=3\.5"):
        chunked(values).fit("time", decay, p0=EASY)


def test_plan_is_told_and_its_chunks_make_the_map_lazy(little_room, caplog):
    little_room(ROOM)
    with caplog.at_level(logging.INFO, logger="dfit"):
        found = chunked(VALUES).fit("time", decay, p0=EASY)
    plan = found.attrs["dfit_plan"]
    (record,) = [record for record in caplog.records if record.getMessage() == plan]
    assert record.levelno == logging.WARNING  # which reads about ten times, and could do with two
    assert "about 10 times" in plan and "reads them 2 times" in plan
    chunks = ast.literal_eval(plan[plan.index("{") : plan.index("}") + 1])
    with caplog.at_level(logging.INFO, logger="dfit"):
        again = chunked(VALUES).chunk(chunks).fit("time", decay, p0=EASY)
    assert again.attrs["dfit_plan"] == "the map is lazy, and the data are read once"
    assert "of what this process has free of" in caplog.messages[-1]


def test_start_from_the_points_is_refused_with_the_chunks_to_type(little_room):
    little_room(ROOM)
    with pytest.raises(
        dfit.InputError, match=r"a guess of p0 needs all points.*chunks=\{'time': -1, 'x': 150\}"
    ):
        chunked(VALUES).fit("time", decay, p0=lambda y, time: EASY)
    with pytest.raises(dfit.InputError, match="neighbours=True needs all points"):
        chunked(VALUES).fit("time", decay, p0=EASY, neighbours=True)


def test_passes_write_their_regions_and_read_nothing_where_they_are_there(little_room, tmp_path):
    read = []

    def chunk(block: np.ndarray) -> np.ndarray:
        read.append(block.shape)
        return block

    few = chunked(VALUES[:, :FEW], x=12)
    data = few.copy(data=da.map_blocks(chunk, few.data, dtype=float, meta=np.empty((0, 0))))
    expected = few.fit("time", decay, p0=EASY).compute()
    little_room(1)
    require_same(data.fit("time", decay, p0=EASY, to=tmp_path / "map.zarr"), expected)
    passes = len(read)
    require_same(data.fit("time", decay, p0=EASY, to=tmp_path / "map.zarr"), expected)
    assert passes > 6 and len(read) - passes <= 3  # a look at some points says whether they are the same data


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_DATA"), reason="no limit of a process's data")
@pytest.mark.long
def test_data_of_one_chunk_larger_than_the_process_limit_are_fitted(source_environment):
    limit = 840_000_000
    command = [sys.executable, "-m", "tests.beyond_limit", str(limit)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=source_environment, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["bytes"] > limit
    assert found["worst"] < 1e-10
    assert "in passes" in found["plan"]


def test_what_a_map_compiles_does_not_count_as_the_fit_s() -> None:
    time = np.linspace(0, 8, 5000)

    def same(time, a, tau):  # by no other test, so that it is not compiled yet
        return a * jnp.exp(-time / tau) + 0.125

    y = xr.DataArray(
        np.stack([same(time, a, 2.0) for a in (3.0, 4.0)]), dims=("x", "time"), coords={"time": time}
    )
    start = {"a": 2.0, "tau": 1.0}
    assert (y.fit("time", same, p0=start, errors="ignore").curvefit_status > 0).all()
    assert dfit.fit(same, y[0], "time", p0=start, warmup=False).run.compilations == 1
