"""Record: what one finished fit leaves for the plans of later ones, and the line of JSON that holds it.

Whoever can write into a home can write such a line, so a line is believed only as far as it is checked: names,
types, lengths and ranges.  It holds numbers and short printable words, nothing that runs.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from dfit.errors import InputError

FORMAT = 1
WORD_CHARS, ENTRIES = 200, 64
ROW_BYTES = 16_384
LARGEST = 1e18  # bytes, points or seconds: no fit reaches it
ID = re.compile("[0-9a-f]{32}")

Value = str | int | float | None


class Newer(ValueError):
    """A row of a later dfit."""


@dataclass(frozen=True)
class Record:
    """One finished fit. Its words are cut after 200 characters, and numbers out of range become None.

    Attributes
    ----------
    workload, hardware : what tells workloads, and the hardware of workers, from each other; every entry counts.
    about : what else is worth knowing of the workload.
    versions : of the packages that decide the speed.
    settings : those the fit ran with.
    predicted : numbers by name: pass_s, low_s and high_s (seconds per pass and its 80 % interval), peak_bytes,
        and those of `dfit.terms.Terms`; None where there was none.
    predicted_by : an `Origin`.
    measured : the same names, and first_pass_s, spread (coefficient of variation of the partitions' times),
        passes, points.
    id : 32 hexadecimal digits, by which copies are known.
    when : seconds since 1970, UTC.
    workload_key, hardware_key : of the two, from `key_of`.
    """

    workload: Mapping[str, Value]
    hardware: Mapping[str, Value]
    about: Mapping[str, Value]
    versions: Mapping[str, Value]
    settings: Mapping[str, Value]
    predicted: Mapping[str, float | None]
    predicted_by: str
    measured: Mapping[str, float | None]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    when: float = field(default_factory=time.time)
    workload_key: str = field(init=False)
    hardware_key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "workload_key", key_of(self.workload))
        object.__setattr__(self, "hardware_key", key_of(self.hardware))


WORDS = ("workload", "hardware", "about", "versions", "settings")
NUMBERS = ("predicted", "measured")
NAMES = frozenset(item.name for item in fields(Record) if item.init) | {"dfit_history"}


def key_of(parts: Mapping[str, Value]) -> str:
    """16 hexadecimal digits of the SHA-256 of these parts, in any order; 1, 1.0 and True are the same."""
    return _key(tuple(sorted(parts.items())))


@lru_cache(maxsize=8192)  # a history holds up to 20 records of the same parts
def _key(parts: tuple[tuple[str, Value], ...]) -> str:
    known = {name: plain(value) for name, value in parts}
    alike = {name: float(v) if isinstance(v, (int, float)) else v for name, v in known.items()}
    return hashlib.sha256(json.dumps(alike, sort_keys=True).encode()).hexdigest()[:16]


def plain(value: Any) -> Value:
    """A value as it stands in a row: NumPy's numbers as Python's, words cut, None for what is out of range.

    Raises
    ------
    InputError
        For anything but a word, a number or None.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "?" for c in value[:WORD_CHARS])
    number = value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value
    if not isinstance(number, (int, float)):
        raise InputError(f"a record holds {value!r}; expected a word, a number or None")
    return number if abs(number) <= LARGEST else None  # NaN is not


def _rounded(value: Value) -> Value:
    """A measured number to six digits, which are more than it has; None below zero, which no cost is."""
    if isinstance(value, (int, float)) and value < 0:
        return None
    return float(f"{value:.6g}") if isinstance(value, float) else value


def encode(record: Record) -> bytes:
    """The line of a record.

    Raises
    ------
    InputError
        If it holds what `decode` would refuse.
    """
    row: dict[str, Any] = {"dfit_history": FORMAT, "id": record.id, "when": record.when}
    for name in WORDS:
        row[name] = {str(key): plain(value) for key, value in getattr(record, name).items()}
    for name in NUMBERS:
        row[name] = {str(key): _rounded(plain(value)) for key, value in getattr(record, name).items()}
    row["predicted_by"] = str(record.predicted_by)
    line = json.dumps(row, separators=(",", ":"), allow_nan=False).encode()
    try:
        decode(line)
    except ValueError as error:
        raise InputError(f"a record of a fit is not what a history can hold: {error}") from error
    return line + b"\n"


def decode(line: bytes) -> Record:
    """The record of a line.

    Raises
    ------
    Newer
        If a later dfit wrote it.
    ValueError
        If it is not what `encode` gives.
    """
    if len(line) > ROW_BYTES:
        raise ValueError(f"a row of {len(line):,} bytes; expected at most {ROW_BYTES:,}")
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise ValueError("a row with more levels than any of dfit's") from error
    row = row if isinstance(row, dict) else {}
    version = row.get("dfit_history")
    if type(version) is int and version > FORMAT:
        raise Newer(f"a row of format {version}; this dfit reads up to {FORMAT}")
    if row.keys() != NAMES or version != FORMAT:
        raise ValueError("no row of a history")
    _check(row)
    del row["dfit_history"]
    return Record(**row)


def _check(row: Mapping[str, Any]) -> None:
    """Refuse a row whose values are not of the types and ranges of a record."""
    if not (isinstance(row["id"], str) and ID.fullmatch(row["id"])):
        raise ValueError("an id that is none")
    if not (_are_numbers([row["when"]]) and _is_word(row["predicted_by"])):
        raise ValueError("a row without its time, or without who predicted it")
    if not all(isinstance(row[name], dict) for name in (*WORDS, *NUMBERS)):
        raise ValueError("a row without its values by name")
    try:
        words = all(_are_values(tuple(row[name].items())) for name in WORDS)
        numbers = all(_are_names(tuple(row[name])) and _are_numbers(row[name].values()) for name in NUMBERS)
    except TypeError as error:  # a list or a dict, which has no hash
        raise ValueError("a row with lists in it") from error
    if not (words and numbers):
        raise ValueError("a row with what is not a few short words and numbers in range")


@lru_cache(maxsize=8192)  # most rows have machine, versions and workload in common
def _are_values(entries: tuple[tuple[str, Any], ...]) -> bool:
    return _are_names(tuple(name for name, _ in entries)) and all(_is_value(value) for _, value in entries)


@lru_cache(maxsize=1024)
def _are_names(names: tuple[str, ...]) -> bool:
    return len(names) <= ENTRIES and all(map(_is_word, names))


def _are_numbers(values: Iterable[Any]) -> bool:
    # bool is no float here.
    return all(v is None or (type(v) in (float, int) and 0 <= v <= LARGEST) for v in values)


def _is_word(value: Any) -> bool:
    # Printable: a terminal that shows it must not take it for a command.
    return isinstance(value, str) and len(value) <= WORD_CHARS and value.isprintable()


def _is_value(value: Any) -> bool:
    return value is None or _is_word(value) or (isinstance(value, (int, float)) and abs(value) <= LARGEST)
