"""Where the time of a map goes: the model, the products of its derivatives, the factor and step, the rest.

python -m tests.benchmarks.pixel_split [--pixels 50000]

CPU microseconds of one step of one pixel of 100 points, each part compiled alone and measured in turn: the
model with its derivatives; the same with the sums of products; judging and proposing (Cholesky factors, trust
region).  Then a whole map, by the steps that its pixels took; the rest is what is not steps: reading columns,
the survey of the points, lanes that wait, covariances, the table.
"""

from __future__ import annotations

import argparse
from typing import Any

import dask
import jax
import jax.numpy as jnp
import numpy as np

from dfit.core.kernel import Layout, Scalars, forward
from dfit.core.pixels import Points, Problem, begun, judged, sums
from dfit.core.state import Tolerances, start
from dfit.face.accessor import FitAccessor
from dfit.precision import float64_on_cpu
from dfit.reduce.pixel_answers import LANES
from tests.benchmarks.measure import interleaved, table
from tests.benchmarks.pixel_data import PROBLEMS, make

LAYOUT = Layout("normal", "linear", 1, False)


def parts_of(name: str) -> dict[str, Any]:
    """Calls of each part of a step, for `LANES` pixels."""
    problem = PROBLEMS[name]
    data, truth = make(problem, LANES)
    evaluate = forward(lambda theta, coords, _: problem.traced(coords[0], *(theta[k] for k in range(p))))
    p = truth.shape[1]
    y = jnp.asarray(data.values.T)
    points = Points(y, None, (jnp.asarray(data.x.values),))
    axes, scalars = Points(1, None, (None,)), Scalars(1.0, 1.0, False, (jnp.zeros((0, LANES)), {}))

    def model(theta: jax.Array, points: Points) -> jax.Array:
        def add(total: jax.Array, point: Points) -> tuple[jax.Array, None]:
            y, coords = point.y[None], [c[None] for c in point.coords]
            f, jacobian = evaluate(theta, coords, (), ())
            return total + (y - f)[0] + jnp.sum(jacobian), None

        return jax.lax.scan(add, jnp.zeros(()), points)[0]

    theta = jnp.asarray(truth.T)
    added = jax.jit(jax.vmap(model, in_axes=(1, axes)))
    summed = jax.jit(sums(evaluate, LAYOUT))
    judge = jax.jit(judged)
    states = jax.tree.map(
        lambda a: jnp.repeat(jnp.asarray(a)[..., None], LANES, -1), start(np.array(list(problem.p0.values())))
    )
    inf = jnp.full((p, LANES), jnp.inf)
    operands = Problem(-inf, inf, jnp.full(LANES, float(y.shape[0])), jnp.sum(y**2, axis=0))
    limits = Tolerances(*map(np.float64, Tolerances()))
    lane = jax.jit(begun)(states, operands)
    for _ in range(2):  # to a step in the middle of the way
        lane = judge(lane, summed(lane.state.trial, points, scalars), operands, limits)
    fields = summed(lane.state.trial, points, scalars)
    return {
        "model": lambda: jax.block_until_ready(added(theta, points)),
        "model and products": lambda: jax.block_until_ready(summed(theta, points, scalars)),
        "factor and step": lambda: jax.block_until_ready(judge(lane, fields, operands, limits)),
    }


def split(name: str, pixels: int, rounds: int) -> None:
    """Print the parts of one problem."""
    data, _ = make(PROBLEMS[name], pixels)
    found: dict[str, Any] = {}

    def whole() -> None:
        p0 = dict(PROBLEMS[name].p0)
        with dask.config.set(scheduler="synchronous"):
            found["map"] = FitAccessor(data)("x", PROBLEMS[name].traced, p0=p0, errors="ignore")

    with float64_on_cpu():
        calls = parts_of(name)
        seconds = interleaved(calls, rounds)
    maps = interleaved({"map": whole}, max(3, rounds // 10))
    cost = {part: float(np.median(values)) / LANES * 1e6 for part, values in seconds.items()}
    steps = float(found["map"].curvefit_nfev.mean())
    total = float(np.median(maps["map"])) / pixels * 1e6
    products = cost["model and products"] - cost["model"]
    rest = total - steps * (cost["model and products"] + cost["factor and step"])
    rows = [
        ("model and derivatives", cost["model"], steps * cost["model"] / total),
        ("products", products, steps * products / total),
        ("factor and step", cost["factor and step"], steps * cost["factor and step"] / total),
        ("the rest, by step", rest / steps, rest / total),
        ("all", total / steps, 1.0),
    ]
    print(f"\n{PROBLEMS[name].title}: {pixels} pixels, {steps:.2f} evaluations and {total:.2f} us a pixel")
    table(("part", "us a step", "share of a map"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pixels", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    for name in PROBLEMS:
        split(name, arguments.pixels, arguments.rounds)


if __name__ == "__main__":
    main()
