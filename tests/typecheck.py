"""Run-time checks of shapes and types in tests.

In the default suite `check_shapes` checks the functions and dataclasses that have a shape in their
annotations, by jaxtyping; `mypy` checks the other types. It checks calls with the same dtypes and
shapes once, since a check takes longer than many a small function. `make test-typed` checks every
call of every function by jaxtyping's own import hook, which takes several times as long. The
checker of both is beartype, where an int may stand for a float (PEP 484).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import sys
import zlib
from collections.abc import Callable, Hashable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from threading import Lock
from types import FunctionType, ModuleType
from typing import Any, TypeVar, get_args

import jaxtyping
import numpy as np
import torch
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

T = TypeVar("T")

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checker(thing: T) -> T:
    """`thing` with its types checked; beartype cannot check a method that returns `Self`."""
    try:
        return _checked(thing)
    except BeartypeDecorHintPep673Exception:
        return thing


def check_shapes(*packages: str) -> None:
    """Check shapes in all modules of `packages` that are imported from now on.

    With `--jaxtyping-packages`, jaxtyping's own hook checks them and all other types instead.
    """
    if not any(type(finder).__module__.startswith("jaxtyping.") for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(packages))


def shaped(thing: Any) -> Any:
    """`thing`, a function or a class, checked if its annotations have a shape."""
    values = vars(sys.modules[thing.__module__])
    words = re.findall(r"\w+", " ".join(map(str, getattr(thing, "__annotations__", {}).values())))
    if not any(_has_shape(values.get(word)) for word in words):
        return thing
    if not isinstance(thing, type):
        return _checked_once(thing)
    if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
        thing.__init__ = _checked_once(thing.__init__)
    return thing


def _checked_once(function: Any) -> Callable[..., Any]:
    """`function`, whose arguments and result are checked after each call of a new kind.

    A check depends on nothing of a tensor but its dtype and shape, and of other values on their
    types.
    """
    returned, lock, met = list[Any](), Lock(), set[Hashable]()

    @functools.cache  # once, and not for functions that no test calls
    def checked() -> Callable[..., Any]:
        def known(*args: Any, **named: Any) -> Any:
            return returned[0]

        # The function's annotations are strings, which are names of its own module.
        known = FunctionType(known.__code__, function.__globals__, closure=known.__closure__)
        return jaxtyping.jaxtyped(functools.wraps(function)(known), typechecker=checker)

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        result = function(*args, **named)
        if torch.compiler.is_compiling() or jaxtyping.config.jaxtyping_disable:
            return result
        kind = (
            _kind(result),
            *map(_kind, args),
            *((name, _kind(one)) for name, one in named.items()),
        )
        if kind not in met:
            with lock:
                returned[:] = [result]
                checked()(*args, **named)
                returned.clear()
            met.add(kind)
        return result

    return call


def _kind(value: Any) -> Hashable:
    """What a check of this value depends on."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return type(value), value.dtype, value.shape
    if isinstance(value, (list, tuple, dict)):
        items = value.values() if isinstance(value, dict) else value
        types = frozenset(map(type, items))
        return type(value), types if types <= _PLAIN else tuple(map(_kind, items))
    return type(value)


_PLAIN = frozenset({bool, int, float, str, bytes, type(None)})


def _has_shape(annotation: object) -> bool:
    """`Float`, and an alias that is or contains `Float[Tensor, "rows"]`."""
    if getattr(annotation, "__module__", None) == "jaxtyping":
        return True
    parts = annotation if isinstance(annotation, list) else get_args(annotation)
    return any(map(_has_shape, parts))


class _Decorator(ast.NodeTransformer):
    """Decorates every function, inside its other decorators, and every class, outside of them."""

    def _visit(self, node: Any) -> Any:
        self.generic_visit(node)
        decorator = ast.parse('__import__("typecheck").shaped', mode="eval").body
        end = 0 if isinstance(node, ast.ClassDef) else len(node.decorator_list)
        node.decorator_list.insert(end, ast.copy_location(decorator, node))
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _visit


class _Loader(SourceFileLoader):
    """Compiles the decorated source and caches it separately from the plain one."""

    _tag = f".shapes-{zlib.crc32(Path(__file__).read_bytes()):x}.pyc"

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        tree = _Decorator().visit(ast.parse(data, path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)

    def get_data(self, path: str) -> bytes:
        return super().get_data(path.replace(".pyc", self._tag))

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        super().set_data(path.replace(".pyc", self._tag), data, _mode=_mode)


class _Finder(MetaPathFinder):
    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(f"{fullname}.".startswith(f"{package}.") for package in self._packages):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec
