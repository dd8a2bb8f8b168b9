"""Predicted memory: what adds to it, by how much, and figures as measured by ``tests.benchmarks.peak_memory``."""

from __future__ import annotations

import pytest

from dfit.reduce.footprint import LATER_BYTES, Footprint, client_peak, footprint_of, kept_each, programs_of

MIB = 1 << 20
LEAF = 1 << 18
# On workers, data read in every pass: MiB of a leaf's chunks and of one, parameters, store, base as dry runs measured it,
# tasks at a time, and the highest resident memory above the idle worker.
MEASURED = [
    (3.8, 3.8, 3, "zarr", 80, 1, 101),
    (4.0, 0.8, 3, "zarr", 88, 2, 97),
    (2.0, 0.15, 3, "zarr", 84, 1, 92),
    (2.0, 0.15, 3, "zarr", 84, 2, 96),
    (15.3, 15.3, 3, "zarr", 82, 1, 143),
    (15.3, 15.3, 3, "zarr", 82, 2, 208),
    (3.8, 3.8, 3, "netcdf", 78, 1, 112),
    (3.8, 3.8, 3, "netcdf", 78, 2, 151),
    (7.6, 7.6, 20, "zarr", 101, 1, 131),
    (7.6, 7.6, 20, "zarr", 101, 2, 175),
]


@pytest.mark.parametrize(("leaf", "chunk", "columns", "kind", "base", "tasks", "peak"), MEASURED)
def test_prediction_is_one_to_1_3_times_what_was_measured(leaf, chunk, columns, kind, base, tasks, peak):
    found = footprint_of(int(leaf * MIB), int(chunk * MIB), LEAF, columns, kind, base * MIB)
    assert 1 <= found.peak(tasks, True, 0) / (peak * MIB) <= 1.3


@pytest.mark.parametrize("kind", [None, "zarr", "netcdf"])
def test_peak_grows_with_tasks_and_kept_data_and_by_nothing_else(kind):
    found = footprint_of(8 * MIB, 8 * MIB, LEAF, 3, kind, 100)
    assert found.base == 100 + LATER_BYTES
    assert found.peak(3, False, 50) == found.base + 3 * found.task + 50
    assert found.peak(3, True, 50) == found.peak(3, False, 50) + 3 * found.ahead


def test_data_in_memory_take_nothing_for_reading():
    small, large = (footprint_of(size, size, LEAF, 3, None, 0) for size in (0, 1 << 30))
    assert small == large
    assert large.ahead == 0


def test_chunks_of_hdf5_take_more_than_those_of_zarr():
    zarr, netcdf, hdf5 = (
        footprint_of(8 * MIB, 8 * MIB, LEAF, 3, kind, 0) for kind in ("zarr", "netcdf", "hdf5")
    )
    assert netcdf == hdf5
    assert netcdf.task > zarr.task


def test_tasks_in_the_clients_process_pay_for_its_programs_too():
    apart, together = (footprint_of(0, 0, LEAF, 3, "zarr", 0, programs=n) for n in (0, programs_of(3, True)))
    assert together.base - apart.base == programs_of(3, True) > programs_of(3, False) > 0


def test_client_takes_more_for_every_report_and_parameter():
    assert client_peak(10_000, 3, False) - client_peak(0, 3, False) == 10_000 * (2048 + 16 * 25)
    assert client_peak(0, 20, False) > client_peak(0, 3, False)


def test_fullest_of_several_processes_keeps_more_than_its_share():
    assert kept_each(1000, 1) == 1000
    assert 500 < kept_each(1000, 2) <= 600
    assert Footprint(0, 0, 0).peak(1, False, kept_each(1000, 4)) < 300
