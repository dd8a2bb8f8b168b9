"""Image: a tree of arrays, numbers and text as the bytes of one HDF5 file that prove themselves.

HDF5 leaves the first 512 bytes of a file to its user. Here they hold, little-endian, a magic number, the
format, the length of what follows and, in their last 32 bytes, the SHA-256 of all other bytes. HDF5 itself
does not notice damage, so nothing is parsed before length and SHA-256 are right. A right SHA-256 proves no
good will: whoever made the file could compute it. So the tree is inspected before any value of it is read,
and what `encode` would not have written is refused.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias
from uuid import uuid4

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5l, h5o, h5p, h5s, h5t

from dfit.errors import CheckpointDamaged, CheckpointError

Tree: TypeAlias = dict[str, Any]  # names to trees, arrays, numbers, text, None

MAGIC = b"\x89dfit\r\n\x1a"
FORMAT = 1
LIMIT_BYTES = 1 << 30  # no fit comes near it; a longer file would only fill the memory
DEPTH = 8  # a tree that nests deeper was made to exhaust the stack
DTYPES = tuple(np.dtype(code) for code in ("<f8", "<i8", "<i4", "u1", "?"))
TYPES = tuple(h5t.py_create(dtype, logical=True) for dtype in DTYPES)
HEADER = struct.Struct("<8sQQ")
BLOCK = 512
DIGEST = slice(BLOCK - hashlib.sha256().digest_size, BLOCK)
# What h5py and NumPy raise of a file that HDF5 cannot follow, or whose text is none.
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)


def encode(tree: Mapping[str, Any]) -> bytes:
    """Image of a tree: the same bytes for the same tree.

    Names are Python identifiers. Arrays are float64, int64, int32, uint8 or bool, of any shape.

    Raises
    ------
    CheckpointError
        If the tree holds anything else, or is too large.
    """
    # HDF5 takes two open files of one name for the same, in memory, too.
    with h5py.File(uuid4().hex, "w", driver="core", backing_store=False, libver=("v108", "v108")) as file:
        _write(file, tree, "", 0)
        file.flush()
        body = file.id.get_file_image()
    if len(body) > LIMIT_BYTES:
        raise CheckpointError(f"a checkpoint of {len(body):,} bytes; expected at most {LIMIT_BYTES:,}")
    block = HEADER.pack(MAGIC, FORMAT, len(body)).ljust(DIGEST.start, b"\0")
    return block + _digest(block, body) + body


def decode(image: bytes) -> Tree:
    """Tree of an image from `encode`; numbers come as NumPy scalars, names sorted.

    Raises
    ------
    CheckpointDamaged
        If a byte differs from what was written, or what was written is no tree.
    CheckpointError
        If it has a later format.
    """
    body = _verified(image)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    access.set_file_image(body)
    try:
        file = h5f.open(uuid4().hex.encode(), h5f.ACC_RDONLY, access)
        try:
            root = h5g.open(file, b"/")
            return _read(_Inspection(len(body)).members(root, "", 0))
        finally:
            file.close()
    except UNREADABLE as error:
        raise CheckpointDamaged(f"HDF5 cannot read it: {type(error).__name__}: {error}") from error


def _digest(block: bytes, body: bytes) -> bytes:
    return hashlib.sha256(block[: DIGEST.start] + body).digest()


def _verified(image: bytes) -> bytes:
    """The HDF5 file within an image."""
    if len(image) < BLOCK or not image.startswith(MAGIC):
        raise CheckpointDamaged(
            f"{len(image):,} bytes that begin with {image[:8]!r} are no checkpoint of dfit"
        )
    block, body = image[:BLOCK], image[BLOCK:]
    _, written, length = HEADER.unpack_from(block)
    # A flipped bit of the format is damage; a right digest tells it from a later dfit's.
    if length != len(body):
        raise CheckpointDamaged(f"it holds {len(body):,} bytes instead of {length:,}")
    if block[DIGEST] != _digest(block, body):
        raise CheckpointDamaged("its SHA-256 is not that of its content")
    if written > FORMAT:
        raise CheckpointError(
            f"it has format {written}, this dfit reads up to {FORMAT}. Type: pip install --upgrade dfit"
        )
    return body


def _write(group: h5py.Group, tree: Mapping[str, Any], where: str, depth: int) -> None:
    for name, value in tree.items():
        path = f"{where}/{name}"
        if not name.isidentifier() or depth >= DEPTH:
            raise CheckpointError(
                f"{path} cannot be stored; expected Python identifiers, at most {DEPTH} deep"
            )
        if isinstance(value, Mapping):
            _write(group.create_group(name), value, path, depth + 1)
        else:
            group.create_dataset(name, data=_plain(value, path))


def _plain(value: Any, path: str) -> Any:
    """A value as h5py writes it."""
    if value is None:
        return h5py.Empty(DTYPES[0])
    if isinstance(value, str):
        if value.endswith("\0"):
            raise CheckpointError(f"the text {path} ends with a zero byte, with which HDF5 fills up")
        text = value.encode()
        return np.array(text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))
    array = np.asarray(value)
    if array.dtype not in DTYPES:
        raise CheckpointError(f"{path} is of {array.dtype}; expected one of {', '.join(map(str, DTYPES))}")
    return array


class _Inspection:
    """What of an HDF5 file `encode` could have written; looks at structure only, reads no value."""

    def __init__(self, size: int) -> None:
        self.left = size  # bytes of the file that no dataset has claimed
        self.seen: set[int] = set()  # addresses: a loop, or one object under two names

    def members(self, group: h5g.GroupID, where: str, depth: int) -> Tree:
        """Names to datasets, not read yet, and to trees of them."""
        self.alone(group, where)
        if depth > DEPTH:
            raise CheckpointDamaged(f"{where} is deeper than {DEPTH} groups")
        return {name.decode(): self.member(group, name, where, depth) for name in group}

    def member(self, group: h5g.GroupID, name: bytes, where: str, depth: int) -> Any:
        path = f"{where}/{name.decode()}"
        if not name.decode().isidentifier():
            raise CheckpointDamaged(f"the name {path!r} is no identifier")
        if group.links.get_info(name).type != h5l.TYPE_HARD:
            raise CheckpointDamaged(f"{path} is a link to elsewhere")
        kind = h5o.get_info(group, name).type
        if kind == h5o.TYPE_GROUP:
            return self.members(h5g.open(group, name), path, depth + 1)
        if kind != h5o.TYPE_DATASET:
            raise CheckpointDamaged(f"{path} is neither a group nor a dataset")
        dataset = h5d.open(group, name)
        self.alone(dataset, path)
        self.stored_plainly(dataset, path)
        return dataset

    def alone(self, thing: h5g.GroupID | h5d.DatasetID, path: str) -> None:
        """Refuse attributes, and a second name of the same object."""
        address = h5o.get_info(thing).addr
        if address in self.seen:
            raise CheckpointDamaged(f"{path} is another name of something else")
        self.seen.add(address)
        if h5a.get_num_attrs(thing):
            raise CheckpointDamaged(f"{path or '/'} has attributes")

    def stored_plainly(self, dataset: h5d.DatasetID, path: str) -> None:
        """Refuse types, layouts and sizes that `encode` does not write."""
        stored, created, space = dataset.get_type(), dataset.get_create_plist(), dataset.get_space()
        is_text = isinstance(stored, h5t.TypeStringID) and not stored.is_variable_str() and not space.shape
        if not is_text and stored not in TYPES:
            raise CheckpointDamaged(f"{path} is of the type {stored.dtype}")
        if created.get_nfilters() or created.get_external_count():
            raise CheckpointDamaged(f"{path} has filters or lies in another file")
        if created.get_layout() not in (h5d.CONTIGUOUS, h5d.COMPACT):
            raise CheckpointDamaged(f"{path} is neither contiguous nor compact")
        empty = space.get_simple_extent_type() == h5s.NULL
        size = 0 if empty else math.prod(space.shape) * stored.get_size()
        self.left -= size
        if dataset.get_storage_size() != size or self.left < 0:
            raise CheckpointDamaged(f"{path} claims {size:,} bytes, which the file does not hold")


def _read(members: Tree) -> Tree:
    return {
        name: _read(member) if isinstance(member, dict) else _value(member)
        for name, member in members.items()
    }


def _value(dataset: h5d.DatasetID) -> Any:
    space, stored = dataset.get_space(), dataset.get_type()
    if space.get_simple_extent_type() == h5s.NULL:
        return None
    if isinstance(stored, h5t.TypeStringID):
        text = np.empty((), f"S{stored.get_size()}")
        dataset.read(h5s.ALL, h5s.ALL, text, mtype=stored)
        return text.tobytes().rstrip(b"\0").decode()
    array = np.empty(space.shape, DTYPES[TYPES.index(stored)])
    dataset.read(h5s.ALL, h5s.ALL, array)
    # A byte of a bool that is neither 0 nor 1 would be true to one operation and false to the next.
    return (array.view(np.uint8) != 0 if array.dtype == np.bool_ else array)[()]
