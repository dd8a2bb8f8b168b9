"""A model that goes wrong on a worker, in one chunk only: its own lines reach the client."""

from __future__ import annotations

import sys

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client

import dfit
from dfit.errors import ModelError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

X = np.linspace(0, 10, 40_000)


def no_entry(x, a, b):
    if np.max(x) > 7.5:
        raise LookupError("no entry in my table")
    return a * np.exp(-np.asarray(x) / b)


def too_short(x, a, b):
    f = a * np.exp(-np.asarray(x) / b)
    return f[:-1] if np.max(x) > 7.5 else f


@pytest.mark.filterwarnings("ignore::dfit.DfitWarning")
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (no_entry, r'(?s)LookupError: no entry in my table\n.*raise LookupError\("no entry'),
        (too_short, r"(?s)returned shape \(\d+,\) for \d+ points"),
    ],
)
def test_wrong_in_one_chunk_on_a_worker_is_named_with_words_place_and_parameters(
    client: Client, model, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfit.data.plan.LEAF_POINTS", 10_000)
    x, y = da.from_array(X, chunks=10_000), da.from_array(np.exp(-X), chunks=10_000)
    with dask.config.set({"dfit.partition-bytes": 80_000}), pytest.raises(ModelError, match=words) as caught:
        dfit.fit(model, y, {"x": x}, p0=[2, 3])
    assert "at a = 2, b = 3" in str(caught.value)
    assert "with x = 7.50019 to 10, in partition 3" in str(caught.value)
