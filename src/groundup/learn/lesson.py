"""A lesson: the sections of an exercise's lesson.md, some of them hidden until requested."""

from __future__ import annotations

import re
from dataclasses import dataclass

from groundup.learn.exercise import Exercise

SECTIONS = ("Predict", "Write", "Hints", "Why", "Watch and read")


@dataclass(frozen=True)
class Question:
    """A question to answer before anything is run; its choices are called a, b, c, …"""

    asked: str
    choices: tuple[str, ...]
    answer: str
    """The letter of the right choice."""
    why: str

    @property
    def letters(self) -> str:
        return "abcdefghij"[: len(self.choices)]

    @property
    def shown(self) -> str:
        """The question and its choices, as Markdown."""
        lettered = zip(self.letters, self.choices, strict=True)
        choices = "\n".join(f"- **{letter})** {choice}" for letter, choice in lettered)
        return f"{self.asked}\n\n{choices}"


@dataclass(frozen=True)
class Lesson:
    """A lesson's text, split where a learner should stop and think."""

    title: str
    idea: str
    question: Question
    write: str
    hints: tuple[str, ...]
    why: str
    watch: str

    @property
    def shown(self) -> str:
        """The part that is shown at once, as Markdown: everything but the answers."""
        return (
            f"# {self.title}\n\n{self.idea}\n\n## Write\n\n{self.write}\n\n"
            f"## Watch and read\n\n{self.watch}\n"
        )


def lesson_of(exercise: Exercise) -> Lesson:
    """Read an exercise's lesson."""
    return parse((exercise.folder / "lesson.md").read_text(encoding="utf-8"))


def parse(text: str) -> Lesson:
    """Split a lesson into its sections; `ValueError` names the missing ones."""
    head, *rest = re.split(r"^## +", text, flags=re.MULTILINE)
    title, _, idea = head.strip().partition("\n")
    bodies = {}
    for section in rest:
        name, _, body = section.partition("\n")
        bodies[name.strip()] = body.strip()
    missing = [name for name in SECTIONS if not bodies.get(name)]
    if missing or not title.startswith("# "):
        raise ValueError(f"the lesson lacks {missing or 'its title'}")
    return Lesson(
        title=title.removeprefix("# ").strip(),
        idea=idea.strip(),
        question=_question(bodies["Predict"]),
        write=bodies["Write"],
        hints=_numbered(bodies["Hints"]),
        why=bodies["Why"],
        watch=bodies["Watch and read"],
    )


def _question(body: str) -> Question:
    before, mark, after = re.split(r"^(answer:)", body, maxsplit=1, flags=re.MULTILINE)
    asked, *items = re.split(r"^- +", before, flags=re.MULTILINE)
    # A choice may carry its letter: "- a) …", "- (a) …", "- a: …".
    choices = tuple(" ".join(re.sub(r"^\(?[a-j][):.] +", "", item).split()) for item in items)
    answer, _, why = after.strip().partition("\n")
    answer = answer.strip().strip("().:")
    if len(answer) != 1:  # the choice itself
        answer = "abcdefghij"[choices.index(answer)]
    if not mark or len(choices) < 2 or answer not in "abcdefghij"[: len(choices)]:
        raise ValueError("a question has choices, and a line 'answer: ' with the letter of one")
    return Question(asked.strip(), choices, answer, why.strip())


def _numbered(body: str) -> tuple[str, ...]:
    return tuple(
        item.strip() for item in re.split(r"^\d+\. +", body, flags=re.MULTILINE) if item.strip()
    )
