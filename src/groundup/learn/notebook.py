"""An exercise as a Jupyter notebook: the lesson, the learner's file shown, the check.

Running all cells changes nothing and reveals no answer: the lines that predict, load the file, or
show hints and the solution are comments that the learner uncomments.
"""

from __future__ import annotations

import json
from typing import Any

from groundup.learn.exercise import Exercise
from groundup.learn.lesson import lesson_of
from groundup.learn.own import Own


def notebook(exercise: Exercise, own: Own) -> str:
    """The notebook as JSON (nbformat 4.5).

    Jupyter runs a notebook in its own folder, here the learner's, so paths are relative to it. The
    cells show and check the learner's own file, so notebook and terminal agree.
    """
    lesson = lesson_of(exercise)
    file = own.file(exercise).name
    groundup, folder = "!{sys.executable} -m groundup learn", "--folder ."
    number = exercise.number
    cells = [
        _text(f"# {lesson.title}\n\n{lesson.idea}"),
        _text(
            f"## Predict\n\n{lesson.question.shown}\n\n"
            "Replace LETTER by your choice, remove the #, and run the cell."
        ),
        _code(f"import sys\n\n# {groundup} predict {number} LETTER --sure 60 {folder}"),
        _text(
            f"## Write\n\n{lesson.write}\n\nThe next cell shows your file, `{file}`, which is in "
            "the folder of this notebook: edit it there. To write here instead, remove the # from "
            "the cell after it and run that cell, which loads the file; with "
            f"`%%writefile {file}` as its first line the cell then writes the file."
        ),
        _code(f'from pathlib import Path\n\nprint(Path("{file}").read_text(encoding="utf-8"))'),
        _code(f"# %load {file}"),
        _code(f"{groundup} check {number} {folder}"),
        _text(
            "If you are stuck, there are three hints, each more explicit than the last. After a "
            "try you can see the solution. Remove the # to see them."
        ),
        _code(f"# {groundup} hint {number} {folder}"),
        _code(f"# {groundup} solution {number} {folder}"),
        _text(f"## Watch and read\n\n{lesson.watch}"),
    ]
    for place, cell in enumerate(cells):
        cell["id"] = f"{exercise.name.replace('_', '-')}-{place}"
    return json.dumps(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {
                "kernelspec": {
                    "name": "python3",
                    "display_name": "Python 3",
                    "language": "python",
                },
                "language_info": {"name": "python"},
            },
            "cells": cells,
        },
        indent=1,
        ensure_ascii=False,
    )


def _text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def _code(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "metadata": {},
        "source": source,
        "execution_count": None,
        "outputs": [],
    }
