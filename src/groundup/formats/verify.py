"""Verify that a model answers the same however it is evaluated, and that its copies do, too.

"The exported model answers differently" is the most common complaint, whatever the tool. So
everything that could differ is computed in two ways and compared:

    read at once        against piece by piece through the KV cache
    alone               against in a batch with longer and shorter prompts
    our engine          against transformers, if it is installed
    our text            against decoding it again, and the folder's own tokenizer and Jinja
    the model folder    against its GGUF files, read back
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from groundup.adapters.attach import adapter_names, merge
from groundup.adapters.quantization import dequantize, is_quantized, merge_and_dequantize
from groundup.errors import UserError
from groundup.formats.adapter import AdapterFolder
from groundup.formats.checks import (
    GREEDY_TOKENS,
    HARD_TEXTS,
    PLAIN_TALK,
    TALK,
    Check,
    Logits,
    Status,
    chat_ids,
    encodable,
    end_ids,
    equal,
    logits_of,
    near,
    prompts_for,
    same_ends,
)
from groundup.formats.compare import compared_with_folder, compared_with_gguf
from groundup.formats.folder import ModelFolder, StoredModel
from groundup.formats.gguf.model import GGUFModel
from groundup.formats.gguf.write import GGUFType, save_gguf
from groundup.formats.load import load, open_model
from groundup.formats.locate import GGUF_SUFFIX, TOKENIZER
from groundup.formats.own_config import not_in_hugging_face
from groundup.formats.peft import read_origin
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.text.chat import render_chat
from groundup.text.template import Renderings, TemplateFailed, render
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch


def verify(source: Path | str, against: Path | str | None = None) -> list[Check]:
    """Run all checks on the model, and compare it with its original `against`.

    Raises `UserError` for a model that cannot be loaded at all.
    """
    found = open_model(source)
    model, tokenizer = found.model(torch.float32), found.tokenizer
    if adapter_names(model):
        merge(model, reversible=False)
    checks = [*compared_with_itself(model, tokenizer), *_compared_with_transformers(found, model)]
    if against is not None:
        original, its_tokenizer = load(against)
        merge_and_dequantize(original, torch.float32)
        if isinstance(found, GGUFModel):
            checks += compared_with_gguf(original, its_tokenizer, found.path)
        else:
            dtype = found.model().head.dtype
            checks += compared_with_folder(original, its_tokenizer, found.path, dtype)
    elif not isinstance(found, GGUFModel):
        checks += _through_gguf(dequantize(model, torch.float32), tokenizer)
    return checks


def compared_with_itself(model: CausalLM, tokenizer: Tokenizer) -> list[Check]:
    """The checks that need neither another library nor another copy."""
    prompts = prompts_for(model, tokenizer)
    alone = [logits_of(model, ids) for ids in prompts]
    return [
        _rows_for_tokens(model, tokenizer),
        near("logits through the KV cache", [_cached(model, prompts[-1])], alone[-1:]),
        near("logits in a batch", _batched(model, prompts), alone),
        _greedy_alone_and_together(model, prompts),
        _round_trips(tokenizer),
        _control_tokens(tokenizer),
        _chat_template(tokenizer),
    ]


# One model, evaluated in several ways.


@torch.inference_mode()
def _cached(model: CausalLM, ids: Sequence[int]) -> Logits:
    """The logits of a text that is read in pieces of many tokens, one, two, …"""
    cache = model.empty_cache(rows=1, slots=len(ids))
    found, start = [], 0
    for size in (len(ids) // 2, 1, 1, 2, 5, len(ids)):
        end = min(len(ids), start + max(1, size))
        if start < end:
            piece = torch.tensor([list(ids[start:end])])
            batch = Batch.at(piece, torch.arange(start, end)[None])
            found.append(model.logits(batch, cache)[0])
        start = end
    return torch.cat(found)


@torch.inference_mode()
def _batched(model: CausalLM, prompts: Sequence[Sequence[int]]) -> list[Logits]:
    """The logits of prompts that are read together, the shorter ones padded on the right."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(list(prompt))
    together = model.logits(Batch.of(ids))
    return [row[: len(prompt)] for row, prompt in zip(together, prompts, strict=True)]


def _greedy_alone_and_together(model: CausalLM, prompts: Sequence[Sequence[int]]) -> Check:
    name = "greedy tokens in a batch"
    greedy = Sampling(temperature=0, max_new_tokens=GREEDY_TOKENS)
    requests = [Request(prompt_ids=ids, sampling=greedy) for ids in prompts]
    try:
        together = [found.ids for found in generate(model, requests)]
        alone = [generate(model, [request])[0].ids for request in requests]
    except UserError as error:  # logits that are not finite
        return Check(name, "differs", str(error))
    return equal(name, together, alone, "completions")


# Text.


def _rows_for_tokens(model: CausalLM, tokenizer: Tokenizer) -> Check:
    rows, tokens = model.config.vocab_size, tokenizer.vocab_size
    status: Status = "same" if tokens <= rows else "differs"
    about = f"{tokens:,} tokens, {rows:,} rows in the model"
    return Check("every token has its row", status, about)


def _round_trips(tokenizer: Tokenizer) -> Check:
    """Text to ids and back; a tokenizer that normalizes may return the normalized text.

    Leading blanks may differ: SentencePiece's tokenizers add and remove one.
    """
    name = "text to ids and back"
    texts = encodable(tokenizer, HARD_TEXTS)
    for text in texts:
        forms = (text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFKC")))
        back = tokenizer.decode(tokenizer.encode(text))
        if back.lstrip(" ") not in [form.lstrip(" ") for form in forms]:
            return Check(name, "differs", f"{text[:40]!r} does not survive the round trip")
    return Check(name, "same", f"{len(texts)} hard texts")


def _control_tokens(tokenizer: Tokenizer) -> Check:
    name = "no text becomes a control token"
    try:
        tokenizer.encode_batch([*HARD_TEXTS, " ".join(tokenizer.special_tokens)])
    except UserError as error:
        return Check(name, "differs", str(error))
    return Check(name, "same", f"{len(tokenizer.special_tokens)} control tokens")


def _chat_template(tokenizer: Tokenizer) -> Check:
    """Our rendering, which marks the messages' contents, against the folder's unmodified Jinja."""
    name = "chat template as its Jinja renders it"
    if tokenizer.chat_template is None:
        return Check(name, "not checked", "there is no chat template")
    rendering = Renderings([*TALK], [(len(TALK), True)], tokenizer.template_variables)
    try:
        plain = render(tokenizer.chat_template, rendering)
    except TemplateFailed as failure:
        return Check(name, "not checked", f"the template itself fails: {str(failure)[:200]}")
    try:
        return equal(name, [_rendered(tokenizer)], plain, "renderings")
    except UserError as error:
        return Check(name, "differs", str(error)[:300])


def _rendered(tokenizer: Tokenizer) -> str:
    return render_chat(tokenizer, TALK, generation_prompt=True)


# Another library.


def _why_not_in_transformers(found: StoredModel, model: CausalLM) -> str | None:
    """Why transformers (with PEFT for an adapter) cannot be compared; None if it can."""
    needed = ["transformers"]
    if (unknown := not_in_hugging_face(model.config)) is not None:
        return unknown
    if is_quantized(model):
        return "bitsandbytes multiplies 4-bit weights in bfloat16"
    if isinstance(found, AdapterFolder):
        needed.append("peft")
        if not isinstance(found.base, ModelFolder):
            return "the adapter's base is not a model folder that PEFT could read"
        if read_origin(found.path).quantization is not None:
            return "the adapter's base is quantized when it is loaded, each library in its own way"
    return _why_not_imported(needed)


def _why_not_imported(names: Sequence[str]) -> str | None:
    """Why one of these libraries cannot be imported; None if all can."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
        try:
            with _quiet():
                importlib.import_module(name)
        except Exception as error:  # any exception: its dependencies may be too old
            return f"{name} cannot be imported: {_in_one_line(error)}"
    return None


def _compared_with_transformers(found: StoredModel, model: CausalLM) -> list[Check]:
    if isinstance(found, GGUFModel):
        return []
    if (why := _why_not_in_transformers(found, model)) is not None:
        return [Check("logits and ids as transformers makes them", "not checked", why)]
    tokenizer = found.tokenizer
    # PEFT writes an adapter without a tokenizer; the base's is then used.
    at = found.path
    if isinstance(found, AdapterFolder) and not (at / TOKENIZER).is_file():
        at = found.base.path
    prompts = prompts_for(model, tokenizer)
    texts = encodable(tokenizer, HARD_TEXTS)
    with _quiet_transformers() as transformers:
        try:
            logits, their_ends = _their_logits(transformers, found, prompts)
            written = transformers.AutoTokenizer.from_pretrained(at, local_files_only=True)
        except Exception as error:  # any exception: transformers checks a folder while reading
            return [Check("loaded by transformers", "differs", _cannot_load(error))]
        added_tokens = _added_tokens(tokenizer, written)
        their_text, their_talk = _their_chat(written)
        # Our control tokens must be special in transformers, too: Qwen's files call <think>
        # ordinary.
        written.add_tokens([*tokenizer.special_tokens], special_tokens=True)
        their_ids = [
            written(text, add_special_tokens=False, split_special_tokens=True).input_ids
            for text in texts
        ]
    our_ends = end_ids(model.config, tokenizer)
    our_logits = [logits_of(model, ids) for ids in prompts]
    our_ids = [tokenizer.encode(text) for text in texts]
    checks = [
        near("logits as transformers computes them", our_logits, logits),
        added_tokens,
        # Answers of a base model also end where ChatML ends a turn, which its files may not list.
        same_ends(
            "where an answer ends in transformers",
            our_ends,
            their_ends,
            tokenizer,
            allowed=our_ends,
            why="where transformers goes on",
        ),
        equal("ids as transformers makes them", our_ids, their_ids, "hard texts", texts),
    ]
    if their_text is not None and tokenizer.chat_template is not None:
        text, ids = _rendered(tokenizer), chat_ids(tokenizer, PLAIN_TALK)
        checks += [
            equal("chat as transformers renders it", [text], [their_text], "renderings"),
            equal("chat ids as transformers makes them", [ids], [their_talk], "conversations"),
        ]
    return checks


def opened_by_transformers(folder: Path) -> Check:
    """Whether transformers, if it is installed, reads a model folder's settings."""
    name = "folder: opened by transformers"
    if (why := _why_not_imported(["transformers"])) is not None:
        return Check(name, "not checked", why)
    with _quiet_transformers() as transformers:
        try:
            for kind in (transformers.AutoConfig, transformers.AutoTokenizer):
                kind.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # any exception, as above
            return Check(name, "differs", _cannot_load(error))
    return Check(name, "same", "config and tokenizer")


def _cannot_load(error: Exception) -> str:
    return f"transformers cannot load it: {_in_one_line(error)}"


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _their_logits(
    transformers: Any, found: StoredModel, prompts: Sequence[Sequence[int]]
) -> tuple[list[Logits], list[int]]:
    """Logits after the prompts, and the tokens at which the library's `generate` stops."""
    base = found.base if isinstance(found, AdapterFolder) else found
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        base.path, dtype=torch.float32, local_files_only=True
    )
    if isinstance(found, AdapterFolder):
        import peft

        theirs = peft.PeftModel.from_pretrained(theirs, found.path)
    theirs.eval()
    ends = theirs.generation_config.eos_token_id
    with torch.inference_mode():
        logits = [theirs(torch.tensor([list(ids)])).logits[0].float() for ids in prompts]
    return logits, ends if isinstance(ends, list) else [] if ends is None else [ends]


def _added_tokens(tokenizer: Tokenizer, theirs: Any) -> Check:
    """Compare added tokens, including those only in tokenizer_config.json, and end tokens."""
    name = "added tokens as transformers knows them"
    end = theirs.eos_token_id
    if end is not None and end not in tokenizer.stop_ids:
        return Check(name, "differs", f"token {end} ends a sequence there, and not here")
    ours = [(one["id"], one["content"]) for one in tokenizer.content.get("added_tokens") or []]
    known = [(id, token) for token, id in theirs.get_added_vocab().items()]
    return equal(name, [sorted(ours)], [sorted(known)], "lists")


def _their_chat(tokenizer: Any) -> tuple[str | None, list[int] | None]:
    """The text of the talk with control tokens' names in it, and the ids of the one without."""
    if not tokenizer.chat_template:
        return None, None
    try:
        text: str = tokenizer.apply_chat_template(
            [*TALK], tokenize=False, add_generation_prompt=True
        )
        found = tokenizer.apply_chat_template(
            [*PLAIN_TALK], add_generation_prompt=True, return_dict=True
        )
    except Exception:  # a template can raise any Python exception
        return None, None
    return text, list(found["input_ids"])


@contextmanager
def _quiet_transformers() -> Iterator[Any]:
    """Import transformers without its progress bars and warnings, and those of its imports."""
    import transformers

    library: Any = transformers
    bars = library.utils.logging
    bars.disable_progress_bar()
    try:
        with _quiet():
            yield library
    finally:
        bars.enable_progress_bar()


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# Other copies.

# A copy that must be exact, and the most common quantized one.
_COPIES: tuple[GGUFType, ...] = ("f32", "q8_0")


def _through_gguf(model: CausalLM, tokenizer: Tokenizer) -> list[Check]:
    """Write the model as GGUF, exact and quantized, and read it back."""
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
