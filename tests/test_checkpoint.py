"""A fit that is stopped anywhere goes on with the same bits, and reads nothing twice that was kept."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import dfit
from tests.resumed import differences, stop_and_go
from tests.warmed import P0, SAMPLE, N, Reads, T, Y, decay

pytestmark = pytest.mark.usefixtures("small_leaves")

CHUNK, CHUNKS = 5000, 4
CHOSEN = 100  # points of a chunk, of which there are 200 and 64 give points of a sample
PROBED = 3  # chunks that a resume looks at, to know the data again

Fit = Callable[..., dfit.FitResult]
NEAR = {"p0": [2.0, 1.5, 0.8]}


def parabola(t, a, b, c):  # far from its own origin, so that equations turn to triangles
    return a + b * (t + 300) + c * (t + 300) ** 2


def fit(data: Callable[[], xr.DataArray] | None = None, model: Any = decay, **options: Any) -> dfit.FitResult:
    y = Reads().array(chunk=CHUNK) if data is None else data()
    return dfit.fit(model, y, "t", **{"p0": P0, "warmup": False, **options})


def grouped() -> xr.DataArray:
    return Reads().array(chunk=CHUNK).assign_coords(g=("i", np.arange(N) // 1000))


@cache
def chosen() -> np.ndarray:
    """Points of the chunks from which a sample is taken."""
    reads = Reads()
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr("dfit.planning.KEEP_FRACTION", 1e-9)
        dfit.fit(decay, reads.array(chunk=CHOSEN), "t", p0=P0, warmup=SAMPLE, max_passes=0)
    return np.isin(np.arange(N) // CHOSEN, reads)


def misleading(elsewhere: np.ndarray) -> xr.DataArray:
    """What a sample is taken from is Y; the rest is something else."""
    return Reads().array(np.where(chosen(), Y, elsewhere), chunk=CHOSEN)


def unlike() -> xr.DataArray:
    return misleading(Y + 0.25 * np.exp(-T / 4))


def far_worse() -> xr.DataArray:
    return misleading(10 * Y)


def failing(good: int) -> xr.DataArray:
    """The second chunk is readable so many times; it is none of those that a resume looks at."""
    reads: list[int] = []

    def block(block_info: Any = None) -> np.ndarray:
        start, end = block_info[None]["array-location"][0]
        reads.append(start // CHUNK)
        if reads[-1] == 1 and reads.count(1) > good:
            raise OSError("the disk is away")
        return Y[start:end]

    lazy = da.map_blocks(block, chunks=((CHUNK,) * CHUNKS,), dtype=Y.dtype, meta=np.empty(0))
    return xr.DataArray(lazy, dims="i", coords={"t": ("i", T)})


def lost_at_once() -> xr.DataArray:
    return failing(0)


def hands_over(words: str) -> Callable[[dfit.FitResult], bool]:
    return lambda found: found.warmup is not None and words in found.warmup.hand_over


# What each shows of itself, so that it is what its name says.
CASES: dict[str, tuple[dict[str, Any], Callable[[dfit.FitResult], bool]]] = {
    "no warm-up": (NEAR, lambda found: found.warmup is None),
    "a sample like the data": ({"warmup": SAMPLE}, hands_over("the sample is like the data")),
    "a sample unlike the data": ({"data": unlike, "warmup": SAMPLE}, hands_over("is not like the data")),
    "a sample far better": (
        {"data": far_worse, "warmup": SAMPLE, "p0": [30.0, 1.9, 11.0]},
        hands_over("p0 is tried"),
    ),
    "a complete sample": (
        {"warmup": dfit.Warmup(sample_points=N), "loss": "huber", "f_scale": 0.1},
        lambda found: found.warmup is not None and found.warmup.complete,
    ),
    "triangles": (
        {"model": parabola, "p0": [4000.0, -26.0, 0.04]},
        lambda found: found.run.form == "QR",
    ),
    "a robust loss": ({**NEAR, "loss": "huber", "f_scale": 0.1}, lambda found: found.loss == "huber"),
    "groups": ({**NEAR, "cov": {"groups": "g"}, "data": grouped}, lambda found: found.groups == 20),
    "a rejected step": (
        {"p0": [5.0, 20.0, -5.0]},
        lambda found: not all(event.accepted for event in found.history),
    ),
    "a bound": (
        {**NEAR, "bounds": {"tau": (0, 1.8)}},
        lambda found: found.best_values["tau"] == 1.8,
    ),
    "few passes": ({**NEAR, "max_passes": 3}, lambda found: "max_passes=3" in found.message),
    "a lost partition": (
        {**NEAR, "data": lost_at_once, "retries": 0, "min_success_rate": 0.7},
        lambda found: found.partial,
    ),
}
# The sample is drawn before the first pass, and not collected by it.
DRAWN = ("a sample like the data", "a sample far better")


def require_same_bits(case: str, folder: Path, after: int, at: str = "on_partition") -> int:
    """Stop a fit after every so many partitions or passes; gives how often it was stopped."""
    options, shows = CASES[case]
    run: Fit = partial(fit, **options)
    expected = run()
    assert shows(expected)
    found, stops = stop_and_go(run, folder, after, at)
    assert differences(found, expected) == []
    return stops


# With three of four partitions a time, every place within a pass is the last one before a stop.
@pytest.mark.filterwarnings("ignore::dfit.DfitWarning")
@pytest.mark.usefixtures("rereading")
@pytest.mark.parametrize("case", CASES)
def test_stopped_anywhere_it_ends_with_the_same_bits(case: str, tmp_path: Path) -> None:
    stops = require_same_bits(case, tmp_path, 3)
    assert stops >= (0 if case == "a complete sample" else 3)


@pytest.mark.filterwarnings("ignore::dfit.DfitWarning")
@pytest.mark.parametrize("case", DRAWN)
def test_stopped_anywhere_with_data_in_memory_it_ends_with_the_same_bits(case: str, tmp_path: Path) -> None:
    require_same_bits(case, tmp_path, 3)


@pytest.mark.filterwarnings("ignore::dfit.DfitWarning")
@pytest.mark.parametrize("case", ["no warm-up", "a sample unlike the data"])
def test_stopped_after_every_pass_it_ends_with_the_same_bits(case: str, tmp_path: Path) -> None:
    assert require_same_bits(case, tmp_path, 1, "callback") >= 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dfit.DfitWarning")
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read again"])
@pytest.mark.parametrize("case", CASES)
def test_stopped_after_every_partition_it_ends_with_the_same_bits(
    case: str, kept: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not kept:
        request.getfixturevalue("rereading")
    print(f"\n{case}: stopped {require_same_bits(case, tmp_path, 1)} times")


@pytest.mark.usefixtures("rereading")
def test_a_partition_lost_in_a_later_pass_is_left_out_after_a_resume_too(tmp_path: Path) -> None:
    options = {**NEAR, "retries": 0, "min_success_rate": 0.7}
    with pytest.warns(dfit.DfitWarning, match="could not be read"):
        expected = fit(lambda: failing(2), **options)
    later = failing(2)
    with pytest.warns(dfit.DfitWarning, match="could not be read"):
        found, stops = stop_and_go(partial(fit, lambda: later, **options), tmp_path, 3)
    assert expected.partial and stops > 3
    assert differences(found, expected) == []
    assert [one.partition for one in found.left_out] == [1]


@pytest.mark.usefixtures("rereading")
@pytest.mark.parametrize("warmup", [False, SAMPLE])
def test_nothing_that_was_kept_is_read_again(warmup: Any, tmp_path: Path) -> None:
    once, again = Reads(), Reads()
    expected = fit(lambda: once.array(chunk=CHUNK), warmup=warmup)
    array = again.array(chunk=CHUNK)
    found, stops = stop_and_go(partial(fit, lambda: array, warmup=warmup), tmp_path)
    assert differences(found, expected) == []
    # Of a first pass that was stopped no sample is collected: it is drawn, once.
    sampled = 0 if warmup is False else CHUNKS
    assert len(again) == len(once) + PROBED * (stops + 1) + sampled
    read = len(again)
    assert differences(fit(lambda: array, warmup=warmup, checkpoint=tmp_path), expected) == []
    assert len(again) == read


# Where a task's findings are added, where those of a pass are, and where the solver makes its step.
@pytest.mark.usefixtures("rereading")
@pytest.mark.parametrize(
    "where", ["dfit.reduce.knowledge.insert", "dfit.reduce.evaluators.equations", "dfit.core.drive._step"]
)
def test_ctrl_c_in_the_midst_of_the_books_costs_nothing_that_was_saved(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fit(**NEAR)
    module, _, name = where.rpartition(".")
    inner = getattr(importlib.import_module(module), name)
    calls: list[int] = []

    def interrupted(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(*given)

    saves = dfit.Checkpoint(tmp_path, every_s=0)
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(where, interrupted)
        fit(**NEAR, checkpoint=saves)
    assert len(calls) == 3 and saves.entries()
    reads = Reads()
    found = fit(lambda: reads.array(chunk=CHUNK), **NEAR, checkpoint=saves)
    assert differences(found, expected) == []
    done = 0 if name == "insert" else 2
    assert len(reads) <= PROBED + CHUNKS * (expected.npasses - done)
