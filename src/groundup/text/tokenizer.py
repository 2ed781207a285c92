"""The tokenizer of a model folder: text to ids and back, where text never becomes a control token.

A thin hand around the `tokenizers` library (fast, in Rust), written and read as Hugging Face's
`tokenizer.json` and `tokenizer_config.json`. What it adds is one promise: `encode` treats
"<|im_end|>" in a text as ten characters. Control tokens enter a sequence by their ids alone, which
`text/chat.py` puts where the chat template writes them.
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
from groundup.runs.files import MOST_TOKENIZER_BYTES, read_json_object, write_json
from groundup.text.pieces import Piece, pieces, streamed_pieces, without_taken_blanks
from groundup.text.pretokens import CHAR_TO_BYTE, valid_unicode
from groundup.text.template import CHATML, written_strings

if TYPE_CHECKING:
    from groundup.text.bpe import BPE
    from groundup.text.encoder import FastEncoder

After = Literal["nothing", "control", "text"]
AllowedSpecial = Collection[str] | Literal["all"]

# Pieces of so many characters are encoded once, and so many of them are remembered.
_SHORT, _MOST_SHORT = 16, 4096
# Texts of so many characters together are a corpus, for which the fast encoder pays.
_CORPUS = 2**16

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


class Tokenizer:
    """Text ↔ ids for one model folder, with its chat template.

    `chat_template` is the Jinja source or None; `special_ids` are the ids of all control tokens,
    `hidden_ids` those of them that are no part of what a model says, `spoken_tokens` the others by
    name, `stop_ids` those at which the model has finished speaking; `hash` is the SHA-256 of the
    canonical `tokenizer.json`, by which token shards and runs know their tokenizer.
    """

    def __init__(
        self, content: dict[str, Any], config: dict[str, Any], more_stop_ids: Iterable[int] = ()
    ) -> None:
        """Take the parsed `tokenizer.json` and `tokenizer_config.json`; see `load`, `from_bpe`."""
        if _parts_words(content):
            raise UserError(
                "this tokenizer's tokens have no text of their own, as it leaves blanks out and "
                'marks parts of words, with "##" or "</w>" say; use a model with a byte-level BPE, '
                "SentencePiece or Unigram tokenizer"
            )
        self._content, self._config = content, config
        self.chat_template: str | None = _default_template(config.get("chat_template"))
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        self.hash = hashlib.sha256(canonical.encode()).hexdigest()

        self.special_tokens = _control_tokens(content, self.chat_template)
        self.special_ids = frozenset(self.special_tokens.values())
        # A template's "<think>" is a control token that a reader wants to see.
        self.hidden_ids = frozenset(
            token["id"] for token in content.get("added_tokens") or [] if token["special"]
        )
        # The model itself says those, such as Qwen's "<tool_call>".
        self.spoken_tokens = tuple(
            token for token, id in self.special_tokens.items() if id not in self.hidden_ids
        )
        self._fast = _without_control_tokens(content, self.special_ids)
        self._pieces: dict[After, tokenizers.Tokenizer] = {"nothing": self._fast}
        self._short: dict[tuple[str, After], list[int]] = {}
        self._tokens = {id: token for token, id in self._fast.get_vocab().items()}
        self.vocab_size = max(self._tokens) + 1
        self._bytes = _bytes_of_tokens(self._tokens, content)
        ends = [self.special_tokens.get(END_OF_TEXT), self.special_tokens.get(IM_END)]
        ends += [self._named_id("eos_token"), *more_stop_ids]
        self.stop_ids = frozenset(end for end in ends if end is not None)
        # A letter that a vocabulary without bytes does not know is its unknown token, by no malice.
        self._never_text = self.special_ids - {_unknown_id(content, self._fast)} | self.stop_ids

    @classmethod
    def from_bpe(cls, bpe: BPE, chat_template: str | None = CHATML) -> Tokenizer:
        """Make a tokenizer of a trained `bpe`, with its split pattern and no normalizer."""
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
        """Read the tokenizer of any Hugging Face folder that holds a `tokenizer.json`."""
        folder = Path(expanduser(folder))
        content = _read_json(folder / "tokenizer.json", MOST_TOKENIZER_BYTES)
        if content is None:
            raise UserError(
                f"{folder} holds no tokenizer.json; name a model folder that `groundup` or "
                "`save_pretrained` of transformers has written"
            )
        config = _read_json(folder / "tokenizer_config.json") or {}
        if "added_tokens_decoder" not in config:
            # As transformers does: the map counts in older folders alone, and there it counts more.
            config |= _read_json(folder / "special_tokens_map.json") or {}
        config["chat_template"] = _read_template(folder, config)
        ends = (_read_json(folder / "generation_config.json") or {}).get("eos_token_id")
        file = folder / "tokenizer.json"
        with faults_named(f"{file} is not a tokenizer that can be read"):
            content = _with_named_tokens(content, config, _read_json(folder / "added_tokens.json"))
            ends = ends if isinstance(ends, list) else [ends]
            return cls(content, config, [end for end in ends if end is not None])

    def able_to_chat(self) -> Tokenizer:
        """This tokenizer or, where it has no chat template, one with ChatML, if it has its tokens.

        Base models are often published with a chat model's vocabulary and without a template.
        """
        if self.chat_template is not None or not {IM_START, IM_END} <= set(self.special_tokens):
            return self
        config = self._config | {"chat_template": CHATML, "eos_token": IM_END}
        return Tokenizer(self._content, config, self.stop_ids)

    def with_template(self, template: str) -> Tokenizer:
        """This tokenizer with that chat template in the place of its own, or of its default one."""
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
        """Return the ids of `text`; none is a control token, whatever the text says.

        Unless it is asked for: of `allowed_special`, names of control tokens or "all", each one
        that stands in the text becomes its id (tiktoken's word; others are text, and no error). Not
        for texts from users or data sets, who could then write the assistant's turns.

        Raises `UserError` for a name that is no control token.
        """
        if not isinstance(text, str):
            raise _no_text(text)
        allowed = self._allowed(allowed_special)
        if not allowed:
            return self.encode_batch([text])[0]
        return list(self._ids_of(pieces(text, allowed)))

    def encode_iterable(
        self, texts: Iterable[str], allowed_special: AllowedSpecial = ()
    ) -> Iterator[int]:
        """Return the ids of all `texts` joined, such as the lines of a file, one after the other.

        They are those of `encode("".join(texts))`, wherever the texts happen to be parted, and
        only a few thousand letters are held at a time: a file of any size can be encoded so.
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
        """Where this tokenizer parts a text, as far as that can be told without encoding it."""
        if self._joins_words:
            return ()
        text = valid_unicode(text)
        within = {
            place
            for found in re.finditer(self._added, text)
            # Behind one a text may begin anew, which a piece that begins there would not know.
            for place in range(found.start() + 1, found.end() + (self._finder is not None))
        }
        # Whether one that must be a word alone is a token hangs on the letters beside it.
        for found in re.finditer(self._single_words, text):
            within.update(found.span())
        return (place for place in self._word_ends(text) if place not in within)

    def _word_ends(self, text: str) -> Iterable[int]:
        """Where words end, of which no token has the end and a beginning."""
        normalized = self._fast.normalizer is not None and (
            self._fast.normalizer.normalize_str(text) != text
        )
        if self._fast.pre_tokenizer is None or normalized:
            # What a normalizer changes it changes within words.
            return (place for place, letter in enumerate(text) if letter == " ")
        with faults_named("this tokenizer fails on a text"):
            parted = self._fast.pre_tokenizer.pre_tokenize_str(text)
        return (end for _, (_, end) in parted)

    @cached_property
    def taking_blanks(self) -> dict[str, tuple[bool, bool]]:
        """The control tokens that take in the blanks before them, or behind them."""
        sides = {
            one["content"]: (bool(one.get("lstrip")), bool(one.get("rstrip")))
            for one in self._content.get("added_tokens") or []
            if one["id"] in self.special_ids
        }
        return {token: taken for token, taken in sides.items() if any(taken)}

    @cached_property
    def _added(self) -> str:
        """A pattern of the added tokens that a text may hold, with the blanks that they take."""
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
        """A pattern of the added tokens that are only tokens where no letter stands beside them."""
        added = self._content.get("added_tokens") or []
        alone = {one["content"] for one in added if one.get("single_word") and one["content"]}
        return "|".join(map(re.escape, sorted(alone, key=len, reverse=True))) or "(?!)"

    @property
    def _longest_added(self) -> int:
        added = self._content.get("added_tokens") or []
        return max((len(one["content"]) for one in added), default=0)

    @cached_property
    def _joins_words(self) -> bool:
        """Whether it may make a token of the end of a word and the next one's beginning."""
        if '"Strip"' in json.dumps(self._content.get("normalizer")):
            return True
        if self._fast.pre_tokenizer is not None:
            return False
        # A blank as SentencePiece writes it, and as a normalizer to bytes does.
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
                raise _no_text(text)
        if sum(map(len, texts)) < _CORPUS or self._encoder is None:
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
        """Return the ids of a text that follows another, or a control token.

        SentencePiece's and some other tokenizers put a blank in front of a text. Behind added
        tokens, control tokens or not, some still do and some do not; within a text none does.
        """
        # What a chat template writes around every message.
        if len(text) <= _SHORT and (known := self._short.get((text, after))) is not None:
            return list(known)
        begin = self._first_added(text) if after == "text" else len(text)
        ids = self._encoded(self._as_after(after), [text[:begin]])[0] if begin else []
        if begin < len(text):
            ids += self._encoded(self._as_after("control"), [text[begin:]])[0]
        if len(text) <= _SHORT and len(self._short) < _MOST_SHORT:
            self._short[text, after] = list(ids)
        return ids

    def _as_after(self, after: After) -> tokenizers.Tokenizer:
        if after not in self._pieces:
            changed = _continuing(self._content, after)
            same = changed == self._content
            fast = self._fast if same else _without_control_tokens(changed, self.special_ids)
            self._pieces[after] = fast
        return self._pieces[after]

    def _first_added(self, text: str) -> int:
        """Where the first added token of a text begins, behind which a text begins anew.

        The text's end where it holds none, and where what stands before a text changes nothing.
        """
        if self._finder is None:
            return len(text)
        with faults_named("this tokenizer fails on a text"):
            found = self._finder.encode(valid_unicode(text), add_special_tokens=False)
        added = (span[0] for id, span in zip(found.ids, found.offsets, strict=True) if id)
        return next(added, len(text))

    @cached_property
    def _finder(self) -> tokenizers.Tokenizer | None:
        """Finds ordinary added tokens as the library does; all else is the unknown token, 0."""
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
        """Each piece as `encode_piece` encodes it, all at once; None for one that must go there."""
        if sum(len(text) for text, _ in pieces) < _CORPUS or self._encoder is None:
            return [None] * len(pieces)
        # To the tokenizers that it knows a text is the same whatever it stands after.
        found = self._encoder.encode([valid_unicode(text).encode() for text, _ in pieces])
        return [None if ids is None else ids.tolist() for ids in found]

    def _encoded(self, fast: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        safe = [valid_unicode(text) for text in texts]
        with faults_named("this tokenizer fails on a text"):
            batch = fast.encode_batch_fast(safe, add_special_tokens=False)
        ids: list[list[int]] = [encoding.ids for encoding in batch]
        for text, encoded in zip(texts, ids, strict=True):
            if not self._never_text.isdisjoint(encoded):
                # Ours cannot: no merge makes a control token. A foreign vocabulary might.
                raise UserError(
                    f"this tokenizer makes a control token of the plain text {text[:80]!r}; "
                    "remove that text, or use a byte-level tokenizer"
                )
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        with faults_named("this tokenizer cannot decode its tokens"):
            try:
                kept = [i for i in ids if i not in self.hidden_ids] if skip_special else list(ids)
                text: str = self._fast.decode(kept, skip_special_tokens=False)
                if not self._spelled_like_bytes.isdisjoint(kept):
                    text = b"".join(map(self.token_bytes, kept)).decode(errors="replace")
            except (TypeError, OverflowError):  # the library's own faults are bare Exceptions
                raise UserError(
                    f"ids={shorten(ids)} must be a list of token ids, whole numbers of 0 or more; "
                    "give what encode returns"
                ) from None
        return text

    @cached_property
    def _spelled_like_bytes(self) -> frozenset[int]:
        """Added tokens such as "é", of whose letters the library's decoder would make bytes."""
        if (self._content.get("decoder") or {}).get("type") != "ByteLevel":
            return frozenset()
        added = self._content.get("added_tokens") or []
        return frozenset(one["id"] for one in added if not one["content"].isascii())

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes that token `id` stands for, in whole characters or in part.

        Empty for an id past the vocabulary: models round its size up, and such rows mean nothing.
        """
        return self._bytes.get(id, b"")

    @cached_property
    def longest_token(self) -> int:
        """The largest number of bytes that a token stands for."""
        return max(map(len, self._bytes.values()))

    @property
    def end_of_text(self) -> int:
        """The id that stands between two documents, and for padding."""
        return self._first_id(END_OF_TEXT, "eos_token")

    @property
    def bos_id(self) -> int | None:
        """The id of its `bos_token`, after which a text begins; None where it names none."""
        return self._named_id("bos_token")

    @property
    def eos_id(self) -> int | None:
        """The id of its `eos_token`, with which a sequence ends; None where it names none."""
        return self._named_id("eos_token")

    @property
    def largest_written_id(self) -> int:
        """The largest id that a text or a conversation becomes.

        A control token such as "<pad>" that somebody added and no template writes is never one.
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
        """The ids that its post-processor puts before texts, such as Llama's <s>; mostly none."""
        with faults_named("this tokenizer fails on a text"):
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
        """The id that closes a message; in a tokenizer without ChatML, its end-of-sequence."""
        return self._first_id(IM_END, "eos_token")

    @property
    def content(self) -> Mapping[str, Any]:
        """The content of `tokenizer.json`, to be written in another format."""
        return self._content

    def same_tokens(self, other: Tokenizer) -> bool:
        """Whether both spell texts alike, and every id is one token, added ones among them."""
        return self._content["model"] == other._content["model"] and self._tokens == other._tokens

    @property
    def template_variables(self) -> dict[str, str]:
        """The names a chat template may use for control tokens, such as `bos_token`."""
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
    """Turn ids into text one at a time, holding back bytes until they are whole characters.

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
        """Return what is held back: U+FFFD if the last character never came to its end."""
        return self._utf8.decode(b"", final=True)


def _checked_text(text: object) -> str:
    if not isinstance(text, str):
        raise _no_text(text)
    return text


def _no_text(value: object) -> UserError:
    return UserError(f"{shorten(value)} is of type {type(value).__name__}; give a str")


@contextmanager
def faults_named(what: str) -> Iterator[None]:
    """Whatever the Rust library raises for a file that is damaged or hostile, as one sentence.

    It raises bare Exceptions, and panics, which are no Exceptions: on a split pattern that takes
    for ever, among others.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{what} ({why}); fetch or write the folder again") from None


def _own_config(special_tokens: Sequence[str], chat_template: str | None) -> dict[str, Any]:
    """Return the `tokenizer_config.json` of a tokenizer of ours.

    The class is the plain one: under a Qwen name transformers would put its own pre-tokenizer, with
    a normalizer, in place of ours. The end of a turn is the end of a sequence for whoever generates
    with the folder. Documents end with the padding token, and a text begins after it, as the next
    document does in training: it is the beginning of a sequence too, for whoever asks how likely a
    whole text is. Nobody shall put it before a prompt unasked: in a chat none stands there.
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
    """Return the `tokenizer.json` with the added tokens that stand in the files beside it alone.

    transformers adds them behind its vocabulary: in the order of their ids those of
    `added_tokens_decoder`, in older folders of `added_tokens.json`, then each `eos_token` and the
    like, and at last the extra ones, which are special.
    """
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    extra = [*(extra.values() if isinstance(extra, dict) else extra)]
    # Those that every tokenizer may have come first, in this order of theirs.
    kinds = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    names = dict.fromkeys(f"{kind}_token" for kind in kinds)
    names |= dict.fromkeys(name for name in config if name.endswith("_token"))
    named = [config.get(name) for name in names]
    # One that two name has the form that the first gives it.
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


def _parts_words(content: dict[str, Any]) -> bool:
    """Whether the text of a sequence is not that of its tokens, joined: WordPiece's manner."""
    model = content.get("model") or {}
    if model.get("type") == "WordPiece" or model.get("end_of_word_suffix"):
        return True
    # Blanks are left out, and no decoder puts them back.
    parted = json.dumps(content.get("pre_tokenizer"))
    return content.get("decoder") is None and ('"Whitespace' in parted or '"Bert' in parted)


def _unknown_id(content: dict[str, Any], fast: tokenizers.Tokenizer) -> int | None:
    """Return the id of what the vocabulary does not know; None where it knows everything."""
    model = content.get("model") or {}
    token = model.get("unk_token")
    return fast.token_to_id(token) if isinstance(token, str) else model.get("unk_id")


def _control_tokens(content: dict[str, Any], chat_template: str | None) -> dict[str, int]:
    """Return token → id for what no text may become.

    Those are the special tokens, and with them every added token that the chat template writes,
    such as Qwen's "<think>", which its files call ordinary. Other added tokens (runs of spaces, in
    some vocabularies) are text, though a template may have a variable of that name.
    """
    added: list[dict[str, Any]] = content.get("added_tokens") or []
    source = chat_template or ""
    ordinary = [token["content"] for token in added if not token["special"]]
    written: set[str] = set()
    if any(token.strip() and token in source for token in ordinary):
        # Of two that begin at one place the longer is meant.
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
    """Build the fast tokenizer so that it looks for no control token in a text."""
    added = [
        token | {"special": token["id"] in special_ids}
        for token in content.get("added_tokens") or []
    ]
    plain = content | {"added_tokens": added, "truncation": None, "padding": None}
    fast = tokenizers.Tokenizer.from_str(json.dumps(plain))
    fast.encode_special_tokens = True  # the library's name for: encode them as the text they are
    return fast


def _continuing(part: Any, after: After) -> Any:
    """Return a tokenizer.json, or a part of it, as it works within a sequence."""
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
    """Return id → bytes, in the byte alphabet or, for SentencePiece's vocabularies, in "▁" words.

    Added tokens stand in the file as they are, and are not spelled in the byte alphabet.
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
    """Return a token's text, which older configs wrap as {"content": …}; None for what is none."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _special_token(one: Any, text: str) -> AddedToken:
    """Return the control token that a config names, with the blanks that it takes in."""
    sides = ("single_word", "lstrip", "rstrip", "normalized")
    form = {name: one[name] for name in sides if name in one} if isinstance(one, dict) else {}
    return AddedToken(text, special=True, **form)


def _token_form(key: str, value: Any) -> Any:
    """Return what a config says of control tokens so that transformers reads it.

    In special_tokens_map.json a token may be an object that does not say what it is, and nowhere
    else. Its blanks stand in tokenizer.json as well.
    """
    if key in ("additional_special_tokens", "extra_special_tokens") and isinstance(value, list):
        return [_token_form("_token", one) for one in value]
    typed = isinstance(value, dict) and "__type" in value
    return value if typed or not key.endswith("_token") else _token_text(value) or value


def _read_template(folder: Path, config: dict[str, Any]) -> Any:
    """Return the chat template, or several as tokenizer_config.json has them: [{name, template}].

    Files of their own come before the config's entry, the default one's and those of other names.
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
    """Return the one that is meant where no name is said, of one or of several by name."""
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, dict)]
        template = next((e.get("template") for e in entries if e.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _read_json(path: Path, *most: int) -> dict[str, Any] | None:
    """Return the JSON object in `path`, or None where there is no such file."""
    return read_json_object(path, *most) if path.is_file() else None
