"""Where and how exactly dfit computes: float64 on the CPU, without touching global settings."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import jax
from threadpoolctl import ThreadpoolController


@cache
def cpu_device() -> jax.Device:
    """First CPU device of this process.

    Asking jax for it starts every installed backend; a CUDA one would seize most of the GPU's
    memory for a fit that never uses it, so preallocation is off while they start.
    """
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    if name in os.environ:
        return jax.devices("cpu")[0]
    os.environ[name] = "false"
    try:
        return jax.devices("cpu")[0]
    finally:
        del os.environ[name]


@contextmanager
def float64_on_cpu() -> Iterator[None]:
    """Scope in which JAX computes in float64 on the CPU.

    A scope and not a switch: a global one would change the user's own JAX code, and only in
    the process that threw it, while the workers went on in float32.
    """
    with jax.enable_x64(True), jax.default_device(cpu_device()):
        yield


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Scope in which BLAS and LAPACK of this process use one thread.

    A block's QR is a matter of microseconds: OpenBLAS's own threads make it ten to a hundred times slower
    where they have to wait for a core, and let the number of cores into the bits of the result.
    """
    with _blas().limit(limits=1, user_api="blas"):
        yield


@cache
def _blas() -> ThreadpoolController:
    importlib.import_module("scipy.linalg.cython_lapack")  # jax calls this library's LAPACK
    return ThreadpoolController()
