"""Many processes write one history at once and are killed in their writes: no record is lost or broken."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from dfit.store.ledger import Ledger
from dfit.store.row import decode
from tests.cluster.history_writers import EACH, WRITERS


def written(folder: Path, environment: dict[str, str], rounds: int) -> list[str]:
    """Ids of the records whose writes returned."""
    command = [sys.executable, "-m", "tests.cluster.history_writers", str(folder), "--rounds", str(rounds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def held(folder: Path) -> list[str]:
    """Ids of all records of a history that is sound, after its files have been put together into one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = [record.id for record in Ledger(folder).load()]
        Ledger(folder).compact()
    (file,) = folder.glob("run*")
    rows = [decode(line).id for line in file.read_bytes().splitlines()]
    assert sorted(rows) == sorted(loaded)
    return rows


def require_all(folder: Path, returned: list[str]) -> None:
    kept = held(folder)
    assert len(kept) == len(set(kept))
    assert set(returned) <= set(kept)


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=pytest.mark.long)])
def test_of_sixteen_writers_one_killed_in_every_round_no_record_is_lost(
    rounds: int, tmp_path: Path, source_environment: dict[str, str]
) -> None:
    returned = written(tmp_path / "history", source_environment, rounds)
    # All but what the killed ones had not finished.
    assert (WRITERS - 1) * EACH * rounds <= len(returned) <= WRITERS * EACH * rounds
    require_all(tmp_path / "history", returned)


def test_a_writer_killed_at_any_call_that_changes_files_loses_no_earlier_record(
    tmp_path: Path, source_environment: dict[str, str]
) -> None:
    returned = written(tmp_path, source_environment, 0)
    before, last = returned[:3], returned[-1]
    copies = sorted(int(path.name) for path in tmp_path.iterdir())
    assert len(copies) > 20
    for copy in copies:
        kept = [record.id for record in Ledger(tmp_path / str(copy)).load()]
        assert set(before) <= set(kept)
    require_all(tmp_path / str(copies[-1]), [last])
