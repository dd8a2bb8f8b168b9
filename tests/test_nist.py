"""NIST StRD through `dfit.fit` with chunked input, against answers of 30 digits."""

from __future__ import annotations

import dask
import pytest

from tests.benchmarks.nist import PROBLEMS, STARTS, solve


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_chunked_fit_reaches_eight_digits_of_parameters_and_deviations(name, start):
    row = solve(name, start, tol=1e-10)
    assert row.success, row.message
    assert row.digits >= 8
    # Lanczos1's residual is the rounding of its data to 14 digits.
    assert row.stderr_digits >= (3 if name == "Lanczos1" else 8)


def repeated_keep_eight_digits(name: str, points: int) -> None:
    row = solve(name, "start2", tol=1e-10, repeats=-(-points // len(PROBLEMS[name]["y"])))
    assert row.success, row.message
    assert row.digits >= 8


@pytest.mark.parametrize("name", PROBLEMS)
def test_repeated_to_1e5_points_in_ragged_chunks_keeps_eight_digits(name):
    repeated_keep_eight_digits(name, 10**5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", PROBLEMS)
def test_repeated_to_1e7_points_in_ragged_chunks_keeps_eight_digits(name):
    repeated_keep_eight_digits(name, 10**7)
