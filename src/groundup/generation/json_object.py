"""A mask under which a model writes one JSON object and then ends (RFC 8259).

    mask = JSONObject(model.config, tokenizer)
    generate(model, [Request(prompt="The ship as JSON: ", mask=mask)], tokenizer)

An automaton reads what was written byte by byte. Its `mode` says what may come next, and its
`stack` what is open: "[" an array, "{" an object of which a name comes next, ":" one of which a
value does. A token may come if the automaton reads all its bytes, and an end of the text when the
object is closed. So `json.loads` reads every answer that ends by itself; one that is cut at its
length is the beginning of such an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from groundup.errors import UserError
from groundup.lm.config import ModelConfig
from groundup.text.tokenizer import Tokenizer

# Readers give up where there are more brackets than they can call themselves; nobody needs so many.
_DEEPEST = 64
# Whole numbers of so many digits are exact in float64, as which most readers keep them; Python
# reads no number of thousands of digits. Exponents of two digits leave every number finite.
_DIGITS = 15
# A model that went on with blanks or digits for ever would answer nothing. So many blanks indent
# deep objects, and so many digits are more than float64 keeps.
_MOST_AGAIN = 40
# States whose tokens are remembered: each takes a byte for every token of the vocabulary.
_REMEMBERED = 256


class State(NamedTuple):
    mode: str
    stack: str = ""


BEGIN, END = State("begin"), State("end")


def read(state: State, byte: int) -> State | None:
    """The state after one more byte; None where no JSON object goes on with it."""
    mode, stack = state
    then = _TABLE[mode].get(byte)
    match then:
        case None:
            return None
        case "open":
            mode = "value or ]" if chr(byte) == "[" else "name or }"
            return State(mode, stack + chr(byte)) if len(stack) < _DEEPEST else None
        case "close":
            if (chr(byte) == "]") != (stack[-1] == "["):
                return None
            return State("after value", stack[:-1]) if len(stack) > 1 else END
        case "string ends":
            return State("after name" if stack[-1] == "{" else "after value", stack)
        case "colon":
            return State("value", f"{stack[:-1]}:")
        case "comma":
            is_list = stack[-1] == "["
            return State("value", stack) if is_list else State("name", f"{stack[:-1]}{{")
        case _:
            return State(then, stack)


# What each mode reads, and the mode that follows or what is done.


def _reads(*rules: tuple[str, str]) -> dict[int, str]:
    return {ord(char): then for chars, then in rules for char in chars}


_BLANK, _HEX = " \t\n\r", "0123456789abcdefABCDEF"
_DIGIT, _FIRST_DIGIT = "0123456789", "123456789"
_VALUE = (
    ("{[", "open"), ('"', "string"), ("-", "minus"), ("0", f"{_DIGITS} digits"),
    (_FIRST_DIGIT, "1 digits"), ("t", "t"), ("f", "f"), ("n", "n"),
)  # fmt: skip
_AFTER_VALUE = (("]}", "close"), (",", "comma"))
_TABLE: dict[str, dict[int, str]] = {
    "begin": _reads((_BLANK, "begin"), ("{", "open")),
    "end": {},
    "name": _reads((_BLANK, "name"), ('"', "string")),
    "name or }": _reads((_BLANK, "name or }"), ('"', "string"), ("}", "close")),
    "after name": _reads((_BLANK, "after name"), (":", "colon")),
    "value": _reads((_BLANK, "value"), *_VALUE),
    "value or ]": _reads((_BLANK, "value or ]"), *_VALUE, ("]", "close")),
    "after value": _reads((_BLANK, "after value"), *_AFTER_VALUE),
    # Bytes that are no UTF-8 become U+FFFD, which may stand in a string.
    "string": dict.fromkeys(range(0x20, 0x100), "string")
    | _reads(('"', "string ends"), ("\\", "escape")),
    "escape": _reads(('"\\/bfnrt', "string"), ("u", "4 hex")),
    # From \uD800 to \uDFFF are halves of characters, which many readers refuse.
    "4 hex": _reads((_HEX, "3 hex"), ("dD", "3 hex of D")),
    "3 hex of D": _reads(("01234567", "2 hex")),
    "3 hex": _reads((_HEX, "2 hex")),
    "2 hex": _reads((_HEX, "1 hex")),
    "1 hex": _reads((_HEX, "string")),
    "minus": _reads(("0", f"{_DIGITS} digits"), (_FIRST_DIGIT, "1 digits")),
    "point": _reads((_DIGIT, "fraction")),
    "fraction": _reads((_DIGIT, "fraction"), ("eE", "e")),
    "e": _reads(("+-", "e sign"), (_DIGIT, "exponent")),
    "e sign": _reads((_DIGIT, "exponent")),
    "exponent": _reads((_DIGIT, "whole exponent")),
    "whole exponent": {},
}
# No digit may follow a first zero, as none may follow the last that there is room for.
for _count in range(1, _DIGITS + 1):
    _more = [(_DIGIT, f"{_count + 1} digits")] if _count < _DIGITS else []
    _TABLE[f"{_count} digits"] = _reads(*_more, (".", "point"), ("eE", "e"))
# Numbers end where something else begins.
for _mode in (
    "fraction", "exponent", "whole exponent", *(f"{n + 1} digits" for n in range(_DIGITS))
):  # fmt: skip
    _TABLE[_mode] |= _reads((_BLANK, "after value"), *_AFTER_VALUE)
_blank = [mode for mode, reads in _TABLE.items() if reads.get(0x20) == mode != "string"]
for _mode, _again in [*((mode, _BLANK) for mode in _blank), ("fraction", _DIGIT)]:
    _ends = {byte: then for byte, then in _TABLE[_mode].items() if chr(byte) not in _again}
    for _count in range(_MOST_AGAIN + 1):
        _more = [(_again, f"{_mode} {_count + 1}")] if _count < _MOST_AGAIN else []
        _TABLE[f"{_mode} {_count}" if _count else _mode] = _ends | _reads(*_more)
for _word in ("true", "false", "null"):
    for _at in range(1, len(_word)):
        _then = _word[: _at + 1] if _at + 1 < len(_word) else "after value"
        _TABLE[_word[:_at]] = _reads((_word[_at], _then))
# What stands outside strings; anything else in a token there stands behind a quotation mark.
_STRINGS = {mode for mode in _TABLE if mode in ("string", "escape") or "hex" in mode}
_BARE = bytes({byte for mode in _TABLE.keys() - _STRINGS for byte in _TABLE[mode]})


class JSONObject:
    """The mask of a `Request` of one model, or of many that it answers at a time.

    The request must not end elsewhere: it has no stop strings, `stop_ids` or `min_new_tokens`, and
    does not ignore the model's own ends. Raises `UserError` for a model without one.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        vocab = config.vocab_size
        ends = {*config.eos_token_ids, *tokenizer.stop_ids}
        if not any(end < vocab for end in ends):
            raise UserError(
                "the model has no token that ends its answers, so none would end with its JSON; "
                "ask for JSON in words, with max_new_tokens"
            )
        self._vocab, self._ends = vocab, [end for end in ends if end < vocab]
        silent = ends | tokenizer.hidden_ids
        spoken = {id: tokenizer.token_bytes(id) for id in range(vocab) if id not in silent}
        self._spoken = {id: bytes for id, bytes in spoken.items() if bytes}
        # Most tokens leave a string a string, wherever it stands.
        within = {byte for byte, then in _TABLE["string"].items() if then == "string"}
        self._plain = [id for id, bytes in self._spoken.items() if within.issuperset(bytes)]
        self._special = {id: self._spoken[id] for id in self._spoken.keys() - {*self._plain}}
        self._within = torch.zeros(vocab, dtype=torch.bool)
        self._within[self._plain] = True
        self._bare = {
            id: bytes
            for id, bytes in self._spoken.items()
            if not bytes.partition(b'"')[0].translate(None, _BARE)
        }
        self._allowed = lru_cache(_REMEMBERED)(self._find_allowed)
        # The states of answers under way, by their tokens.
        self._states: dict[tuple[int, ...], State] = {}

    def __call__(self, ids: Sequence[int]) -> Bool[Tensor, " vocab"]:
        """The tokens that may follow these."""
        return self._allowed(self._state_after(tuple(ids)))

    def _state_after(self, ids: tuple[int, ...]) -> State:
        if not ids:
            return BEGIN
        state, rest = self._states.pop(ids[:-1], BEGIN), ids[-1:]
        if state is BEGIN:  # or an answer that others, which began alike, have taken further
            rest = ids
        for id in rest:
            found = _after(state, self._spoken.get(id, b""))
            assert found is not None, "these tokens were not drawn under this mask"
            state = found
        if len(self._states) >= _REMEMBERED:  # most of them of answers that have ended
            self._states.clear()
        self._states[ids] = state
        return state

    def _find_allowed(self, state: State) -> Bool[Tensor, " vocab"]:
        allowed = torch.zeros(self._vocab, dtype=torch.bool)
        if state == END:
            allowed[self._ends] = True
            return allowed
        looked_at = self._spoken if state.mode in _STRINGS else self._bare
        if state.mode == "string":
            looked_at, allowed = self._special, self._within.clone()
        first = _TABLE[state.mode]
        allowed[
            [
                id
                for id, bytes in looked_at.items()
                if bytes[0] in first and _after(state, bytes) is not None
            ]
        ] = True
        return allowed


def _after(state: State, bytes: bytes) -> State | None:
    """The state after several bytes."""
    for byte in bytes:
        following = read(state, byte)
        if following is None:
            return None
        state = following
    return state
