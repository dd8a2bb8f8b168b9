"""Where and how exactly dfit computes: float64 on the CPU, without touching global settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import jax


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
