"""NIST StRD through `dfit.fit`, chunked: digits of parameters and standard deviations, passes.

python -m tests.benchmarks.nist [--points 10000000] [NAME ...]

Digits are -log10 of the largest relative error against answers of 30 digits.  With --points the data
are repeated up to that size in ragged chunks and fitted from the second start.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import xarray as xr

import dfit
from tests.benchmarks.measure import table

DATA = Path(__file__).resolve().parents[1] / "data"
PROBLEMS = json.loads((DATA / "nist.json").read_text())
REFERENCE = json.loads((DATA / "reference_30digits.json").read_text())
STARTS = ("start1", "start2")
WORDS = {"exp": jnp.exp, "cos": jnp.cos, "sin": jnp.sin, "atan": jnp.arctan, "pi": np.pi}


class Row(NamedTuple):
    """One fit: digits of parameters and of standard deviations, how it ended and what it cost."""

    name: str
    start: str
    digits: float
    stderr_digits: float
    success: bool
    npasses: int
    form: str
    message: str

    @property
    def silently_wrong(self) -> bool:
        return self.success and self.digits < 4


def coordinates(name: str) -> dict[str, np.ndarray]:
    """Coordinates of a problem by the formula's names."""
    columns = np.array(PROBLEMS[name]["x"]).T
    names = ["x"] if len(columns) == 1 else [f"x{k + 1}" for k in range(len(columns))]
    return dict(zip(names, columns, strict=True))


def response(name: str) -> np.ndarray:
    """What the formula is fitted to: y, or its logarithm."""
    y = np.array(PROBLEMS[name]["y"])
    return np.log(y) if PROBLEMS[name]["response"] == "log(y)" else y


def model(name: str) -> Callable:
    """The formula of a problem as a function of its coordinates, then b1 to bp."""
    arguments = [*coordinates(name), *(f"b{k + 1}" for k in range(PROBLEMS[name]["p"]))]
    return eval(f"lambda {', '.join(arguments)}: {PROBLEMS[name]['python']}", dict(WORDS))


def ragged(size: int, pieces: int, seed: int = 1) -> tuple[int, ...]:
    """Lengths of chunks of very different sizes that make up ``size``."""
    cuts = np.sort(np.random.default_rng(seed).choice(np.arange(1, size), pieces - 1, replace=False))
    return tuple(np.diff([0, *cuts.tolist(), size]).tolist())


def chunked(name: str, repeats: int = 1) -> xr.DataArray:
    """A problem's data, repeated, in ragged chunks; the coordinates chunked otherwise than y."""
    y = np.tile(response(name), repeats)
    pieces = 3 if repeats == 1 else 17
    lazy = da.from_array(y, chunks=(ragged(y.size, pieces),))
    along = {
        key: ("point", da.from_array(np.tile(x, repeats), chunks=(ragged(y.size, pieces, 2),)))
        for key, x in coordinates(name).items()
    }
    return xr.DataArray(lazy, coords=along, dims="point", name="y")


def digits(values: np.ndarray, reference: np.ndarray) -> float:
    """-log10 of the largest relative error, at most 16."""
    error = np.abs(values - reference) / np.abs(reference)
    return float(np.min(-np.log10(np.clip(np.nan_to_num(error, nan=np.inf), 1e-16, 1e16))))


def solve(name: str, start: str, tol: float, max_passes: int = 1000, repeats: int = 1) -> Row:
    """Fit one problem from one start and compare with its reference."""
    expected = {key: np.array([float(number) for number in REFERENCE[name][key]]) for key in ("b", "sd")}
    if repeats > 1:
        # n -> m n at the same spread: the sum of squares grows by m, and so do the normal equations.
        n, p = len(PROBLEMS[name]["y"]), PROBLEMS[name]["p"]
        expected["sd"] = expected["sd"] * np.sqrt((n - p) / (repeats * n - p))
    result = dfit.fit(
        model(name),
        chunked(name, repeats),
        tuple(coordinates(name)),
        p0=PROBLEMS[name][start],
        tol=tol,
        max_passes=max_passes,
    )
    values = np.array([parameter.value for parameter in result.params.values()])
    errors = np.array([parameter.stderr for parameter in result.params.values()])
    return Row(
        name,
        start,
        digits(values, expected["b"]),
        digits(errors, expected["sd"]),
        result.success,
        result.npasses,
        result.run.form,
        result.message,
    )


def all_starts(tol: float, names: list[str] | None = None) -> list[Row]:
    """Every problem from both starts."""
    with dask.config.set(scheduler="synchronous"):
        return [solve(name, start, tol) for name in names or PROBLEMS for start in STARTS]


def summary(rows: list[Row]) -> str:
    """How many reach 4, 6 and 8 digits, how many are silently wrong, and the passes."""

    def reach(values: list[float]) -> str:
        return " / ".join(str(sum(v >= least for v in values)) for least in (4, 6, 8))

    passes = [row.npasses for row in rows]
    return (
        f"of {len(rows)} fits 4 / 6 / 8 digits: parameters {reach([r.digits for r in rows])}, "
        f"standard deviations {reach([r.stderr_digits for r in rows])}; "
        f"not successful {sum(not r.success for r in rows)}, "
        f"silently wrong {sum(r.silently_wrong for r in rows)}; "
        f"passes {sum(passes)}, median {np.median(passes):g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="problems (default: all)")
    parser.add_argument("--points", type=int, help="repeat the data up to this size")
    asked = parser.parse_args()
    names = asked.names or list(PROBLEMS)
    warnings.simplefilter("ignore", dfit.DfitWarning)
    head = ("problem", "start", "digits", "of stderr", "success", "passes", "form")
    for tol in (1e-10,) if asked.points else (1e-10, 1e-8):
        print(f"\nrelative offset {tol:g}")
        if asked.points:
            rows = [solve(n, "start2", tol, repeats=-(-asked.points // len(PROBLEMS[n]["y"]))) for n in names]
        else:
            rows = all_starts(tol, names)
        table(
            head, [(*row[:2], round(row.digits, 1), round(row.stderr_digits, 1), *row[4:7]) for row in rows]
        )
        print(summary(rows))
        for row in rows:
            if not row.success or row.digits < 8:
                print(f"{row.name} {row.start}: {row.message}")


if __name__ == "__main__":
    main()
