"""Digest: a content hash of any value, the same in every process.

It follows functions into what they read, objects into their parts and traced programs into their
inner programs.  Memory addresses, line numbers, the hash seed and the names of the user's own modules
do not enter; installed packages enter by version, if that is wanted.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import hashlib
import re
import types
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import scipy.special
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from dfit.captured import by_reference, closure_values, free_values, inner_function, installed, version

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
UNTOLD = frozenset({"name", "debug_info", "ctx_mesh"})  # parameters of a primitive that change no value


class Digest:
    """Content hash of values; remembers what it has seen, for speed and against endless recursion.

    Attributes
    ----------
    versions : bool
        Whether installed packages enter by version, or by name alone.
    complete : bool
        False once a value had no content to speak of (an open file, a generator): its hash is new
        every time.
    """

    def __init__(self, versions: bool = True) -> None:
        self.versions = versions
        self.complete = True
        self._known: dict[int, str] = {}
        self._keep: list[Any] = []  # an id is only good while its object lives

    def of(self, value: Any) -> str:
        """Hash (hex) of any value."""
        if id(value) in self._known:
            return self._known[id(value)]
        self._keep.append(value)
        self._known[id(value)] = f"inside itself: {type(value).__qualname__}"
        result = self._known[id(value)] = hashlib.sha256(self._content(value)).hexdigest()
        return result

    def _join(self, kind: str, *parts: Any) -> bytes:
        return "\n".join([kind, *(self.of(part) for part in parts)]).encode()

    def _content(self, value: Any) -> bytes:
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, types.EllipsisType)):
            return f"{type(value).__qualname__} {value!r}".encode()
        for kinds, content in _KINDS:
            if isinstance(value, kinds):
                return content(self, value)
        inner = inner_function(value)
        if inner is not None:
            return self._join(type(value).__qualname__, inner)
        reference = by_reference(value)
        if reference is not None:
            return f"installed {reference} {self._version(value.__module__)}".encode()
        return self._object(value)

    def _array(self, value: Any) -> bytes:
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
            return self._join("key", str(value.dtype), jax.random.key_data(value))
        array = np.asarray(value)
        if array.dtype.kind == "O":
            return self._join("objects", array.shape, array.ravel().tolist())
        head = f"array {array.dtype.name} {array.dtype.str} {array.shape} "
        return head.encode() + np.ascontiguousarray(array).tobytes()

    def _sequence(self, value: Any) -> bytes:
        return self._join(type(value).__qualname__, *value)

    def _mapping(self, value: Mapping[Any, Any]) -> bytes:
        pairs = sorted((self.of(key), self.of(item)) for key, item in value.items())
        return f"{type(value).__qualname__} {pairs}".encode()

    def _set(self, value: frozenset[Any]) -> bytes:
        return f"{type(value).__qualname__} {sorted(self.of(item) for item in value)}".encode()

    def _code(self, code: types.CodeType) -> bytes:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        exceptions = code.co_exceptiontable
        return self._join("code", code.co_code, *counts, *names, exceptions, code.co_consts)

    def _version(self, module: str) -> str:
        return version(module) if self.versions else ""

    def _function(self, func: types.FunctionType) -> bytes:
        reference = by_reference(func)
        if reference is not None:
            return f"installed {reference} {self._version(func.__module__)}".encode()
        if installed(func.__module__ or ""):  # made by an installed function, such as jax.vmap
            made_by = f"{func.__module__}.{func.__qualname__} {self._version(func.__module__)}"
            return self._join(made_by, *(value for _, value in closure_values(func)))
        return self._join("function", func.__code__, *(part for pair in free_values(func) for part in pair))

    def _method(self, method: types.MethodType) -> bytes:
        return self._join("method", method.__func__, method.__self__)

    def _partial(self, value: functools.partial[Any]) -> bytes:
        return self._join("partial", value.func, value.args, value.keywords)

    def _ufunc(self, value: np.ufunc) -> bytes:
        for home in (np, scipy.special):
            if getattr(home, value.__name__, None) is value:
                return f"ufunc {value.__name__} {self._version(home.__name__)}".encode()
        return self._unknown(value)  # from np.frompyfunc: its function cannot be seen

    def _vectorize(self, value: np.vectorize) -> bytes:
        return self._join("vectorize", value.pyfunc, value.signature, value.otypes, value.excluded)

    def _builtin(self, value: types.BuiltinFunctionType) -> bytes:
        owner = value.__self__
        if owner is None or isinstance(owner, types.ModuleType):
            return f"builtin {value.__module__}.{value.__qualname__}".encode()
        return self._join("builtin", value.__qualname__, owner)

    def _module(self, value: types.ModuleType) -> bytes:
        known = self._version(value.__name__) if installed(value.__name__) else ""
        return f"module {value.__name__} {known}".encode()

    def _class(self, value: type) -> bytes:
        if installed(value.__module__):
            return f"class {value.__module__}.{value.__qualname__} {self._version(value.__module__)}".encode()
        own = {
            name: item
            for name, item in vars(value).items()
            if name != "_abc_impl" and (not name.startswith("__") or isinstance(item, types.FunctionType))
        }
        return self._join(f"class {value.__qualname__}", *value.__bases__, own)

    def _wrapper(self, value: Any) -> bytes:
        parts = (value.fget, value.fset) if isinstance(value, property) else (value.__func__,)
        return self._join(type(value).__qualname__, *parts)

    def _enum(self, value: enum.Enum) -> bytes:
        return f"enum {type(value).__qualname__}.{value.name}".encode()

    def _program(self, value: ClosedJaxpr) -> bytes:
        return self._join("program", value.jaxpr, *value.consts)

    def _jaxpr(self, jaxpr: Jaxpr) -> bytes:
        numbers: dict[Any, int] = {}

        def told(atom: Any) -> str:
            if isinstance(atom, Literal):
                return f"{atom.aval} {self.of(atom.val)}"
            return f"{numbers.setdefault(atom, len(numbers))}: {atom.aval}"

        lines = [" ".join(told(v) for v in (*jaxpr.constvars, *jaxpr.invars))]
        for equation in jaxpr.eqns:
            parameters = [
                f"{name}={self.of(item)}"
                for name, item in sorted(equation.params.items())
                if name not in UNTOLD
            ]
            atoms = [told(atom) for atom in (*equation.invars, *equation.outvars)]
            lines.append(" ".join([equation.primitive.name, *atoms, *parameters]))
        lines.append(" ".join(told(v) for v in jaxpr.outvars))
        return "\n".join(lines).encode()

    def _object(self, value: Any) -> bytes:
        """An instance, by the parts that pickle would take; objects inside JAX by their text."""
        if type(value).__module__.startswith(("jax._src", "jaxlib")):
            if hasattr(value, "__array__") and hasattr(value, "dtype"):
                return self._array(value)
            callback = getattr(value, "callback_func", None)
            return self._join(ADDRESS.sub("", repr(value)), callback)
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            parts = reduce(value) if reduce else value.__reduce_ex__(4)
        except TypeError:  # what cannot be pickled
            return self._unknown(value)
        if isinstance(parts, str):
            return f"{type(value).__module__}.{parts}".encode()
        return self._join(type(value).__qualname__, *(self._listed(part) for part in parts))

    @staticmethod
    def _listed(part: Any) -> Any:
        """Items that a pickle iterates over, as a list."""
        return list(part) if hasattr(part, "__next__") else part

    def _unknown(self, value: Any) -> bytes:
        self.complete = False
        return f"{type(value).__qualname__} {uuid.uuid4().hex}".encode()


_KINDS: tuple[tuple[Any, Callable[[Digest, Any], bytes]], ...] = (
    ((np.ndarray, np.generic, jax.Array), Digest._array),
    (enum.Enum, Digest._enum),
    ((dict, types.MappingProxyType), Digest._mapping),
    ((set, frozenset), Digest._set),
    ((tuple, list), Digest._sequence),
    (ClosedJaxpr, Digest._program),
    (Jaxpr, Digest._jaxpr),
    (types.CodeType, Digest._code),
    (types.FunctionType, Digest._function),
    (types.MethodType, Digest._method),
    (functools.partial, Digest._partial),
    (np.ufunc, Digest._ufunc),
    (np.vectorize, Digest._vectorize),
    (types.BuiltinFunctionType, Digest._builtin),
    (types.ModuleType, Digest._module),
    (type, Digest._class),
    ((staticmethod, classmethod, property), Digest._wrapper),
)
