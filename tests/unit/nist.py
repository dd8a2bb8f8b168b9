"""The NIST StRD problems in memory (see tests/data/README.md)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dfit.core.equations import Equations

DATA = Path(__file__).parent.parent / "data"
PROBLEMS = json.loads((DATA / "nist.json").read_text())
REFERENCE = json.loads((DATA / "reference_30digits.json").read_text())
WORDS = {"exp": jnp.exp, "cos": jnp.cos, "sin": jnp.sin, "atan": jnp.arctan, "pi": np.pi}


@cache
def evaluator(name: str):
    """theta -> Equations, by a QR of the whole [J r] in NumPy."""
    problem = PROBLEMS[name]
    x, y = np.array(problem["x"]).T, np.array(problem["y"])
    if problem["response"] == "log(y)":
        y = np.log(y)
    coordinates = {"x": x[0]} if len(x) == 1 else {f"x{k + 1}": row for k, row in enumerate(x)}
    code = compile(problem["python"], name, "eval")

    def model(theta):
        parameters = {f"b{k + 1}": theta[k] for k in range(problem["p"])}
        return eval(code, WORDS | coordinates | parameters)

    both = jax.jit(lambda theta: (model(theta), jax.jacfwd(model)(theta)))

    def evaluate(theta):
        with jax.enable_x64(True):
            value, jacobian = (np.asarray(part) for part in both(theta))
        stacked = np.column_stack([jacobian, y - value])
        finite = bool(np.isfinite(stacked).all())
        with np.errstate(over="ignore", invalid="ignore"):
            psi2 = np.sum((y - value) ** 2)
            root = np.linalg.qr(stacked if finite else np.zeros_like(stacked), mode="r")
        return Equations(root, psi2 / 2, psi2, y @ y, float(y.size), finite)

    return evaluate


def digits(value, reference) -> float:
    """-log10 of the largest relative error."""
    reference = np.array([float(number) for number in reference])
    return float(np.min(-np.log10(np.maximum(np.abs(value - reference) / np.abs(reference), 1e-16))))
