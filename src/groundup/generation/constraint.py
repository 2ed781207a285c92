"""Which tokens may come next in a text of a grammar.

A `State` is where a text may be in its grammar: the stacks of what is still to come, as a choice
may leave several open. States are made when they are reached, and remember where each byte leads.
A token may come if all its bytes lead somewhere; what may follow a state is found once for all
tokens, by a walk through the tree of their bytes.

A state also knows the fewest tokens with which its text ends. A token may come only if there is
room for these, and the model's end, behind it: so no text is cut that has room to end.

    fewest(Literal) = the fewest tokens that spell it     fewest(Repeat) = least * fewest(item)
    fewest(Concatenation) = their sum                     fewest(Choice) = their minimum

Source: Brzozowski 1964 (derivatives); Willard and Louf 2023, Efficient guided generation, for the
tokens of a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import takewhile
from math import inf
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Int16
from torch import Tensor

from groundup.errors import UserError
from groundup.generation.grammar import (
    CHARACTER,
    DONE,
    Choice,
    Concatenation,
    Known,
    Literal,
    Node,
    Repeat,
    Rule,
    Table,
    fixed_point,
    height,
    nodes_of,
)
from groundup.lm.config import ModelConfig
from groundup.text.tokenizer import Tokenizer

# Readers give up where there are more brackets than they can call themselves; nobody needs so many.
_DEEPEST: Final = 64
# What is said of tokens that may not come, and of those with more behind them than texts have.
_NEVER, _VERY_MANY = 2**15 - 1, 2**15 - 2
# States whose tokens are remembered: each takes two bytes for every token of the vocabulary.
_REMEMBERED = 256
# States of a grammar that are remembered, of some kilobytes each, and all their stacks; grammars of
# a vocabulary.
_STATES, _STACKS, _GRAMMARS = 5_000, 200_000, 16
# A schema of a few words may leave more open with every byte, twice as much each time, and keep all
# others waiting: stacks that are opened for one state, and to find what may follow one.
_MOST_OPEN, _MOST_OPENED = 20_000, 500_000
_TOO_OPEN = (
    "the schema leaves too much open at once, as what is written may be of very many of its parts; "
    "let the options of anyOf begin differently, and require what is always there"
)
# Parts of a grammar: a schema of 200,000 characters has some 70,000, and a request has many tools.
_MOST_NODES = 100_000

# Where a text is in its grammar.

# A node, the place in it (the byte, row, part or repetition that comes next), the number of
# brackets around it, and the stack of what follows it. None is the end of the text.
Stack = tuple[Node, int, int, Any] | None


class State:
    """Where a text may be: `stacks` of which each begins with a byte, or is at the end.

    `fewest` is the number of tokens with which it ends soonest.
    """

    __slots__ = ("fewest", "stacks", "then")

    def __init__(self, stacks: frozenset[Stack], fewest: int) -> None:
        self.stacks, self.fewest = stacks, fewest
        self.then: dict[int, State | None] = {}


class Constraint:
    """A grammar in the tokens of a vocabulary; `begin` is the state before the first of them.

    Raises `UserError` for a grammar of which there is no text, or that leaves too much open.
    """

    def __init__(self, grammar: Node, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._states: dict[frozenset[Stack], State] = {}
        self._stacks = self._opened = 0
        nodes = nodes_of(grammar)
        if len(nodes) > _MOST_NODES:
            raise UserError(
                f"the schemas have {len(nodes):,} parts together; at most {_MOST_NODES:,} are held "
                "to, so make them smaller"
            )
        self._heights = fixed_point(nodes, height)
        self._fewest = fixed_point(nodes, vocabulary.fewest)
        begin = self._state([(grammar, 0, 0, None)])
        if begin is None:
            raise UserError(
                "nothing can be written under this schema: a part that must be there holds itself "
                "without end, allows no value, or has letters that the model has no tokens for"
            )
        self.begin = begin

    def after(self, state: State, id: int) -> State:
        """The state after one more token, which may come."""
        for byte in self._vocabulary.spelled[id]:
            following = self.step(state, byte)
            assert following is not None, "this token was not drawn under this constraint"
            state = following
        return state

    def allowed(self, state: State, left: int) -> Bool[Tensor, " vocab"]:
        """The tokens that may follow, where there is room for `left` of them.

        Those with which the text can end within the room; where none can, those that end it
        soonest.
        """
        behind, least = self._vocabulary.behind(self, state)
        return behind <= min(max(left - 1, least), _VERY_MANY)

    def step(self, state: State, byte: int) -> State | None:
        """The state after one more byte; None where no text goes on with it."""
        if byte in state.then:
            return state.then[byte]
        found = list[Stack]()
        for stack in state.stacks:
            if stack is None:
                continue
            node, place, depth, rest = stack
            if isinstance(node, Literal):
                if node.text[place] == byte:
                    is_read = place + 1 == len(node.text)
                    found.append(rest if is_read else (node, place + 1, depth, rest))
                continue
            assert isinstance(node, Table)
            row = node.rows[place].get(byte)
            if row is not None:
                found.append(rest if row == DONE else (node, row, depth, rest))
        state.then[byte] = following = self._state(found)
        return following

    def _state(self, stacks: Iterable[Stack]) -> State | None:
        """The state of these stacks, opened up to the bytes with which they go on."""
        todo, seen, found = list(stacks), set[Stack](), dict[Stack, float]()
        while todo:
            stack = todo.pop()
            if stack in seen:
                continue
            seen.add(stack)
            self._opened += 1
            if len(seen) > _MOST_OPEN:
                raise UserError(_TOO_OPEN)
            if stack is None:
                found[None] = 0
                continue
            node, place, depth, rest = stack
            match node:
                case Literal():
                    found[stack] = self._fewest_of(stack)
                case Table():
                    found[stack] = self._fewest_of(stack)
                    todo += [rest] if place in node.ends else []
                case Concatenation():
                    is_last = place + 1 == len(node.parts)
                    then = rest if is_last else (node, place + 1, depth, rest)
                    todo.append((node.parts[place], 0, depth, then))
                case Choice():
                    todo += [(one, 0, depth, rest) for one in node.options]
                case Repeat():
                    todo += [rest] if place >= node.least else []
                    if node.most is None or place < node.most:
                        # Without an end to it, more than the least are all the same.
                        count = place + 1 if node.most is not None else min(place + 1, node.least)
                        todo.append((node.item, 0, depth, (node, count, depth, rest)))
                case Rule():
                    if depth + self._heights[node][0] <= _DEEPEST:
                        todo.append((node.body, 0, depth + node.nests, rest))
        kept = frozenset(stack for stack, fewest in found.items() if fewest < inf)
        if not kept:
            return None
        if kept not in self._states:
            self._stacks += len(kept)
            if len(self._states) >= _STATES or self._stacks > _STACKS:
                for state in self._states.values():
                    state.then.clear()
                self._states.clear()
                self._stacks = len(kept)
            self._states[kept] = State(kept, int(min(found[one] for one in kept)))
        return self._states[kept]

    def _fewest_of(self, stack: Stack) -> float:
        """The fewest tokens of a stack."""
        tokens: float = 0
        while stack is not None:
            node, place, _, stack = stack
            if isinstance(node, Repeat):
                more = max(node.least - place, 0)
                tokens += more * self._fewest[node.item][0] if more else 0
            else:
                tokens += self._fewest[node][place]
        return tokens

    def find_behind(self, state: State) -> Int16[Tensor, " vocab"]:
        """How many tokens, with the model's end, must follow each token; _NEVER for those that may
        not come."""
        vocabulary = self._vocabulary
        behind = np.full(vocabulary.size, _NEVER, dtype=np.int16)
        if None in state.stacks:
            behind[vocabulary.ends] = 0
        string = _string_at(state)
        for ids, after in self._walk(vocabulary.tree if string is None else vocabulary.rest, state):
            behind[ids] = min(after.fewest + 1, _VERY_MANY)
        if string is not None:
            # A token of n characters leaves a string a string, n characters longer.
            node, place, _, rest = string
            counts = np.arange(vocabulary.longest_text + 1) + place - 1
            more = np.maximum(node.least - counts, 0)
            fewest = self._fewest_of(rest) + more * self._fewest[CHARACTER][0] + 1
            fewest = np.minimum(fewest, _VERY_MANY).astype(np.int16)
            if node.most is not None:
                fewest[counts > node.most] = _NEVER
            behind[vocabulary.texts] = fewest[vocabulary.lengths]
        return torch.from_numpy(behind)

    def _walk(self, tree: _Tree, state: State) -> Iterator[tuple[list[int], State]]:
        """The tokens of a tree that may come, and the state after them."""
        at: list[State] = [state] * (tree.height + 1)
        values, depths, sizes, ids = tree.values, tree.depths, tree.sizes, tree.ids
        place, size, most = 0, len(values), self._opened + _MOST_OPENED
        while place < size:
            depth, byte = depths[place], values[place]
            before = at[depth]
            following = before.then[byte] if byte in before.then else self.step(before, byte)
            if self._opened > most:
                raise UserError(_TOO_OPEN)
            if following is None:
                place += sizes[place]
                continue
            at[depth + 1] = following
            if (found := ids[place]) is not None:
                yield found, following
            place += 1


def _string_at(state: State) -> tuple[Repeat, int, int, Stack] | None:
    """The `Repeat` of the characters of a string, where a character can only be one of its own.

    Its place counts the character that comes next.
    """
    found = None
    for stack in state.stacks:
        if stack is None:
            continue
        node, place, _, rest = stack
        if node is CHARACTER and place == 0:
            if found is not None or rest is None or not isinstance(rest[0], Repeat):
                return None
            found = rest
        elif not (isinstance(node, Literal) and node.text[place] in b'"\\'):
            return None
    return found


# The tokens of a model.


class _Tree(NamedTuple):
    """The bytes of all tokens as a tree, each node before those that follow it.

    Of each the byte's value, its depth, how many nodes are below it with itself, and the ids of the
    tokens that end there.
    """

    values: list[int]
    depths: list[int]
    sizes: list[int]
    ids: list[list[int] | None]
    height: int


def _tree(tokens: Mapping[bytes, list[int]]) -> _Tree:
    tree = _Tree([], [], [], [], max(map(len, tokens), default=0))
    path, before = list[int](), b""
    for text in sorted(tokens):
        pairs = zip(text, before, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        _close(tree, path, shared)
        for depth in range(shared, len(text)):
            path.append(len(tree.values))
            tree.values.append(text[depth])
            tree.depths.append(depth)
            tree.sizes.append(0)
            tree.ids.append(None)
        tree.ids[-1] = tokens[text]
        before = text
    _close(tree, path, 0)
    return tree


def _close(tree: _Tree, path: list[int], depth: int) -> None:
    """Note the sizes of what is open below a depth."""
    while len(path) > depth:
        place = path.pop()
        tree.sizes[place] = len(tree.values) - place


class Vocabulary:
    """The tokens that a model may say, by their bytes, and those that end what it says.

    Raises `UserError` for a model without an end.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        self.size = config.vocab_size
        ends = {*config.eos_token_ids, *tokenizer.stop_ids}
        self.ends = [end for end in ends if end < self.size]
        if not self.ends:
            raise UserError(
                "the model has no token that ends its answers, so none would end with its JSON; "
                "ask for JSON in words, with max_new_tokens"
            )
        silent = ends | tokenizer.hidden_ids
        self.spelled = {
            id: spelled
            for id in range(self.size)
            if id not in silent and (spelled := tokenizer.token_bytes(id))
        }
        tokens, rest = dict[bytes, list[int]](), dict[bytes, list[int]]()
        # Most tokens are some whole characters, which leave a string a string wherever it stands.
        texts = dict[int, int]()
        for id, spelling in self.spelled.items():
            tokens.setdefault(spelling, []).append(id)
            if length := _characters(spelling):
                texts[id] = length
            else:
                rest[spelling] = tokens[spelling]
        self.tree, self.rest = _tree(tokens), _tree(rest)
        self.texts = np.array([*texts], dtype=np.int64)
        self.lengths = np.array([*texts.values()], dtype=np.int64)
        self.longest_text = max(texts.values(), default=0)
        self._tokens, self._longest = tokens, self.tree.height
        self.constraint = lru_cache(_GRAMMARS)(lambda grammar: Constraint(grammar, self))
        self.behind = lru_cache(_REMEMBERED)(_behind)

    @classmethod
    def of(cls, config: ModelConfig, tokenizer: Tokenizer) -> Vocabulary:
        """The vocabulary of a model; the same one for as long as its tokenizer is there."""
        known = _VOCABULARIES.setdefault(tokenizer, {})
        key = config.vocab_size, tuple(config.eos_token_ids)
        if key not in known:
            known[key] = cls(config, tokenizer)
        return known[key]

    def fewest(self, node: Node, known: Known) -> list[float]:
        """The fewest tokens of what is left at each place of a node."""
        match node:
            case Literal(text):
                # No token that spells a part of it is longer than the longest.
                found = [inf] * len(text) + [0.0]
                for start in reversed(range(len(text))):
                    ends = range(start + 1, min(len(text), start + self._longest) + 1)
                    fits = (found[end] + 1 for end in ends if text[start:end] in self._tokens)
                    found[start] = min(fits, default=inf)
                return found[:-1]
            case Table(rows, ends):
                before = known[node] if len(known[node]) == len(rows) else [inf] * len(rows)
                return [
                    -1.0
                    if row in ends
                    else min(
                        (
                            1 + (0 if then == DONE else before[then])
                            for byte, then in reads.items()
                            if bytes([byte]) in self._tokens
                        ),
                        default=inf,
                    )
                    for row, reads in enumerate(rows)
                ]
            case Concatenation(parts):
                sums = [0.0]
                for one in reversed(parts):
                    sums.insert(0, sums[0] + known[one][0])
                return sums[:-1]
            case Choice(options):
                return [min((known[one][0] for one in options), default=inf)]
            case Repeat(item, least):
                return [least * known[item][0] if least else 0.0]
            case Rule(body=body):
                return [known[body][0]]


_VOCABULARIES: WeakKeyDictionary[Tokenizer, dict[Any, Vocabulary]] = WeakKeyDictionary()


def _behind(constraint: Constraint, state: State) -> tuple[Int16[Tensor, " vocab"], int]:
    """What must follow each token, and the least of it."""
    behind = constraint.find_behind(state)
    return behind, int(behind.min())


def _characters(token: bytes) -> int:
    """The number of characters of a token that are themselves within a JSON string; else 0."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return 0
    plain = all(byte >= 0x20 for byte in token) and not {*token} & {*b'"\\'}
    return len(text) if plain else 0
