"""Fingerprints are the same in another process, after a restart and when the code moves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dfit.fingerprint import fingerprint
from dfit.model import Model
from dfit.parameters import Parameters

SCRIPT = """
import sys
import jax.numpy as jnp, jax, numpy as np
from scipy.interpolate import CubicSpline
from dfit.fingerprint import fingerprint
from dfit.model import Model
from dfit.parameters import Parameters
NAMES = {"alpha", "beta", "gamma", "delta"}
SPLINE = CubicSpline([0.0, 1.0, 2.0], [0.0, 1.0, 4.0])
TABLE = np.linspace(0, 1, 50)
JAX = [jnp.sin, jax.nn.relu, jnp.add, jax.vmap(jnp.where)]
@jax.jit
def helper(x):
    return x * TABLE[3] + len(NAMES)
class Peak:
    def __init__(self, width):
        self.width = width
    def __call__(self, x, a):
        sine, relu, add, where = JAX
        return add(a * helper(x) / self.width, sine(SPLINE(1.5)) * ("alpha" in NAMES))
def traced(x, a):
    return a * jnp.interp(helper(x), TABLE, TABLE) + jax.lax.fori_loop(0, 3, lambda i, v: v * a, x)
def untraced(x, a):
    return SPLINE(a * np.asarray(x)) + Peak(a)(x, 1.0)
for func, traceable in ((traced, True), (untraced, False), (Peak(3.0), True), (Peak(3.0).__call__, False)):
    model = Model.from_callable(func, "x")
    parameters = Parameters.resolve(model, [1.0])
    print(fingerprint(model, parameters, traceable), model.to_blob().hex())
"""


def test_other_processes_find_the_same_fingerprints(
    tmp_path: Path, source_environment: dict[str, str]
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "moved.py").write_text("# typed again, further down\n\n\n" + SCRIPT)
    runs = []
    for seed, name in enumerate(("script.py", "moved.py")):
        command = [sys.executable, str(tmp_path / name)]
        environment = source_environment | {"PYTHONHASHSEED": str(seed + 1)}
        done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
        runs.append([line.split() for line in done.stdout.splitlines()])
    first, second = ([line[0] for line in lines] for lines in runs)
    assert first == second
    assert len(set(first)) == 4
    for traceable, (expected, blob) in zip((True, False, True, False), runs[0], strict=True):
        model = Model.from_blob(bytes.fromhex(blob), {})
        assert fingerprint(model, Parameters.resolve(model, [1.0]), traceable) == expected
