"""The scopes of numerics: float64, and one thread of BLAS."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from threadpoolctl import ThreadpoolController

import dfit
from dfit.precision import float64_on_cpu


def threads() -> set[int]:
    return {library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()}


def test_scope_computes_in_float64_and_leaves_no_switch():
    with float64_on_cpu():
        assert jnp.asarray(np.float64(1)).dtype == np.float64
    assert jnp.asarray(np.float64(1)).dtype == np.float32


def test_fit_holds_blas_to_one_thread_and_gives_it_back():
    x = np.linspace(0, 1, 50)
    seen = []

    def look(event):
        seen.append(threads())

    dfit.fit(lambda x, a: a * x, 2 * x + 0.1 * np.sin(99 * x), {"x": x})  # loads the libraries
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        dfit.fit(lambda x, a: a * x, 2 * x + 0.1 * np.sin(99 * x), {"x": x}, callback=look)
        assert seen and all(found == {1} for found in seen)
        assert threads() == {2}
