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
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    measured : the same names, and first_pass_s, passes, points.
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


PARTS = ("workload", "hardware", "versions")
WORDS, NUMBERS = ("about", "settings"), ("predicted", "measured")
RUN = frozenset({"id", "when", "predicted_by", *WORDS, *NUMBERS})
# A line is one JSON object of two: the parts that many runs have in common, and the run.
HEAD, MIDDLE, END = f'{{"dfit_history":{FORMAT},"of":'.encode(), b',"run":', b"}"


def key_of(parts: Mapping[str, Value]) -> str:
    """16 hexadecimal digits of the SHA-256 of these parts, in any order; 1, 1.0 and True are the same."""
    return _key(tuple(parts.items()))


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
    parts, words = (
        {name: {str(k): plain(v) for k, v in getattr(record, name).items()} for name in names}
        for names in (PARTS, WORDS)
    )
    numbers = {
        name: {str(k): _rounded(plain(v)) for k, v in getattr(record, name).items()} for name in NUMBERS
    }
    who = {"id": record.id, "when": record.when, "predicted_by": str(record.predicted_by)}
    line = HEAD + _text(parts) + MIDDLE + _text({**who, **words, **numbers}) + END
    try:
        decode(line)
    except ValueError as error:
        raise InputError(f"a record of a fit is not what a history can hold: {error}") from error
    return line + b"\n"


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


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
    # In a string a quotation mark has a backslash before it, so the first one found is the true one.
    parts, found, run = line.removeprefix(HEAD).partition(MIDDLE)
    if not (line.startswith(HEAD) and found and run.endswith(END)):
        row = _parsed(line)
        version = row.get("dfit_history") if isinstance(row, dict) else None
        if type(version) is int and version > FORMAT:
            raise Newer(f"a row of format {version}; this dfit reads up to {FORMAT}")
        raise ValueError("no row of a history")
    return Record(**_parts(parts), **_run(run.removesuffix(END)))


# Most rows have workload, hardware and versions in common: what is found of them is remembered, for thousands
# of rows are read while somebody waits for a plan.
@lru_cache(maxsize=2048)
def _parts(text: bytes) -> dict[str, Any]:
    parts = _parsed(text)
    if not (isinstance(parts, dict) and parts.keys() == set(PARTS) and all(map(_are_values, parts.values()))):
        raise ValueError("no workload, hardware and versions in short words and numbers")
    return parts


def _run(text: bytes) -> dict[str, Any]:
    run = _parsed(text)
    if not (isinstance(run, dict) and run.keys() == RUN):
        raise ValueError("a run with other names than dfit's")
    if not (isinstance(run["id"], str) and ID.fullmatch(run["id"])):
        raise ValueError("a run without an id")
    if not (
        _are_numbers({"when": run["when"]}) and run["when"] is not None and _is_word(run["predicted_by"])
    ):
        raise ValueError("a run without a time, or without who predicted it")
    if not (
        all(_are_values(run[name]) for name in WORDS) and all(_are_numbers(run[name]) for name in NUMBERS)
    ):
        raise ValueError("a run with what is not a few short words and numbers in range")
    return run


def _parsed(text: bytes) -> Any:
    """JSON without NaN and infinity; ValueError for anything else."""
    try:
        return _JSON.decode(text.decode())
    except RecursionError as error:
        raise ValueError("more levels than any row of dfit's has") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of a record")


_JSON = json.JSONDecoder(parse_constant=_refuse)


def _are_values(entries: Any) -> bool:
    return isinstance(entries, dict) and _are_names(tuple(entries)) and all(map(_is_value, entries.values()))


def _are_numbers(entries: Any) -> bool:
    if not (isinstance(entries, dict) and _are_names(tuple(entries))):
        return False
    numbers = [value for value in entries.values() if value is not None]
    if not set(map(type, numbers)) <= {int, float}:  # bool is neither
        return False
    return not numbers or 0 <= min(numbers) <= max(numbers) <= LARGEST


@lru_cache(maxsize=1024)
def _are_names(names: tuple[str, ...]) -> bool:
    return len(names) <= ENTRIES and all(map(_is_word, names))


def _is_word(value: Any) -> bool:
    # Printable: a terminal that shows it must not take it for a command.
    return isinstance(value, str) and len(value) <= WORD_CHARS and value.isprintable()


def _is_value(value: Any) -> bool:
    return value is None or _is_word(value) or (isinstance(value, (int, float)) and abs(value) <= LARGEST)
