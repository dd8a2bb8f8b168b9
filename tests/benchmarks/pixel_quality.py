"""Maps of bad data against SciPy pixel by pixel: is each pixel right or flagged?

python -m tests.benchmarks.pixel_quality [--pixels 3000] [--loss soft_l1] [NAME ...]

Of the maps of `tests.benchmarks.pixel_data` 30 % of the points are missing, 5 % are moved by 10 to 40 times the
noise to either side, and 1 % of the pixels have no signal.  `scipy.optimize.least_squares` minimises the same
robust cost within the same bounds, once from the map's start and once from the truth; the lower of both is the
reference.  A pixel that says success and whose cost is higher than the reference, by more than 1e-6 of it, is
in *another minimum* if SciPy, begun where the pixel has ended, stays there, else *silently wrong*.
"""

from __future__ import annotations

import argparse
import warnings
from typing import NamedTuple

import dask
import numpy as np
import xarray as xr
from scipy.optimize import OptimizeResult, least_squares

import dfit
from dfit.face.accessor import FitAccessor
from dfit.pixel_status import PixelStatus
from tests.benchmarks.measure import table
from tests.benchmarks.pixel_data import PROBLEMS, X, make

MISSING, OUTLIERS, WITHOUT_SIGNAL = 0.3, 0.05, 0.01
HIGHER = 1e-6
EVALUATIONS = 1000
BOUNDS = {
    "exponential": {"amplitude": (-100, 100), "tau": (0.05, 100), "offset": (-100, 100)},
    "gaussian": {
        "height": (-100, 100),
        "center": (0, 10),
        "sigma": (0.05, 10),
        "slope": (-10, 10),
        "intercept": (-100, 100),
    },
}
SIGNAL = {"exponential": "amplitude", "gaussian": "height"}


class Cube(NamedTuple):
    """Data (pixel, x), their true parameters (pixel, p), and which pixels have a signal (pixel,)."""

    data: xr.DataArray
    truth: np.ndarray
    signal: np.ndarray


class Verdict(NamedTuple):
    """What is so of each pixel (pixel,) bool; every pixel is in one of the first four.

    ``better`` is within ``right``; costs are of the map, of SciPy from its start and from the truth, (pixel,).
    """

    right: np.ndarray
    flagged: np.ndarray
    elsewhere: np.ndarray  # in another minimum
    wrong: np.ndarray  # silently
    better: np.ndarray
    costs: np.ndarray  # (3, pixel)


def spoiled(name: str, pixels: int, seed: int = 8) -> Cube:
    """A map with missing points, outliers and pixels without signal."""
    problem, rng = PROBLEMS[name], np.random.default_rng(seed)
    data, truth = make(problem, pixels)
    signal = np.arange(pixels) % round(1 / WITHOUT_SIGNAL) != 0
    noise = data.values - problem.plain(X, *truth.T[:, :, None])
    truth[~signal, problem.names.index(SIGNAL[name])] = 0
    y = problem.plain(X, *truth.T[:, :, None]) + noise
    size = problem.noise * rng.uniform(10, 40, y.shape) * rng.choice([-1, 1], y.shape)
    y = np.where(rng.random(y.shape) < OUTLIERS, y + size, y)
    return Cube(data.copy(data=np.where(rng.random(y.shape) < MISSING, np.nan, y)), truth, signal)


def as_map(name: str, cube: Cube, loss: str) -> xr.Dataset:
    """The map of a cube."""
    problem = PROBLEMS[name]
    return FitAccessor(cube.data)(
        "x",
        problem.traced,
        p0=dict(problem.p0),
        bounds=BOUNDS[name],
        loss=loss,
        f_scale=problem.noise,
        max_passes=EVALUATIONS,
        errors="ignore",
    ).compute()


def by_scipy(name: str, y: np.ndarray, start: np.ndarray, loss: str) -> OptimizeResult:
    """The fit of one pixel (n,)."""
    problem, low, high = PROBLEMS[name], *np.array(list(BOUNDS[name].values()), float).T
    known = np.isfinite(y)
    return least_squares(
        lambda p: problem.plain(X[known], *p) - y[known],
        np.clip(start, low, high),
        lambda p: problem.jacobian(X[known], *p),
        (low, high),
        x_scale="jac",
        ftol=1e-13,
        xtol=1e-13,
        gtol=1e-13,
        loss=loss,
        f_scale=problem.noise,
        max_nfev=EVALUATIONS,
    )


def judge(name: str, cube: Cube, found: xr.Dataset, loss: str) -> Verdict:
    """Each pixel of a map against SciPy."""
    values, start = cube.data.values, np.array(list(PROBLEMS[name].p0.values()))
    params = found.curvefit_coefficients.transpose("pixel", "param").values
    cost = found.curvefit_chisqr.values / 2
    from_start = np.array([by_scipy(name, y, start, loss).cost for y in values])
    from_truth = np.array([by_scipy(name, *pair, loss).cost for pair in zip(values, cube.truth, strict=True)])
    reference = np.minimum(from_start, from_truth)
    flagged = ~found.curvefit_success.values | (
        found.curvefit_status.values == PixelStatus.CONVERGED_BUT_UNDETERMINED
    )
    higher = ~flagged & ~(cost <= reference * (1 + HIGHER))
    stays = np.zeros(cost.size, bool)
    for k in np.flatnonzero(higher):
        stays[k] = by_scipy(name, values[k], params[k], loss).cost >= cost[k] * (1 - HIGHER)
    return Verdict(
        ~flagged & ~higher,
        flagged,
        higher & stays,
        higher & ~stays,
        ~flagged & (cost < reference * (1 - HIGHER)),
        np.stack([cost, from_start, from_truth]),
    )


def describe(cube: Cube, found: xr.Dataset, verdict: Verdict) -> None:
    """Print the pixels that are not right, with their costs, and how SciPy did from the map's start."""
    cost, from_start, from_truth = verdict.costs
    kinds = {
        "flagged": verdict.flagged,
        "another minimum": verdict.elsewhere,
        "silently wrong": verdict.wrong,
    }
    for title, which in kinds.items():
        for k in np.flatnonzero(which):
            status = PixelStatus(int(found.curvefit_status[k])).name.lower()
            print(
                f"  pixel {k}{'' if cube.signal[k] else ' (no signal)'}, {title} ({status}): cost {cost[k]:.8g}; "
                f"SciPy from the same start {from_start[k]:.8g}, from the truth {from_truth[k]:.8g}"
            )
    reference = np.minimum(np.minimum(from_start, from_truth), np.where(verdict.flagged, np.inf, cost))
    print(
        f"  SciPy from the same start misses the lowest of all in {(from_start > reference * (1 + HIGHER)).sum()}"
    )


def rows(name: str, loss: str, cube: Cube, verdict: Verdict) -> list[tuple]:
    """Counts with a signal and without."""
    return [
        (name, loss, title, int(which.sum()), *(int((part & which).sum()) for part in verdict[:5]))
        for title, which in (("signal", cube.signal), ("none", ~cube.signal))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="kinds of pixels (default: all)")
    parser.add_argument("--pixels", type=int, default=3000)
    parser.add_argument("--loss", nargs="*", default=["soft_l1", "huber"])
    asked = parser.parse_args()
    warnings.simplefilter("ignore", dfit.DfitWarning)
    lines = []
    with dask.config.set(scheduler="synchronous"):
        for name in asked.names or PROBLEMS:
            cube = spoiled(name, asked.pixels)
            for loss in asked.loss:
                found = as_map(name, cube, loss)
                verdict = judge(name, cube, found, loss)
                print(f"{name}, {loss}:", flush=True)
                describe(cube, found, verdict)
                lines += rows(name, loss, cube, verdict)
    head = (
        "pixels",
        "loss",
        "with",
        "of",
        "right",
        "flagged",
        "another minimum",
        "silently wrong",
        "right: lower",
    )
    table(head, lines)


if __name__ == "__main__":
    main()
