"""The same sums by different kernels, on one partition in memory: dfit's, plain JAX, C.

A module of its own so that a dask worker imports it and keeps what it compiled between tasks.  The
model is a sum of decays, y = sum a_k exp(-t / tau_k) + c, with p = 3, 5, 7, ... parameters.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import dask
import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np

from tests.benchmarks.evaluators import evaluator_of
from tests.benchmarks.measure import cpu_seconds

# exp(-t / tau) and its derivative, then the ten different sums of [J r]^T [J r].
C_LOOP = """
#include <math.h>
void sums(const double *t, const double *y, long n, double a, double tau, double c, double *out) {
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0, s8 = 0, s9 = 0;
    for (long i = 0; i < n; i++) {
        double x = t[i] / tau, e = exp(-x), d = a * e * x / tau, r = y[i] - (a * e + c);
        s0 += e * e; s1 += e * d; s2 += e; s3 += e * r;
        s4 += d * d; s5 += d; s6 += d * r;
        s7 += 1; s8 += r; s9 += r * r;
    }
    double found[] = {s0, s1, s2, s3, s4, s5, s6, s7, s8, s9};
    for (int k = 0; k < 10; k++) out[k] = found[k];
}
"""
# Strict: exp of libm, one call per point. Fast: exp of libmvec, four or eight points at a time.
C_FLAGS = {"C, exp of libm": ["-fno-tree-vectorize"], "C, vectorised exp": ["-ffast-math", "-fopenmp-simd"]}


def truth(p: int) -> np.ndarray:
    """Amplitudes and times in turn, then the constant."""
    pairs = (p - 1) // 2
    return np.append(np.column_stack([np.linspace(5, 2, pairs), 2.0 * 3.0 ** np.arange(pairs)]).ravel(), 1.0)


def decays(t, *theta):
    """Sum of decays and a constant."""
    total = theta[-1]
    for amplitude, tau in zip(theta[:-1:2], theta[1:-1:2], strict=True):
        total = total + amplitude * jnp.exp(-t / tau)
    return total


@cache
def partition(points: int) -> tuple[np.ndarray, np.ndarray]:
    """t and y, noisy, for three parameters; 64-byte aligned, as JAX wants them."""
    t, y = (np.frombuffer(bytearray(8 * points + 64), np.uint8) for _ in range(2))
    t, y = (a[-a.ctypes.data % 64 :][: 8 * points].view(np.float64) for a in (t, y))
    amplitude, tau, constant = truth(3)
    t[:] = np.linspace(0, 10, points)
    np.multiply(t, -1 / tau, out=y)
    np.exp(y, out=y)
    y *= amplitude
    y += constant
    y += 0.1 * np.random.default_rng(7).standard_normal(points)
    return t, y


@cache
def pass_over(points: int, p: int) -> Callable[..., object]:
    """dfit's evaluator over the partition, kept in memory; its first pass is done."""
    t, y = partition(points)
    names = tuple(f"b{k}" for k in range(p))
    start = dict(zip(names, truth(p), strict=True))
    along = da.from_array(t, chunks=-1, name="benchmark-t"), da.from_array(y, chunks=-1, name="benchmark-y")
    with dask.config.set(scheduler="synchronous"):
        evaluator = evaluator_of(decays, along[1], {"t": along[0]}, start, names)
    evaluator(truth(p))
    return evaluator.reduce


def ours(points: int, p: int = 3, form: str = "normal") -> np.ndarray:
    """Normal matrix or triangle of [J r] by dfit's kernel."""
    return pass_over(points, p)(truth(p), form).matrix


@cache
def _compiled(p: int) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    def sums(theta, t, y):
        jacobian = jax.jacfwd(lambda b: decays(t, *b))(theta)
        r = y - decays(t, *theta)
        return jacobian.T @ jacobian, jacobian.T @ r, r @ r

    return jax.jit(sums)


def plain(points: int, p: int = 3) -> np.ndarray:
    """The same matrix by `jax.jacfwd` over the whole partition."""
    t, y = partition(points)
    with jax.enable_x64(True):
        square, gradient, rest = (np.asarray(part) for part in _compiled(p)(truth(p), t, y))
    return np.block([[square, gradient[:, None]], [gradient, rest]])


@cache
def _library(name: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "sums.c"), Path(folder, "sums.so")
        source.write_text(C_LOOP)
        command = [
            "gcc",
            "-O3",
            "-march=native",
            *C_FLAGS[name],
            "-shared",
            "-fPIC",
            "-o",
            library,
            source,
            "-lm",
        ]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(library))


def by_c(name: str, points: int) -> np.ndarray:
    """The same matrix for three parameters by a loop in C."""
    t, y = partition(points)
    amplitude, tau, constant = truth(3)
    found = np.empty(10)
    call = _library(name).sums
    call.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, *[ctypes.c_double] * 3, ctypes.c_void_p]
    call.restype = None
    call(t.ctypes.data, y.ctypes.data, points, amplitude, tau, constant, found.ctypes.data)
    matrix = np.empty((4, 4))
    matrix[np.triu_indices(4)] = found
    return np.triu(matrix) + np.triu(matrix, 1).T


def seconds(kernel: str, points: int) -> float:
    """CPU seconds of one call of "ours" or "plain" in this process; the first call compiles."""
    return cpu_seconds(lambda: {"ours": ours, "plain": plain}[kernel](points))
