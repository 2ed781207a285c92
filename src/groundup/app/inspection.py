"""`groundup data inspect`: the user's own data as a model reads it, printed and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from groundup.data.dataset import load_dataset
from groundup.data.inspection import inspect as measured
from groundup.data.inspection_report import (
    encoding_bar,
    is_inspection,
    say_inspection,
    write_inspection,
)
from groundup.errors import UserError
from groundup.formats.load import load_config, load_tokenizer
from groundup.runs.console import say
from groundup.runs.files import files_of, writable
from groundup.text.rows import Conversation
from groundup.tune import layout, prepare
from groundup.tune.config import SFTConfig


def inspect(
    files: Sequence[str],
    config: SFTConfig,
    name: str,
    model: Path,
    *,
    examples: int,
    html: Path | None,
    force: bool = False,
) -> None:
    """Print what `groundup sft` would read from these files, and write a page if `html` is given.

    Raises `UserError` for unreadable files; bad lines are part of the report.
    """
    if html is not None:
        inputs = files_of(*map(Path, files), model)
        writable(html, "--html", inputs=inputs, force=force, ours=is_inspection)
    context = prepare.row_length(config, load_config(model))
    tokenizer = load_tokenizer(model)
    data = load_dataset(
        files, columns=config.column_names, validation=config.validation, refuse=False
    )
    if any(isinstance(row, Conversation) for row in data.train):
        tokenizer = tokenizer.able_to_chat()
        if tokenizer.chat_template is None:  # as in fine-tuning
            tokenizer = tokenizer.with_chat_tokens()
    with encoding_bar(len(data.train)) as progress:
        found = measured(data, tokenizer, context=context, examples=examples, progress=progress)
    if config.context is None and found.most:
        # As in fine-tuning: rows that fit the longest example, so nothing more is cut.
        found = replace(found, context=layout.row_length(found.most, context)[0])
    title = " + ".join(files)
    # The page first: the reader of standard output may close the pipe.
    if html is not None:
        write_inspection(html, title, name, found)
    say_inspection(title, name, found)
    if html is not None:
        say(f"\nPage: {html}")
    if not found.usable:
        raise UserError(f"{title} has no row to train on; correct the errors listed above")
