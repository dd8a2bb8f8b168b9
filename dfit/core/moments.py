"""Moments of the data: the sum of weights, the mean (real, imaginary), sums of squares about it and about zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def moments_of(y: jax.Array, weight: jax.Array, sums: jax.Array) -> jax.Array:
    """Moments (5,) with those of some more points y (n,) of weight (n,)."""
    w0, re0, im0, m0, yy0 = sums
    w = jnp.sum(weight)
    safe = jnp.where(w > 0, w, 1.0)
    mean = jnp.sum(weight * y) / safe
    m = jnp.sum(weight * jnp.abs(y - mean) ** 2)
    total = jnp.where(w0 + w > 0, w0 + w, 1.0)
    gap = mean - lax.complex(re0, im0)
    step = jnp.where(w > 0, w / total, 0.0)
    # Chan, Golub & LeVeque 1983: merging means and squares without cancellation
    return jnp.stack(
        [
            w0 + w,
            re0 + gap.real * step,
            im0 + gap.imag * step,
            m0 + m + jnp.abs(gap) ** 2 * w0 * step,
            yy0 + jnp.sum(weight * jnp.abs(y) ** 2),
        ]
    )


def column_moments(y: jax.Array, weight: jax.Array) -> jax.Array:
    """Moments (pixels, 5) of y (n, pixels) of weight (n, pixels)."""
    total = jnp.sum(weight, axis=0)
    mean = jnp.sum(weight * y, axis=0) / jnp.where(total > 0, total, 1.0)
    about_mean = jnp.sum(weight * jnp.abs(y - mean) ** 2, axis=0)
    about_zero = jnp.sum(weight * jnp.abs(y) ** 2, axis=0)
    return jnp.stack([total, mean.real, mean.imag, about_mean, about_zero], axis=1)
