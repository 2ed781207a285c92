"""The held-out data, tokenized once for all models that share a tokenizer and a context."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import numpy as np

from groundup.data.corpus import documents, heldout_documents
from groundup.data.packs.manifest import generated_set
from groundup.data.records import (
    Records,
    read_choices,
    read_conversations,
    read_preferences,
    read_refusals,
    rows_in,
)
from groundup.data.split import evenly_spaced
from groundup.errors import UserError
from groundup.evals.answers import Conversations, ready_conversations
from groundup.evals.choice import Choices, ready_choices
from groundup.evals.config import EvalConfig
from groundup.evals.measure import Evaluated
from groundup.evals.perplexity import INTERMEDIATE_BYTES, Bits, ngram_bits
from groundup.evals.preference import Margins, Pairs, ready_pairs
from groundup.evals.suites import Prepared
from groundup.evals.world.answers import World, majority_answers
from groundup.evals.world.stories import STORIES, first_sentence
from groundup.maths.ngram import KneserNey
from groundup.report.history import lineage
from groundup.runs.console import say
from groundup.runs.files import is_number, read_json_object
from groundup.text.chat import encode_chat
from groundup.text.rows import (
    Choice,
    Conversation,
    Document,
    Message,
    Preference,
    RefusalPrompt,
    as_dicts,
)
from groundup.text.shards import Shard, encode
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute

T = TypeVar("T")
Asking = TypeVar("Asking", Conversation, RefusalPrompt)


@dataclass(frozen=True)
class HeldOut:
    """The held-out side of a data folder, reduced to the limits of the settings."""

    documents: Sequence[Document]
    conversations: Sequence[Conversation]
    choices: Sequence[Choice]
    pairs: Sequence[Preference]
    refusals: Sequence[RefusalPrompt]
    unknown: Sequence[Conversation]
    world: World | None

    @staticmethod
    def read(config: EvalConfig, documents: Sequence[Document]) -> HeldOut:
        """A user's own text has documents only; everything else is then empty."""

        def rows(kind: str, read: Callable[[Path], Records[T]]) -> Sequence[T]:
            return rows_in(config.data / kind / "heldout.jsonl", read)

        refusals = rows("refusals", read_refusals)
        conversations = rows("conversations", read_conversations)
        real = [row for row in refusals if not generated_set(row.source)]
        return HeldOut(
            documents,
            limit_per_source(conversations, config.conversations),
            limit_per_source(rows("choices", read_choices), config.questions),
            limit_per_source(rows("preferences", read_preferences), config.pairs),
            limit_per_source(real, config.refusal_prompts, by=attrgetter("kind")),
            limit_per_source(rows("unknown", read_conversations), config.questions),
            _world(config, documents, conversations, refusals),
        )


def _world(
    config: EvalConfig,
    documents: Sequence[Document],
    conversations: Sequence[Conversation],
    refusals: Sequence[RefusalPrompt],
) -> World | None:
    """The small world's rows, if the data folder contains it."""
    file = config.data / "data.json"
    facts = read_json_object(file).get("world") if file.exists() else None
    if not facts:
        return None
    bias = facts.get("bias") if isinstance(facts, dict) else None
    if not is_number(bias) or not 0 <= bias <= 1:
        raise UserError(
            f"{file} says that the small world leans by bias={bias!r}, which is not a number from "
            "0 to 1; build the data again: groundup data build"
        )
    # Invented lives have no right answers; how they lean is measured separately.
    made = [row for row in conversations if generated_set(row.source)]
    rows = [row for row in made if row.source != "world-lives"]
    requests = [row for row in refusals if generated_set(row.source)]
    told = [row.text for row in documents if row.source == "world-stories"]
    return World(
        limit_per_source(rows, config.questions),
        majority_answers(rows),
        [first_sentence(text) for text in evenly_spaced(told, min(STORIES, config.questions))],
        limit_per_source(requests, config.questions, by=attrgetter("kind")),
        bias,
    )


@dataclass(frozen=True)
class Ngram:
    """Costs of an n-gram model: for the report's text, and for what training evaluates."""

    bits: Bits
    on_the_way: float


@dataclass(frozen=True)
class Material:
    """The held-out data tokenized for one model; chat data is empty without a chat template."""

    context: int
    heldout: Shard
    ngrams: Mapping[int, Ngram]
    conversations: Conversations
    choices: Choices
    pairs: Pairs
    refusals: Sequence[RefusalPrompt]
    openings: Sequence[Sequence[Message]]
    unknown: Sequence[Conversation]
    world: World | None
    margins: dict[Path, tuple[Margins, Margins]] = field(default_factory=dict)
    """Preferences by model folder: a reference that is in the report is measured once."""


def prepare(config: EvalConfig, models: Sequence[Path], compute: Compute) -> Prepared:
    """Read the held-out data; models with the same tokenizer and context share the material."""
    held = HeldOut.read(config, heldout_documents(config.data))
    made: dict[tuple[str, int], Material] = {}

    def material(folder: Path, tokenizer: Tokenizer, context: int) -> Material:
        key = (tokenizer.hash, context)
        if key not in made:
            made[key] = ready(config, held, folder, tokenizer, context)
        return made[key]

    return Prepared({}, material)


def ready(
    config: EvalConfig, held: HeldOut, model: Path, tokenizer: Tokenizer, context: int
) -> Material:
    """Tokenize everything, and count n-grams over the training tokens of `model`'s base."""
    shards = config.out / "tokens" / tokenizer.hash[:12]
    runs = lineage(model)
    base = runs[0].folder / "tokens" if runs else None
    kept = None if base is None else base / "heldout"
    heldout = encode(held.documents, tokenizer, shards / "heldout", split="heldout", kept=kept)
    train = None if base is None else _training_shard(base / "train", tokenizer)
    if train is None:
        train = encode(documents(config.data).train, tokenizer, shards / "train")
    chats = tokenizer.chat_template is not None
    first_turns = [row.messages[:1] for row in held.conversations if row.messages[0].role == "user"]
    openings = evenly_spaced(first_turns if chats else [], config.refusal_prompts)
    return Material(
        context,
        heldout,
        _counted(config, train, heldout, tokenizer),
        ready_conversations(held.conversations if chats else (), tokenizer, context),
        ready_choices(held.choices if chats else (), tokenizer, context),
        ready_pairs(held.pairs if chats else (), tokenizer, context),
        _rows_that_fit(held.refusals if chats else (), tokenizer, context),
        [turn for turn in openings if _fits(tokenizer, turn, context)],
        _rows_that_fit(held.unknown if chats else (), tokenizer, context),
        None if held.world is None else _fitting(held.world, chats, tokenizer, context),
    )


def _fitting(world: World, chats: bool, tokenizer: Tokenizer, context: int) -> World:
    """The world's rows that leave room for an answer."""
    return replace(
        world,
        rows=_rows_that_fit(world.rows if chats else (), tokenizer, context),
        requests=_rows_that_fit(world.requests if chats else (), tokenizer, context),
        beginnings=[
            text
            for text in world.beginnings
            if _leaves_room(1 + len(tokenizer.encode(text)), context)
        ],
    )


def _training_shard(path: Path, tokenizer: Tokenizer) -> Shard | None:
    """Exactly the tokens that the model's base was trained on, if it was trained by groundup."""
    if not path.with_name("train.json").is_file():
        return None
    shard = Shard.open(path)
    return shard if shard.tokenizer_hash == tokenizer.hash else None


def measured_here(model: Evaluated) -> bool:
    """Whether a run evaluated on the report's held-out text, according to its own tokens.

    Otherwise its curve cannot be compared with the n-grams of the report.
    """
    if model.history is None:
        return False
    try:
        own = Shard.open(model.history.folder / "tokens" / "heldout")
    except UserError:
        return False
    here: Shard = model.material.heldout
    same = own.tokenizer_hash == here.tokenizer_hash and own.sources == here.sources
    return same and np.array_equal(own.tokens, here.tokens)


def _counted(
    config: EvalConfig, train: Shard, heldout: Shard, tokenizer: Tokenizer
) -> dict[int, Ngram]:
    orders = config.ngram_orders
    if orders:
        named = " and ".join(f"{order}-grams" for order in orders)
        say(f"eval  counting {named} over {len(train.tokens):,} training tokens")
    models = KneserNey.fit_orders(
        train.tokens, orders, tokenizer.vocab_size, boundary=tokenizer.end_of_text
    )
    return {
        order: Ngram(
            ngram_bits(counts, heldout, tokenizer, bytes_per_source=config.bytes_per_source),
            ngram_bits(counts, heldout, tokenizer, bytes_per_source=INTERMEDIATE_BYTES).per_byte(),
        )
        for order, counts in zip(orders, models, strict=True)
    }


def _rows_that_fit(rows: Sequence[Asking], tokenizer: Tokenizer, context: int) -> list[Asking]:
    """The rows whose prompts leave room for an answer."""

    def prompt(row: Conversation | RefusalPrompt) -> Sequence[Message]:
        return row.messages[:-1] if isinstance(row, Conversation) else [Message("user", row.prompt)]

    return [row for row in rows if _fits(tokenizer, prompt(row), context)]


def _fits(tokenizer: Tokenizer, prompt: Sequence[Message], context: int) -> bool:
    """Whether a prompt leaves at least a quarter of the context for an answer."""
    ids = encode_chat(tokenizer, as_dicts(prompt), generation_prompt=True).ids
    return _leaves_room(len(ids), context)


def _leaves_room(tokens: int, context: int) -> bool:
    return 4 * tokens <= 3 * context


# Choosing rows.


def limit_per_source(
    rows: Sequence[T], limit: int, by: Callable[[T], Hashable] = attrgetter("source")
) -> list[T]:
    """At most `limit` rows per source, evenly spaced over it."""
    sources = list(dict.fromkeys(by(row) for row in rows))
    return [
        row
        for source in sources
        for row in evenly_spaced([one for one in rows if by(one) == source], limit)
    ]
