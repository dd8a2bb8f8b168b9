"""Checkpoints at the doors of xarray, SciPy and nlsq."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import dfit
from tests.resumed import stop_after
from tests.warmed import Reads, T, Y, decay

pytestmark = pytest.mark.usefixtures("small_leaves")

CHUNK = 5000
P0 = [2.0, 1.5, 0.8]


@pytest.fixture
def two() -> xr.Dataset:
    return xr.Dataset({"first": ("i", Y), "../second": ("i", 2 * Y)}, {"t": ("i", T)}).chunk(i=CHUNK)


def test_each_variable_of_a_dataset_has_a_folder_of_its_own(two: xr.Dataset, tmp_path: Path) -> None:
    options = {"reduce_dims": ..., "p0": {"a": 2, "tau": 1.5, "c": 0.8}, "warmup": False}
    expected = two.fit("t", decay, **options)
    path = tmp_path / "inner" / "run"
    with pytest.raises(KeyboardInterrupt):
        two.fit("t", decay, checkpoint=path, on_partition=stop_after(2), **options)
    assert [folder.name for folder in path.iterdir()] == ["first"]
    found = two.fit("t", decay, checkpoint=path, **options)
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert sorted(folder.name for folder in path.iterdir()) == ["%2E%2E%2Fsecond", "first"]
    assert [folder.name for folder in path.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("covariance", [False, True])
def test_curve_fit_goes_on_from_its_checkpoint(covariance: bool, tmp_path: Path) -> None:
    t, y = T[:500], Y[:500]
    sigma = np.diag(np.full(500, 0.01)) if covariance else None
    expected = dfit.curve_fit(decay, t, y, P0, sigma)
    with pytest.raises(KeyboardInterrupt):
        dfit.curve_fit(decay, t, y, P0, sigma, checkpoint=tmp_path, on_partition=stop_after(1))
    found = dfit.curve_fit(decay, t, y, P0, sigma, checkpoint=tmp_path)
    assert found.popt.tobytes() == expected.popt.tobytes()
    assert found.pcov.tobytes() == expected.pcov.tobytes()
    with pytest.raises(dfit.InputError, match=r"p0 of a: 2\.0, now 2\.5"):
        dfit.curve_fit(decay, t, y, [2.5, 1.5, 0.8], sigma, checkpoint=tmp_path)


def test_a_program_of_nlsq_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    config = dfit.HybridStreamingConfig(sample_points=1000, checkpoint_dir=tmp_path, checkpoint_frequency=1)
    y = Reads().array(chunk=CHUNK)
    given = {"p0": P0, "method": "hybrid_streaming"}
    expected = dfit.curve_fit(
        decay, T, y.data, config=dfit.HybridStreamingConfig(sample_points=1000), **given
    )
    with pytest.warns(dfit.DfitWarning, match="not converged: interrupted"):
        dfit.curve_fit(decay, T, y.data, config=config, on_partition=stop_after(6), **given)
    again = dfit.HybridStreamingConfig(sample_points=1000, resume_from_checkpoint=tmp_path)
    found = dfit.curve_fit(decay, T, y.data, config=again, **given)
    assert found.popt.tobytes() == expected.popt.tobytes()
    assert found.result.npasses == expected.result.npasses


def test_numbers_of_numpy_are_kept_and_need_not_be_told_again(tmp_path: Path) -> None:
    numbers = {"max_passes": np.int64(50), "tol": np.float32(1e-6), "absolute_sigma": np.bool_(False)}
    warmup = dfit.Warmup(sample_points=1000, seed=np.int64(3))
    data = Reads().array()
    found = dfit.fit(decay, data, "t", p0=P0, warmup=warmup, checkpoint=tmp_path, **numbers)
    again = dfit.resume(tmp_path, decay, Reads().array())
    assert again.success and again.theta.tobytes() == found.theta.tobytes()
