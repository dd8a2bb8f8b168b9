"""Words for models that raise or that JAX cannot run: the user's own lines, and what to write instead."""

from __future__ import annotations

import re
import traceback
from types import ModuleType, TracebackType

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np

from dfit.captured import captured, installed_file
from dfit.errors import ModelError, warn
from dfit.model import Model
from dfit.parameters import Parameters


def raised(model: Model, error: BaseException) -> ModelError:
    """ModelError that shows the user's own part of the traceback; raise it from `error`."""
    frames = traceback.format_list(own_frames(error.__traceback__))
    where = "\n" + "".join(frames).rstrip() if frames else ""
    return ModelError(f"the model {model.name} raised {type(error).__name__}: {error}{where}")


def own_frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    """Frames of a traceback in the user's code."""
    return [frame for frame in traceback.extract_tb(trace) if not installed_file(frame.filename)]


def warn_untraceable(model: Model, parameters: Parameters, error: Exception) -> None:
    frames = own_frames(error.__traceback__)
    line = (frames[-1].line or "") if frames else ""
    where = f" ({frames[-1].filename}:{frames[-1].lineno}: {line})" if frames else ""
    reason = str(error).splitlines()[0].rstrip(". ")
    varying = len(parameters.varying)
    warn(
        f"JAX cannot compile the model {model.name}{where}: {reason}. {jax_form(line, error)} As it is, "
        f"derivatives come from finite differences, right to about 9 digits instead of 16, with "
        f"{2 * varying + 1} evaluations of the model per pass (2 p + 1 for p = {varying} parameters) instead of "
        "one compiled derivative.",
    )


def jax_form(line: str, error: Exception | None = None) -> str:
    """Sentence with a line of NumPy code rewritten for JAX, or general advice where that does not do."""
    choice = re.search(r"\b(if|while|and|or|not)\b", line)
    if choice and isinstance(error, jax.errors.TracerBoolConversionError):
        return "Write the choice as jnp.where(condition, a, b)."
    homes: dict[str, ModuleType] = {"np": jnp, "numpy": jnp, "math": jnp, "scipy.special": jax.scipy.special}
    pattern = re.compile(r"(?<![\w.])(scipy\.special|numpy|np|math)\.(\w+)")

    def rewritten(match: re.Match[str]) -> str:
        home, name = homes[match[1]], match[2]
        if not hasattr(home, name):
            return match[0]
        return f"{'jnp' if home is jnp else 'jax.scipy.special'}.{name}"

    new = pattern.sub(rewritten, line)
    return f"Write `{new}`." if new != line else "Write it with jax.numpy functions of whole arrays."


def warn_float32(model: Model) -> None:
    """Warn of single-precision JAX arrays that the model reads."""
    found = sorted(
        {
            name
            for name, value in captured(model.func)
            if isinstance(value, jax.Array) and value.dtype in (np.float32, np.complex64)
        }
    )
    if found:
        name = found[0]
        warn(
            f"the model {model.name} reads the float32 JAX array {', '.join(map(repr, found))}, which limits a "
            f"float64 fit to about 7 digits: type constants={{{name!r}: np.asarray(values, dtype=float)}}",
        )


def warn_narrow(model: Model, dtype: np.dtype) -> None:
    """Warn of a NumPy model whose values have too few digits to be differentiated by differences."""
    if dtype.itemsize < 8 * (2 if dtype.kind == "c" else 1):
        warn(
            f"the model {model.name} returns {dtype}, of which finite differences leave about "
            f"{2 if dtype.itemsize > 2 else 0} digits of a derivative, so the fit may not converge: compute in "
            "float64, type np.asarray(array, dtype=float) for what the model reads",
        )
