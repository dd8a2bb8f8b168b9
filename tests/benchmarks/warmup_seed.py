"""A small fit by the hybrid streaming door: a cold process, the second call, and nlsq's own.

python -m tests.benchmarks.warmup_seed [--rounds 5] [--nlsq PYTHON]

A decay of 2,000 points.  The cold process is compared with one that imports the same packages and compiles
one Gauss-Newton loop with jax.jacfwd, the second call with solves in memory.  nlsq 0.7.6 needs Python 3.12:
python3.12 -m venv nlsq && nlsq/bin/pip install nlsq==0.7.6, then --nlsq nlsq/bin/python
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.measure import ratio, table

POINTS = 2000
START = (4.0, 0.4, 0.8)
NLSQ_LIMIT_S = 120
COLD_LIMIT, SECOND_LIMIT, SECOND_LIMIT_MS = 2.0, 10.0, 20.0
CALLS = 20


def data() -> tuple[np.ndarray, np.ndarray]:
    """The points x, y (n,)."""
    x = np.linspace(0, 10, POINTS)
    return x, 5 * np.exp(-0.5 * x) + 1 + np.random.RandomState(42).normal(0, 0.1, x.size)


def decay(x, a, b, c):
    """Decay with a constant."""
    import jax.numpy as jnp

    return a * jnp.exp(-b * x) + c


def gauss_newton() -> Callable[[], list[float]]:
    """A plain Gauss-Newton solve in memory, compiled by its first call."""
    import jax
    import jax.numpy as jnp

    x, y = data()

    def residual(theta, x, y):
        return y - decay(x, *theta)

    def loop(theta, x, y):
        def again(now):
            theta, _, size = now
            jacobian, r = jax.jacfwd(residual)(theta, x, y), residual(theta, x, y)
            move = jnp.linalg.solve(jacobian.T @ jacobian, -jacobian.T @ r)
            return theta + move, size, jnp.max(jnp.abs(move / theta))

        first = (theta, jnp.inf, jnp.inf)
        return jax.lax.while_loop(lambda now: now[2] > 1e-10, again, first)[0]

    compiled = jax.jit(loop)

    def solve() -> list[float]:
        with jax.enable_x64(True):
            return np.asarray(compiled(np.array(START), x, y)).tolist()

    return solve


def streaming(library: str) -> Callable[[], list[float]]:
    """The same fit by the hybrid streaming door of dfit or nlsq."""
    curve_fit = importlib.import_module(library).curve_fit
    x, y = data()
    return lambda: np.asarray(curve_fit(decay, x, y, p0=START, method="hybrid_streaming")["x"]).tolist()


def cold(library: str) -> dict[str, Any]:
    """What a fresh process finds, and what it has imported on the way."""
    found = streaming(library)()
    ours = ("dfit", "tests", "__main__")
    return {"popt": found, "modules": [name for name in sys.modules if name.split(".")[0] not in ours]}


def bare(modules: list[str]) -> dict[str, Any]:
    """The process that the cold one is compared with."""
    for name in modules:
        with contextlib.suppress(ImportError):  # some are made up by other modules
            importlib.import_module(name)
    return {"popt": gauss_newton()()}


def again() -> dict[str, list[float]]:
    """Milliseconds of calls after the first, in turn."""
    import dfit

    x, y = data()
    calls: dict[str, Callable[[], Any]] = {
        "hybrid streaming": streaming("dfit"),
        "dfit in memory": lambda: dfit.curve_fit(decay, x, y, p0=START),
        "Gauss-Newton loop": gauss_newton(),
    }
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(CALLS):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            found[name].append(1e3 * (time.perf_counter() - began))
    return found


def process(
    do: str, python: str = sys.executable, given: str = "", limit_s: float | None = None
) -> dict[str, Any]:
    """What a process of its own prints, with its CPU and wall seconds."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [python, __file__, "--do", do],
        input=given,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=limit_s,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout.splitlines()[-1]) | {"cpu_s": cpu, "wall_s": wall}


def measure_cold(rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Cold processes of dfit and of the bare loop in turn, after one of each that does not count."""
    modules = json.dumps(process("dfit")["modules"])
    process("bare", given=modules)
    found: dict[str, list[dict[str, Any]]] = {"dfit": [], "bare": []}
    for _ in range(rounds):
        found["dfit"].append(process("dfit"))
        found["bare"].append(process("bare", given=modules))
    return found


def report(rounds: int, nlsq: str | None) -> None:
    found = measure_cold(rounds)
    cpu, wall = (
        {name: np.array([one[key] for one in runs]) for name, runs in found.items()}
        for key in ("cpu_s", "wall_s")
    )
    rows = [("dfit", *(float(np.median(t["dfit"])) for t in (cpu, wall)), 1.0, 1.0)]
    rows.append(
        (
            "same imports, one Gauss-Newton loop",
            *(float(np.median(t["bare"])) for t in (cpu, wall)),
            *(ratio(t["dfit"], t["bare"])[0] for t in (cpu, wall)),
        )
    )
    if nlsq is None:
        print("nlsq is left out: type --nlsq PYTHON, an interpreter that has it")
    else:
        try:
            other = process("nlsq", nlsq, limit_s=NLSQ_LIMIT_S)
            times = other["cpu_s"], other["wall_s"]
            ratios = (np.median(t["dfit"]) / o for t, o in zip((cpu, wall), times, strict=True))
            rows.append(("nlsq", *times, *map(float, ratios)))
        except subprocess.TimeoutExpired:
            part = np.median(wall["dfit"]) / NLSQ_LIMIT_S
            print(
                f"nlsq was stopped after {NLSQ_LIMIT_S} s: dfit takes less than {part:.2g} of its wall time"
            )
    print(f"cold process, {POINTS} points (limit of the second row's ratio: {COLD_LIMIT:g})")
    table(("", "CPU s", "wall s", "dfit / it, CPU", "wall"), rows)
    far = np.abs(np.array(found["dfit"][0]["popt"]) / np.array(found["bare"][0]["popt"]) - 1).max()
    print(f"largest relative difference of the parameters: {far:.2g}")
    calls = {name: np.array(ms) for name, ms in process("again").items() if isinstance(ms, list)}
    ours = calls["hybrid streaming"]
    print(f"calls after the first (limit {SECOND_LIMIT_MS:g} ms; {SECOND_LIMIT:g} times dfit in memory)")
    lines = [(name, float(np.median(ms)), ratio(ours, ms)[0]) for name, ms in calls.items()]
    table(("", "ms", "hybrid streaming / it"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--do", choices=["dfit", "nlsq", "bare", "again"], help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nlsq", metavar="PYTHON", help="interpreter that has nlsq 0.7.6")
    asked = parser.parse_args()
    if asked.do is None:
        report(asked.rounds, asked.nlsq)
    elif asked.do == "again":
        print(json.dumps(again()))
    elif asked.do == "bare":
        print(json.dumps(bare(json.load(sys.stdin))))
    else:
        print(json.dumps(cold(asked.do)))


if __name__ == "__main__":
    main()
