"""One exercise: what is to be written, where its pages lie, and what a trial of it is."""

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
    from groundup.learn.difference import Difference  # NumPy, which a list of exercises needs not

STEPS = ("mathematics", "networks", "transformers", "fine_tuning", "alignment")
TITLES = ("Mathematics", "Neural networks", "Transformers", "Fine-tuning", "Alignment")


@dataclass(frozen=True)
class Exercise:
    """A row of a step's table.

    `number` is the step and the place in it ("3.2"), `name` the folder here and the learner's
    file, `functions` what the file must define. `minutes` is for somebody who meets the idea for
    the first time; `difficulty` and `importance` go from 1 to 5. `makes` says what becomes
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
        """Where the exercise's pages lie."""
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
    """One question put to a part, and the product's own answer to it.

    `run(part)` calls the part's function; `expected` is what the product's function gives, made
    before the part runs. `shown` holds the inputs by name, as the learner is shown them: `run`
    uses these very objects, so that a part that changes its inputs is found out. An element is
    right where |yours - expected| ≤ atol + rtol |expected|.
    """

    about: str
    run: Callable[[ModuleType], Any]
    expected: Any
    shown: Mapping[str, object] = field(default_factory=dict)
    rtol: float = 1e-6
    atol: float = 1e-9


class StillToCome(Exception):
    """Raised by a trial of what the learner has not done yet, beside writing: what it is."""


class Unfit(Exception):
    """Raised in a trial whose result cannot be compared at all: what is told instead."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.hint)
        self.difference = difference


def calls(
    function: str, *given: Any, at: int | None = None, via: Callable[..., Any] | None = None
) -> Callable[[ModuleType], Any]:
    """A trial's `run`: the part's function of that name, called with what is given.

    Of several results the one `at` that place counts. `via` is called with the function and what is
    given instead, to find a gradient for example.
    """

    def run(part: ModuleType) -> Any:
        called = getattr(part, function)
        found = called(*given) if via is None else via(called, *given)
        return found if at is None else found[at]

    return run


def module_of(path: Path, name: str) -> ModuleType:
    """Run a file of the learner's as a module of that name, and return it."""
    spec = importlib.util.spec_from_file_location(f"my_groundup_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up what annotations name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let parts import the files beside them, for a while: they may use each other."""
    place, there = str(folder.resolve()), set(sys.modules)
    paths = [] if place in sys.path else [place]
    sys.path += paths  # last, so that no file of the learner's hides a library
    try:
        yield
    finally:
        for path in paths:
            sys.path.remove(path)
        # The next time they are read anew, as they are then.
        for name in set(sys.modules) - there:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(place):
                del sys.modules[name]


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Put another value at the product's name for a while: how a seam lets a part in."""
    before = inspect.getattr_static(owner, name)  # a static method stays one
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
