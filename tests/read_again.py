"""One small fit to data in chunks, for tests of what happens while they are read."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dfit
from dfit.reduce.books import Account
from dfit.reduce.task import Report

CHUNK, CHUNKS = 2000, 12


def decay(t, a, k):
    return a * jnp.exp(-k * t)


def dataset() -> xr.Dataset:
    rng = np.random.default_rng(8)
    t = rng.uniform(0, 5, CHUNK * CHUNKS)
    signal = 2 * np.exp(-1.3 * t) + rng.normal(0, 0.05, t.size)
    return xr.Dataset({"signal": ("i", signal)}, {"t": ("i", t)}).chunk(i=CHUNK)


def fitted(data: xr.Dataset, **settings: Any) -> dfit.FitResult:
    return dfit.fit(decay, data.signal, "t", p0=[1.0, 1.0], warmup=False, **settings)


def bits(found: dfit.FitResult) -> bytes:
    return (
        found.theta.tobytes()
        + np.asarray(found.covariance.matrix).tobytes()
        + np.float64(found.cost).tobytes()
    )


def watch_reports(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """Reports of all tasks from now on, as they end."""
    seen: list[Report] = []
    add = Account.add

    def watched(account: Account, report: Report) -> None:
        seen.append(report)
        add(account, report)

    monkeypatch.setattr(Account, "add", watched)
    return seen
