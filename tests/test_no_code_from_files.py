"""No file that dfit reads can run code: nothing in the package that could, but for what dask itself carries."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dfit"
# What makes code or objects out of bytes or names.
BUILTINS = {"eval", "exec", "compile", "__import__"}
FUNCTIONS = {"import_module", "loads", "Unpickler", "run_path", "run_module"}
LOADERS = {"pickle", "cloudpickle", "np", "numpy", "marshal", "yaml", "joblib", "dill"}  # their load()
ALLOWED = {
    # Bytes that this very fit has pickled, on a worker or back from one.
    ("model.py", "cloudpickle.loads"),
    ("reduce/cluster.py", "pickle.loads"),
    ("reduce/kernels.py", "cloudpickle.loads"),
    ("reduce/pixel_parts.py", "cloudpickle.loads"),
    ("reduce/pixel_task.py", "cloudpickle.loads"),
    ("reduce/trying.py", "pickle.loads"),
    ("reduce/wire.py", "cloudpickle.loads"),
    ("reduce/wire.py", "pickle.loads"),
    # Names that stand in the source.
    ("__init__.py", "importlib.import_module"),
    ("data/coordinates.py", "import_module"),
    ("optional.py", "importlib.import_module"),
    ("precision.py", "importlib.import_module"),
}
MAKES_FILES = {
    *(
        "open",
        "mkdir",
        "makedirs",
        "mkstemp",
        "mkdtemp",
        "mktemp",
        "NamedTemporaryFile",
        "TemporaryFile",
        "File",
    ),
    *("write_text", "write_bytes", "touch", "savez", "to_netcdf", "to_zarr"),
}
MODULES_THAT_MAY = {
    "store/place.py",  # with permissions that tests/unit/test_folder.py holds
    "store/image.py",  # HDF5 in memory only
    "map_layout.py",  # a map of parameters, where the user says
    "map_store.py",
    "reduce/allocator.py",  # /proc
}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """File, dotted name and node of every call in the package."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path.relative_to(PACKAGE).as_posix(), ast.unparse(node.func), node


def runs_code(name: str) -> bool:
    *owner, verb = name.split(".")
    loads = verb in FUNCTIONS or (verb == "load" and not LOADERS.isdisjoint(owner))
    return name in BUILTINS or (loads and name != "json.loads")


def test_nothing_else_turns_bytes_or_names_into_code() -> None:
    assert {(file, name) for file, name, _ in calls() if runs_code(name)} == ALLOWED


def test_no_call_allows_pickles() -> None:
    keywords = [(file, k.arg) for file, _, call in calls() for k in call.keywords]
    assert [file for file, name in keywords if name == "allow_pickle"] == []


def test_store_imports_nothing_that_could_run_code() -> None:
    imported = {
        alias.name.split(".")[0]
        for path in (PACKAGE / "store").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported & {"pickle", "cloudpickle", "marshal", "shelve", "importlib", "yaml", "joblib"} == set()


def test_files_are_made_in_one_module_only() -> None:
    makers = {file for file, name, _ in calls() if name.split(".")[-1] in MAKES_FILES}
    assert makers == MODULES_THAT_MAY


def test_configuration_that_holds_code_is_refused(tmp_path: Path) -> None:
    struck = tmp_path / "struck"
    text = f"dfit:\n  partition-bytes: !!python/object/apply:os.mkdir ['{struck}']\n"
    (tmp_path / "dask.yaml").write_text(text)
    with pytest.raises(ValueError, match="malformed"):
        dask.config.collect(paths=[os.fspath(tmp_path)])
    assert not struck.exists()
