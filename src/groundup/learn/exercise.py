"""One exercise: the functions to write, the location of its pages, and its trials."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundup.learn.difference import Difference  # NumPy: not needed to list exercises

STEPS = ("mathematics", "networks", "transformers", "fine_tuning", "alignment")
TITLES = ("Mathematics", "Neural networks", "Transformers", "Fine-tuning", "Alignment")


@dataclass(frozen=True)
class Exercise:
    """A row of a step's table.

    `number` is the step and the position in it ("3.2"), `name` the folder here and the learner's
    file, `functions` the functions that the file must define. `minutes` is an estimate for learners
    who are new to the idea; `difficulty` and `importance` go from 1 to 5. `makes` says what becomes
    possible once it passes: "your own attention answers in chat".
    """

    number: str
    name: str
    title: str
    functions: tuple[str, ...]
    minutes: int
    difficulty: int
    importance: int
    makes: str

    @property
    def step(self) -> int:
        """1 to 5."""
        return int(self.number.partition(".")[0])

    @property
    def folder(self) -> Path:
        """The folder with the exercise's pages."""
        return Path(__file__).parent / STEPS[self.step - 1] / self.name

    @property
    def has_seam(self) -> bool:
        """Whether the part can enter the product."""
        return (self.folder / "seam.py").is_file()

    def page(self, name: str) -> ModuleType:
        """Import one of the exercise's pages: solution, stub, wrong, grader or seam."""
        return importlib.import_module(f"groundup.learn.{STEPS[self.step - 1]}.{self.name}.{name}")

    def __str__(self) -> str:
        return f"{self.number} {self.title}"


@dataclass(frozen=True)
class Trial:
    """One test of a part, and the product's own result for it.

    `run(part)` calls the part's function; `expected` is the result of the product's function,
    computed before the part runs. `shown` holds the inputs by name, as the learner sees them: `run`
    uses these very objects, so that changes to the inputs are detected. An element is right where
    |yours - expected| ≤ atol + rtol |expected|.
    """

    about: str
    run: Callable[[ModuleType], Any]
    expected: Any
    shown: Mapping[str, object] = field(default_factory=dict)
    rtol: float = 1e-6
    atol: float = 1e-9


class StepMissing(Exception):
    """Raised by a trial if a step other than writing code is missing; the message names it."""


class NotComparable(Exception):
    """Raised in a trial whose result cannot be compared; `difference` is reported instead."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.hint)
        self.difference = difference


def calls(
    function: str, *given: Any, at: int | None = None, via: Callable[..., Any] | None = None
) -> Callable[[ModuleType], Any]:
    """Return a trial's `run`: it calls the part's function of that name with the given arguments.

    If the function returns several results, `at` selects one. If `via` is given, it is called with
    the function and the arguments instead, for example to compute a gradient.
    """

    def run(part: ModuleType) -> Any:
        called = getattr(part, function)
        found = called(*given) if via is None else via(called, *given)
        return found if at is None else found[at]

    return run


def module_of(path: Path, name: str) -> ModuleType:
    """Run a learner's file as a module of that name, and return the module."""
    spec = importlib.util.spec_from_file_location(f"my_groundup_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up annotations there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Within the context, parts can import the other files of the learner's folder."""
    place, there = str(folder.resolve()), set(sys.modules)
    paths = [] if place in sys.path else [place]
    sys.path += paths  # last, so that no file of the learner hides a library
    try:
        yield
    finally:
        for path in paths:
            sys.path.remove(path)
        # The next import reads the files again.
        for name in set(sys.modules) - there:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(place):
                del sys.modules[name]


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Replace an attribute of the product within the context: this is how a seam inserts a part."""
    before = inspect.getattr_static(owner, name)  # a static method stays one
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
