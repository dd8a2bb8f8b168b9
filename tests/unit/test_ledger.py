"""Records of past fits in a folder: what is kept, and for how long."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfit.errors import InputError
from dfit.store import ledger
from dfit.store.ledger import ALL, DAY_S, DAYS, EACH, Ledger, bounded
from dfit.store.row import decode, encode, key_of
from tests.unit.runs import loaded, put, record


def test_what_was_added_is_loaded_as_it_was(tmp_path: Path) -> None:
    one = record(about={"flops": 20.5, "name": "µ", "none": None}, when=time.time() - 60)
    Ledger(tmp_path / "new" / "history").add(one)
    assert Ledger(tmp_path / "new" / "history").load() == [one]


def test_only_its_owner_can_read_a_history(tmp_path: Path) -> None:
    Ledger(tmp_path / "history").add(record())
    (file,) = (tmp_path / "history").iterdir()
    assert [os.stat(path).st_mode & 0o777 for path in (file.parent, file)] == [0o700, 0o600]


def test_a_history_that_does_not_exist_is_empty_and_is_not_made(tmp_path: Path) -> None:
    assert loaded(tmp_path / "none") == []
    assert list(tmp_path.iterdir()) == []


def test_keys_follow_from_content_and_not_from_order_or_type() -> None:
    assert key_of({"p": 3, "dtype": "float64"}) == key_of({"dtype": "float64", "p": np.int64(3)})
    assert key_of({"p": 3.0}) == key_of({"p": 3})
    assert len({key_of(parts) for parts in ({"p": 3}, {"p": 4}, {"q": 3}, {"p": "3"}, {"p": None}, {})}) == 6
    assert decode(encode(record()).rstrip()).workload_key == record().workload_key


def test_what_a_record_cannot_hold_is_cut_or_left_out() -> None:
    measured = {"pass_s": np.float64("nan"), "spread": -1.0, "points": np.int64(7), "task_ms": 1.23456789}
    one = record(about={"name": "x" * 300 + "\n", "line": "\x1b[2J"}, measured=measured)
    found = decode(encode(one).rstrip())
    assert found.measured == {"pass_s": None, "spread": None, "points": 7, "task_ms": 1.23457}
    assert found.about == {"name": "x" * 200, "line": "?[2J"}


@pytest.mark.parametrize("value", [[1], {"a": 1}, b"bytes", np.zeros(2), 1j])
def test_values_that_are_neither_words_nor_numbers_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="a word, a number or None"):
        encode(record(about={"value": value}))


def test_files_are_put_together_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "FILES", 5)
    kept = [record(str(k), id=f"{k:031x}f") for k in range(6)]
    for one in kept:
        Ledger(tmp_path).add(one)
    assert len(list(tmp_path.iterdir())) == 6
    last = record("last", id="0" * 32)
    Ledger(tmp_path).add(last)
    assert len(list(tmp_path.iterdir())) == 1
    assert sorted(loaded(tmp_path)) == sorted(one.id for one in (*kept, last))


def test_copies_of_a_record_count_once(tmp_path: Path) -> None:
    one = record()
    Ledger(tmp_path).add(one)
    put(tmp_path, encode(one) * 3, "runs-" + "1" * 32 + ".jsonl")
    assert loaded(tmp_path) == [one.id]


def test_what_another_process_puts_together_meanwhile_is_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [record(str(k)) for k in range(3)]
    for one in kept:
        Ledger(tmp_path).add(one)
    reader = Ledger(tmp_path)
    listing, done = reader._listed, []

    def late() -> Any:
        found = listing()
        if not done:
            done.append(Ledger(tmp_path).compact())
        return found

    monkeypatch.setattr(reader, "_listed", late)
    ledger._known.clear()
    assert sorted(one.id for one in reader.load()) == sorted(one.id for one in kept)


def test_of_one_workload_the_newest_are_kept() -> None:
    now = time.time()
    one, other = ([record(name, when=now - k) for k in range(EACH + 5)] for name in "ab")
    assert bounded([*one, *other[:3]], now) == sorted([*one[:EACH], *other[:3]], key=lambda r: (r.when, r.id))


def test_of_all_records_the_newest_are_kept() -> None:
    now = time.time()
    first = record()
    many = [replace(first, workload={"model": k}, id=f"{k:032x}", when=now - k) for k in range(ALL + 10)]
    kept = bounded(many, now)
    assert [one.when for one in kept] == [one.when for one in many[:ALL]][::-1]


def test_records_that_are_out_of_date_or_from_the_future_do_not_count(tmp_path: Path) -> None:
    now = time.time()
    ages = {"old": DAYS * DAY_S + 60, "kept": DAYS * DAY_S - 60, "future": -2 * DAY_S}
    ids = {}
    for name, age in ages.items():
        one = record(name, when=now - age)
        Ledger(tmp_path).add(one)
        ids[name] = one.id
    assert loaded(tmp_path) == [ids["kept"]]
    Ledger(tmp_path).compact()
    (file,) = tmp_path.iterdir()
    assert [decode(line).id for line in file.read_bytes().splitlines()] == [ids["kept"]]


def test_what_nobody_has_written_to_for_long_goes(tmp_path: Path) -> None:
    now = time.time()
    damaged = put(tmp_path, b"{", "run-" + "2" * 32 + ".jsonl")
    left, running = put(tmp_path, b"", ".unfinished-1"), put(tmp_path, b"", ".unfinished-2")
    os.utime(damaged, (now - (DAYS + 1) * DAY_S,) * 2)
    os.utime(left, (now - 2 * DAY_S,) * 2)
    other = put(tmp_path, b"notes", "notes.txt")
    os.utime(other, (0, 0))
    Ledger(tmp_path).compact()
    assert sorted(tmp_path.iterdir()) == sorted([running, other])


def test_a_file_is_read_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(ledger, "decode", lambda line: read.append(1) or decode(line))
    for k in range(3):
        Ledger(tmp_path).add(record(str(k)))
    Ledger(tmp_path).load()
    Ledger(tmp_path).load()
    Ledger(tmp_path).add(record("new"))
    assert len(Ledger(tmp_path).load()) == 4
    assert len(read) == 4


def test_clearing_removes_records_and_nothing_else(tmp_path: Path) -> None:
    for k in range(3):
        Ledger(tmp_path).add(record(str(k)))
    notes = put(tmp_path, b"mine", "notes.txt")
    assert Ledger(tmp_path).clear() == 3
    assert list(tmp_path.iterdir()) == [notes]
    assert loaded(tmp_path) == []
