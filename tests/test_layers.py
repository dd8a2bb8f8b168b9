"""The order of the tree: imports only go up this list, and examples use public names only."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import dfit

ROOT = Path(__file__).resolve().parents[1]

# From the bottom to the top; a folder stands for all of its files. A file of the package that is not
# named here belongs to the bottom: the words everyone uses, which import only each other.
LAYERS = (
    (),
    ("core",),
    ("data",),
    ("store",),
    ("reduce",),
    (
        "asking",
        "costing",
        "planned",
        "plan_warnings",
        "planning",
        "plans",
        "remembering",
        "checkpoint",
        "chronicle",
        "course",
        "evaluate",
        "fitting",
        "following",
        "guessing",
        "history",
        "identity",
        "keeping",
        "learning",
        "map_identity",
        "map_layout",
        "map_store",
        "models",
        "orchestrate",
        "outcome",
        "partitions",
        "passes",
        "pixels",
        "portable",
        "prepare",
        "progress",
        "record",
        "recovery",
        "report",
        "result",
        "resuming",
        "sampling",
        "settings",
        "shelf",
        "snapshots",
        "starts",
        "statistics",
        "warm_report",
        "warmup",
    ),
    ("face", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
NOT_IN_CORE = {"bokeh", "dask", "distributed", "h5py", "logging", "pandas", "time", "xarray", "zarr"}

MODULES = sorted(path for path in (ROOT / "dfit").rglob("*.py") if path != ROOT / "dfit" / "__init__.py")
OUTSIDE = sorted([*(ROOT / "examples").rglob("*.py"), *(ROOT / "cluster").rglob("*.py")])


def dotted(path: Path) -> str:
    """Module name of a file below the root."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def level(name: str) -> int:
    """Place of a file or folder of the package, 0 at the bottom."""
    return LEVEL.get(name, 0)


def is_type_checking(node: ast.AST) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`, whose imports never run."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports(node: ast.AST, package: str, late: bool = True) -> Iterator[str]:
    """Modules that a tree imports; with late=False only those imported when the module itself is."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
            base = ".".join([*above, *([child.module] if child.module else [])])
            yield from (f"{base}.{alias.name}" for alias in child.names)
        elif is_type_checking(child) or (
            not late and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        ):
            continue
        else:
            yield from imports(child, package, late)


def imported_by(path: Path, late: bool = True) -> set[str]:
    """Modules that a file of dfit imports."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    return set(imports(ast.parse(path.read_text()), package, late))


def identity(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=identity)
def test_imports_only_go_up_the_tree(path: Path) -> None:
    own = dotted(path).split(".")[1]
    ours = [name.split(".") for name in imported_by(path) if name.split(".")[0] == "dfit"]
    # `import dfit` and its public names stand above all.
    above = {
        ".".join(parts)
        for parts in ours
        if len(parts) == 1 or (parts[1] in dfit.__all__ and len(parts) == 2) or level(parts[1]) > level(own)
    }
    assert above == set(), f"{identity(path)} imports {', '.join(sorted(above))}, which stands above it"


@pytest.mark.parametrize("path", sorted((ROOT / "dfit" / "core").rglob("*.py")), ids=identity)
def test_core_knows_only_mathematics(path: Path) -> None:
    assert {name.split(".")[0] for name in imported_by(path)} & NOT_IN_CORE == set()


def test_no_module_waits_for_itself() -> None:
    names = {dotted(path) for path in MODULES}
    graph = {
        dotted(path): {
            known
            for name in imported_by(path, late=False)
            for known in (name, name.rpartition(".")[0])
            if known in names
        }
        for path in MODULES
    }
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == names


@pytest.mark.parametrize("path", OUTSIDE, ids=identity)
def test_outside_code_uses_public_names_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    used = {name for name in imports(tree, "") if name.split(".")[0] == "dfit"}
    used |= {
        f"dfit.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dfit"
    }
    public = {"dfit"} | {f"dfit.{name}" for name in dfit.__all__}
    public |= {f"dfit.models.{name}" for name in dfit.models.__all__}
    assert used <= public, f"{identity(path)} uses {', '.join(sorted(used - public))}"
