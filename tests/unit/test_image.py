"""An image gives back the bits it was made of, and nothing that somebody else wrote."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import h5py
import numpy as np
import pytest

from dfit.errors import CheckpointDamaged, CheckpointError
from dfit.store import image
from dfit.store.image import BLOCK, DIGEST, HEADER, MAGIC, decode, encode

PAYLOADS = np.array([0x7FF8000000000123, 0xFFF4000000000001, 0x7FF0000000000000], np.uint64).view(float)
TREE = {
    "payloads": PAYLOADS,
    "matrix": np.arange(6.0).reshape(2, 3).T,  # not contiguous
    "empty": np.zeros((0, 3)),
    "count": np.int32(3),
    "nodes": np.array([[0, 2**62]]),
    "bytes": np.array([0, 255], np.uint8),
    "flags": np.array([True, False]),
    "none": None,
    "text": "größe, 温度",
    "no_text": "",
    "deeper": {"number": -0.0, "whole": 2**53 + 1, "yes": True, "nothing": {}},
}


def sealed(body: bytes) -> bytes:
    """An image with a right SHA-256 around any bytes."""
    block = HEADER.pack(MAGIC, image.FORMAT, len(body)).ljust(DIGEST.start, b"\0")
    return block + hashlib.sha256(block + body).digest() + body


def crafted(make: Callable[[h5py.File], Any]) -> bytes:
    """An image with a right SHA-256 whose HDF5 file somebody else has made."""
    with h5py.File(uuid4().hex, "w", driver="core", backing_store=False) as file:
        make(file)
        file.flush()
        return sealed(file.id.get_file_image())


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_same(found[name], value)
        elif value is None or isinstance(value, str):
            assert found[name] == value
        else:
            array = np.asarray(value)
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert found[name].tobytes() == array.tobytes()


def test_every_bit_type_and_shape_comes_back() -> None:
    assert_same(decode(encode(TREE)), TREE)


def test_same_tree_gives_the_same_bytes() -> None:
    assert encode(TREE) == encode(TREE)


def test_any_reader_of_hdf5_opens_an_image(tmp_path: Path) -> None:
    (tmp_path / "image.h5").write_bytes(encode(TREE))
    with h5py.File(tmp_path / "image.h5") as file:
        assert file.userblock_size == BLOCK
        np.testing.assert_array_equal(file["matrix"], TREE["matrix"])


def test_images_made_and_read_at_once_do_not_mix() -> None:
    def there_and_back(k: int) -> float:
        return float(decode(encode({"a": np.full(5000, float(k)), "b": {"c": k}}))["a"].mean())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(there_and_back, range(40))) == [float(k) for k in range(40)]


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"a": np.array([object()])}, "/a is of object"),
        ({"b": {"a": np.zeros(2, ">f8")}}, "/b/a is of >f8"),
        ({"a": np.zeros(2, complex)}, "/a is of complex128"),
        ({"a": 2**70}, "/a is of object"),
        ({"a": ["one", "two"]}, "/a is of <U3"),
        ({"../a": 1}, r"/\.\./a cannot be stored"),
        ({"a": "ends\0"}, "/a ends with a zero byte"),
    ],
)
def test_what_an_image_cannot_hold_is_refused_by_its_name(tree: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        encode(tree)


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {"value": 1}


def test_depth_that_can_be_written_can_be_read() -> None:
    deepest = nested(image.DEPTH - 1)
    assert_same(decode(encode(deepest)), deepest)
    with pytest.raises(CheckpointError, match="at most 8 deep"):
        encode(nested(image.DEPTH))


def test_too_large_a_tree_is_refused_when_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "LIMIT_BYTES", 10_000)
    with pytest.raises(CheckpointError, match="expected at most 10,000"):
        encode({"a": np.zeros(2000)})


def test_later_format_is_refused_and_not_called_damaged() -> None:
    body = encode({"a": 1})[BLOCK:]
    block = HEADER.pack(MAGIC, 2, len(body)).ljust(DIGEST.start, b"\0")
    with pytest.raises(CheckpointError, match="has format 2, this dfit reads up to 1") as caught:
        decode(block + hashlib.sha256(block + body).digest() + body)
    assert caught.type is CheckpointError


def test_more_bytes_than_were_written_are_damage() -> None:
    with pytest.raises(CheckpointDamaged, match="bytes instead of"):
        decode(encode({"a": 1}) + b"\0")


def external(file: h5py.File) -> None:
    file.create_dataset("a", (4,), "f8", external=[("/etc/hostname", 0, 32)])


def filtered(file: h5py.File) -> None:
    file.create_dataset("a", data=np.zeros(4), compression="gzip")


def chunked(file: h5py.File) -> None:
    file.create_dataset("a", (2**40,), "f8", chunks=(2**20,))


def never_written(file: h5py.File) -> None:
    file.create_dataset("a", (4,), "f8")


def huge_and_never_written(file: h5py.File) -> None:
    file.create_dataset("a", (2**40,), "f8")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "a", (4,))
    file.create_virtual_dataset("a", layout)


def looped(file: h5py.File) -> None:
    file.create_group("a")["b"] = file["/"]


def twice(file: h5py.File) -> None:
    file["a"] = np.zeros(4)
    file["b"] = file["a"]


def deep(file: h5py.File) -> None:
    file["/".join("a" * 2000)] = 1.0


def attribute(file: h5py.File) -> None:
    file.create_dataset("a", data=np.zeros(4)).attrs["b"] = np.void(b"\x80\x04cos\nsystem\n.")


def attribute_of_the_root(file: h5py.File) -> None:
    file.attrs["b"] = np.void(b"\x80\x04cos\nsystem\n.")


def references(file: h5py.File) -> None:
    file.create_dataset("a", data=np.array([file.ref], h5py.ref_dtype), dtype=h5py.ref_dtype)


def variable_text(file: h5py.File) -> None:
    file.create_dataset("a", data="text", dtype=h5py.string_dtype())


def several_texts(file: h5py.File) -> None:
    file["a"] = np.array([b"one", b"two"])


def compound(file: h5py.File) -> None:
    file["a"] = np.zeros(2, [("x", "f8"), ("y", "i4")])


def other_flags(file: h5py.File) -> None:
    file.create_dataset("a", (2,), h5py.enum_dtype({"FALSE": 0, "TRUE": 1, "RUN": 2}, "i1"))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (external, "filters or lies in another file"),
        (filtered, "filters or lies in another file"),
        (chunked, "neither contiguous nor compact"),
        (virtual, "neither contiguous nor compact"),
        (never_written, "claims 32 bytes, which the file does not hold"),
        (huge_and_never_written, "which the file does not hold"),
        (lambda file: file.__setitem__("a", h5py.SoftLink("/etc")), "a link to elsewhere"),
        (lambda file: file.__setitem__("a", h5py.ExternalLink("/etc/other.h5", "/")), "a link to elsewhere"),
        (looped, "another name of something else"),
        (twice, "another name of something else"),
        (deep, "deeper than 8 groups"),
        (attribute, "/a has attributes"),
        (attribute_of_the_root, "/ has attributes"),
        (references, "/a is of the type object"),
        (variable_text, "/a is of the type object"),
        (several_texts, "/a is of the type"),
        (compound, "/a is of the type"),
        (other_flags, "/a is of the type"),
        (lambda file: file.__setitem__("a", np.void(b"\x80\x04cos\nsystem\n.")), "/a is of the type"),
        (lambda file: file.__setitem__("a", np.dtype("f8")), "neither a group nor a dataset"),
        (lambda file: file.__setitem__("../x", 1.0), r"the name '/\.\.' is no identifier"),
        (lambda file: file.__setitem__("a/../../x", 1.0), r"the name '/a/\.\.' is no identifier"),
        (lambda file: file.create_group(b"\xff\xfe"), "HDF5 cannot read it: UnicodeDecodeError"),
    ],
)
def test_file_that_dfit_would_not_write_is_refused_though_its_sum_is_right(
    make: Callable[[h5py.File], Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = crafted(make)
    loaded: list[object] = []
    monkeypatch.setattr(image, "_value", loaded.append)
    with pytest.raises(CheckpointDamaged, match=complaint):
        decode(made)
    assert loaded == []


def test_datasets_that_share_their_bytes_cannot_fill_the_memory() -> None:
    def make(file: h5py.File) -> None:
        file["a"] = np.zeros(1000)
        for k in range(100):
            file.create_dataset(f"b{k}", (1000,), "f8")  # at no address yet
        places.append(file["a"].id.get_offset())

    places: list[int] = []
    body = crafted(make)[BLOCK:]
    body = body.replace(struct.pack("<QQ", 2**64 - 1, 8000), struct.pack("<QQ", places[0], 8000))
    with pytest.raises(CheckpointDamaged, match="claims 8,000 bytes, which the file does not hold"):
        decode(sealed(body))


def test_other_files_are_no_images(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.zeros(1000)
    with pytest.raises(CheckpointDamaged, match=r"begin with b'.*HDF.*' are no checkpoint of dfit"):
        decode((tmp_path / "other.h5").read_bytes())


def test_bytes_that_are_no_hdf5_are_refused_though_their_sum_is_right() -> None:
    with pytest.raises(CheckpointDamaged, match="HDF5 cannot read it: OSError"):
        decode(sealed(b"\x80\x04cos\nsystem\n." * 100))


def test_flag_that_is_neither_zero_nor_one_reads_as_true() -> None:
    made = encode({"a": np.array([True, False, True])})
    body = bytearray(made[BLOCK:])
    at = body.rindex(b"\1\0\1")
    body[at : at + 3] = b"\7\0\1"
    assert decode(sealed(bytes(body)))["a"].tobytes() == b"\1\0\1"
