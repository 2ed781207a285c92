"""The data of fine-tuning: the user's rows from several sources, and general text for replay.

Conversations are trained on where the assistant speaks, documents everywhere. This is the only
difference between supervised fine-tuning and continued pre-training on a domain.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.dataset import documents_of, is_stage, load_dataset, load_datasets
from groundup.data.packs.manifest import mixture_groups
from groundup.data.split import content, evenly_spaced, on_disk
from groundup.errors import UserError
from groundup.runs import ranks
from groundup.runs.console import counted, say
from groundup.text.batches import ConversationStream
from groundup.text.chat import (
    NEVER_STOPS,
    NO_TOOLS,
    SPLIT_CONVERSATIONS,
    encode_chat,
    never_stops,
    omits_tools,
    with_template_variables,
)
from groundup.text.example import Encoded, Example, cut_to, encode_rows
from groundup.text.mixing import Mixture
from groundup.text.rows import Conversation, Document, Message, TrainingRow
from groundup.text.tokenizer import Tokenizer
from groundup.tune.config import GENERAL, SFTConfig
from groundup.tune.layout import (
    DECAY,
    DECAY_OF_LITTLE,
    LITTLE,
    MAX_ROWS,
    MAX_SEEN,
    Layout,
    passes,
    replayed,
    row_length,
    rows_of_step,
)

# Held-out items scored at each evaluation during training, and their maximum number of tokens:
# conversations can be long, and measuring must not take longer than training.
_CURVE_ITEMS, _CURVE_TOKENS = 300, 20_000
_CHARACTERS_A_TOKEN = 8


@dataclass(frozen=True)
class TuningData:
    """A stream of batches, held-out items, and the counts of what was read and rejected.

    `tokenizer` is the model's, with a chat template if the rows include `chats`. `counts` are of
    the user's rows, except `tokens` and `trained`, which count an epoch including replay.
    `own_tokens` counts all the user's tokens, and `general` has the replayed items by source.
    """

    tokenizer: Tokenizer
    stream: ConversationStream
    heldout: Sequence[Example]
    counts: Mapping[str, Any]
    chats: bool
    own_tokens: int
    general: Mapping[str, Sequence[Example]]


@dataclass(frozen=True)
class Found:
    """The user's rows, read and encoded, before any decision about their layout.

    `sources` has the training items by the names of sources in the settings. `tokens` counts all
    rows, including those left unread because there are few steps; `said` has the contents of
    held-out rows, so that replay does not teach them.
    """

    tokenizer: Tokenizer
    sources: Mapping[str, Sequence[Example]]
    heldout: Sequence[Example]
    said: Set[Hashable]
    counts: Mapping[str, Any]
    chats: bool
    tokens: int
    longest: int


def read_rows(config: SFTConfig, tokenizer: Tokenizer, context: int) -> Found:
    """Read and encode all sources of `config`, in rows of at most `context` tokens. Raises
    `UserError` for data that cannot be used."""
    names = [str(at) for at in config.data]
    found = load_datasets(config.data, columns=config.column_names, validation=config.validation)
    own = dict(zip(names, found, strict=True))
    chats = any(isinstance(row, Conversation) for read in found for row in read.train)
    tokenizer = tokenizer.able_to_chat() if chats else tokenizer
    if chats and tokenizer.chat_template is None:
        lacks = (
            f"{config.model} has no chat template, and its tokenizer has no <|im_start|> and "
            "<|im_end|> for one"
        )
        if config.adapter != "none":
            raise UserError(
                f"{lacks}, and an adapter learns no embeddings of new tokens, so it cannot learn "
                "conversations; train all weights (--adapter none), use a model that has them, or "
                "give texts ({text})"
            )
        say(f"{lacks}: both are added to its vocabulary, with ChatML as template")
        tokenizer = tokenizer.with_chat_tokens()
    tokenizer = with_template_variables(tokenizer, config.template)
    if chats and never_stops(tokenizer):
        say(f"Warning: {NEVER_STOPS}")
    if any(omits_tools(tokenizer, read.train) for read in found):
        say(f"Warning: {NO_TOOLS}")
    wanted = None
    if config.steps is not None:
        wanted = config.steps * (config.rows or MAX_ROWS) * context
    sources, heldout = dict[str, Sequence[Example]](), list[Example]()
    refused = apart = unread = 0
    for name, read in own.items():
        for line in (*read.bad, *read.remarks):
            say(str(line))
        rows = _sample_rows(read.train, wanted, context, config.seed)
        unread += len(read.train) - len(rows)
        encoded = _encoded(name, tokenizer, rows, context)
        sources[name] = encoded.items
        refused += len(encoded.refused)
        apart += encoded.apart
        if read.heldout:
            some = evenly_spaced(read.heldout, _CURVE_ITEMS)
            try:
                heldout += _encoded(f"{name}, held out", tokenizer, some, context).items
            except UserError as reason:
                say(f"{name}: no held-out row can be read, and all are set aside: {reason}")
    if config.patience is not None and not heldout:
        raise UserError(
            f"patience={config.patience} needs held-out data to judge by, and none is held out; "
            "give a --validation above 0, or leave patience out"
        )
    trained = sum(len(read.train) for read in found)
    counts = {
        "bad_lines": sum(len(read.bad) for read in found),
        "refused": refused,
        "taken_apart": apart,
        "duplicates": sum(read.duplicates for read in found),
        "unread": unread,
        "heldout": sum(len(read.heldout) for read in found),
        "validation": max(read.share for read in found),
    }
    tokens = sum(_tokens(items, context) for items in sources.values())
    return Found(
        tokenizer,
        sources,
        _limited(heldout),
        {content(row) for read in found for row in read.heldout},
        counts,
        chats,
        round(tokens * trained / max(1, trained - unread)),
        max(
            (min(one.inputs, context) for items in sources.values() for one in items),
            default=context,
        ),
    )


def require_joinable(config: SFTConfig, tokenizer: Tokenizer) -> None:
    """Raise `UserError` if conversations are to be joined, but the chat template renders two
    consecutive ones differently from one with all their turns."""
    talks = [[Message("user", said), Message("assistant", said)] for said in "ab"]
    apart = [id for talk in talks for id in encode_chat(tokenizer, talk).ids]
    if encode_chat(tokenizer, [*talks[0], *talks[1]]).ids != apart:
        raise UserError(
            f"multi_turn={config.multi_turn:g} must be 0 with the chat template of {config.model}, "
            "which renders the beginning or the end of a conversation differently, so that one "
            "cannot be appended to another; leave it out"
        )


def general_text(config: SFTConfig) -> tuple[Path, ...]:
    """The sources of general text for replay: those in the settings, else text in the data
    folder, else the model's own training data, else Wikipedia."""
    if config.replay == 0:
        return config.replay_data or GENERAL
    texts = config.replay_data or _new(map(documents_of, config.data), config)
    return texts or _new([made_of(config.model)], config) or GENERAL


def _new(texts: Iterable[Path | None], config: SFTConfig) -> tuple[Path, ...]:
    return tuple(text for text in texts if text is not None and text not in config.data)


def made_of(model: Path) -> Path | None:
    """The last training data of a model that was made here from random weights: the data folder of
    its conversations, or else its texts. None if the runs do not record it, or if it is gone."""
    from groundup.report.history import lineage

    runs = lineage(model)
    if not runs or runs[0].parent is not None:
        return None
    for run in reversed(runs):
        for name, parent in run.run["parents"].items():
            if name.split(" ")[0] != "data":  # data, data 2 …
                continue
            at = run.beside(parent["path"])
            if run.reads == "conversations" and is_stage(at):
                return at
            if run.reads == "documents" and at.exists():
                return at / "documents" / "train.jsonl" if is_stage(at) else at
    return None


def laid_out(
    config: SFTConfig,
    found: Found,
    layout: Layout,
    general: Mapping[str, Sequence[Example]] | None = None,
) -> TuningData:
    """The rows as a stream of batches with general text, which is read unless it is given. Raises
    `UserError` for data that cannot be used."""
    context = layout.context
    own = {name: _tokens(items, context) for name, items in found.sources.items()}
    mine = items = [item for items in found.sources.values() for item in items]
    mixture = Mixture(config.balance, mixture_groups(config.mixture))
    weights = dict(zip(own, config.weights or own.values(), strict=True))
    if general is None:
        general = _replayed(config, found, layout, sum(own.values())) if layout.replay else {}
    of_tokens = token_shares(weights, list(general), layout.replay)
    if config.weights is not None:
        # Weights apply to whole sources; without them, balance uses the finer ones.
        items = _named(found.sources)
        mixture = Mixture(weights={name: of_tokens[name] for name in own})
    if general:
        # Replay is added on top: an epoch is still one pass over the user's own rows.
        items = [*items, *_named(general)]
        mixture = replace(mixture, beside={name: of_tokens[name] for name in general})
    stream = ConversationStream(
        items,
        mixture=mixture,
        layout=config.layout,
        prompt_weight=config.prompt_weight,
        multi_turn=config.multi_turn,
        context=context,
        rows=layout.rows,
        micro_rows=config.model_copy(update={"rows": layout.rows}).micro(context),
        seed=config.seed,
    )
    cut = [cut_to(item, context) for item in mine]
    counts = {
        **asdict(stream.counts),
        "rows": len(mine),
        "truncated": sum(item.inputs > context for item in mine),
        "without_answer": sum(not item.teaches for item in cut),
        "own_tokens": sum(own.values()),
        "own_trained": sum(sum(item.loss_mask[1:]) for item in cut),
        "replayed": sum(map(len, general.values())),
        **found.counts,
    }
    return TuningData(
        found.tokenizer, stream, found.heldout, counts, found.chats, found.tokens, general
    )


def decided(
    config: SFTConfig,
    found: Found,
    *,
    longest: int,
    parameters: int,
    tokens_in_time: Callable[[ConversationStream], float] | None = None,
) -> tuple[TuningData, Layout, dict[str, str]]:
    """The data in a layout from the settings or, where they are unset, from the needs of the data
    and of a model with `parameters` parameters; with the layout and the reasons for it.

    Rows have at most `longest` tokens. `tokens_in_time` measures how many tokens of a stream fit
    into the given time.
    """
    reasons = dict[str, str]()
    context, replay = config.context, config.replay
    if context is None:
        context, reasons["context"] = row_length(found.longest, longest)
    if replay is None:
        texts = general_text(config)
        mixed = any(at in texts or (is_stage(at) and texts == GENERAL) for at in config.data)
        replay, why = replayed(found.tokens, parameters, texts, mixed=mixed)
        reasons |= {"replay": why} if why else {}
    decay = config.decay
    if decay is None:
        decay = min(1 - config.warmup, DECAY_OF_LITTLE if found.tokens <= LITTLE else DECAY)
    layout = Layout(context, config.rows or 1, config.epochs or 1.0, replay, decay)
    try:
        data = laid_out(config, found, layout)
    except UserError as error:
        if not replay or config.replay is not None or config.replay_data is not None:
            raise
        reasons.pop("replay")
        layout = replace(layout, replay=0.0)
        data = laid_out(config, found, layout)  # fails again if the user's data is at fault
        say(f"no general text is replayed, because it is not available: {error}")
    rows_per_epoch = data.stream.rows_per_epoch
    if config.rows is None:
        in_time = None
        # Time is measured only if it can matter.
        alone, _ = rows_of_step(rows_per_epoch, rows_in_time=None, steps=None)
        if tokens_in_time is not None and alone > ranks.size():
            in_time = tokens_in_time(data.stream) * rows_per_epoch / data.stream.counts.tokens
        rows, reasons["rows"] = rows_of_step(
            rows_per_epoch, rows_in_time=in_time, steps=config.steps
        )
        if rows != layout.rows:
            layout = replace(layout, rows=rows)
            data = laid_out(config, found, layout, data.general)
    if config.epochs is None:
        layout = replace(layout, epochs=passes(rows_per_epoch, layout.rows, found.tokens))
    return data, layout, reasons


def _limited(heldout: Sequence[Example]) -> Sequence[Example]:
    """Some of the held-out items, evenly spaced, within the limits of items and tokens."""
    tokens = sum(item.inputs for item in heldout)
    return evenly_spaced(
        heldout, min(_CURVE_ITEMS, -(-_CURVE_TOKENS * len(heldout) // max(tokens, 1)))
    )


def token_shares(
    own: Mapping[str, float], general: Sequence[str], replay: float
) -> dict[str, float]:
    """Each source's share of the tokens, in total 1: the user's by their weights, and sources of
    general text equally."""
    whole = sum(own.values()) or 1.0
    shares = {name: (1 - replay) * weight / whole for name, weight in own.items()}
    return shares | {name: replay / len(general) for name in general}


def _named(sources: Mapping[str, Sequence[Example]]) -> list[Example]:
    """The items of all sources, with the names of their sources."""
    return [replace(item, source=name) for name, items in sources.items() for item in items]


def _sample_rows(
    rows: Sequence[TrainingRow], tokens: int | None, context: int, seed: int
) -> Sequence[TrainingRow]:
    """As many rows as `tokens` tokens need, chosen at random; all of them for None.

    Encoding a large file takes longer than a short training on a part of it.
    """
    if tokens is None:
        return rows
    order = np.random.default_rng(seed).permutation(len(rows))
    # Rows are cut at the context. Four characters per token are usual in English; eight are not.
    lengths = np.array([min(_characters(rows[i]), 4 * context) for i in order])
    before = np.cumsum(lengths) - lengths
    return [rows[i] for i in sorted(order[before < _CHARACTERS_A_TOKEN * tokens])]


def _characters(row: TrainingRow) -> int:
    if isinstance(row, Document):
        return len(row.text)
    return sum(len(message.content) for message in row.messages)


def _replayed(
    config: SFTConfig, found: Found, layout: Layout, own: int
) -> dict[str, Sequence[Example]]:
    """The general text of replay, without the contents of the user's held-out rows."""
    # Enough for the largest number of passes; encoding all of it would take longer.
    share = layout.replay / (1 - layout.replay)
    tokens = round(max(MAX_SEEN, layout.epochs) * own * share) + layout.context
    if config.steps is not None:
        tokens = min(tokens, config.steps * (config.rows or MAX_ROWS) * layout.context)
    replayed_text = dict[str, Sequence[Example]]()
    for at in general_text(config):
        say(f"replay: reading {at}")  # a large file takes a while
        read = load_dataset([at])
        for line in read.bad:
            say(str(line))
        general = [row for row in read.train if content(row) not in found.said]
        rows = _sample_rows(general, tokens, layout.context, config.seed)
        replayed_text[str(at)] = _encoded(str(at), found.tokenizer, rows, layout.context).items
    return replayed_text


def _encoded(name: str, tokenizer: Tokenizer, rows: Sequence[TrainingRow], context: int) -> Encoded:
    """A source's rows as items; rows that the chat template refuses or splits are reported."""
    found = encode_rows(tokenizer, rows, context)
    if found.refused:
        row, reason = found.refused[0]
        many = counted(len(found.refused), "row")
        say(f"{name}: {many} set aside; the first is row {row + 1}: {reason}")
    if found.apart:
        say(f"{name}: {counted(found.apart, 'conversation')} {SPLIT_CONVERSATIONS}")
    return found


def _tokens(items: Sequence[Example], context: int) -> int:
    """The number of inputs within `context`, without items that have nothing to learn there."""
    cut = (cut_to(item, context) for item in items)
    return sum(item.inputs for item in cut if item.teaches)


def locations(config: SFTConfig) -> dict[str, Path]:
    """The sources that are on disk, by the names under which a run records them."""
    named = {"data": config.data, "replay": general_text(config) if config.replay != 0 else ()}
    found: dict[str, Path] = {}
    for name, sources in named.items():
        # Those of the hub come last: runs of earlier versions did not record them.
        there = [at for at in sources if at.exists()]
        there += [at for at in map(on_disk, sources) if at.exists() and at not in sources]
        found |= {f"{name} {i + 1}" if i else name: at for i, at in enumerate(there)}
    return found
