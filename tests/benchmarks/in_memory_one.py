"""One fit of a decay in memory by one library: prints its CPU seconds and parameters as JSON.

python tests/benchmarks/in_memory_one.py (dfit | scipy | nlsq) POINTS

Needs NumPy and that library only, so that each may live in an environment of its own.  Counted are all
threads of the process during the first call of ``curve_fit``: compilation is in it, imports are not.
"""

import json
import sys
import time

import numpy as np

TRUTH = (5.0, 2.0, 1.0)
START = (2.0, 5.0, 0.0)


def data(points):
    """Times and a noisy decay."""
    t = np.linspace(0, 10, points)
    a, tau, c = TRUTH
    return t, a * np.exp(-t / tau) + c + 0.1 * np.random.default_rng(7).standard_normal(points)


def main(library, points):
    t, y = data(points)
    if library == "scipy":
        from numpy import exp
        from scipy.optimize import curve_fit
    elif library == "nlsq":
        from jax.numpy import exp
        from nlsq import curve_fit
    else:
        from jax.numpy import exp

        from dfit import curve_fit

    def decay(t, a, tau, c):
        return a * exp(-t / tau) + c

    began = time.process_time()
    popt, pcov, *_ = curve_fit(decay, t, y, p0=START)
    spent = time.process_time() - began
    found = {"cpu_s": spent, "popt": np.asarray(popt).tolist(), "stderr": np.sqrt(np.diag(pcov)).tolist()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
