"""The history as users see it: where it is kept, what it shows, and the command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result

import dfit
from dfit import history
from dfit.face.cli import main
from tests.benchmarks.history import measure
from tests.unit.runs import NUMBERS, changed, record


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A history of its own."""
    with dask.config.set({"dfit.history": str(tmp_path / "kept")}):
        yield tmp_path / "kept"


def add(**changed: object) -> None:
    kept = history.ledger()
    assert kept is not None
    kept.add(record(**changed))


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["history", *arguments])


@pytest.mark.parametrize("setting", [True, 1, None, "unset"])
def test_by_default_history_is_in_the_users_state_folder(
    setting: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with dask.config.set({"dfit.history": setting}):
        if setting == "unset":
            monkeypatch.delitem(dask.config.config["dfit"], "history")
        kept = history.ledger()
        monkeypatch.undo()
    assert kept is not None
    assert kept.path == str(tmp_path / "dfit" / "history")
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_there_is_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # of no user that the system knows
    with dask.config.set({"dfit.history": True}):
        assert history.ledger() is None


@pytest.mark.parametrize("setting", [False, 0])
def test_history_that_is_off_says_so(setting: object) -> None:
    with dask.config.set({"dfit.history": setting}):
        assert history.ledger() is None
        assert 'dask.config.set({"dfit.history": True})' in repr(history.show())
        assert 'dask.config.set({"dfit.history": True})' in repr(history.explain())
        assert history.clear() == 0


@pytest.mark.parametrize("setting", ["", "off", "No", 3, "s3://bucket/history", ["a"], 0.5])
def test_a_setting_that_is_none_is_refused(setting: object) -> None:
    with (
        dask.config.set({"dfit.history": setting}),
        pytest.raises(dfit.InputError, match=r"expected True, False or a folder.*\"dfit\.history\": False"),
    ):
        history.show()


def test_fits_are_shown_the_newest_first(folder: Path) -> None:
    now = time.time()
    predicted = NUMBERS | {"low_s": 1.5, "high_s": 4.0}
    for age, name in ((30, "first"), (20, "second"), (10, "third")):
        measured = NUMBERS | {"points": 10**8, "pass_s": float(age)}
        add(
            workload={"model": name, "strategy": "streaming"},
            predicted=predicted,
            predicted_by="dry run",
            measured=measured,
            when=now - age,
        )
    shown = history.show(2)
    assert shown.title == f"History: 3 fits in {folder}"
    assert [row[3:] for row in shown.rows[1:]] == [
        ("streaming", "100,000,000", "2.5 s (1.5 to 4)", "10 s", "dry run"),
        ("streaming", "100,000,000", "2.5 s (1.5 to 4)", "20 s", "dry run"),
    ]
    lines = repr(shown).splitlines()
    assert lines[1].split() == list(history.HEAD)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", shown.rows[1][0])
    assert "<td" in shown._repr_html_() and "2.5 s (1.5 to 4)" in shown._repr_html_()


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "2"])
def test_showing_no_number_of_fits_is_refused(n: object, folder: Path) -> None:
    with pytest.raises(dfit.InputError, match=r"dfit\.history\.show\(20\)"):
        history.show(n)


def test_an_empty_history_is_shown_as_empty(folder: Path) -> None:
    assert repr(history.show()) == f"History: 0 fits in {folder}"
    assert f"No fit yet in {folder}" in repr(history.explain())
    assert not folder.exists()


def test_what_a_stranger_wrote_is_shown_as_text(folder: Path) -> None:
    add(workload={"model": "a", "strategy": "<script>alert(1)</script>"})
    assert "<script>" not in history.show()._repr_html_()
    assert "&lt;script&gt;" in history.show()._repr_html_()


def test_the_last_fit_is_explained_with_what_predictions_were_worth(folder: Path) -> None:
    now = time.time()
    for k, seconds in enumerate([2.5, 2.6, 2.4, 2.5, 10.0]):
        measured = NUMBERS | {"pass_s": seconds, "passes": 4}
        add(about={"flops": 21.0}, predicted_by="history", measured=measured, when=now - 60 + k)
    add(about={"flops": 21.0}, predicted_by="dry run", measured=NUMBERS | {"passes": 3}, when=now)
    text = repr(history.explain())
    assert "predicted from: dry run" in text
    assert re.search(r"pass_s +2\.5 +2\.5\n", text)
    assert re.search(r"passes +3\n", text)
    assert re.search(r"flops +21\n", text)
    assert "from history: 80% of the last 5 came within 25 %" in text
    assert "from dry run: 1 so far; 5 are needed to judge them." in text


def test_a_plan_is_explained_by_where_its_numbers_come_from() -> None:
    plan = SimpleNamespace(
        origins={"pass_s": "dry run", "limit": "cgroup"}, pass_s=2.5, limit="1 GiB", confidence=0.75
    )
    for what in (plan, SimpleNamespace(plan=plan)):
        found = history.explain(what)
        assert found.rows[1:] == (("pass_s", "2.5", "dry run"), ("limit", "1 GiB", "cgroup"))
        assert found.notes == ("Confidence: 75% of past predictions of this workload came within 25 %",)
    plan.confidence = None
    assert "fewer than five" in repr(history.explain(plan))


def test_what_has_no_plan_is_refused() -> None:
    with pytest.raises(dfit.InputError, match=r"a int has no plan.*dfit\.history\.explain\(result\)"):
        history.explain(3)


def test_the_command_does_what_the_functions_do(folder: Path) -> None:
    add()
    assert command("show").output == f"{history.show()!r}\n"
    assert command("show", "-n", "1").output == f"{history.show(1)!r}\n"
    assert command("explain").output == f"{history.explain()!r}\n"
    assert command("clear").output == "removed 1 file\n"
    assert command("clear").output == "removed 0 files\n"
    assert list(folder.iterdir()) == []


def test_the_command_says_errors_without_a_traceback(folder: Path) -> None:
    done = command("show", "-n", "0")
    assert (done.exit_code, done.output.startswith("Error: n is 0; expected")) == (1, True)


def test_python_m_dfit_is_the_command(folder: Path, source_environment: dict[str, str]) -> None:
    add()
    own = source_environment | {"DASK_DFIT__HISTORY": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", "dfit", "history", "show"], env=own, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{history.show()!r}\n"


def test_a_damaged_history_is_shown_with_one_warning(folder: Path) -> None:
    add()
    (folder / f"run-{'0' * 32}.jsonl").write_text("{")
    with pytest.warns(dfit.DfitWarning, match="damaged rows: 1") as told:
        assert len(history.show().rows) == 2
    assert len(told) == 1
    assert history.clear() == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert history.show().rows == ()


def test_loading_costs_little_more_than_parsing_and_a_prediction_far_less() -> None:
    spent, _ = measure(records=500, rounds=7)
    parsing = np.median(spent["json.loads"])
    assert np.median(spent["load, first fit"]) < 4 * parsing
    assert np.median(spent["load, next fit"]) + np.median(spent["predict"]) < 0.5 * parsing


def decay(t, a, tau, c):
    return a * jnp.exp(-t / tau) + c


def fitted() -> dfit.FitResult:
    """A small fit, to which costs matter as to a large one."""
    t = np.linspace(0, 6, 20_000)
    noise = 0.1 * np.random.default_rng(0).standard_normal(t.size)
    lazy = da.from_array(3 * np.exp(-t / 2) + 1 + noise, chunks=5000)
    y = xr.DataArray(lazy, dims="i", coords={"t": ("i", t)})
    # Times of so few points say little: nothing contradicts anything here.
    with patch("dfit.costing.TRY_ABOVE", 0), patch("dfit.learning.OFF", 1e9):
        return dfit.fit(decay, y, "t", p0=[2.0, 1.0, 0.5])


def test_a_fit_leaves_one_record_and_the_next_one_learns_from_it(folder: Path) -> None:
    first, second = fitted(), fitted()
    (head, newest, oldest) = history.show().rows
    assert (oldest[-1], newest[-1]) == ("dry run", "history")
    assert (oldest[1:3], oldest[head.index("points")]) == (newest[1:3], "20,000")
    np.testing.assert_array_equal(first.theta, second.theta)
    for file in folder.iterdir():
        assert "decay" not in (text := file.read_text()) and str(Path.cwd()) not in text


def test_a_fit_with_a_damaged_history_warns_once_and_gives_the_same_bits(folder: Path) -> None:
    folder.mkdir()
    for k, content in enumerate(
        [b"{", b"\xff\x00", changed(dfit_history=2), changed(when=-1), b"[" * 50_000]
    ):
        (folder / f"run-{k:032x}.jsonl").write_bytes(content)
    (folder / f"run-{'f' * 32}.jsonl").symlink_to(folder)
    with dask.config.set({"dfit.history": False}):
        expected = fitted()
    with pytest.warns(
        dfit.DfitWarning, match="passed over: damaged rows: 4, rows of a later dfit: 1"
    ) as told:
        found = fitted()
    assert len(told) == 1
    np.testing.assert_array_equal(found.theta, expected.theta)
