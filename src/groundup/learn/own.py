"""The learner's folder: a plain Python file for each exercise, theirs for ever, and progress.json.

A file is never written over: `reset` puts it aside first. progress.json says which parts passed,
by the hash of the file that did, and of those beside it that it imports, so that a part that was
changed since is known to be another.
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
from groundup.runs.folder import environment_facts, utc_now

FOLDER = Path("my_groundup")
_VERSIONED = ("groundup", "numpy", "torch")


class Prediction(BaseModel):
    """What the learner said would happen, and how sure they were of it (from 0 to 1)."""

    model_config = ConfigDict(frozen=True)

    choice: str
    right: bool
    confidence: float | None = Field(None, ge=0, le=1)


class Record(BaseModel):
    """What is known of one exercise."""

    sha256: str | None = None
    """Of the part that passed (`part_hash`)."""
    passed: str | None = None
    """When it did."""
    versions: dict[str, str] = {}
    tries: int = 0
    hints: int = 0
    solution_seen: bool = False
    prediction: Prediction | None = None
    answer_shown: bool = False
    """Whether an earlier pass of the part showed the answer to the prediction."""

    @property
    def judged(self) -> Prediction | None:
        """The prediction that counts: after a pass its answer is shown, and it stays as it is."""
        return self.prediction if self.answer_shown or self.passed is not None else None

    def passes(self, sha256: str | None) -> None:
        """Take down that a part of this hash passes now; None for that it does not."""
        self.answer_shown = self.judged is not None
        self.sha256 = sha256
        self.passed = utc_now() if sha256 else None


class Progress(BaseModel):
    """The whole of progress.json."""

    opened: str | None = None
    """The number of the exercise that was opened or checked last."""
    exercises: dict[str, Record] = {}


def part_hash(path: Path) -> str:
    """The SHA-256 of a part: of its file alone, or of it and all that it imports from beside it."""
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
    """The files of a folder that a file's import statements name; of a package all."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError, RecursionError):  # no Python, which the check says
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
        """What a command needs behind it to mean this folder: nothing, or --folder."""
        return "" if self.folder == FOLDER else f" --folder {shlex.quote(str(self.folder))}"

    def file(self, exercise: Exercise) -> Path:
        """Where the learner's part of this exercise lies."""
        return self.folder / f"{exercise.name}.py"

    def has(self, exercise: Exercise) -> bool:
        """Whether there is a file of this exercise; an empty one is none."""
        path = self.file(exercise)
        return path.exists() and (not path.is_file() or path.stat().st_size > 0)

    def open(self, exercise: Exercise) -> bool:
        """Write the stub where there is no file yet, and say whether it was written."""
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
        """Begin anew with the stub; return where the old file is kept, None if there was none."""
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
        """What was done so far; `UserError` for a progress.json that is damaged."""
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
        """What is known of an exercise."""
        return self.progress().exercises.get(exercise.name, Record())

    def keep(self, exercise: Exercise, record: Record) -> None:
        """Write down what is known of an exercise, which is now the last one opened."""
        progress = self.progress()
        progress.exercises[exercise.name] = record
        progress.opened = exercise.number
        self.folder.mkdir(parents=True, exist_ok=True)
        self._save(progress)

    def checked(
        self, exercise: Exercise, passed: bool, sha256: str, *, tried: bool = True
    ) -> Record:
        """Write down that a part of this hash was checked, and how that went."""
        record = self.record(exercise)
        record.tries += tried
        record.passes(sha256 if passed else None)
        record.versions = environment_facts(_VERSIONED)["versions"]
        self.keep(exercise, record)
        return record

    def has_passed(self, exercise: Exercise) -> bool:
        """Whether the part as it now is passed."""
        record, path = self.record(exercise), self.file(exercise)
        return record.sha256 is not None and path.is_file() and part_hash(path) == record.sha256

    def _save(self, progress: Progress) -> None:
        write_json(self.folder / "progress.json", progress.model_dump(mode="json"))
