"""A fit of NumPy arrays: CPU seconds of dfit against scipy and nlsq, to the same optimum.

python -m tests.benchmarks.in_memory [--points 10000000] [--rounds 3] [--nlsq-python PATH]

Each fit is a fresh process; compilation counts, imports do not.  nlsq 0.7.6 needs Python 3.12:
python3.12 -m venv nlsq && nlsq/bin/pip install nlsq==0.7.6, then --nlsq-python nlsq/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.benchmarks.measure import ratio, table

ONE = Path(__file__).with_name("in_memory_one.py")
EXPECTED = {"scipy": 3.0, "nlsq": 8.0}


def one_fit(library: str, points: int, python: str = sys.executable) -> dict:
    """What one process found and what it cost."""
    path = os.pathsep.join(filter(None, [str(ONE.parents[2]), os.environ.get("PYTHONPATH")]))
    command = [python, str(ONE), library, str(points)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(points: int, rounds: int, pythons: dict[str, str]) -> dict[str, list[dict]]:
    """Fits of every library in turn."""
    found: dict[str, list[dict]] = {library: [] for library in pythons}
    for _ in range(rounds):
        for library, python in pythons.items():
            found[library].append(one_fit(library, points, python))
    return found


def distance(found: dict, reference: dict) -> float:
    """Largest difference of parameters, in standard errors of the reference."""
    values, wanted = np.array(found["popt"]), np.array(reference["popt"])
    return float(np.max(np.abs(values - wanted) / np.array(reference["stderr"])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10**7)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nlsq-python", help="interpreter that has nlsq 0.7.6")
    asked = parser.parse_args()
    pythons = {"dfit": sys.executable, "scipy": sys.executable}
    if asked.nlsq_python:
        pythons["nlsq"] = asked.nlsq_python
    found = compare(asked.points, asked.rounds, pythons)
    ours = np.array([fit["cpu_s"] for fit in found["dfit"]])
    print(f"curve_fit of {asked.points} points, 3 parameters: CPU seconds with compilation, against dfit")
    rows = []
    for library, fits in found.items():
        seconds = np.array([fit["cpu_s"] for fit in fits])
        far = max(distance(fit, found["dfit"][0]) for fit in fits)
        rows.append(
            (library, float(np.median(seconds)), ratio(seconds, ours)[0], EXPECTED.get(library, 1.0), far)
        )
    table(("", "CPU s", "ratio", "at least", "distance / standard error"), rows)


if __name__ == "__main__":
    main()
