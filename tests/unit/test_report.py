"""The report: lmfit's layout, what the run cost, and what must be known before the numbers are used."""

from __future__ import annotations

from dataclasses import replace

import lmfit
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dfit.report import notes, number, size, standard_errors
from dfit.warm_report import WarmupReport

T = np.linspace(0.0, 10.0, 101)
Y = 3 * T + 1 + 0.1 * np.random.default_rng(5).standard_normal(T.size)


def line(time, slope, offset):
    return slope * time + offset


def labelled(**attrs):
    return xr.DataArray(
        Y, dims="time", coords={"time": ("time", T, {"units": "s"})}, name="signal", attrs=attrs
    )


@pytest.fixture(scope="module")
def result(finish):
    return finish(line, labelled(units="mV"), "time", p0={"slope": 1, "offset": 0})


@pytest.mark.parametrize(
    "value", [0.0, 1.0, -1.5, 1234.5678, 1e-3, 3.2e-7, -4e12, 1e120, np.inf, np.nan, 99999.9]
)
def test_number_is_written_as_lmfit_writes_it(value):
    assert number(value) == lmfit.printfuncs.gformat(value)


def test_size_has_a_unit_that_fits():
    assert [size(n) for n in (12, 2048, 3 << 20, 5 << 40)] == ["12 B", "2.0 KiB", "3.0 MiB", "5.0 TiB"]


def test_first_line_says_what_was_fitted(result):
    assert result.fit_report().splitlines()[0] == "1 fit over time"


def test_shared_lines_are_lmfits_own(result):
    reference = lmfit.Model(lambda time, slope, offset: line(time, slope, offset)).fit(
        Y, time=T, slope=1, offset=0
    )
    theirs = lmfit.fit_report(reference).splitlines()
    ours = result.fit_report().splitlines()
    for label in (
        "# data points",
        "# variables",
        "chi-square",
        "reduced chi-square",
        "Akaike",
        "Bayesian",
        "R-squared",
    ):
        assert [l for l in ours if l.startswith(f"    {label}")] == [
            l for l in theirs if l.startswith(f"    {label}")
        ]
    start = theirs.index("[[Variables]]")
    assert ours[ours.index("[[Variables]]") :][: len(theirs) - start] == theirs[start:]


def test_run_section_says_what_the_fit_cost(result):
    report = result.fit_report()
    run = dict(row.split(" = ") for row in report[report.index("[[Run]]") :].splitlines()[1:])
    found = {key.strip(): value for key, value in run.items()}
    assert found["passes over the data"] == "5"
    assert found["points per pass"] == "101"
    assert found["bytes per pass"] == "808 B, read once and kept in memory"
    assert found["points per second"] == "202"
    assert found["compilations"] == "1"
    assert found["dropped points"] == "3 (y is NaN: 3)"
    assert found["peak memory"] == "3.0 MiB above an idle worker, 2 workers"
    assert found["equations"].startswith("JtJ")
    assert (found["signal"], found["time"]) == ("in mV", "in s")


def test_times_are_shown_with_unit_and_origin(finish):
    y = xr.DataArray(Y, dims="time", coords={"time": pd.date_range("2020-01-01", periods=101, freq="h")})
    report = finish(line, y, "time", p0=[1, 0], time_unit="h").fit_report()
    assert "time                 = in h since 2020-01-01T00:00:00" in report


def test_parameter_at_a_bound_is_named_in_plain_words(finish):
    result = finish(line, labelled(), "time", p0=[1, 0], bounds={"slope": (None, 2)})
    assert notes(result) == (
        "slope is at its upper bound",
        "the other standard errors hold only if the true value is at that bound",
    )
    assert "[[Notes]]\n    slope is at its upper bound" in result.fit_report()


def test_undetermined_parameters_are_named(finish):
    def twice(time, slope, first, second):
        return slope * time + first + second

    result = finish(twice, labelled(), "time", p0=[1, 1, 1])
    assert any(n.startswith("the data do not determine first and second: infinite") for n in notes(result))
    assert "inf" in result.fit_report()


def test_correlated_neighbours_are_noted_unless_the_errors_are_grouped(result):
    correlated = replace(result, tallies=replace(result.tallies, lag1=0.9))
    assert 'cov={"groups": "time"}' in notes(correlated)[0]
    assert notes(replace(correlated, cov_kind="groups of time")) == ()
    assert notes(replace(correlated, tallies=replace(correlated.tallies, lag1=0.2))) == ()


def test_report_says_where_the_standard_errors_come_from(result):
    assert standard_errors(result) == "scaled by reduced chi-square"
    assert standard_errors(replace(result, absolute_sigma=True)) == "from sigma as given"
    assert (
        standard_errors(replace(result, cov_kind="groups: day", groups=31)) == "clustered by day, 31 groups"
    )
    assert standard_errors(replace(result, cov_kind="hc1")) == "robust against unequal variances (hc1)"
    assert "influence" in standard_errors(replace(result, loss="huber"))


def test_notes_of_the_run_stand_in_the_report(result):
    noted = replace(result, run=replace(result.run, notes=("initial values were guessed",)))
    assert "[[Notes]]\n    initial values were guessed" in noted.fit_report()
    assert "[[Notes]]" not in result.fit_report()


def test_warm_up_and_its_sample_stand_in_the_report(result):
    assert "warm-up" not in result.fit_report()
    report = WarmupReport(
        sample="5 of 101 points, from 2 of 9 chunks",
        complete=False,
        points=5,
        held_out=0,
        chunks_read=2,
        chunks=9,
        bytes_read=80,
        normalization="auto",
        unit=np.ones(2),
        relative_loss=0.001,
        errors_away=7.0,
        skipped="p0 is good",
        mode=None,
        guarded=False,
        clips=0,
        cost_at_start=2.0,
        cost=1.0,
        evaluations=3,
        reason="p0 is good",
        hand_over="the sample is like the data",
    )
    lines = replace(result, warmup=report).fit_report().splitlines()
    for label, words in (
        ("sample", report.sample),
        ("warm-up", "warm-up skipped: p0 is good; 3 evaluations on the sample"),
        ("hand-over", report.hand_over),
    ):
        assert any(line.split("=")[0].strip() == label and line.endswith(words) for line in lines)


def test_fixed_and_tied_parameters_look_like_lmfits(finish):
    tied = finish(
        line, labelled(), "time", p0={"slope": 1}, tie={"offset": lambda p: p["slope"] / 3}
    ).fit_report()
    assert "== 'p['slope'] / 3'" in tied
    fixed = finish(line, labelled(), "time", p0={"slope": 1}, fixed={"offset": 1}).fit_report()
    assert "    offset:  1 (fixed)" in fixed


def test_no_word_of_the_trade_reaches_the_reader(result):
    correlated = replace(result, tallies=replace(result.tallies, lag1=0.9))
    for word in ("monoid", "evaluator", "KKT", "slab", "leaf"):
        assert word not in correlated.fit_report()
