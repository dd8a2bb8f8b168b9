"""What a function reads besides its arguments: names in its bytecode, and the values behind them."""

from __future__ import annotations

import builtins
import dis
import functools
import importlib.metadata
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

STANDARD_LIBRARY = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
SITE_PACKAGES = ("site-packages", "dist-packages")


class Names(NamedTuple):
    """Names that a code object and those inside it read, sorted."""

    globals: tuple[str, ...]
    attributes: tuple[str, ...]
    modules: tuple[str, ...]


@functools.lru_cache(maxsize=1024)
def names_read(code: types.CodeType) -> Names:
    """Global names, attribute names and imported modules that `code` reads.

    Only loads count: a name that is merely assigned or used as an attribute is no global read.
    """
    found: dict[str, set[str]] = {"global": set(), "attribute": set(), "module": set()}
    for instruction in dis.get_instructions(code):
        name = instruction.argval
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found["global"].add(name)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"):
            found["attribute"].add(name)
        elif instruction.opname == "IMPORT_NAME":
            found["module"].add(name)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names_read(constant)
            found["global"].update(inner.globals)
            found["attribute"].update(inner.attributes)
            found["module"].update(inner.modules)
    return Names(*(tuple(sorted(found[kind])) for kind in ("global", "attribute", "module")))


def free_values(func: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Name and value of everything that a Python function reads and is not given as an argument.

    Defaults, closure, globals, and attributes of the user's own modules (``settings.SCALE``); a name
    that is not (yet) defined has the value `MISSING`.
    """
    names = names_read(func.__code__)
    found = [(name, func.__globals__.get(name, MISSING)) for name in names.globals]
    package = func.__globals__.get("__package__") or ""
    for name in names.modules:  # a relative import names only what is below the package
        found.append((name, sys.modules.get(name) or sys.modules.get(f"{package}.{name}", MISSING)))
    for name, value in [*closure_values(func), *found]:
        if value is MISSING and hasattr(builtins, name):
            continue
        if isinstance(value, types.ModuleType):
            yield from _module_values(name, value, names.attributes)
        else:
            yield name, value


def closure_values(func: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Name and value of the defaults and of the closure of a Python function."""
    for position, value in enumerate(func.__defaults__ or ()):
        yield f"default {position}", value
    for name, value in sorted((func.__kwdefaults__ or {}).items()):
        yield f"default {name}", value
    for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=True):
        yield name, _content(cell)


MISSING = "this name is not defined"


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is assigned later
        return MISSING


def _module_values(
    path: str, module: types.ModuleType, attributes: tuple[str, ...], seen: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """Values of a user's own module under the attribute names that the code reads; a module itself else.

    Every attribute name of the code is looked up in every module of the user's that it names, so a
    value too many may be found, never one too few.
    """
    if installed(module.__name__) or module.__name__ in seen:
        yield path, module
        return
    for name in attributes:
        if name not in vars(module):
            continue
        value = vars(module)[name]
        if isinstance(value, types.ModuleType):
            yield from _module_values(f"{path}.{name}", value, attributes, (*seen, module.__name__))
        else:
            yield f"{path}.{name}", value


@functools.lru_cache(maxsize=4096)
def installed(module_name: str) -> bool:
    """Whether a module belongs to Python or to an installed distribution, not to the user."""
    root = module_name.partition(".")[0]
    if root == "dfit" or root in sys.builtin_module_names:
        return True
    if root == "__main__":
        return False
    module = sys.modules.get(root)
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    if any(place is not None and installed_file(place) for place in places):
        return True
    return root in sys.stdlib_module_names


@functools.lru_cache(maxsize=4096)
def installed_file(name: str) -> bool:
    """Whether a file belongs to Python, to an installed distribution or to dfit itself."""
    path = Path(name).resolve()
    if path.is_relative_to(Path(__file__).parent) or any(part in SITE_PACKAGES for part in path.parts):
        return True
    return name.startswith("<frozen") or any(path.is_relative_to(library) for library in STANDARD_LIBRARY)


@functools.lru_cache(maxsize=256)
def version(module_name: str) -> str:
    """Version of the distribution that a module came with, Python's for the standard library."""
    root = module_name.partition(".")[0]
    names = importlib.metadata.packages_distributions().get(root, [root])
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(root), "__version__", sys.version_info[:3]))


def by_reference(value: Any) -> str | None:
    """Qualified name of what an installed module holds under that very name, else None."""
    module_name = getattr(value, "__module__", None)
    path = getattr(value, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(path, str) or not installed(module_name):
        return None
    found: Any = sys.modules.get(module_name)
    for part in path.split("."):
        found = getattr(found, part, None)
    return f"{module_name}.{path}" if found is value else None


def inner_function(value: Any) -> Any:
    """The Python function inside a wrapper object (`jax.jit`, `functools.lru_cache`), None if it is none."""
    if isinstance(value, (type, types.FunctionType)):
        return None
    inner = getattr(value, "__wrapped__", None)
    if inner is None and type(value).__name__ == "PjitFunction":
        inner = value.__getstate__()["fun"]  # one that was pickled has lost its __wrapped__
    return inner if callable(inner) else None


def captured(func: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of everything that a callable reads, helpers and their reads included.

    Only values that are neither functions nor modules are given.
    """
    pending: list[tuple[str, Any]] = [("model", func)]
    seen: dict[int, Any] = {}
    while pending:
        name, value = pending.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        value = inner_function(value) or value
        if isinstance(value, functools.partial):
            pending += [(name, value.func), *value.keywords.items()]
            pending += [(f"argument {i} of a partial", v) for i, v in enumerate(value.args)]
        elif isinstance(value, types.MethodType):
            pending += [(name, value.__func__), (name, value.__self__)]
        elif isinstance(value, types.FunctionType):
            if by_reference(value) is None:
                pending += list(free_values(value))
        elif isinstance(value, (list, tuple)):
            pending += [(name, item) for item in value]
        elif isinstance(value, dict):
            pending += [(f"{name}[{key!r}]", item) for key, item in value.items()]
        elif not isinstance(value, (type, types.ModuleType)):
            yield name, value
            own = getattr(value, "__dict__", None)
            if own and not installed(type(value).__module__):
                methods = (item for base in type(value).__mro__ for item in vars(base).values())
                pending += [(name, item) for item in methods if isinstance(item, types.FunctionType)]
                pending += [(f"{name}.{key}", item) for key, item in own.items()]
