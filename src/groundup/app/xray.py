"""`groundup xray`: a page that shows what a model does with a text, and a summary of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from groundup.errors import UserError
from groundup.formats.folder import StoredModel
from groundup.formats.load import open_model
from groundup.formats.locate import is_adapter, is_named
from groundup.generation.request import opening_ids
from groundup.runs.console import counted, say
from groundup.runs.files import files_of, read_json_object, read_lines, writable
from groundup.text.chat import encode_chat
from groundup.text.tokenizer import Tokenizer
from groundup.xray.look import MAX_TOKENS, text_ids, token_text, xray
from groundup.xray.page import View, is_xray, write_xray, xray_html
from groundup.xray.snapshots import load_snapshot, snapshot_steps
from groundup.xray.trace import Head, check_heads


def look(
    folder: Path,
    text: str | None,
    *,
    name: str,
    chat: bool,
    without: Sequence[str],
    against: tuple[Path, str] | None,
    tokens: int,
    out: Path,
    force: bool = False,
) -> None:
    """Write the page and print a summary.

    `name` is the user's name for the model in `folder`; `against` is another model's folder and
    name. Raises `UserError` for invalid inputs, before any work.
    """
    others = [] if against is None else [against[0]]
    writable(out, "--out", inputs=files_of(folder, *others), force=force, ours=is_xray)
    title, views, tokenizer = _views(
        folder, text, name=name, chat=chat, without=without, against=against, tokens=tokens
    )
    _say(views)
    size = write_xray(out, title, views, lambda id: token_text(tokenizer, id))
    say(f"Page:        {out} ({size / 1e6:.1f} MB)")


def page(
    folder: Path, text: str, *, name: str, chat: bool, links: Sequence[tuple[str, str]] = ()
) -> str:
    """Return the page about a folder's model and a text as HTML; `links` lead to other pages."""
    _, views, tokenizer = _views(folder, text, name=name, chat=chat)
    return xray_html(name, views, lambda id: token_text(tokenizer, id), links)


def _views(
    folder: Path,
    text: str | None,
    *,
    name: str,
    chat: bool,
    without: Sequence[str] = (),
    against: tuple[Path, str] | None = None,
    tokens: int = MAX_TOKENS,
) -> tuple[str, list[View], Tokenizer]:
    """Return a page's title and views, and the tokenizer that read the text."""
    stored, other = open_model(folder), None if against is None else open_model(against[0])
    heads = list(dict.fromkeys(_head(one) for one in without))
    check_heads(stored.config, heads)
    tokenizer = stored.tokenizer
    if text is None:
        ids = _last_sample(folder, stored)
    else:
        ids = text_ids(stored.config, tokenizer, text, chat=chat)
    if other is not None and against is not None:
        _require_same_tokens(tokenizer, other, against[1])

    # Views are compared token by token, so the shortest context limits them all.
    models = [stored] if other is None else [stored, other]
    most = min(tokens, *(one.config.max_position_embeddings for one in models))
    model = stored.model(torch.float32)
    first = xray(model, ids, tokenizer, most_tokens=most)
    alike = partial(
        xray, text=first.ids.tolist(), tokenizer=tokenizer, answer=int(first.answers[-1])
    )
    views = [View(_short(name), first)]
    if heads:
        named = " and ".join(f"{layer}.{head}" for layer, head in heads)
        removed = named if len(heads) < 4 else counted(len(heads), "head")
        views.append(View(f"without {removed}", alike(model, without=heads)))
    title = views[0].name
    if other is not None and against is not None:
        seen = alike(other.model(torch.float32))
        views.append(View(_short(against[1], not_like=title), seen))
        title += f" and {views[-1].name}"
    steps = [] if is_adapter(folder) or folder.is_file() else snapshot_steps(folder)
    for step in steps:
        views.append(View(f"step {step}", alike(load_snapshot(folder, step, stored.config)), step))
    return title, views, tokenizer


def _head(word: str) -> Head:
    """Parse LAYER.HEAD from the command line."""
    if not re.fullmatch(r"\d{1,4}\.\d{1,4}", word, re.ASCII):
        raise UserError(f"--without={word!r} must be LAYER.HEAD, both counted from 0, such as 1.3")
    layer, _, head = word.partition(".")
    return int(layer), int(head)


def _last_sample(folder: Path, stored: StoredModel) -> list[int]:
    """The tokens of the last sample that a run logged during training, with its prompt."""
    log, about = folder / "samples.jsonl", folder / "run.json"
    samples = read_lines(log) if log.is_file() and about.is_file() else []
    spoken = [(one.get("prompt"), one.get("text")) for one in samples]
    found = [(str(a), str(b)) for a, b in spoken if isinstance(a, str) and isinstance(b, str)]
    if not found:
        raise UserError(
            'there is no text to read; give one in quotes: --text "The sea is wide, the sea"'
        )
    prompt, said = found[-1]
    traits = read_json_object(about).get("traits")
    if isinstance(traits, dict) and traits.get("chats"):
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": said}]
        return encode_chat(stored.tokenizer, messages).ids
    return opening_ids(stored.config, stored.tokenizer) + stored.tokenizer.encode(prompt + said)


def _require_same_tokens(tokenizer: Tokenizer, other: StoredModel, name: str) -> None:
    """Raise `UserError` for a model with another vocabulary: its tokens cannot be compared."""
    theirs = other.tokenizer
    ids = range(max(tokenizer.vocab_size, theirs.vocab_size))
    if any(tokenizer.token_bytes(id) != theirs.token_bytes(id) for id in ids):
        raise UserError(
            f"--against={name} has another vocabulary, so its tokens cannot be compared one by "
            "one; give a model with the same tokenizer"
        )


def _short(name: str, not_like: str | None = None) -> str:
    """The last part of a path; all of it if it is a name, or if the other model's is the same."""
    last = name if is_named(name) else Path(name).resolve().name
    return name if last == not_like else last


def _say(views: Sequence[View]) -> None:
    first = views[0].seen
    layers, heads = first.attention.shape[:2]
    cut = f", {first.cut:,} more left out" if first.cut else ""
    say(f"Tokens:      {len(first.tokens)}{cut}")
    say(f"Heads:       {counted(heads, 'head')} in each of {counted(layers, 'layer')}")
    if len(first.tokens) == 1:
        say("Loss:        none, because a single token has no context")
    for view in views if len(first.tokens) > 1 else ():
        if view.step is None:
            change = f" ({view.seen.loss - first.loss:+.3f})" if view.seen is not first else ""
            say(f"Loss:        {view.seen.loss:.3f} nats per token, {view.name}{change}")
    if np.isnan(first.head_scores).all():
        say("Kinds of heads: not measured, because the context or a window is too short")
    else:
        if len(views) > 1:
            say(f"Kinds of heads in {views[0].name}:")
        for kind, found in first.heads_found().items():
            say(f"{kind.capitalize() + ':':<17}{_listed(found)}")
    if steps := [view.step for view in views if view.step is not None]:
        say(f"Over time:   {counted(len(steps), 'snapshot')}, step {steps[0]} to {steps[-1]}")


def _listed(found: Sequence[tuple[Head, float]]) -> str:
    """The best few heads with their scores."""
    shown = [f"{layer}.{head} ({score:.2f})" for (layer, head), score in found[:6]]
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    return ", ".join(shown) + more if shown else "none"
