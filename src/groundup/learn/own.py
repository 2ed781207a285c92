"""The learner's folder: a plain Python file for each exercise, and progress.json.

A file is never overwritten: `reset` moves it aside first. progress.json records which parts passed.
It identifies a part by the hash of its file and of the files of the folder that it imports, so a
later change is detected.
"""

from __future__ import annotations

import ast
import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from groundup.errors import UserError
from groundup.learn.exercise import Exercise
from groundup.runs.files import file_hash, write_json, write_text
from groundup.runs.request import environment_facts, utc_now

FOLDER = Path("my_groundup")
_VERSIONED = ("groundup", "numpy", "torch")


class Prediction(BaseModel):
    """What the learner predicted, and how sure they were (from 0 to 1)."""

    model_config = ConfigDict(frozen=True)

    choice: str
    right: bool
    confidence: float | None = Field(None, ge=0, le=1)


class Record(BaseModel):
    """The progress on one exercise."""

    sha256: str | None = None
    """The hash of the part that passed (`part_hash`)."""
    passed: str | None = None
    """When it passed."""
    versions: dict[str, str] = {}
    tries: int = 0
    hints: int = 0
    solution_seen: bool = False
    prediction: Prediction | None = None
    answer_shown: bool = False
    """Whether an earlier pass of the part showed the answer to the prediction."""

    @property
    def judged(self) -> Prediction | None:
        """The prediction that counts: a pass shows the answer, which makes the prediction final."""
        return self.prediction if self.answer_shown or self.passed is not None else None

    def passes(self, sha256: str | None) -> None:
        """Record that the part with this hash passes now, or with None that no part does."""
        self.answer_shown = self.judged is not None
        self.sha256 = sha256
        self.passed = utc_now() if sha256 else None


class Progress(BaseModel):
    """The whole of progress.json."""

    opened: str | None = None
    """The number of the exercise last opened or checked."""
    exercises: dict[str, Record] = {}


def part_hash(path: Path) -> str:
    """The SHA-256 of a part: of its file and of all files that it imports from its folder."""
    files, left = {path}, [path]
    while left:
        new = _imported(left.pop(), path.parent) - files
        files |= new
        left += new
    if files == {path}:
        return file_hash(path)
    lines = (f"{one.relative_to(path.parent).as_posix()} {file_hash(one)}\n" for one in files)
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _imported(file: Path, folder: Path) -> set[Path]:
    """The files of `folder` that a file's import statements name, with all files of a package."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError, RecursionError):  # not valid Python: the check reports it
        return set()
    names = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    tops = {name.partition(".")[0] for name in names}
    return {
        one
        for top in tops
        for one in (folder / f"{top}.py", *(folder / top).rglob("*.py"))
        if one.is_file()
    }


@dataclass(frozen=True)
class Own:
    """The learner's folder."""

    folder: Path = FOLDER

    @property
    def option(self) -> str:
        """The option that names this folder in a command, or nothing for the default folder."""
        return "" if self.folder == FOLDER else f" --folder {shlex.quote(str(self.folder))}"

    def file(self, exercise: Exercise) -> Path:
        """The path of the learner's part for this exercise."""
        return self.folder / f"{exercise.name}.py"

    def has(self, exercise: Exercise) -> bool:
        """Whether a file for this exercise exists; an empty one does not count."""
        path = self.file(exercise)
        return path.exists() and (not path.is_file() or path.stat().st_size > 0)

    def open(self, exercise: Exercise) -> bool:
        """Write the stub if there is no file yet, and return whether it was written."""
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; name a folder with --folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        new = not self.has(exercise)
        if new:
            stub = (exercise.folder / "stub.py").read_text(encoding="utf-8")
            write_text(self.file(exercise), stub)
        progress = self.progress()
        progress.opened = exercise.number
        self._save(progress)
        return new

    def reset(self, exercise: Exercise) -> Path | None:
        """Start again with the stub; return the path of the old file, None if there was none."""
        kept = None
        if self.has(exercise):
            numbers = (n for n in range(1, 10_000))
            kept = next(
                path
                for n in numbers
                if not (path := self.folder / f"{exercise.name}.before-{n}.py").exists()
            )
            self.file(exercise).rename(kept)
        record = self.record(exercise)
        record.passes(None)
        self.keep(exercise, record)
        self.open(exercise)
        return kept

    def progress(self) -> Progress:
        """Read the progress; raise `UserError` if progress.json is damaged."""
        path = self.folder / "progress.json"
        if not path.exists():
            return Progress()
        try:
            return Progress.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise UserError(
                f"{path} is damaged ({error.errors()[0]['msg']}); move it away to begin a new one: "
                f"your files stay, and groundup learn check NUMBER{self.option} finds out again "
                "whether an exercise passes"
            ) from None
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}); check who may read it"
            ) from None

    def record(self, exercise: Exercise) -> Record:
        """The progress on an exercise."""
        return self.progress().exercises.get(exercise.name, Record())

    def keep(self, exercise: Exercise, record: Record) -> None:
        """Save the progress on an exercise, which becomes the last one opened."""
        progress = self.progress()
        progress.exercises[exercise.name] = record
        progress.opened = exercise.number
        self.folder.mkdir(parents=True, exist_ok=True)
        self._save(progress)

    def checked(
        self, exercise: Exercise, passed: bool, sha256: str, *, tried: bool = True
    ) -> Record:
        """Record the result of checking the part with this hash."""
        record = self.record(exercise)
        record.tries += tried
        record.passes(sha256 if passed else None)
        record.versions = environment_facts(_VERSIONED)["versions"]
        self.keep(exercise, record)
        return record

    def has_passed(self, exercise: Exercise) -> bool:
        """Whether the part has passed in its current form."""
        record, path = self.record(exercise), self.file(exercise)
        return record.sha256 is not None and path.is_file() and part_hash(path) == record.sha256

    def _save(self, progress: Progress) -> None:
        write_json(self.folder / "progress.json", progress.model_dump(mode="json"))
