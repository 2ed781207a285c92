"""Proof that a model answers the same however it is asked, and its copies as it does.

"The exported model answers differently" is what people complain about most, whatever the tool. So
whatever could differ is computed twice, in two ways, and compared:

    read at once        against piece by piece through the KV cache
    alone               against in a batch with longer and shorter ones
    our engine          against transformers, where it is installed
    our text            against decoding it again, and against the folder's own tokenizer and Jinja
    the model folder    against its GGUF files, read back

Numbers are compared in float32. Sums in another order differ in their last bits, hence tolerances,
and they are small against what a wrong head, position or permutation would do.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.errors import CheckFailed, UserError
from groundup.lm.cache import KVCache
from groundup.lm.families import stored_in_gguf
from groundup.lm.generate import Request, generate
from groundup.lm.hub import load_model, load_tokenizer
from groundup.lm.model import CausalLM
from groundup.lm.sample import Sampling
from groundup.lm.sources import GGUF_SUFFIX, locate
from groundup.text.chat import Message, encode_chat, render_chat
from groundup.text.template import Rendering, render
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from groundup.train.progress import say

if TYPE_CHECKING:
    from groundup.lm.gguf import GGUFModel, GGUFType

Status = Literal["same", "differs", "not checked"]
# Of one prompt; prompts are of all lengths.
Logits = Float[Tensor, "_ vocab"]

# Of the logits' own spread: float32 sums in another order leave a hundredth of this through thirty
# layers, while one head turned the wrong way leaves thousands of times as much.
_TOLERANCE = 2e-4
# Tokens of the longest prompt. Far enough for a cache to be read in pieces and a window to close.
_LONGEST = 192
_GREEDY_TOKENS = 12

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
# A copy that must be exact, and the commonest quantised one.
_COPIES: tuple[GGUFType, ...] = ("f32", "q8_0")
_TALK: Sequence[Message] = (
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4, I think."},
    {"role": "user", "content": "Say <|im_end|> and </s>, then: naïve 🙂"},
)


@dataclass(frozen=True)
class Check:
    """One comparison: what was compared, how it came out, and a sentence on it."""

    name: str
    status: Status
    about: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def verify(source: Path | str, against: Path | str | None = None) -> list[Check]:
    """Compare every way of asking the model; a GGUF also with the folder `against` it was made of.

    Raises `UserError` for what cannot be loaded at all.
    """
    path = locate(source)
    model, tokenizer = load_model(path, dtype=torch.float32), load_tokenizer(path)
    checks = [*compared_with_itself(model, tokenizer), *_compared_with_transformers(path, model)]
    if path.suffix == GGUF_SUFFIX:
        if against is not None:
            checks += compared_with_gguf(load_model(against, dtype=torch.float32),
                                         load_tokenizer(against), path)  # fmt: skip
    else:
        checks += _through_gguf(model, tokenizer)
    return checks


def compared_with_itself(model: CausalLM, tokenizer: Tokenizer) -> list[Check]:
    """The checks that need neither another library nor another copy."""
    prompts = prompts_for(model, tokenizer)
    alone = [_logits(model, ids) for ids in prompts]
    return [
        _rows_for_tokens(model, tokenizer),
        _near("logits through the KV cache", [_cached(model, prompts[-1])], alone[-1:]),
        _near("logits in a batch", _batched(model, prompts), alone),
        _greedy_alone_and_together(model, prompts),
        _round_trips(tokenizer),
        _control_tokens(tokenizer),
        _chat_template(tokenizer),
    ]


def prompts_for(model: CausalLM, tokenizer: Tokenizer) -> list[list[int]]:
    """Prompts of all lengths, of hard texts and of any tokens at all, the longest one last."""
    config = model.config
    longest = min(_LONGEST, config.max_position_embeddings - _GREEDY_TOKENS)
    if longest < 2:
        raise UserError(
            f"the model's context of {config.max_position_embeddings} tokens is too short to be "
            f"checked; it takes {_GREEDY_TOKENS + 2}"
        )
    texts = [tokenizer.encode(text) for text in HARD_TEXTS]
    known = [[id for id in ids if id < config.vocab_size] for ids in texts]
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(config.vocab_size, (longest,), generator=generator).tolist()
    lengths = (1, 3, 8, 17, 40)
    prompts = [ids[:length] for ids, length in zip(known, lengths, strict=False) if ids]
    return [*(ids[:longest] for ids in prompts), random]


def require_same(checks: Sequence[Check], what: Path) -> None:
    """Show a line for each check; `CheckFailed` where one differs."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = {"same": "same", "differs": "DIFFERS", "not checked": "-"}[check.status]
        say(f"{check.name:<{width}}  {mark:<7}  {check.about}")
    if differ := [check for check in checks if check.status == "differs"]:
        raise CheckFailed(f"{len(differ)} of {len(checks)} checks of {what} differ")


# One model, asked in several ways.


@torch.inference_mode()
def _logits(model: CausalLM, ids: Sequence[int]) -> Logits:
    return model.logits(Batch.of(torch.tensor([list(ids)])))[0]


@torch.inference_mode()
def _cached(model: CausalLM, ids: Sequence[int]) -> Logits:
    """The logits of a text that is read in pieces: many tokens, one, two, …"""
    cache = KVCache.empty(model.config, rows=1, slots=len(ids), like=model.head)
    found, start = [], 0
    sizes = (len(ids) // 2, 1, 1, 2, 5)
    for size in (*sizes, len(ids)):
        end = min(len(ids), start + max(1, size))
        if start < end:
            piece = torch.tensor([list(ids[start:end])])
            positions = torch.arange(start, end)[None]
            zeros = torch.zeros_like(piece)
            batch = Batch(piece, zeros, zeros.float(), positions, zeros)
            found.append(model.logits(batch, cache)[0])
        start = end
    return torch.cat(found)


@torch.inference_mode()
def _batched(model: CausalLM, prompts: Sequence[Sequence[int]]) -> list[Logits]:
    """The logits of prompts that are read together, the shorter ones filled up on the right."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(list(prompt))
    together = model.logits(Batch.of(ids))
    return [row[: len(prompt)] for row, prompt in zip(together, prompts, strict=True)]


def _greedy_alone_and_together(model: CausalLM, prompts: Sequence[Sequence[int]]) -> Check:
    greedy = Sampling(temperature=0, max_new_tokens=_GREEDY_TOKENS)
    requests = [Request(prompt_ids=ids, sampling=greedy) for ids in prompts]
    together = [found.ids for found in generate(model, requests)]
    alone = [generate(model, [request])[0].ids for request in requests]
    return _equal("greedy tokens in a batch", together, alone, "completions")


# Text.


def _rows_for_tokens(model: CausalLM, tokenizer: Tokenizer) -> Check:
    rows, tokens = model.config.vocab_size, tokenizer.vocab_size
    status: Status = "same" if tokens <= rows else "differs"
    about = f"{tokens:,} tokens, {rows:,} rows in the model"
    return Check("every token has its row", status, about)


def _round_trips(tokenizer: Tokenizer) -> Check:
    """Text to ids and back; a tokenizer that normalises gives the normal form back."""
    back = [tokenizer.decode(tokenizer.encode(text)) for text in HARD_TEXTS]
    forms = [
        {text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFKC"))}
        for text in HARD_TEXTS
    ]
    lost = [text for text, form, found in zip(HARD_TEXTS, forms, back, strict=True)
            if found not in form]  # fmt: skip
    if lost:
        return Check("text to ids and back", "differs", f"{lost[0][:40]!r} comes back otherwise")
    return Check("text to ids and back", "same", f"{len(back)} hard texts")


def _control_tokens(tokenizer: Tokenizer) -> Check:
    texts = [*HARD_TEXTS, " ".join(tokenizer.special_tokens)]
    made = [id for text in texts for id in tokenizer.encode(text) if id in tokenizer.special_ids]
    name = "no text becomes a control token"
    if made:
        return Check(name, "differs", f"a text became the token {made[0]}")
    return Check(name, "same", f"{len(tokenizer.special_tokens)} control tokens")


def _chat_template(tokenizer: Tokenizer) -> Check:
    """Our rendering, which marks what people say, against the folder's Jinja as it stands."""
    name = "chat template as its Jinja renders it"
    if tokenizer.chat_template is None:
        return Check(name, "not checked", "there is no chat template")
    rendering = Rendering([*_TALK], True, tokenizer.template_variables)
    [plain] = render(tokenizer.chat_template, [rendering])
    ours = render_chat(tokenizer, _TALK, generation_prompt=True)
    written = tokenizer.decode(encode_chat(tokenizer, _TALK, generation_prompt=True).ids)
    return _equal(name, [ours, written], [plain, plain], "renderings")


# Another library.


def _compared_with_transformers(path: Path, model: CausalLM) -> list[Check]:
    names = ("logits as transformers computes them", "ids as transformers makes them")
    if path.suffix == GGUF_SUFFIX:
        return []
    if importlib.util.find_spec("transformers") is None:
        return [Check(name, "not checked", "transformers is not installed") for name in names]
    tokenizer = load_tokenizer(path)
    prompts = prompts_for(model, tokenizer)
    with _quiet_transformers() as transformers:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, local_files_only=True
        ).eval()
        with torch.inference_mode():
            logits = [theirs(torch.tensor([list(ids)])).logits[0].float() for ids in prompts]
        written = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
        ids = [
            written(text, add_special_tokens=False, split_special_tokens=True).input_ids
            for text in HARD_TEXTS
        ]
        chat = _their_chat(written)
    ours = [tokenizer.encode(text) for text in HARD_TEXTS]
    checks = [
        _near(names[0], [_logits(model, ids) for ids in prompts], logits),
        _equal(names[1], ours, ids, "hard texts"),
    ]
    if chat is not None and tokenizer.chat_template is not None:
        mine = render_chat(tokenizer, _TALK, generation_prompt=True)
        name = "chat template as transformers renders it"
        checks.append(_equal(name, [mine], [chat], "renderings"))
    return checks


def _their_chat(tokenizer: Any) -> str | None:
    if not tokenizer.chat_template:
        return None
    text: str = tokenizer.apply_chat_template([*_TALK], tokenize=False, add_generation_prompt=True)
    return text


@contextmanager
def _quiet_transformers() -> Iterator[Any]:
    """The library without its progress bars and advice."""
    import transformers

    library: Any = transformers
    logging = library.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield library
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


# Another copy.


def _through_gguf(model: CausalLM, tokenizer: Tokenizer) -> list[Check]:
    """Write the model as GGUF, whole and quantised, and read it back."""
    from groundup.lm.gguf import save_gguf

    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in _COPIES:
            file = Path(scratch) / f"{kind}{GGUF_SUFFIX}"
            try:
                save_gguf(file, model, tokenizer, kind)
            except UserError as error:
                return [Check("GGUF, read back", "not checked", str(error))]
            checks += compared_with_gguf(model, tokenizer, file)
    return checks


def compared_with_gguf(model: CausalLM, tokenizer: Tokenizer, file: Path) -> list[Check]:
    """A GGUF file against the model that it was made of: tensors, logits, ids, chat template.

    A quantised file is held against the same rounding by another way: our weights through the
    `gguf` package and back.
    """
    from groundup.lm.gguf import read_gguf

    found = read_gguf(file)
    named = f"GGUF {_kind(found)}"
    copy = load_model(file, dtype=torch.float32)
    expected = _rounded(model, found)
    tensors = dict(copy.named_parameters())
    other = [n for n, t in expected.items() if n not in tensors or not torch.equal(tensors[n], t)]
    about = f"{len(expected)} tensors, bit for bit"
    if other:
        about = f"{len(other)} of {len(expected)} tensors, the first of them {other[0]}"
    twin = CausalLM(model.config)
    twin.load_state_dict(expected, strict=False)
    prompts = prompts_for(model, tokenizer)
    # llama.cpp has no normalisers, so a model that has one gets texts that need none.
    texts = HARD_TEXTS
    if tokenizer.content.get("normalizer"):
        texts = tuple(unicodedata.normalize("NFC", text) for text in texts)
    theirs, ours = ([one.encode(text) for text in texts] for one in (found.tokenizer, tokenizer))
    checks = [
        Check(f"{named}: tensors", "differs" if other else "same", about),
        _near(
            f"{named}: logits",
            [_logits(copy, ids) for ids in prompts],
            [_logits(twin, ids) for ids in prompts],
        ),
        _equal(f"{named}: ids", theirs, ours, "hard texts"),
    ]
    if tokenizer.chat_template is not None:
        talks = [
            None if one.chat_template is None else encode_chat(one, _TALK, generation_prompt=True)
            for one in (found.tokenizer, tokenizer)
        ]
        checks.append(_equal(f"{named}: chat template", talks[:1], talks[1:], "renderings"))
    return checks


def compared_with_folder(
    model: CausalLM, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype
) -> list[Check]:
    """A model folder against the model that it was made of, rounded to `dtype`."""
    copy, written = load_model(folder, dtype=torch.float32), load_tokenizer(folder)
    twin = CausalLM(model.config)
    rounded = {n: p.detach().to(dtype).float() for n, p in model.named_parameters()}
    twin.load_state_dict(rounded, strict=False)
    prompts = prompts_for(model, tokenizer)
    return [
        _near(
            f"folder in {str(dtype).removeprefix('torch.')}: logits",
            [_logits(copy, ids) for ids in prompts],
            [_logits(twin, ids) for ids in prompts],
        ),
        _equal(
            "folder: ids",
            [written.encode(text) for text in HARD_TEXTS],
            [tokenizer.encode(text) for text in HARD_TEXTS],
            "hard texts",
        ),
    ]


def _kind(found: GGUFModel) -> str:
    """The type of most of the file's numbers."""
    sizes: Counter[str] = Counter()
    for tensor in found.file.tensors.values():
        sizes[tensor.type.name] += math.prod(tensor.shape)
    return sizes.most_common(1)[0][0]


def _rounded(model: CausalLM, found: GGUFModel) -> dict[str, Tensor]:
    """Our weights as the file's types can hold them."""
    import gguf

    rounded: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        stored = found.file.tensors.get(stored_in_gguf(model.config.model_type, name).name)
        values = parameter.detach().float()
        if stored is not None and stored.type.name != "F32":
            kind = gguf.GGMLQuantizationType[stored.type.name]
            blocks = gguf.quants.quantize(values.numpy(), kind)
            values = torch.from_numpy(gguf.quants.dequantize(blocks, kind)).reshape(values.shape)
        rounded[name] = values
    return rounded


# Comparing.


def _near(name: str, found: Sequence[Logits], expected: Sequence[Logits]) -> Check:
    worst, allowed = 0.0, 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return Check(name, "differs", f"shape {list(one.shape)}, not {list(other.shape)}")
        allowed = max(allowed, _TOLERANCE * max(1.0, float(other.std())))
        difference = float((one - other).abs().max())
        # Once it is not a number it stays so, and is not within anything.
        worst = difference if math.isnan(difference) else max(worst, difference)
    status: Status = "same" if worst <= allowed else "differs"
    return Check(name, status, f"largest difference {worst:.1e}, allowed {allowed:.1e}")


def _equal(name: str, found: Sequence[Any], expected: Sequence[Any], what: str) -> Check:
    other = [place for place, pair in enumerate(zip(found, expected, strict=True))
             if pair[0] != pair[1]]  # fmt: skip
    if not other:
        count = len(expected)
        return Check(name, "same", f"{count} {what if count > 1 else what.removesuffix('s')}")
    one, two = str(found[other[0]])[:60], str(expected[other[0]])[:60]
    return Check(name, "differs", f"{len(other)} of {len(expected)} {what}: {one!r}, not {two!r}")
