"""Coordinates as numbers: times become float64 offsets in a unit since an origin.

xarray decodes "hours since ..." into datetime64, "us" into timedelta64, and calendars that NumPy
does not know into cftime objects.  A model wants float64.  A `TimeAxis` holds the one rule of a
coordinate (unit, origin, calendar); it is small, it pickles, and it converts a plain array anywhere:
on the client for a coordinate in memory, on a worker chunk by chunk for a chunked one.

A duration (timedelta64) already counts from its own zero, so its origin is zero unless the user
gives another; a date counts from the first value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

import numpy as np

from dfit.errors import InputError

_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
    "D": 86_400_000_000_000,
}
_SPELLINGS = {
    "nanosecond": "ns",
    "microsecond": "us",
    "millisecond": "ms",
    "second": "s",
    "sec": "s",
    "minute": "min",
    "hour": "h",
    "hr": "h",
    "H": "h",
    "day": "D",
    "d": "D",
}


def time_unit_name(unit: str) -> str:
    """Canonical name of a unit of time: ns, us, ms, s, min, h or D.

    Raises
    ------
    InputError
        For a unit without a fixed length (months, years) or an unknown one.
    """
    if isinstance(unit, str):
        for spelling in (unit, unit.rstrip("s")):
            name = _SPELLINGS.get(spelling, spelling)
            if name in _UNIT_NS:
                return name
    raise InputError(
        f"time_unit={unit!r} is not a unit of fixed length; expected one of {', '.join(_UNIT_NS)}."
        ' Type for example: time_unit="h"'
    )


@dataclass(frozen=True)
class TimeAxis:
    """How the times of one coordinate become float64.

    Attributes
    ----------
    unit : one of ns, us, ms, s, min, h, D.
    origin : ISO date for dates, a number with a unit ("0 ns") for durations.
    calendar : the CF calendar of cftime dates, None for datetime64 and timedelta64.
    """

    unit: str
    origin: str
    calendar: str | None = None

    @property
    def is_duration(self) -> bool:
        """Whether the coordinate holds durations (timedelta64) rather than dates."""
        return self.calendar is None and " " in self.origin

    def offsets(self, values: Any) -> np.ndarray:
        """Times as float64 offsets in `unit` since `origin`; NaT gives NaN.

        Numbers pass untouched (they are offsets already); on an axis of dates, durations are
        offsets from the origin.  Shape is kept.

        Raises
        ------
        InputError
            For values of another kind than the coordinate's (a date on an axis of durations).
        """
        array = as_times(values)
        if array.dtype.kind in "fiub":
            return array
        if array.dtype.kind == "m":
            zero = _parse_duration(self.origin) if self.is_duration else np.timedelta64(0, "s")
            return self._scaled(array, zero, "m8[s]")
        if array.dtype.kind == "M" and self.calendar is None and not self.is_duration:
            return self._scaled(array, np.datetime64(self.origin), "M8[s]")
        if self.calendar is not None and array.dtype.kind in "OM":
            return self._from_calendar(array)
        kind = "durations" if self.is_duration else f"dates since {self.origin}"
        raise InputError(
            f"got values of dtype {array.dtype} for a coordinate of {kind}; expected "
            f"{'timedelta64' if self.is_duration else 'dates'} or numbers in {self.unit!r}"
        )

    def _scaled(self, array: np.ndarray, origin: Any, seconds: str) -> np.ndarray:
        # Whole seconds and the rest apart: int64 nanoseconds overflow 292 years from the origin,
        # and "days since 0001-01-01" is a common one.
        unit_ns = _UNIT_NS[self.unit]
        whole_s, origin_s = array.astype(seconds), origin.astype(seconds)
        elapsed = (whole_s - origin_s) / np.timedelta64(1, "s")
        if unit_ns >= 1_000_000_000:
            out = elapsed / (unit_ns // 1_000_000_000)
        else:
            out = elapsed * (1_000_000_000 // unit_ns)
        one_ns = np.timedelta64(1, "ns")
        rest_ns = (array - whole_s) / one_ns - (origin - origin_s) / one_ns
        return out + rest_ns / unit_ns

    def _from_calendar(self, array: np.ndarray) -> np.ndarray:
        cftime = import_module("cftime")
        if array.dtype.kind == "M":
            raise InputError(
                f"got datetime64 for a coordinate in the calendar {self.calendar!r}; "
                "type: xr.date_range(start, periods=n, use_cftime=True, calendar="
                f"{self.calendar!r}) or numbers in {self.unit!r} since {self.origin}"
            )
        flat = array.ravel()
        dates = np.array([_is_cftime(value) for value in flat], dtype=bool)
        for value in flat[dates]:
            if value.calendar != self.calendar:
                raise InputError(f"got a date in the calendar {value.calendar!r}; expected {self.calendar!r}")
        out = np.full(flat.shape, np.nan)
        if dates.any():
            # Integer microseconds: cftime's own resolution, exact for any unit asked.
            counts = cftime.date2num(flat[dates], f"microseconds since {self.origin}", self.calendar)
            out[dates] = np.asarray(counts, dtype=float) / (_UNIT_NS[self.unit] / 1000)
        return out.reshape(array.shape)


def time_axis(
    name: str, dtype: np.dtype, first: Callable[[], Any], unit: str, origin: Any
) -> TimeAxis | None:
    """The time axis of a coordinate, or None where the coordinate is a plain number.

    Parameters
    ----------
    name : the coordinate's name, for messages.
    dtype : its dtype.
    first : gives its first value that is not missing; called only where it is needed.
    unit, origin : `time_unit` and `time_origin`; an origin of None is the first value for dates
        and zero for durations.

    Raises
    ------
    InputError
        For a coordinate without numeric meaning, a complex one, or an origin of the wrong kind.
    """
    if dtype.kind in "fiub":
        return None
    if dtype.kind == "m":
        start = origin if isinstance(origin, (np.timedelta64, timedelta)) else np.timedelta64(0, "ns")
        return TimeAxis(unit, _duration_text(np.timedelta64(start)))
    if dtype.kind == "M":
        start = first() if origin is None or isinstance(origin, (np.timedelta64, timedelta)) else origin
        return TimeAxis(unit, _date_text(name, start))
    if dtype.kind == "O" and _is_cftime(value := first()):
        start = value if origin is None else origin
        text = start.isoformat() if hasattr(start, "isoformat") else str(start)
        return TimeAxis(unit, text, value.calendar)
    raise InputError(_no_numeric_meaning(name, dtype))


def as_times(values: Any) -> np.ndarray:
    """Values as a plain array in which dates are datetime64, timedelta64 or cftime objects."""
    array = np.asarray(values)
    if array.dtype.kind in "US":
        return array.astype("M8[ns]")
    if array.dtype.kind == "O" and array.size:
        value = array.flat[0]
        if isinstance(value, datetime):
            return array.astype("M8[ns]")
        if isinstance(value, timedelta):
            return array.astype("m8[ns]")
    return array


def _is_cftime(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "cftime"


def _parse_duration(text: str) -> np.timedelta64:
    return np.timedelta64(int(text.removesuffix(" ns")), "ns")


def _duration_text(value: np.timedelta64) -> str:
    return f"{value.astype('m8[ns]').astype(int)} ns"


def _date_text(name: str, value: Any) -> str:
    try:
        date = np.datetime64(value)
    except ValueError as error:
        raise InputError(
            f"time_origin={value!r} is not a date for the coordinate {name!r}. "
            'Type for example: time_origin="2000-01-01T00:00:00"'
        ) from error
    if np.isnat(date):
        raise InputError(
            f"the first value of the coordinate {name!r} is NaT, so it cannot be the origin. "
            'Type for example: time_origin="2000-01-01"'
        )
    text = str(np.datetime_as_string(date))
    return text.rstrip("0").rstrip(".") if "." in text else text


def _no_numeric_meaning(name: str, dtype: np.dtype) -> str:
    got = f"the coordinate {name!r} has dtype {dtype}"
    if dtype.kind == "c":
        return (
            f"{got}; a model takes real coordinates. Pass two: "
            f"coords={{'{name}_re': z.real, '{name}_im': z.imag}}"
        )
    if dtype.kind == "O":
        return f"{got}, which has no numeric meaning. Type: y.assign_coords({name}=y[{name!r}].astype(float))"
    return (
        f"{got}, which has no numeric meaning. Give it numbers: "
        f"y.assign_coords({name}=({name!r}, np.arange(y.sizes[{name!r}])))"
    )
