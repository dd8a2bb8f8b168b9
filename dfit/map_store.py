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
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from dfit.pixel_status import WITHOUT_ERROR
from dfit.reduce.pixel_passes import Passes
from dfit.store.place import place_of

logger = logging.getLogger("dfit")

MARKS = "dfit_regions"  # the group of the marks
MADE_OF, TEMPLATE, FAILED = "made_of.json", "template", "failed"
ADVICE = "Type another path, as to='map-2.zarr', or remove what is there"
LIMIT_BYTES = 1 << 24  # of what a map is made of
NOT_YET = -1  # status of pixels that are not fitted yet


@dataclass(frozen=True)
class Part:
    """What is written of one variable of the data.

    Attributes
    ----------
    prefix : of the names of its arrays in the map.
    table : (kept dimensions, columns), lazy; its chunks are the regions.
    cut : the arrays, by the rest of their names, out of a table.
    raises : whether a fit that fails is an error.
    made_of : what must be the same to go on, see `dfit.map_identity`.
    passes : what makes tables that no task can make alone, see `dfit.pixels.Map`.
    """

    prefix: str
    table: da.Array
    cut: Callable[[Any], dict[str, Any]]
    raises: bool
    made_of: Mapping[str, Mapping[str, str]]
    passes: Passes | None

    @property
    def names(self) -> dict[str, str]:
        """Names in the map by those that `cut` gives."""
        return {name: f"{self.prefix}curvefit_{name}" for name in self.cut(self.table)}

    @property
    def region(self) -> tuple[int, ...]:
        """Lengths of a region along the kept dimensions."""
        return tuple(max(1, lengths[0]) for lengths in self.table.chunks[:-1])


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


def in_regions(variable: xr.DataArray, kept: Sequence[Hashable]) -> xr.DataArray:
    """The data in chunks of one length along each kept dimension, as zarr has them."""
    lengths = {dim: sizes for dim, sizes in variable.chunksizes.items() if dim in kept}
    uneven = {dim: max(s) for dim, s in lengths.items() if len({*s[:-1]}) > 1 or s[-1] > s[0]}
    for dim, length in uneven.items():
        logger.info(
            "chunks of %s along %s are of no one length, which regions of a map must have: read in chunks of %d",
            ", ".join(map(str, lengths[dim])),
            dim,
            length,
        )
    return variable.chunk(uneven) if uneven else variable


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
    ordered = sorted(parts, key=lambda part: part.prefix)
    marks = place_of(f"{path}/{MARKS}")
    _require_same(path, {part.prefix: part.made_of for part in ordered})
    if TEMPLATE not in marks.names():
        _lay_out(path, found, ordered)
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


def _require_same(path: str, parts: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
    """Refuse the path of another map; an empty one is claimed for this map."""
    marks = place_of(f"{path}/{MARKS}")
    if MADE_OF not in marks.names():
        with _told(path):
            if "://" not in path:
                os.makedirs(path, exist_ok=True)  # with the permissions of any folder of the user's
            text = json.dumps({"parts": parts, "environment": environment()}, indent=1)
            marks.write(MADE_OF, text.encode())
        return
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


def _lay_out(path: str, found: xr.Dataset, parts: Sequence[Part]) -> None:
    """Write all of a map but what is computed by region: names, attributes, coordinates, empty arrays."""
    template, encoding, region = found.drop_encoding(), dict[str, Any](), dict[Hashable, int]()
    for part in parts:
        for name, full in part.names.items():
            variable = found[full].variable
            shape = variable.shape
            region |= zip(variable.dims, part.region, strict=False)
            blank = da.zeros(shape, dtype=variable.dtype, chunks=-1)
            template[full] = (variable.dims, blank, variable.attrs)
            encoding[full] = {"chunks": (*part.region, *shape[len(part.region) :])}
            if name == "status":
                encoding[full]["fill_value"] = NOT_YET
    lazy = {
        name: c.variable.chunk({dim: region[dim] for dim in c.dims})
        for name, c in template.coords.items()
        if c.chunks is not None
    }
    template = template.assign_coords(lazy)
    with _told(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"zarr\.")  # of names as text, and of metadata in one place
        zarr.open_group(path, path=MARKS, mode="a", zarr_format=3)
        template.to_zarr(path, mode="a", compute=False, encoding=encoding, zarr_format=3)
        if lazy:
            xr.Dataset(coords=lazy).to_zarr(path, mode="r+", zarr_format=3, consolidated=False)
        place_of(f"{path}/{MARKS}").write(TEMPLATE, b"")


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
    with _told(path):
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
    with _told(writer.path):
        if math.prod(kept):
            for name, values in variables.items():
                writer.arrays[name][place] = values
        place_of(f"{writer.path}/{MARKS}").write(mark, b"")
    return np.full((1,) * len(kept), good)


@contextmanager
def _told(path: str) -> Iterator[None]:
    # Stores raise errors of their own packages: no list of them would be complete.
    try:
        yield
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            f"{path} cannot be written: {type(error).__name__}: {reason}. Regions that were finished are "
            "kept: type the same call again when there is room and permission"
        ) from error
