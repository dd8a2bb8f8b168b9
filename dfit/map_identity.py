"""Identity of a map: what a store and the call that goes on with it must have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import dask
import numpy as np
import xarray as xr

from dfit.data.domain import Domain
from dfit.digest import Digest
from dfit.errors import InputError
from dfit.fingerprint import NEW, fingerprint
from dfit.identity import OTHER_MODEL, PROBED, data_of, differences, kind_of, same_model
from dfit.model import Model
from dfit.pixels import Given, Map
from dfit.settings import Settings

OF_A_PIXEL = ("absolute_sigma", "cov", "f_scale", "ftol", "gtol", "loss", "max_passes", "tol", "xtol")
# Of a map's job: told in words of their own, or without influence on a number.
TOLD_OTHERWISE = ("pixels", "columns", "given", "raises")


def identity_of_map(
    found: Map,
    model: Model,
    domain: Domain,
    settings: Settings,
    given: Sequence[Given],
    beside: Mapping[Any, Any],
) -> dict[str, dict[str, str]]:
    """What a map is made of: the model, and all else by its name, in words or fingerprints.

    Of chunked arrays, some points of three chunks are read.

    Parameters
    ----------
    given : what is given pixel by pixel.
    beside : coordinates that the map will have.
    """
    p, recipe, digest = found.parameters, found.job.pixels.recipe, Digest()
    of_pixels = {f"{one.kind} of {one.name}": one.values for one in given}
    data = data_of(domain)
    del data["tokens"]  # other names of the same data in another process, and the same ones of other data
    data |= {name: kind_of(array) for name, array in of_pixels.items()}
    data |= {name: _plain(getattr(settings, name), digest) for name in OF_A_PIXEL}
    for k, name in enumerate(p.names):
        numbers = {"p0": p.init[k], "lower bound": p.lower[k], "upper bound": p.upper[k]}
        data |= {f"{kind} of {name}": repr(float(value)) for kind, value in numbers.items()}
    data |= {
        "parameters": ", ".join(p.names),
        "fixed parameters": ", ".join(p.names[k] for k in p.fixed),
        "regions": digest.of(found.table.chunks),
        "coordinates of the map": digest.of(sorted((str(name), kind_of(c)) for name, c in beside.items())),
    }
    data |= {
        field.name: digest.of(getattr(found.job, field.name))
        for field in fields(found.job)
        if field.name not in TOLD_OTHERWISE
    }
    if recipe.fingerprint.startswith(NEW) or not digest.complete:
        raise InputError(
            f"a map that is kept needs a model that can be recognised again; {recipe.name}, or its guess, reads "
            "something without content to compare, such as an open file or a generator. Type: "
            "constants={'name': array} for what it reads, or leave to= out and type .to_zarr(path) after the fit"
        )
    lazy = {"values of the data": domain.data, "sigma": domain.sigma, "where": domain.where, **of_pixels}
    data |= _looked_at(lazy | {f"coordinate {name}": array for name, array in domain.coords.items()})
    program = {"program": recipe.fingerprint, "code": fingerprint(model, p, False, versions=False)}
    return {"model": program, "data": data}


def other(
    then: Mapping[str, Mapping[str, str]],
    environment_then: Mapping[str, str],
    now: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """What of the identity of a map is not as it was, a sentence each."""
    if then["data"]["parameters"] != now["data"]["parameters"]:
        return [f"the parameters were {then['data']['parameters']}, now {now['data']['parameters']}"]
    same = same_model(then["model"], environment_then, now["model"])
    return [*([] if same else [OTHER_MODEL]), *differences(then["data"], now["data"])]


def _plain(value: Any, digest: Digest) -> str:
    if value is None or isinstance(value, str | bool | np.bool_):
        return str(value)
    return repr(float(value)) if isinstance(value, int | float | np.number) else digest.of(value)


def _looked_at(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of some points of the first, the middle and the last chunk of each lazy array; reads these."""
    points = {}
    for name, array in arrays.items():
        if isinstance(array, xr.DataArray) and array.chunks is not None:
            values, count = array.data, array.data.npartitions
            places = [np.unravel_index(k, values.numblocks) for k in sorted({0, count // 2, count - 1})]
            points[name] = [values.blocks[place].ravel()[:PROBED] for place in places]
    (read,) = dask.compute(points)
    return {
        f"content of {name}": Digest().of([part.tobytes() for part in parts]) for name, parts in read.items()
    }
