"""What of a map is laid out in a store before its regions are computed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import xarray as xr
import zarr

from dfit.errors import CheckpointError, InputError
from dfit.reduce.pixel_passes import Passes

logger = logging.getLogger("dfit")

MARKS = "dfit_regions"  # the group of what tells which regions are finished
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

    def dims(self, found: xr.Dataset) -> tuple[Hashable, ...]:
        """The kept dimensions, in a map."""
        return found[self.names["status"]].dims

    @property
    def region(self) -> tuple[int, ...]:
        """Lengths of a region along the kept dimensions."""
        return tuple(max(1, lengths[0]) for lengths in self.table.chunks[:-1])


def in_regions(variable: xr.DataArray, kept: Sequence[Hashable]) -> xr.DataArray:
    """The data in chunks of one length along each kept dimension, as zarr has them."""
    lengths = {dim: sizes for dim, sizes in variable.variable.chunksizes.items() if dim in kept}
    uneven = {dim: max(s) for dim, s in lengths.items() if len({*s[:-1]}) > 1 or s[-1] > s[0]}
    for dim, length in uneven.items():
        logger.info(
            "chunks of %s along %s are of no one length, which regions of a map must have: read in chunks of %d",
            ", ".join(map(str, lengths[dim])),
            dim,
            length,
        )
    return variable.chunk(uneven) if uneven else variable


def lay_out(path: str, found: xr.Dataset, parts: Sequence[Part], claim: Callable[[], None]) -> None:
    """Write all of a map but what is computed by region: names, attributes, coordinates, empty arrays.

    ``claim`` is called before the first byte is written.

    Raises
    ------
    InputError
        If zarr does not know how to keep it.
    CheckpointError
        If it cannot be written.
    """
    region = {dim: n for part in parts for dim, n in zip(part.dims(found), part.region, strict=False)}
    lazy = {
        name: c.variable.chunk({dim: region[dim] for dim in c.dims})
        for name, c in found.coords.items()
        if c.chunks is not None
    }
    template, encoding = _template(found.assign_coords(lazy).drop_encoding(), parts)
    write = partial(template.to_zarr, compute=False, encoding=encoding, zarr_format=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"zarr\.")  # of names as text, and of metadata in one place
        try:
            write(zarr.storage.MemoryStore())
        except (TypeError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"an attribute or a coordinate of the map cannot be kept in {path}: {str(error).rstrip('. ')}. Type "
                "first: y = y.drop_attrs(), or y.reset_index(name) for an index of several levels"
            ) from error
        with writing(path):
            claim()
            zarr.open_group(path, path=MARKS, mode="a", zarr_format=3)
            write(path, mode="a")
            if lazy:
                xr.Dataset(coords=lazy).to_zarr(path, mode="r+", zarr_format=3, consolidated=False)


def _template(found: xr.Dataset, parts: Sequence[Part]) -> tuple[xr.Dataset, dict[str, Any]]:
    """The map with empty arrays for what is computed, and how these are stored."""
    template, encoding = found.copy(), dict[str, Any]()
    for part in parts:
        for name, full in part.names.items():
            variable = found[full].variable
            blank = da.zeros(variable.shape, dtype=variable.dtype, chunks=-1)
            template[full] = (variable.dims, blank, variable.attrs)
            encoding[full] = {"chunks": (*part.region, *variable.shape[len(part.region) :])}
            if name == "status":
                encoding[full]["fill_value"] = NOT_YET
    return template, encoding


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Whatever keeps a store from being written, as an error that names it."""
    # Stores raise errors of their own packages: no list of them would be complete.
    try:
        yield
    except Exception as error:
        if isinstance(error, CheckpointError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # of a mark: say what is written once
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            f"{path} cannot be written: {type(error).__name__}: {reason}. Regions that were finished are "
            "kept: type the same call again when there is room and permission"
        ) from error
