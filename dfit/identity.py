"""Identity: what a checkpoint and the fit that goes on from it must have in common, and what of it changed."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dfit.data.domain import Domain
from dfit.data.drawing import Share
from dfit.data.plan import chunk_grid
from dfit.data.subset import SamplePlan
from dfit.digest import Digest
from dfit.errors import InputError
from dfit.fingerprint import NEW, fingerprint, of_values
from dfit.prepare import Prepared
from dfit.settings import Settings
from dfit.store.snapshot import Snapshot, as_number
from dfit.warm_settings import Warmup

PACKAGES = ("dfit", "jax", "jaxlib", "numpy", "scipy")
LOOKED_AT = ("content", "tokens")  # of the data: what decides is whether the first is another one
NAME = "name of the data"
OTHER_MODEL = "the model computes something else"
OF_DASK = re.compile(r"-[0-9a-f]{32}$|-[0-9a-f-]{36}$")  # a name that xarray takes from a dask array
PROBED = 1024  # points of a chunk whose content is looked at
TOLERANCES = ("tol", "ftol", "xtol", "gtol")
LIMITS = (*TOLERANCES, "max_passes")


@dataclass(frozen=True)
class Identity:
    """What must be the same: fingerprints by what they are of, in words that a user knows.

    Attributes
    ----------
    model, data, settings : fingerprints.
    values : p0, bounds and fixed values, (p_all,) each, by name of the array.
    names : of the parameters.
    seeds : of what is drawn at random.
    """

    model: dict[str, str]
    data: dict[str, str]
    settings: dict[str, str]
    values: dict[str, np.ndarray]
    names: tuple[str, ...]
    seeds: dict[str, int]

    @property
    def digest(self) -> str:
        """One hash of all of it; dask may have another name for the same data in another process."""
        data = {name: value for name, value in self.data.items() if name != "tokens"}
        return Digest().of([self.model, data, self.settings, self.values, self.names])


def identity_of(prepared: Prepared, settings: Settings, warmup: Warmup | None) -> Identity:
    """Identity of a fit, from what is in memory; the content of chunks is looked at by `content_of`."""
    p, domain = prepared.parameters, prepared.domain
    recipe = prepared.evaluator.job_for("normal").recipe
    if recipe.fingerprint.startswith(NEW):
        raise InputError(
            f"a checkpoint needs a model that can be recognised again; {recipe.name} reads something without "
            "content to compare, such as an open file or a generator. Type: constants={'name': array} for what "
            "it reads, or checkpoint=None"
        )
    data = data_of(domain, None if prepared.groups is None else prepared.groups.array)
    chosen = {
        "loss": settings.loss,
        "f_scale": float(settings.f_scale).hex(),
        "absolute_sigma": str(bool(settings.absolute_sigma)),
        "cov": "groups" if isinstance(settings.cov, dict) else str(settings.cov),
        "warmup": "off" if warmup is None else json.dumps(asdict(warmup), default=as_number),
    }
    values = {
        "p0": p.init,
        "lower bounds": p.lower,
        "upper bounds": p.upper,
        "fixed parameters": ~np.isin(np.arange(p.init.size), p.varying),
    }
    seeds = {} if warmup is None else {"sample": warmup.seed}
    model = {"program": recipe.fingerprint, "code": fingerprint(prepared.model, p, False, versions=False)}
    return Identity(model, data, chosen, values, tuple(p.names), seeds)


def data_of(domain: Domain, groups: Any = None) -> dict[str, str]:
    """The data of a fit in words and fingerprints: what is in memory by content, nothing of y is read."""
    y = domain.data
    data = {
        "shape of the data": str(dict(y.sizes)),
        "dtype of the data": str(y.dtype),
        "chunks of the data": Digest().of(chunk_grid(domain)),
        "skipna": str(domain.skipna),
        "coordinates": ", ".join(domain.coords),
    }
    if y.name is not None and not OF_DASK.search(str(y.name)):
        data[NAME] = str(y.name)
    beside = {"sigma": domain.sigma, "where": domain.where}
    named = {f"coordinate {name}": array for name, array in domain.coords.items()} | beside
    named |= {"values of the data": y, "groups": groups}
    data |= {name: kind_of(array) for name, array in named.items()}
    lazy = [a.data.name for a in named.values() if isinstance(a, xr.DataArray) and a.chunks is not None]
    data["tokens"] = Digest().of(lazy)
    data["time axes"] = repr(sorted(domain.time.items()))
    return data


def kind_of(array: Any) -> str:
    """An array by content, where it is in memory; what is known without reading it, where it is lazy."""
    if not isinstance(array, xr.DataArray):
        return repr(array)
    if array.chunks is None:
        return of_values({"values": array.values, "dims": np.array(array.dims, str)})
    return f"chunked {array.dtype} over {', '.join(map(str, array.dims))}"


def content_of(prepared: Prepared) -> str:
    """Hashes of some points of the first, the middle and the last chunk; reads these where they are lazy.

    A chunk that cannot be read, and may be left out, has none.
    """
    places = [(p.index, k, c.size) for p in prepared.partitions for k, c in enumerate(p.chunks)]
    numbers = sorted({0, len(places) // 2, len(places) - 1})
    shares = [
        Share(number, index, chunk, min(size, PROBED), 0, False, skipna=False)
        for number, (index, chunk, size) in ((n, places[n]) for n in numbers)
    ]
    sample = SamplePlan(tuple(shares), 0, False, False, prepared.domain.data.size, len(places))
    parts = prepared.evaluator.points_of(sample)
    hashes = {part.number: Digest().of([column.tobytes() for column in part.columns]) for part in parts}
    return " ".join(f"{number}:{value}" for number, value in hashes.items())


def has_other_values(before: str, now: str) -> bool:
    """Whether a chunk of which two calls of `content_of` have a hash holds other values now."""
    then, current = (dict(one.split(":") for one in hashes.split()) for hashes in (before, now))
    return any(then[number] != current[number] for number in then.keys() & current.keys())


def changes(found: Snapshot, now: Identity) -> list[str]:
    """What is not as it was when a snapshot was written, a sentence each."""
    if found.names != now.names:
        return [f"the parameters were {', '.join(found.names)}, now {', '.join(now.names)}"]
    same = same_model(found.model, found.environment, now.model)
    told = [] if same else [OTHER_MODEL]
    told += differences(found.data, now.data) + differences(found.settings, now.settings)
    stored = dict(zip(now.values, (found.p0, found.lower, found.upper, found.fixed), strict=True))
    for name, values in now.values.items():
        for k, parameter in enumerate(now.names):
            before, after = stored[name][k], values[k]
            if before != after and not (np.isnan(before) and np.isnan(after)):
                told.append(f"{name} of {parameter}: {before!s}, now {after!s}")
    return told


def same_model(then: Mapping[str, str], environment_then: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether the program is the same; of other packages, which may trace another one, whether the code is."""
    if then["program"] == now["program"]:
        return True
    return environment_then != environment() and then.get("code") == now["code"]


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What of two descriptions is not the same, a sentence each."""
    told = []
    for name in sorted({*then, *now}):
        before, after = then.get(name), now.get(name)
        unnamed = name == NAME and None in (before, after)
        if before != after and name not in LOOKED_AT and not unnamed:
            told.append(_change(name, before, after))
    return told


def _change(name: str, before: str | None, after: str | None) -> str:
    if name == "warmup" and before is not None and after is not None:
        then, current = ({} if words == "off" else json.loads(words) for words in (before, after))
        if not then or not current:
            return f"warmup: {'on' if then else 'off'}, now {'on' if current else 'off'}"
        other = [n for n in sorted({*then, *current}) if then.get(n) != current.get(n)]
        return "; ".join(f"{n} of warmup: {then.get(n)}, now {current.get(n)}" for n in other)
    hashes = any(value is not None and len(value) == 64 for value in (before, after))
    if hashes or before is None or after is None:
        return f"{name}: other values"
    return f"{name}: {before}, now {after}"


@cache
def environment() -> dict[str, str]:
    """Packages and processor: with the same ones the last bits are the same."""
    found = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    words = ("model name", "flags", "Features")
    kind = sorted({line for line in lines if line.split("\t")[0].split(":")[0].strip() in words})
    return found | {"processor": f"{platform.machine()} {Digest().of(kind)[:16]}"}
