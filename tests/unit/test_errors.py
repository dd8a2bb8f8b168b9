"""Errors cross processes and can be caught by their builtin kin."""

import pickle

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit import errors


@pytest.mark.parametrize("kind", [errors.InputError, errors.ModelError, errors.FitFailed, errors.DfitWarning])
def test_text_survives_pickling(kind):
    copy = pickle.loads(pickle.dumps(kind("tau = -1 is below its bound")))
    assert type(copy) is kind
    assert str(copy) == "tau = -1 is below its bound"


def test_data_error_keeps_its_partition_when_pickled():
    copy = pickle.loads(pickle.dumps(errors.DataError("y is inf", partition=7)))
    assert (str(copy), copy.partition) == ("y is inf", 7)


def test_worker_error_keeps_partition_and_worker_when_pickled():
    copy = pickle.loads(pickle.dumps(errors.WorkerError("lost", partition=3, worker="tcp://10.0.0.1:5000")))
    assert (str(copy), copy.partition, copy.worker) == ("lost", 3, "tcp://10.0.0.1:5000")


def test_failed_read_keeps_its_place_when_pickled():
    place = {"array": "y", "key": "('y', 0, 3)", "path": "a.zarr", "chunk": (0, 3), "number": 1, "tries": 4}
    told = {"partition": 2, "error": "OSError", "reason": "gone", "worker": "node:77"}
    copy = pickle.loads(pickle.dumps(errors.ReadFailed("y could not be read", **place, **told)))
    assert str(copy) == "y could not be read"
    assert vars(copy) == place | told


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.DataError, ValueError),
        (errors.WorkerError, RuntimeError),
        (errors.FitFailed, RuntimeError),
        (errors.DfitWarning, UserWarning),
    ],
)
def test_errors_are_caught_by_their_builtin_kin(kind, builtin):
    assert issubclass(kind, builtin)
    assert issubclass(kind, errors.DfitError) == (kind is not errors.DfitWarning)


def test_warning_points_at_the_line_of_the_user(recwarn: pytest.WarningsRecorder) -> None:
    t = np.linspace(0, 5, 60)
    dfit.curve_fit(lambda t, a, b: a * jnp.exp(-b * t), t, 3 * np.exp(-t))
    xr.DataArray(3 * np.exp(-t), {"t": t}).fit("t", lambda t, a, b: a * jnp.exp(-b * t))
    warned = [w for w in recwarn if issubclass(w.category, dfit.DfitWarning)]
    assert len(warned) == 2 and {w.filename for w in warned} == {__file__}
