"""Checks that two ways of evaluating a model give the same results, and their prompts.

Numbers are compared in float32. Sums in another order differ in their last bits, hence the
tolerance. It is small compared with the effect of a wrong head, position or permutation.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.errors import CheckFailed, UserError
from groundup.formats.weights import listed
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.console import say
from groundup.text.chat import encode_chat
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch

Status = Literal["same", "differs", "not checked"]
# Logits of one prompt; prompts differ in length.
Logits = Float[Tensor, "_ vocab"]

# As a share of the logits' standard deviation: through thirty layers, reordered float32 sums cause
# a hundredth of this, one head rotated the wrong way thousands of times as much.
_TOLERANCE = 2e-4
# Length of the longest prompt: enough to read a cache in pieces and to exceed a short window.
_LONGEST_PROMPT = 192
GREEDY_TOKENS = 12

HARD_TEXTS: tuple[str, ...] = (
    "Hello, world!",
    " leading and trailing ",
    "  two  and   three    spaces\t\ttabs\n\n\nlines\r\n",
    "1 12 123 1234 12345 3.14159 1,000,000 ½ ² ٣",
    "it's we'll THEY'RE I'd you've don't",
    "naïve café Ångström Straße İstanbul ﬁ",
    "日本語の文章。 한국어 文字 العربية עברית हिन्दी ไทย",
    "🙂🙃👩‍👩‍👧‍👦🏳️‍🌈👍🏽 e\u0301 \u200b\u200d\ufeff",
    "def f(x):\n    return {'a': [x**2, -1]}  # ok\n",
    "<|endoftext|> <|im_start|>system\nobey<|im_end|> </s> <s> [INST] <think>",
    "a" * 50 + " " * 40 + "\n" * 9,
)
PLAIN_TALK: Sequence[dict[str, str]] = (
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4, I think."},
    {"role": "user", "content": " Are you sure? 🙂"},
)
TALK: Sequence[dict[str, str]] = (
    {"role": "user", "content": "What is 2 + 2?"},
    # Halves of control tokens next to blanks, which many templates strip.
    {"role": "assistant", "content": "\n> 4, I think <\n"},
    {"role": "user", "content": " > Say <|im_end|> and </s>, then: naïve 🙂 <\n"},
)


@dataclass(frozen=True)
class Check:
    """One comparison: its name, its outcome, and a sentence about it."""

    name: str
    status: Status
    about: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def require_same(checks: Sequence[Check], what: Path) -> None:
    """Print a line for each check; raise `CheckFailed` if one differs."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = {"same": "same", "differs": "DIFFERS", "not checked": "-"}[check.status]
        say(f"{check.name:<{width}}  {mark:<7}  {check.about}")
    if differ := [check for check in checks if check.status == "differs"]:
        raise CheckFailed(f"{len(differ)} of {len(checks)} checks of {what} differ")


# Prompts.


def prompts_for(model: CausalLM, tokenizer: Tokenizer) -> list[list[int]]:
    """Prompts of all lengths, from hard texts and random tokens, the longest one last."""
    config = model.config
    longest = min(_LONGEST_PROMPT, config.max_position_embeddings - GREEDY_TOKENS)
    if longest < 2:
        raise UserError(
            f"the model's context of {config.max_position_embeddings} tokens is too short to be "
            f"checked; at least {GREEDY_TOKENS + 2} are needed"
        )
    texts = [tokenizer.encode(text) for text in encodable(tokenizer, HARD_TEXTS)]
    known = [[id for id in ids if id < config.vocab_size] for ids in texts]
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(config.vocab_size, (longest,), generator=generator).tolist()
    lengths = (1, 3, 8, 17, 40)
    prompts = [ids[:length] for ids, length in zip(known, lengths, strict=False) if ids]
    return [*(ids[:longest] for ids in prompts), random]


def text_ids(tokenizer: Tokenizer, text: str) -> list[int] | str:
    """The ids of a text, or the reason for a failure."""
    try:
        return tokenizer.encode(text)
    except UserError as error:
        return str(error)[:200]


def encodable(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """The texts without those that a vocabulary would turn into control tokens.

    Refusing those is a separate check, and the other checks work without them.
    """
    return [text for text in texts if not isinstance(text_ids(tokenizer, text), str)]


@torch.inference_mode()
def logits_of(model: CausalLM, ids: Sequence[int]) -> Logits:
    return model.logits(Batch.of(torch.tensor([list(ids)])))[0]


def chat_ids(tokenizer: Tokenizer, talk: Sequence[dict[str, str]]) -> list[int] | str:
    """The ids of a conversation, or the reason for a failure."""
    try:
        return encode_chat(tokenizer, talk, generation_prompt=True).ids
    except UserError as error:
        return str(error)[:200]


# Comparisons.


def near(name: str, found: Sequence[Logits], expected: Sequence[Logits]) -> Check:
    """Whether the largest difference is within the tolerance."""
    worst, allowed = 0.0, 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return Check(name, "differs", f"shape {list(one.shape)}, not {list(other.shape)}")
        allowed = max(allowed, _TOLERANCE * max(1.0, float(other.std())))
        difference = float((one - other).abs().max())
        # Once it is NaN it stays NaN, and fails the comparison.
        worst = difference if math.isnan(difference) else max(worst, difference)
    status: Status = "same" if worst <= allowed else "differs"
    return Check(name, status, f"largest difference {worst:.2g}, allowed {allowed:.2g}")


def same_logits(
    name: str, found: CausalLM, expected: CausalLM, prompts: Sequence[Sequence[int]]
) -> Check:
    return near(name, *([logits_of(one, ids) for ids in prompts] for one in (found, expected)))


def end_ids(config: ModelConfig, tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens at which an answer ends."""
    return tokenizer.stop_ids | {*config.eos_token_ids}


def same_ends(
    name: str,
    found: Collection[int],
    expected: Collection[int],
    tokenizer: Tokenizer,
    allowed: Collection[int] = (),
    why: str = "",
) -> Check:
    """Whether answers end at the same tokens. `allowed` tokens may end them in one copy only; the
    report then says `why`.

    Lost ids without a token, which some configs have, do not count.
    """
    lost = {id for id in {*expected} - {*found} if tokenizer.token_bytes(id)}
    more = {*found} - {*expected}
    status: Status = "differs" if lost or more - {*allowed} else "same"
    about = [f"{len(expected)} tokens" if len(expected) != 1 else "1 token"]
    for words, ids, reason in (
        ("not at", lost, ""),
        ("also at", more - {*allowed}, ""),
        ("also at", more & {*allowed}, f", {why}"),
    ):
        if ids:
            tokens = listed(repr(tokenizer.decode([id])) for id in sorted(ids))
            about.append(f"{words} {tokens}{reason}")
    return Check(name, status, "; ".join(about))


def added_texts(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Texts with every ordinary added token, between blanks and between letters."""
    added = tokenizer.content.get("added_tokens") or []
    tokens = [one["content"] for one in added if one["id"] not in tokenizer.special_ids]
    return tuple(f"a {token}  b{token}c\n{token}\n{token}{token}" for token in tokens)


def same_ids(
    name: str, found: Tokenizer, expected: Tokenizer, texts: Sequence[str] = HARD_TEXTS
) -> Check:
    ids, wanted = ([text_ids(one, text) for text in texts] for one in (found, expected))
    return equal(name, ids, wanted, "hard texts", texts)


def equal(
    name: str,
    found: Sequence[Any],
    expected: Sequence[Any],
    what: str,
    texts: Sequence[str] | None = None,
) -> Check:
    """Whether all are equal; reports the first difference, and its text if `texts` are given."""
    other = [place for place, pair in enumerate(zip(found, expected, strict=True))
             if pair[0] != pair[1]]  # fmt: skip
    if not other:
        count = len(expected)
        return Check(name, "same", f"{count} {what if count > 1 else what.removesuffix('s')}")
    one, two = found[other[0]], expected[other[0]]
    alike = next((n for n, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]),
                 min(len(one), len(two)))  # fmt: skip
    start = max(0, alike - 4)
    shown = [f"{'…' if start else ''}{str(part[start:])[:60]}" for part in (one, two)]
    which = f", the first of them {texts[other[0]][:60]!r}" if texts else ""
    about = f"{len(other)} of {len(expected)} {what}{which}: {shown[0]!r}, not {shown[1]!r}"
    return Check(name, "differs", about)
