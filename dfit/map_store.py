"""Maps in a store: written region by region, and gone on with where an earlier process was stopped.

A region is a chunk along the kept dimensions, and one chunk of each of the map's arrays in zarr.  Its task
fits it, writes all of its variables, and then its mark: a small file in a group beside the arrays.  So a kill
leaves regions that are finished, and others, which are fitted again.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask
import dask.array as da
import dask.base
import numpy as np
import xarray as xr
import zarr

from dfit.errors import CheckpointError, InputError
from dfit.identity import environment
from dfit.map_identity import other
from dfit.map_layout import MARKS, Part, lay_out, writing
from dfit.pixel_status import WITHOUT_ERROR
from dfit.store.place import place_of

logger = logging.getLogger("dfit")

MADE_OF, TEMPLATE, FAILED = "made_of.json", "template", "failed"
ADVICE = "Type another path, as to='map-2.zarr', or remove what is there"
LIMIT_BYTES = 1 << 24  # of what a map is made of


@dataclass(frozen=True)
class Writer:
    """What a task must know to write a region.

    Attributes
    ----------
    path : of the map.
    number : of the part, first in the names of its marks.
    arrays : the open arrays by the names that `cut` gives.
    """

    path: str
    number: int
    arrays: Mapping[str, Any]
    region: tuple[int, ...]
    cut: Callable[[Any], dict[str, Any]]


def path_for(to: Any) -> str:
    """The path or URL that a user typed for a map, where there is none yet, or one.

    Raises
    ------
    InputError
        If it is no path, or holds something else.
    """
    if not isinstance(to, str | os.PathLike) or not os.fspath(to) or "\0" in str(to):
        raise InputError(f"to is {to!r}; expected a path or a URL. Type: to='map.zarr'")
    path = os.fspath(to).removeprefix("file://")
    if path.endswith(".zip"):
        raise InputError(f"to is {to!r}: several tasks cannot write one zip file. Type: to='map.zarr'")
    path = path.rstrip("/") if "://" in path else os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(path):
        raise InputError(f"{path} is a file; expected a folder for a map, or none yet. {ADVICE}")
    there = place_of(f"{path}/{MARKS}").names()
    if MADE_OF not in there and (there or set(place_of(path).names()) - {MARKS}):
        raise InputError(f"{path} holds something that is no map of dfit. {ADVICE}")
    return path


def stored(path: str, found: xr.Dataset, parts: Iterable[Part]) -> xr.Dataset:
    """A map that is written to a store, but for the regions that are there, and opened from it.

    Parameters
    ----------
    path : from `path_for`.
    found : the map, lazy.
    parts : of its variables that are computed by region.

    Raises
    ------
    InputError
        If the store holds another map.
    CheckpointError
        If it cannot be written.
    """
    for name in found.variables:
        if "/" in str(name):
            raise InputError(
                f"{name!r} would be a group of groups in a store. Type: .rename({{{name!r}: 'other'}}) first"
            )
    ordered = sorted(parts, key=lambda part: part.prefix)
    marks = place_of(f"{path}/{MARKS}")
    made_of = {part.prefix: part.made_of for part in ordered}
    if MADE_OF in marks.names():
        _require_same(path, made_of)
    if TEMPLATE not in marks.names():
        lay_out(path, found, ordered, partial(_claim, path, made_of))
        with writing(path):
            marks.write(TEMPLATE, b"")
    names = marks.names()
    todo = [_unfinished(part, number, names) for number, part in enumerate(ordered)]
    total, missing = sum(one.size for one in todo), sum(int(one.sum()) for one in todo)
    logger.info("%s: %d of %d regions were there", path, total - missing, total)
    for number, (part, some) in enumerate(zip(ordered, todo, strict=True)):
        if some.any():
            _write(path, number, part, some)
    names = marks.names()
    lost = sum(int(_unfinished(part, number, names).sum()) for number, part in enumerate(ordered))
    if lost:
        raise CheckpointError(
            f"{lost} of {missing} regions were written where this process does not see them: expected a path "
            f"that all workers share, got {path}. Type another one in to="
        )
    return xr.open_zarr(path, consolidated=False, zarr_format=3)[list(found.data_vars)]


def _claim(path: str, parts: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
    """Say in an empty place what map it will hold."""
    if "://" not in path:
        os.makedirs(path, exist_ok=True)  # with the permissions of any folder of the user's
    text = json.dumps({"parts": parts, "environment": environment()}, indent=1)
    place_of(f"{path}/{MARKS}").write(MADE_OF, text.encode())


def _require_same(path: str, parts: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
    """Refuse the path of another map."""
    marks = place_of(f"{path}/{MARKS}")
    then = json.loads(marks.read(MADE_OF, LIMIT_BYTES))
    if then["parts"].keys() != parts.keys():
        told = [f"the variables were {_listed(then['parts'])}, now {_listed(parts)}"]
    else:
        told = [
            f"{prefix.rstrip('_')}: {sentence}" if prefix else sentence
            for prefix, now in parts.items()
            for sentence in other(then["parts"][prefix], then["environment"], now)
        ]
    if told:
        raise InputError(f"{path} holds another map: {'; '.join(told)}. {ADVICE}")


def _listed(prefixes: Iterable[str]) -> str:
    return ", ".join(prefix.removesuffix("_") or "one without a name" for prefix in prefixes)


def _unfinished(part: Part, number: int, names: Iterable[str]) -> np.ndarray:
    """Which regions have no mark; those in which a fit failed among them, where that is an error."""
    todo = np.ones(part.table.numblocks[:-1], bool)
    mark = re.compile(rf"{number}-(\d+(?:\.\d+)*){'' if part.raises else f'(?:-{FAILED})?'}")
    for name in names:
        match = mark.fullmatch(name)
        if match:
            todo[tuple(map(int, match[1].split(".")))] = False
    return todo


def _write(path: str, number: int, part: Part, todo: np.ndarray) -> None:
    """Fit and write some regions of a part, each in one task."""
    with writing(path):
        group = zarr.open_group(path, mode="r+", zarr_format=3, use_consolidated=False)
        arrays = {name: group[full] for name, full in part.names.items()}
    kept = todo.ndim
    write = partial(write_region, Writer(path, number, arrays, part.region, part.cut))
    if part.passes is not None:
        for place, table in part.passes.tables([tuple(map(int, place)) for place in np.argwhere(todo)]):
            dask.delayed(write, pure=False)(table, place).compute()
        return
    written = da.map_blocks(
        write,
        part.table,
        drop_axis=kept,
        chunks=tuple((1,) * n for n in todo.shape),
        dtype=bool,
        meta=np.empty((0,) * kept, bool),
        name=f"dfit-region-{uuid.uuid4().hex}",
    )
    keys = [(written.name, *map(int, place)) for place in np.argwhere(todo)]
    graph = written.__dask_optimize__(
        written.__dask_graph__(), keys
    )  # reading, fit and write become one task
    dask.base.get_scheduler(collections=[written])(graph, keys)


def write_region(writer: Writer, table: np.ndarray, block_id: Sequence[int] = ()) -> np.ndarray:
    """Write the table of a region, and then its mark; gives little, whatever the region's size."""
    kept = table.shape[:-1]
    starts = [number * length for number, length in zip(block_id, writer.region, strict=True)]
    place = tuple(slice(start, start + n) for start, n in zip(starts, kept, strict=True))
    variables = writer.cut(table)
    good = bool(np.isin(variables["status"], list(WITHOUT_ERROR)).all())
    mark = f"{writer.number}-{'.'.join(map(str, block_id))}{'' if good else f'-{FAILED}'}"
    with writing(writer.path):
        if math.prod(kept):
            for name, values in variables.items():
                writer.arrays[name][place] = values
        place_of(f"{writer.path}/{MARKS}").write(mark, b"")
    return np.full((1,) * len(kept), good)
