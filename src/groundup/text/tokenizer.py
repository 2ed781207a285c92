"""The tokenizer of a model folder: text to ids and back; text never becomes a control token.

A thin wrapper around the `tokenizers` library (fast, in Rust), written and read as Hugging Face's
`tokenizer.json` and `tokenizer_config.json`. It adds one guarantee: `encode` treats "<|im_end|>" in
a text as ten characters. Control tokens enter a sequence only by their ids, which `text/chat.py`
inserts where the chat template writes them.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from groundup.errors import UserError, shorten
from groundup.runs.files import MAX_TOKENIZER_BYTES, read_json_object, write_json
from groundup.text.pieces import Piece, pieces, streamed_pieces, without_taken_blanks
from groundup.text.pretokens import CHAR_TO_BYTE, valid_unicode
from groundup.text.template import CHATML, written_strings

if TYPE_CHECKING:
    from groundup.text.bpe import BPE
    from groundup.text.encoder import FastEncoder

After = Literal["nothing", "control", "text"]
AllowedSpecial = Collection[str] | Literal["all"]

# The longest pieces whose ids are cached, in characters, and the size of that cache.
_MAX_CACHED_CHARS, _MAX_CACHED = 16, 4096
# Total characters from which texts are a corpus, for which the fast encoder pays off.
_MIN_CORPUS_CHARS = 2**16

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


class Tokenizer:
    """Text ↔ ids for one model folder, with its chat template.

    `chat_template` is the Jinja source or None; `special_ids` are the ids of all control tokens,
    `hidden_ids` the subset that is not part of a model's answer, `spoken_tokens` the names of the
    others, `stop_ids` the ids that end generation; `hash` is the SHA-256 of the canonical
    `tokenizer.json`, with which token shards and runs identify their tokenizer.
    """

    def __init__(
        self, content: dict[str, Any], config: dict[str, Any], more_stop_ids: Iterable[int] = ()
    ) -> None:
        """Takes the parsed `tokenizer.json` and `tokenizer_config.json`; see `load`, `from_bpe`."""
        if _loses_text(content):
            raise UserError(
                "this tokenizer's tokens have no text of their own, because it drops blanks and "
                'marks parts of words (with "##" or "</w>"); use a model with a byte-level BPE, '
                "SentencePiece or Unigram tokenizer"
            )
        self._content, self._config = content, config
        self.chat_template: str | None = _default_template(config.get("chat_template"))
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        self.hash = hashlib.sha256(canonical.encode()).hexdigest()

        self.special_tokens = _control_tokens(content, self.chat_template)
        self.special_ids = frozenset(self.special_tokens.values())
        # A template's "<think>" is a control token that readers want to see.
        self.hidden_ids = frozenset(
            token["id"] for token in content.get("added_tokens") or [] if token["special"]
        )
        # The model itself produces these, such as Qwen's "<tool_call>".
        self.spoken_tokens = tuple(
            token for token, id in self.special_tokens.items() if id not in self.hidden_ids
        )
        self._fast = _without_control_tokens(content, self.special_ids)
        self._pieces: dict[After, tokenizers.Tokenizer] = {"nothing": self._fast}
        self._cached: dict[tuple[str, After], list[int]] = {}
        self._tokens = {id: token for token, id in self._fast.get_vocab().items()}
        self.vocab_size = max(self._tokens) + 1
        self._bytes = _bytes_of_tokens(self._tokens, content)
        ends = [self.special_tokens.get(END_OF_TEXT), self.special_tokens.get(IM_END)]
        ends += [self._named_id("eos_token"), *more_stop_ids]
        self.stop_ids = frozenset(end for end in ends if end is not None)
        # In a vocabulary without bytes, an unknown letter legitimately becomes the unknown token.
        self._forbidden_ids = self.special_ids - {_unknown_id(content, self._fast)} | self.stop_ids

    @classmethod
    def from_bpe(cls, bpe: BPE, chat_template: str | None = CHATML) -> Tokenizer:
        """Make a tokenizer from a trained `bpe`, with its split pattern and no normalizer."""
        fast = tokenizers.Tokenizer(models.BPE(vocab=bpe.vocab, merges=bpe.merges))
        fast.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(bpe.pattern), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        fast.decoder = decoders.ByteLevel()
        fast.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in bpe.special_tokens]
        )
        return cls(json.loads(fast.to_str()), _own_config(bpe.special_tokens, chat_template))

    @classmethod
    def load(cls, folder: Path | str) -> Tokenizer:
        """Read the tokenizer of any Hugging Face folder that has a `tokenizer.json`."""
        folder = Path(expanduser(folder))
        content = _read_json(folder / "tokenizer.json", MAX_TOKENIZER_BYTES)
        if content is None:
            raise UserError(
                f"{folder} holds no tokenizer.json; give a model folder written by `groundup` or "
                "by `save_pretrained` of transformers"
            )
        config = _read_json(folder / "tokenizer_config.json") or {}
        if "added_tokens_decoder" not in config:
            # As in transformers: the map counts only in older folders, and takes precedence there.
            config |= _read_json(folder / "special_tokens_map.json") or {}
        config["chat_template"] = _read_template(folder, config)
        ends = (_read_json(folder / "generation_config.json") or {}).get("eos_token_id")
        file = folder / "tokenizer.json"
        with tokenizer_errors(f"{file} is not a tokenizer that can be read"):
            content = _with_named_tokens(content, config, _read_json(folder / "added_tokens.json"))
            ends = ends if isinstance(ends, list) else [ends]
            return cls(content, config, [end for end in ends if end is not None])

    def able_to_chat(self) -> Tokenizer:
        """This tokenizer; if it has no chat template but ChatML's tokens, with ChatML as template.

        Base models are often published with a chat model's vocabulary and without a template.
        """
        if self.chat_template is not None or not {IM_START, IM_END} <= set(self.special_tokens):
            return self
        config = self._config | {"chat_template": CHATML, "eos_token": IM_END}
        return Tokenizer(self._content, config, self.stop_ids)

    def with_chat_tokens(self) -> Tokenizer:
        """This tokenizer with ChatML's tokens added to its vocabulary, and ChatML as template.

        A model needs embeddings for these tokens (`CausalLM.add_tokens`), and has to learn them.
        """
        fast = tokenizers.Tokenizer.from_str(json.dumps(self._content))
        form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        new = [AddedToken(token, special=True, normalized=False) for token in (IM_START, IM_END)]
        fast.add_special_tokens(new)
        ids = {token: fast.get_vocab()[token] for token in (IM_START, IM_END)}
        added = [{"id": id, "content": text, **form, "special": True} for text, id in ids.items()]
        own = self._content.get("added_tokens") or []
        kept = [one for one in own if one["content"] not in ids]
        together = sorted([*kept, *added], key=lambda one: one["id"])
        content = self._content | {"added_tokens": together}
        config = self._config | {"chat_template": CHATML, "eos_token": IM_END}
        if isinstance(decoder := config.get("added_tokens_decoder"), dict):
            more = {str(one["id"]): {k: v for k, v in one.items() if k != "id"} for one in added}
            config["added_tokens_decoder"] = decoder | more
        made = Tokenizer(content, config, self.stop_ids)
        # With holes among the ids, the library gives a token an id that another has.
        if any(
            self._tokens.get(id, token) != token or made._tokens.get(id) != token
            for token, id in ids.items()
        ):
            raise UserError(
                "this tokenizer's ids have gaps, so no chat tokens can be added to it; use a model "
                "with a chat template"
            )
        return made

    def with_template(self, template: str) -> Tokenizer:
        """This tokenizer with this chat template instead of its own, or of its default one."""
        several = self._config.get("chat_template")
        named: Any = template
        if isinstance(several, list):
            others = [one for one in several if one.get("name") != "default"]
            named = [{"name": "default", "template": template}, *others]
        return Tokenizer(self._content, self._config | {"chat_template": named}, self.stop_ids)

    def save(self, folder: Path | str) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` (with the chat template)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            key: _token_form(key, value) for key, value in self._config.items() if value is not None
        }
        for name, value in (("tokenizer.json", self._content), ("tokenizer_config.json", config)):
            write_json(folder / name, value)

    def encode(self, text: str, allowed_special: AllowedSpecial = ()) -> list[int]:
        """Return the ids of `text`; none is a control token, whatever the text contains.

        Exception: each of `allowed_special` (names of control tokens, or "all") that occurs in the
        text becomes its id, as in tiktoken; others are text, and no error. Do not use it for texts
        from users or data sets, which could then write the assistant's turns.

        Raises `UserError` for a name that is no control token.
        """
        if not isinstance(text, str):
            raise _not_text(text)
        allowed = self._allowed(allowed_special)
        if not allowed:
            return self.encode_batch([text])[0]
        return list(self._ids_of(pieces(text, allowed)))

    def encode_iterable(
        self, texts: Iterable[str], allowed_special: AllowedSpecial = ()
    ) -> Iterator[int]:
        """Return the ids of all `texts` joined, such as the lines of a file, one by one.

        They equal those of `encode("".join(texts))`, wherever the texts are divided. Only a few
        thousand characters are held at a time, so files of any size can be encoded.
        """
        allowed = self._allowed(allowed_special)
        checked = map(_checked_text, texts)
        return self._ids_of(
            streamed_pieces(checked, allowed, self._boundaries, self._longest_added)
        )

    def _allowed(self, allowed: AllowedSpecial) -> frozenset[str]:
        if allowed == "all":
            return frozenset(self.special_tokens)
        if isinstance(allowed, str):
            raise UserError(
                f"allowed_special={allowed!r} is one string; give a set of names, or 'all'"
            )
        unknown = sorted(set(allowed) - set(self.special_tokens))
        if unknown:
            raise UserError(
                f"allowed_special names {unknown[0]!r}, which is no control token of this "
                f"tokenizer; it has {', '.join(self.special_tokens) or 'none'}"
            )
        return frozenset(allowed)

    def _ids_of(self, parts: Iterable[Piece]) -> Iterator[int]:
        after: After = "nothing"
        if self.taking_blanks:
            marked = ((text, is_control, None) for text, is_control in parts)
            parts = (one[:2] for one in without_taken_blanks(marked, self.taking_blanks))
        for text, is_control in parts:
            if is_control:
                yield self.special_tokens[text]
                after = "control"
            elif text:
                yield from self.encode_piece(text, after)
                after = "text"

    def _boundaries(self, text: str) -> Iterable[int]:
        """The places where this tokenizer splits a text, as far as known without encoding it."""
        if self._joins_words:
            return ()
        text = valid_unicode(text)
        within = {
            place
            for found in re.finditer(self._added, text)
            # After an added token a text may start anew, which a piece starting there would miss.
            for place in range(
                found.start() + 1, found.end() + (self._added_token_finder is not None)
            )
        }
        # Whether a whole-word token matches depends on the adjacent letters.
        for found in re.finditer(self._single_words, text):
            within.update(found.span())
        return (place for place in self._word_ends(text) if place not in within)

    def _word_ends(self, text: str) -> Iterable[int]:
        """The ends of words; no token contains the end of one and the beginning of the next."""
        normalized = self._fast.normalizer is not None and (
            self._fast.normalizer.normalize_str(text) != text
        )
        if self._fast.pre_tokenizer is None or normalized:
            # A normalizer may change the inside of words.
            return (place for place, letter in enumerate(text) if letter == " ")
        with tokenizer_errors("this tokenizer fails on a text"):
            parted = self._fast.pre_tokenizer.pre_tokenize_str(text)
        return (end for _, (_, end) in parted)

    @cached_property
    def taking_blanks(self) -> dict[str, tuple[bool, bool]]:
        """The control tokens that absorb blanks, with whether they do before and after."""
        sides = {
            one["content"]: (bool(one.get("lstrip")), bool(one.get("rstrip")))
            for one in self._content.get("added_tokens") or []
            if one["id"] in self.special_ids
        }
        return {token: taken for token, taken in sides.items() if any(taken)}

    @cached_property
    def _added(self) -> str:
        """A pattern of the added tokens that a text may contain, with the blanks they absorb."""
        blanks = {True: r"\s*", False: ""}
        plain = [
            blanks[bool(one.get("lstrip"))]
            + re.escape(one["content"])
            + blanks[bool(one.get("rstrip"))]
            for one in self._content.get("added_tokens") or []
            if one["id"] not in self.special_ids and one["content"]
        ]
        return "|".join(sorted(plain, key=len, reverse=True)) or "(?!)"

    @cached_property
    def _single_words(self) -> str:
        """A pattern of the added tokens that only match between non-letters."""
        added = self._content.get("added_tokens") or []
        alone = {one["content"] for one in added if one.get("single_word") and one["content"]}
        return "|".join(map(re.escape, sorted(alone, key=len, reverse=True))) or "(?!)"

    @property
    def _longest_added(self) -> int:
        added = self._content.get("added_tokens") or []
        return max((len(one["content"]) for one in added), default=0)

    @cached_property
    def _joins_words(self) -> bool:
        """Whether a token may contain the end of a word and the beginning of the next."""
        if '"Strip"' in json.dumps(self._content.get("normalizer")):
            return True
        if self._fast.pre_tokenizer is not None:
            return False
        # The blank as written by SentencePiece, and by a byte-level normalizer.
        blanks = " ▁Ġ" if '"ByteLevel"' in json.dumps(self._content.get("normalizer")) else " ▁"
        crossing = re.compile(f"[^{blanks}][{blanks}]")
        return any(crossing.search(token) for token in self._tokens.values())

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Return the ids of each of `texts`, as `encode` does, on several cores."""
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise UserError(
                f"texts={shorten(texts)} is a single {type(texts).__name__}; give a list of texts"
            )
        texts = list(texts)
        for text in texts:
            if not isinstance(text, str):
                raise _not_text(text)
        if sum(map(len, texts)) < _MIN_CORPUS_CHARS or self._encoder is None:
            return self._encoded(self._fast, texts)
        found = self._encoder.encode([valid_unicode(text).encode() for text in texts])
        left = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        others = iter(self._encoded(self._fast, left))
        return [next(others) if ids is None else ids.tolist() for ids in found]

    @cached_property
    def _encoder(self) -> FastEncoder | None:
        from groundup.text.encoder import FastEncoder

        return FastEncoder.of(self._content, self.special_ids, self.stop_ids)

    def encode_piece(self, text: str, after: After) -> list[int]:
        """Return the ids of a text that follows another text, or a control token.

        SentencePiece's and some other tokenizers prepend a blank to a text. After added tokens,
        including control tokens, some do and some do not; inside a text none does.
        """
        # Short pieces are cached, such as those that a chat template writes around every message.
        if (
            len(text) <= _MAX_CACHED_CHARS
            and (known := self._cached.get((text, after))) is not None
        ):
            return list(known)
        begin = self._first_added(text) if after == "text" else len(text)
        ids = self._encoded(self._tokenizer_after(after), [text[:begin]])[0] if begin else []
        if begin < len(text):
            ids += self._encoded(self._tokenizer_after("control"), [text[begin:]])[0]
        if len(text) <= _MAX_CACHED_CHARS and len(self._cached) < _MAX_CACHED:
            self._cached[text, after] = list(ids)
        return ids

    def _tokenizer_after(self, after: After) -> tokenizers.Tokenizer:
        if after not in self._pieces:
            changed = _continuing(self._content, after)
            same = changed == self._content
            fast = self._fast if same else _without_control_tokens(changed, self.special_ids)
            self._pieces[after] = fast
        return self._pieces[after]

    def _first_added(self, text: str) -> int:
        """The index of the first added token in a text, after which a text starts anew.

        The length of the text if it has none, or if preceding tokens do not change an encoding.
        """
        if self._added_token_finder is None:
            return len(text)
        with tokenizer_errors("this tokenizer fails on a text"):
            found = self._added_token_finder.encode(valid_unicode(text), add_special_tokens=False)
        added = (span[0] for id, span in zip(found.ids, found.offsets, strict=True) if id)
        return next(added, len(text))

    @cached_property
    def _added_token_finder(self) -> tokenizers.Tokenizer | None:
        """Finds ordinary added tokens like the library; everything else is the unknown token, 0."""
        added = self._content.get("added_tokens") or []
        within = _continuing(self._content, "text")
        ordinary = any(one["id"] not in self.special_ids for one in added)
        if not ordinary or within == _continuing(self._content, "control"):
            return None
        unknown = "?" * (self._longest_added + 1)
        words = {"type": "WordLevel", "vocab": {unknown: 0}, "unk_token": unknown}
        only = {"model": words, "pre_tokenizer": None, "post_processor": None, "decoder": None}
        return _without_control_tokens(within | only, self.special_ids)

    def encode_pieces(self, pieces: Sequence[tuple[str, After]]) -> list[list[int] | None]:
        """Encode many pieces at once; None for each that `encode_piece` must encode."""
        if sum(len(text) for text, _ in pieces) < _MIN_CORPUS_CHARS or self._encoder is None:
            return [None] * len(pieces)
        # For the tokenizers that it supports, the encoding does not depend on what precedes.
        found = self._encoder.encode([valid_unicode(text).encode() for text, _ in pieces])
        return [None if ids is None else ids.tolist() for ids in found]

    def _encoded(self, fast: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        safe = [valid_unicode(text) for text in texts]
        with tokenizer_errors("this tokenizer fails on a text"):
            batch = fast.encode_batch_fast(safe, add_special_tokens=False)
        ids: list[list[int]] = [encoding.ids for encoding in batch]
        for text, encoded in zip(texts, ids, strict=True):
            if not self._forbidden_ids.isdisjoint(encoded):
                # Ours cannot: no merge yields a control token. A foreign vocabulary might.
                raise UserError(
                    f"this tokenizer turns the plain text into a control token: {text[:80]!r}; "
                    "remove that text, or use a byte-level tokenizer"
                )
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        with tokenizer_errors("this tokenizer cannot decode its tokens"):
            try:
                kept = [i for i in ids if i not in self.hidden_ids] if skip_special else list(ids)
                text: str = self._fast.decode(kept, skip_special_tokens=False)
                if not self._byte_like_ids.isdisjoint(kept):
                    text = b"".join(map(self.token_bytes, kept)).decode(errors="replace")
            except (TypeError, OverflowError):  # the library's own errors are bare Exceptions
                raise UserError(
                    f"ids={shorten(ids)} must be a list of token ids, whole numbers of 0 or more; "
                    "give what encode returns"
                ) from None
        return text

    @cached_property
    def _byte_like_ids(self) -> frozenset[int]:
        """Added tokens such as "é", whose letters the library's decoder would turn into bytes."""
        if (self._content.get("decoder") or {}).get("type") != "ByteLevel":
            return frozenset()
        added = self._content.get("added_tokens") or []
        return frozenset(one["id"] for one in added if not one["content"].isascii())

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of token `id`: whole characters or part of one.

        Empty for an id past the vocabulary: models round their vocabulary size up.
        """
        return self._bytes.get(id, b"")

    @cached_property
    def longest_token(self) -> int:
        """The largest number of bytes of any token."""
        return max(map(len, self._bytes.values()))

    @property
    def end_of_text(self) -> int:
        """The id that separates documents and pads."""
        return self._first_id(END_OF_TEXT, "eos_token")

    @property
    def bos_id(self) -> int | None:
        """The id of its `bos_token`, with which a text begins; None if it has none."""
        return self._named_id("bos_token")

    @property
    def eos_id(self) -> int | None:
        """The id of its `eos_token`, with which a sequence ends; None if it has none."""
        return self._named_id("eos_token")

    @property
    def largest_written_id(self) -> int:
        """The largest id that can occur in an encoded text or conversation.

        Excludes control tokens such as "<pad>" that were added but that no template writes.
        """
        written = self.stop_ids | {self.bos_id, *self.opening_ids}
        template = self.chat_template or ""
        idle = {
            id
            for token, id in self.special_tokens.items()
            if token not in template and id not in written
        }
        return max(self._tokens.keys() - idle)

    @cached_property
    def opening_ids(self) -> list[int]:
        """The ids that its post-processor puts before texts, such as Llama's <s>; usually none."""
        with tokenizer_errors("this tokenizer fails on a text"):
            plain, whole = (
                self._fast.encode("a", add_special_tokens=added).ids for added in (False, True)
            )
            return list(whole[: whole.index(plain[0])]) if plain else []

    @property
    def im_start(self) -> int:
        """The id that opens a message in ChatML."""
        return self._first_id(IM_START)

    @property
    def im_end(self) -> int:
        """The id that closes a message; without ChatML, the end-of-sequence id."""
        return self._first_id(IM_END, "eos_token")

    @property
    def content(self) -> Mapping[str, Any]:
        """The content of `tokenizer.json`, for conversion to another format."""
        return self._content

    def same_tokens(self, other: Tokenizer) -> bool:
        """Whether both encode texts alike and every id is the same token, added ones included."""
        return self._content["model"] == other._content["model"] and self._tokens == other._tokens

    @property
    def template_variables(self) -> dict[str, str]:
        """The variables for control tokens that a chat template may use, such as `bos_token`."""
        names = [name for name in self._config if name.endswith("_token")]
        named = {name: _token_text(self._config[name]) for name in names}
        return {name: text for name, text in named.items() if text is not None}

    def _named_id(self, name: str) -> int | None:
        text = _token_text(self._config.get(name))
        return None if text is None else self._fast.token_to_id(text)

    def _first_id(self, token: str, else_named: str | None = None) -> int:
        id = self.special_tokens.get(token)
        if id is None and else_named is not None:
            id = self._named_id(else_named)
        if id is None:
            raise UserError(
                f"this tokenizer has no control token {token}; use a model folder whose "
                "tokenizer_config.json names one"
            )
        return id


class StreamDecoder:
    """Turns ids into text one by one, holding back bytes until they form whole characters.

    Control tokens are left out.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        """Return the text that token `id` completes, often a word and sometimes nothing."""
        if id in self._tokenizer.hidden_ids:
            return ""
        return self._utf8.decode(self._tokenizer.token_bytes(id))

    def finish(self) -> str:
        """Return the rest: U+FFFD if the last character is incomplete."""
        return self._utf8.decode(b"", final=True)


def _checked_text(text: object) -> str:
    if not isinstance(text, str):
        raise _not_text(text)
    return text


def _not_text(value: object) -> UserError:
    return UserError(f"{shorten(value)} is of type {type(value).__name__}; give a str")


@contextmanager
def tokenizer_errors(what: str) -> Iterator[None]:
    """Turns any error of the Rust library for a damaged or hostile file into one sentence.

    The library raises bare Exceptions, and panics that are not Exceptions: on a split pattern that
    never finishes, among others.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{what} ({why}); fetch or write the folder again") from None


def _own_config(special_tokens: Sequence[str], chat_template: str | None) -> dict[str, Any]:
    """Return the `tokenizer_config.json` of one of our tokenizers.

    The class is the generic one: under a Qwen class name transformers would replace our
    pre-tokenizer by its own, with a normalizer. The end of a turn is the end of a sequence for
    programs that generate with the folder. Documents end with the padding token, and a text begins
    after it, like the next document in training: so it is the beginning-of-sequence token, too, for
    programs that score whole texts. It must not be put before prompts by default, because chats
    have none.
    """
    end, pad = (token if token in special_tokens else None for token in (IM_END, END_OF_TEXT))
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": pad,
        "add_bos_token": False,
        "eos_token": end or pad,
        "pad_token": pad,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": chat_template,
    }


def _with_named_tokens(
    content: dict[str, Any], config: dict[str, Any], added: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the `tokenizer.json` with the added tokens that only the files next to it have.

    transformers adds them after its vocabulary: those of `added_tokens_decoder` (in older folders
    of `added_tokens.json`) in the order of their ids, then each `eos_token` and the like, and
    finally the extra ones, which are special.
    """
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    extra = [*(extra.values() if isinstance(extra, dict) else extra)]
    # The kinds that every tokenizer may have come first, in this order.
    kinds = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    names = dict.fromkeys(f"{kind}_token" for kind in kinds)
    names |= dict.fromkeys(name for name in config if name.endswith("_token"))
    named = [config.get(name) for name in names]
    # If two name the same token, it has the form given by the first.
    special: dict[str, AddedToken] = {}
    for one in (*named, *extra):
        if (text := _token_text(one)) and text not in special:
            special[text] = _special_token(one, text)
    decoder = config.get("added_tokens_decoder")
    if decoder is None:
        decoder = {
            id: {"content": text, "normalized": text not in special}
            for text, id in (added or {}).items()
        }
    found = {
        one["content"]: AddedToken(**one | ({"special": True} if one["content"] in special else {}))
        for _, one in sorted(decoder.items(), key=lambda item: int(item[0]))
    }
    found |= {text: token for text, token in special.items() if text not in found}
    known = {token["content"] for token in content.get("added_tokens") or []}
    missing = [token for text, token in found.items() if text not in known]
    if not missing:
        return content
    fast = tokenizers.Tokenizer.from_str(json.dumps(content))
    fast.add_tokens(missing)
    whole: dict[str, Any] = json.loads(fast.to_str())
    return whole


def _loses_text(content: dict[str, Any]) -> bool:
    """Whether the text of a sequence differs from its tokens, joined, as in WordPiece."""
    model = content.get("model") or {}
    if model.get("type") == "WordPiece" or model.get("end_of_word_suffix"):
        return True
    # Blanks are dropped, and no decoder restores them.
    parted = json.dumps(content.get("pre_tokenizer"))
    return content.get("decoder") is None and ('"Whitespace' in parted or '"Bert' in parted)


def _unknown_id(content: dict[str, Any], fast: tokenizers.Tokenizer) -> int | None:
    """Return the id of the unknown token; None if every text can be encoded."""
    model = content.get("model") or {}
    token = model.get("unk_token")
    return fast.token_to_id(token) if isinstance(token, str) else model.get("unk_id")


def _control_tokens(content: dict[str, Any], chat_template: str | None) -> dict[str, int]:
    """Return token → id for the tokens that no text may become.

    These are the special tokens and every added token that the chat template writes, such as Qwen's
    "<think>", which its files declare to be ordinary. Other added tokens (in some vocabularies runs
    of spaces) are text, even if a template has a variable of that name.
    """
    added: list[dict[str, Any]] = content.get("added_tokens") or []
    source = chat_template or ""
    ordinary = [token["content"] for token in added if not token["special"]]
    written: set[str] = set()
    if any(token.strip() and token in source for token in ordinary):
        # Of two that begin at the same place the longer counts.
        longest_first = sorted((token["content"] for token in added), key=len, reverse=True)
        tokens = re.compile("|".join(map(re.escape, filter(None, longest_first))))
        written.update(*map(tokens.findall, written_strings(source)))
    return {
        token["content"]: token["id"]
        for token in added
        if token["special"] or (token["content"].strip() and token["content"] in written)
    }


def _without_control_tokens(
    content: dict[str, Any], special_ids: frozenset[int]
) -> tokenizers.Tokenizer:
    """Build the fast tokenizer so that it matches no control token in a text."""
    added = [
        token | {"special": token["id"] in special_ids}
        for token in content.get("added_tokens") or []
    ]
    plain = content | {"added_tokens": added, "truncation": None, "padding": None}
    fast = tokenizers.Tokenizer.from_str(json.dumps(plain))
    fast.encode_special_tokens = True  # the library's name for encoding them as plain text
    return fast


def _continuing(part: Any, after: After) -> Any:
    """Return a tokenizer.json, or a part of it, configured for the inside of a sequence."""
    if isinstance(part, list):
        return [_continuing(one, after) for one in part]
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "Metaspace" and (after == "text" or part.get("prepend_scheme") == "first"):
        return part | {"prepend_scheme": "never", "add_prefix_space": False}
    if kind == "ByteLevel" and after == "text":
        return part | {"add_prefix_space": False}
    if kind == "Prepend" and after == "text":
        return {"type": "Sequence", "normalizers": []}
    within = ("normalizer", "normalizers", "pre_tokenizer", "pretokenizers")
    return part | {name: _continuing(part[name], after) for name in within if name in part}


def _bytes_of_tokens(tokens: dict[int, str], content: dict[str, Any]) -> dict[int, bytes]:
    """Return id → bytes, decoded from the byte alphabet or from SentencePiece's "▁" words.

    Added tokens are stored literally, not in the byte alphabet.
    """
    added = {token["id"] for token in content.get("added_tokens") or []}
    byte_level = '"ByteLevel"' in json.dumps([content.get("decoder"), content.get("pre_tokenizer")])

    def spell(id: int, token: str) -> bytes:
        if id in added:
            return token.encode("utf-8")
        if byte_level:
            drawn = [CHAR_TO_BYTE.get(char) for char in token]
            return bytes([byte for byte in drawn if byte is not None])
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").encode("utf-8")

    return {id: spell(id, token) for id, token in tokens.items()}


def _token_text(value: Any) -> str | None:
    """Return a token's text, which older configs wrap as {"content": …}; None for anything else."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _special_token(one: Any, text: str) -> AddedToken:
    """Return the control token that a config names, with the blanks that it absorbs."""
    sides = ("single_word", "lstrip", "rstrip", "normalized")
    form = {name: one[name] for name in sides if name in one} if isinstance(one, dict) else {}
    return AddedToken(text, special=True, **form)


def _token_form(key: str, value: Any) -> Any:
    """Return a config's entry for control tokens in a form that transformers reads.

    Only in special_tokens_map.json may a token be an object without its type. The blanks that it
    absorbs are in tokenizer.json, too.
    """
    if key in ("additional_special_tokens", "extra_special_tokens") and isinstance(value, list):
        return [_token_form("_token", one) for one in value]
    typed = isinstance(value, dict) and "__type" in value
    return value if typed or not key.endswith("_token") else _token_text(value) or value


def _read_template(folder: Path, config: dict[str, Any]) -> Any:
    """Return the chat template, or several as in tokenizer_config.json: [{name, template}].

    Separate files take precedence over the config's entry: the default one and others by name.
    """
    named = {"default": folder / "chat_template.jinja"}
    named |= {path.stem: path for path in sorted(folder.glob("additional_chat_templates/*.jinja"))}
    found = {name: _read_text(path) for name, path in named.items() if path.is_file()}
    template = config.get("chat_template")
    if not found:
        return template if isinstance(template, str | list) else None
    if "default" not in found and (default := _default_template(template)) is not None:
        found["default"] = default
    if [*found] == ["default"]:
        return found["default"]
    return [{"name": name, "template": template} for name, template in found.items()]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not text in UTF-8 (byte {error.start}); fetch the folder again"
        ) from None


def _default_template(template: Any) -> str | None:
    """Return the default template, from a single one or from several by name."""
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, dict)]
        template = next((e.get("template") for e in entries if e.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _read_json(path: Path, *most: int) -> dict[str, Any] | None:
    """Return the JSON object in `path`, or None if there is no such file."""
    return read_json_object(path, *most) if path.is_file() else None
