"""The tokenizer stage: byte-level BPE from the training split alone.

Held-out text does not influence the vocabulary, which would flatter every model's bits per byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import MofNCompleteColumn

from groundup.data.config import TokenizerConfig
from groundup.data.corpus import documents
from groundup.data.split import on_disk
from groundup.runs.console import progress, say
from groundup.runs.folder import Run
from groundup.text.bpe import train_bpe
from groundup.text.tokenizer import Tokenizer


def run(config: TokenizerConfig) -> Path:
    """Train a tokenizer and return its folder. Raises `UserError` for text that cannot be used."""
    with Run.open(config.out, "tokenizer", config, {"data": on_disk(config.data)}) as run:
        if run.finished:
            return run.folder
        texts = documents(config.data)
        texts.say_set_aside()
        with _bar(config.vocab_size) as done:
            bpe = train_bpe(
                (document.text for document in texts.train), config.vocab_size, progress=done
            )
        tokenizer = Tokenizer.from_bpe(bpe)
        tokenizer.save(run.folder)
        size = sum(len(document.text.encode()) for document in texts.train)
        say(f"tokenizer: {tokenizer.vocab_size:,} tokens from {size / 1e6:.1f} MB of training text")
        if tokenizer.vocab_size < config.vocab_size:
            say(
                f"  fewer than the {config.vocab_size:,} requested: every word of the text is one "
                "token already; more text gives more"
            )
        run.finish(vocab_size=tokenizer.vocab_size, bytes=size)
        return run.folder


@contextmanager
def _bar(tokens: int) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over the learned tokens; gives a function to call with their number."""
    bar = progress(MofNCompleteColumn())
    task = bar.add_task("learning tokens", total=tokens)
    with bar:
        yield lambda done, _: bar.update(task, completed=done)
