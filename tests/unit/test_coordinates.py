"""Times become numbers exactly, wherever they are converted."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta

import cftime
import numpy as np
import pandas as pd
import pytest

from dfit.data.coordinates import TimeAxis, time_axis, time_unit_name
from dfit.errors import InputError


def axis_of(values, unit="s", origin=None):
    values = np.asarray(values)
    return time_axis("time", values.dtype, lambda: values.flat[0], unit, origin)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("seconds", "s"), ("hours", "h"), ("h", "h"), ("day", "D"), ("ms", "ms"), ("min", "min")],
)
def test_units_are_known_by_their_usual_spellings(spelling, name):
    assert time_unit_name(spelling) == name


@pytest.mark.parametrize("unit", ["month", "Y", "m", 3, ""])
def test_unit_without_a_fixed_length_is_refused(unit):
    with pytest.raises(InputError, match="of fixed length"):
        time_unit_name(unit)


def test_dates_count_from_the_first_value():
    dates = np.array(["2000-01-01T06", "2000-01-01T07:30", "NaT"], dtype="M8[ns]")
    axis = axis_of(dates, "h")
    assert axis.origin == "2000-01-01T06:00:00"
    np.testing.assert_array_equal(axis.offsets(dates), [0.0, 1.5, np.nan])


def test_dates_keep_nanoseconds_beside_a_given_origin():
    dates = np.array(["2000-01-01T00:00:00.000000001"], dtype="M8[ns]")
    assert axis_of(dates, "ns", "2000-01-01").offsets(dates).tolist() == [1.0]
    assert axis_of(dates, "s").offsets(dates).tolist() == [0.0]


def test_dates_far_from_the_origin_do_not_overflow():
    dates = np.array(["2000-01-01"], dtype="M8[ns]")
    assert axis_of(dates, "D", "0001-01-01").offsets(dates).tolist() == [730119.0]


@pytest.mark.parametrize(
    "origin", [datetime(2000, 1, 1), pd.Timestamp(2000, 1, 1), np.datetime64("2000-01-01")]
)
def test_origin_may_be_any_date(origin):
    dates = np.array(["2000-01-02"], dtype="M8[s]")
    assert axis_of(dates, "D", origin).offsets(dates).tolist() == [1.0]


def test_durations_count_from_their_own_zero():
    times = np.array([10, 20], dtype="m8[us]")
    axis = axis_of(times, "us")
    assert axis.offsets(times).tolist() == [10.0, 20.0]
    assert axis.is_duration
    assert axis_of(times, "us", np.timedelta64(10, "us")).offsets(times).tolist() == [0.0, 10.0]
    with pytest.raises(InputError, match="expected timedelta64"):
        axis.offsets(np.array(["2000-01-01"], dtype="M8[s]"))


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
def test_dates_of_other_calendars_count_in_their_calendar(calendar):
    dates = np.array(
        [cftime.datetime(2000, 2, 28, calendar=calendar), cftime.datetime(2000, 3, 1, calendar=calendar)]
    )
    axis = axis_of(dates, "h")
    days = {"noleap": 1, "360_day": 3, "standard": 2}[calendar]
    assert axis.offsets(dates).tolist() == [0.0, 24.0 * days]
    assert axis.calendar == calendar
    assert axis_of(dates, "D", "2000-02-27").offsets(dates)[0] == 1.0


def test_missing_date_of_another_calendar_is_nan():
    dates = np.array([cftime.datetime(2000, 1, 1, calendar="noleap"), np.nan], dtype=object)
    np.testing.assert_array_equal(axis_of(dates).offsets(dates), [0.0, np.nan])


def test_date_of_the_wrong_calendar_is_refused():
    axis = axis_of(np.array([cftime.datetime(2000, 1, 1, calendar="noleap")]))
    with pytest.raises(InputError, match="expected 'noleap'"):
        axis.offsets(np.array([cftime.datetime(2000, 1, 1, calendar="360_day")]))
    with pytest.raises(InputError, match="use_cftime=True"):
        axis.offsets(np.array(["2000-01-01"], dtype="M8[s]"))


def test_numbers_and_python_dates_are_accepted_on_an_axis_of_dates():
    axis = TimeAxis("h", "2000-01-01")
    assert axis.offsets([1.0, 2.0]).tolist() == [1.0, 2.0]
    assert axis.offsets([datetime(2000, 1, 1, 1)]).tolist() == [1.0]
    assert axis.offsets([timedelta(hours=2)]).tolist() == [2.0]
    assert axis.offsets("2000-01-01T03:00").tolist() == 3.0


def test_axis_survives_the_way_to_a_worker():
    axis = TimeAxis("h", "2000-01-01", None)
    assert pickle.loads(pickle.dumps(axis)) == axis
    assert len(pickle.dumps(axis)) < 200


@pytest.mark.parametrize(
    ("values", "words"),
    [(["a", "b"], "no numeric meaning"), ([1j], "real coordinates"), ([None, {}], "no numeric meaning")],
)
def test_coordinate_that_is_no_number_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        axis_of(values)


def test_origin_that_is_no_date_is_refused():
    dates = np.array(["NaT", "2000-01-01"], dtype="M8[s]")
    with pytest.raises(InputError, match="is not a date"):
        axis_of(dates, "s", "yesterday evening")
    with pytest.raises(InputError, match='time_origin="2000-01-01"'):
        axis_of(dates)
