"""Names of earlier releases: they work for one release more, and a warning says the new name.

`MODULES` says for each page that is gone where its contents stand today, `NAMES` what was renamed.
A finder at the very end of Python's import path answers for those pages alone, so a module that
exists costs nothing. Delete an entry, or this whole page, when its release is over.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType

# Read before every command, so without what loading `typing` costs.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


# A page that is gone, without `groundup.`: the pages that hold its contents now.
MODULES: dict[str, tuple[str, ...]] = {
    "maths.autograd": ("maths.tensor",),
    "maths.changes": ("maths.tensor",),
    "maths.layout": ("maths.graph.layout",),
    "maths.optimise": ("maths.optimize",),
    "maths.style": ("maths.graph.draw",),
    "maths.values": ("maths.arrays", "maths.tensor"),
}
# An old name of a public function or class: its name now.
NAMES: dict[str, str] = {
    "minimise": "minimize",
    "recording": "set_grad_enabled",
}


def renamed(module: str, name: str) -> Any:
    """The value of an old `name` of a module or package: what its `__getattr__` falls back on.

    Raises AttributeError for names that never were.
    """
    if name in NAMES and hasattr(home := sys.modules[module], NAMES[name]):
        _warn(f"{module}.{name}", f"{module}.{NAMES[name]}")
        return getattr(home, NAMES[name])
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


class _Moved:
    """Finds the pages of `MODULES`, each as a module that looks its names up in the new homes."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        root, _, page = fullname.partition(".")
        if root != "groundup" or page not in MODULES:
            return None
        # A folder that is gone had pages, which are imported through it.
        return ModuleSpec(fullname, self, is_package=any(p.startswith(f"{page}.") for p in MODULES))  # type: ignore[arg-type]  # a loader by its methods

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Page(spec.name, [f"groundup.{home}" for home in MODULES[spec.name[9:]]])

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Page(ModuleType):
    """A page that is gone: whatever is asked of it is looked up where it stands now."""

    def __init__(self, name: str, homes: Sequence[str]) -> None:
        super().__init__(name, f"Moved to {' and '.join(homes)}.")
        self.__dict__["_homes"] = homes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for known in (name, NAMES.get(name, name)):
            for home in self._homes:
                if hasattr(page := importlib.import_module(home), known):
                    _warn(f"{self.__name__}.{name}", f"{home}.{known}")
                    return getattr(page, known)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=3)


def install() -> None:
    """Let the pages of earlier releases be imported; a second call changes nothing."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
