"""What `dfit.curve_fit` refuses, with the line to type instead."""

from __future__ import annotations

import warnings

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest

import dfit

T = np.linspace(0, 10, 300)
SIGMA = 0.05 + 0.01 * T
Y = 5 * np.exp(-T / 2) + 1 + SIGMA * np.random.default_rng(2).normal(size=T.size)
START = (4.0, 1.0, 0.0)
COVARIANCE = np.diag(SIGMA**2)


def decay(t, a, b, c):
    return a * jnp.exp(-t / b) + c


REFUSED = [
    ((lambda t, *p: p[0] * t, T, Y), {}, r"Unable to determine number of fit parameters.*p0=\[1.0, 1.0\]"),
    ((decay, T, Y, START), {"method": "lm", "bounds": (0, 9)}, "Method 'lm' only works for unconstrained"),
    ((decay, T, Y, START), {"method": "newton"}, "'newton'; expected 'lm', 'trf', 'dogbox'"),
    ((decay, T, Y, START), {"jac": "exact"}, "jac is 'exact'"),
    ((decay, T, Y, START), {"args": (1,)}, "not a supported keyword argument.*constants="),
    ((decay, T, Y, START), {"x_scale": "jac"}, "x_scale=: leave it out"),
    ((decay, T, Y, START), {"skipna": True}, 'nan_policy="omit"'),
    ((decay, T, Y, START), {"loss": np.square}, "expected a name: 'linear'"),
    ((decay, T, Y, START), {"nan_policy": "propagate"}, 'expected None, "raise" or "omit"'),
    ((decay, T, Y, START), {"bounds": ([5, 0, 0], [9, 9, 9])}, "a = 4.0 is outside its bounds"),
    ((decay, T, Y, START[:2]), {}, "p0 has 2 values for the 3 parameters a, b, c"),
    ((decay, T[:2], Y[:2], START), {}, "2 points cannot determine 3 parameters"),
    ((decay, T[:9], Y), {}, r"xdata has shape \(9,\), ydata \(300,\)"),
    ((decay, T.astype(str), Y), {}, "xdata has dtype <U.*expected real numbers"),
    ((decay, [], [], START), {}, "no points"),
    ((decay, T, Y, START, SIGMA[:9]), {}, r"sigma has shape \(9,\)"),
    ((decay, T, Y, START, COVARIANCE[:9]), {}, r"`sigma` has incorrect shape \(9, 300\)"),
    ((decay, T, Y, START, -COVARIANCE), {}, "`sigma` must be positive definite"),
    ((decay, T, da.from_array(Y), START, COVARIANCE), {}, "mixes all points.*ydata.compute"),
]


@pytest.mark.parametrize(
    ("arguments", "options", "words"), REFUSED, ids=[words[:30] for *_, words in REFUSED]
)
def test_bad_input_is_refused_with_the_line_to_type(arguments, options, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=words) as caught:
            dfit.curve_fit(*arguments, **options)
    assert isinstance(caught.value, dfit.InputError)


def test_a_covariance_matrix_is_refused_beyond_its_limit() -> None:
    n = 10_001
    with pytest.raises(dfit.InputError, match="up to 10,000 points"):
        dfit.curve_fit(decay, np.ones(n), np.ones(n), START, np.broadcast_to(1.0, (n, n)))


def test_an_unknown_option_is_no_option() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'maxfef'"):
        dfit.curve_fit(decay, T, Y, START, maxfef=3)
