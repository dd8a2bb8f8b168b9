"""NIST StRD as cubes: each problem fitted from many starts, one a pixel, against single fits from the same starts.

python -m tests.benchmarks.pixel_nist [--starts 100] [NAME ...]

Starts are the two of NIST and perturbed ones: in turn of the first and of the second, every parameter times
2^u with u uniform in -1/2 to 1/2 (seed 3).  A map of a few pixels is fitted by triangles and singular values
(*few*); with every start three times there are enough for sums of squares and Cholesky factors (*many*).
Digits are -log10 of the largest relative error of a parameter against answers of 30 digits.  A fit is
silently wrong if it says success with less than 4 digits; a perturbed start may well lead to another minimum,
for a single fit as for a pixel.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any, NamedTuple

import dask
import numpy as np
import xarray as xr

import dfit
from dfit.face.accessor import FitAccessor
from tests.benchmarks.measure import table
from tests.benchmarks.nist import PROBLEMS, REFERENCE, STARTS, coordinates, digits, model, response

TOL = 1e-10
EVALUATIONS = 1000
REPEATS = 3  # of 102 starts: more pixels than are fitted by triangles alone
LEAST = (4, 6, 8)


class Found(NamedTuple):
    """Answers from N starts: digits of parameters and of standard deviations (N,), success (N,), chi-square (N,)."""

    digits: np.ndarray
    stderr_digits: np.ndarray
    success: np.ndarray
    chisqr: np.ndarray

    def reached(self) -> list[int]:
        """How many have 4, 6, 8 digits."""
        return [int((self.success & (self.digits >= least)).sum()) for least in LEAST]

    @property
    def silently_wrong(self) -> np.ndarray:
        return self.success & (self.digits < LEAST[0])


def starts_of(name: str, perturbed: int, seed: int = 3) -> np.ndarray:
    """Starts (2 + perturbed, p) of a problem."""
    given = np.array([PROBLEMS[name][start] for start in STARTS], float)
    factors = 2.0 ** np.random.default_rng(seed).uniform(-0.5, 0.5, (perturbed, given.shape[1]))
    return np.concatenate([given, given[np.arange(perturbed) % 2] * factors])


def as_pixels(name: str, starts: np.ndarray) -> Found:
    """One map whose pixels have the same data and begin at starts (N, p)."""
    names = [f"b{k + 1}" for k in range(starts.shape[1])]
    y = np.broadcast_to(response(name), (len(starts), response(name).size))
    along = {key: ("point", x) for key, x in coordinates(name).items()}
    found = FitAccessor(xr.DataArray(y, along, ("pixel", "point")))(
        tuple(coordinates(name)),
        model(name),
        reduce_dims="point",
        p0={key: xr.DataArray(starts[:, k], dims="pixel") for k, key in enumerate(names)},
        tol=TOL,
        max_passes=EVALUATIONS,
        errors="ignore",
    ).compute()
    return _found(
        name,
        found.curvefit_coefficients.values,
        found.curvefit_stderr.values,
        found.curvefit_success.values,
        found.curvefit_chisqr.values,
    )


def as_fits(name: str, starts: np.ndarray) -> Found:
    """A fit from each of the starts (N, p)."""
    data = xr.DataArray(response(name), {k: ("point", x) for k, x in coordinates(name).items()}, ("point",))
    results = [
        dfit.fit(model(name), data, tuple(coordinates(name)), p0=start, tol=TOL, max_passes=EVALUATIONS)
        for start in starts
    ]
    return _found(
        name,
        np.array([list(result.best_values.values()) for result in results]),
        np.array([[parameter.stderr for parameter in result.params.values()] for result in results]),
        np.array([result.success for result in results]),
        np.array([result.chisqr for result in results]),
    )


def _found(name: str, values: Any, errors: Any, success: Any, chisqr: Any) -> Found:
    expected = [np.array([float(number) for number in REFERENCE[name][key]]) for key in ("b", "sd")]
    both = [
        np.array([digits(row, right) for row in rows])
        for rows, right in zip((values, errors), expected, strict=True)
    ]
    return Found(*both, success, chisqr)


def compare(name: str, perturbed: int) -> tuple[Found, Found, Found]:
    """Single fits, few pixels, many pixels."""
    starts = starts_of(name, perturbed)
    many = as_pixels(name, np.tile(starts, (REPEATS, 1)))
    return as_fits(name, starts), as_pixels(name, starts), Found(*(part[: len(starts)] for part in many))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="problems (default: all)")
    parser.add_argument("--starts", type=int, default=100, help="perturbed starts of each problem")
    asked = parser.parse_args()
    warnings.simplefilter("ignore", dfit.DfitWarning)
    arms = ("fits", "few", "many")
    rows, differing, found = [], [], []
    with dask.config.set(scheduler="synchronous"):
        for name in asked.names or PROBLEMS:
            three = compare(name, asked.starts)
            found.append(three)
            rows.append((name, *("/".join(map(str, one.reached())) for one in three)))
            rows[-1] += tuple(int(one.silently_wrong.sum()) for one in three)
            differing += _differing(name, three)
            print(*rows[-1], flush=True)
    joined = [Found(*map(np.concatenate, zip(*arm, strict=True))) for arm in zip(*found, strict=True)]
    total = ("all", *("/".join(map(str, one.reached())) for one in joined))
    total += tuple(int(one.silently_wrong.sum()) for one in joined)
    print(f"\nof {joined[0].success.size} starts, 4/6/8 digits; silently wrong")
    table(("problem", *arms, *(f"wrong {arm}" for arm in arms)), [*rows, total])
    print("\nstarts whose fit and pixels differ: digits of fit, few, many; successes; chi-squares")
    for line in differing:
        print(line)


def _differing(name: str, three: tuple[Found, Found, Found]) -> list[str]:
    """Where one of the arms has solved the problem and another has not."""
    solved = np.array([one.success & (one.digits >= LEAST[0]) for one in three])
    return [
        f"{name} start {k}: {[round(float(one.digits[k]), 1) for one in three]} "
        f"{[bool(one.success[k]) for one in three]} {[float(f'{one.chisqr[k]:.9g}') for one in three]}"
        for k in np.flatnonzero(solved.any(axis=0) & ~solved.all(axis=0))
    ]


if __name__ == "__main__":
    main()
