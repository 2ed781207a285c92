"""`groundup data inspect`: one's own data as a model gets to see it, printed and as a page."""

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
    """Print what `groundup sft` would read of these files, and write it as a page if one is named.

    Raises `UserError` for files that cannot be read at all; bad lines are what is to be seen.
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
    with encoding_bar(len(data.train)) as progress:
        found = measured(data, tokenizer, context=context, examples=examples, progress=progress)
    if config.context is None and found.most:
        # As fine-tuning then has it: rows that hold the longest, of which nothing more is cut.
        found = replace(found, context=layout.row_length(found.most, context)[0])
    title = " + ".join(files)
    # First, since whoever reads what is printed may stop reading.
    if html is not None:
        write_inspection(html, title, name, found)
    say_inspection(title, name, found)
    if html is not None:
        say(f"\nPage: {html}")
    if not found.usable:
        raise UserError(f"{title} holds no row to train on; what is wrong is told above, mend that")
