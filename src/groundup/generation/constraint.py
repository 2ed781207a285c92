"""Which tokens may come next in a text of a grammar.

A `State` is a position in the grammar: a set of stacks of what is still to come, because choices
may leave several open. States are created when they are reached and remember their transitions by
byte. A token is allowed if all its bytes have transitions; the allowed tokens of a state are found
once, by walking the tree of all tokens' bytes.

A state also knows the fewest tokens that complete its text. A token is allowed only if these and
the model's end token still fit after it, so a text that has room to end is never cut.

    fewest(Literal) = the fewest tokens that spell it     fewest(Repeat) = least * fewest(item)
    fewest(Concatenation) = their sum                     fewest(Choice) = their minimum

Source: Brzozowski 1964 (derivatives); Willard and Louf 2023, Efficient guided generation, for the
tokens of a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from heapq import heappop, heappush
from itertools import takewhile
from math import inf
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Int16, Int64
from torch import Tensor

from groundup.errors import UserError
from groundup.generation.grammar import (
    CHARACTER,
    DONE,
    Automaton,
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

# JSON parsers refuse brackets nested deeper than their recursion limit.
_DEEPEST: Final = 64
# Marks for tokens that are not allowed, and for those that need more tokens after them than texts
# have.
_NEVER, _VERY_MANY = 2**15 - 1, 2**15 - 2
# States whose allowed tokens are cached: each takes two bytes per token of the vocabulary.
_CACHED_STATES = 256
# Cached states of a grammar (a few kilobytes each), their stacks in total, and cached grammars of a
# vocabulary.
_STATES, _STACKS, _GRAMMARS = 5_000, 200_000, 16
# A short schema may double the open stacks with every byte, and block all other requests: limits of
# the stacks opened for one state, and for finding the allowed tokens of one state.
_MAX_OPEN, _MAX_OPENED = 20_000, 500_000
_TOO_OPEN = (
    "the schema leaves too much open at once: the text may belong to very many of its parts; let "
    "the options of anyOf begin differently, and list what is always there as required"
)
# A schema of 200,000 characters has about 70,000 parts, and a request may have many tools. Ten
# positions of an automaton take about the time and memory of one other part.
_MAX_NODES, _POSITIONS_OF_A_PART = 100_000, 10

# The number of code points of Unicode.
_CODES = 0x110000

# States.

# A node, the position in it (the byte, row, part, repetition or state that comes next), the number
# of brackets around it, and the stack of what follows it. None is the end of the text.
Stack = tuple[Node, int, int, Any] | None


class State:
    """A position in the grammar: stacks that begin with a byte or are at the end (None).

    `fewest` is the smallest number of tokens that completes the text.
    """

    __slots__ = ("fewest", "stacks", "then")

    def __init__(self, stacks: frozenset[Stack], fewest: int) -> None:
        self.stacks, self.fewest = stacks, fewest
        self.then: dict[int, State | None] = {}


class Constraint:
    """A grammar in the tokens of a vocabulary; `begin` is the state before the first token.

    Raises `UserError` for a grammar that has no text or leaves too much open.
    """

    def __init__(self, grammar: Node, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._states: dict[frozenset[Stack], State] = {}
        self._stacks = self._opened = 0
        nodes = nodes_of(grammar)
        positions = sum(node.positions for node in nodes if isinstance(node, Automaton))
        parts = len(nodes) + positions // _POSITIONS_OF_A_PART
        if parts > _MAX_NODES:
            raise UserError(
                f"the schemas have {parts:,} parts in total; at most {_MAX_NODES:,} are "
                "supported, so make them smaller"
            )
        self._heights = fixed_point(nodes, height)
        self._fewest = fixed_point(nodes, vocabulary.fewest)
        self._fewest_array = cache(lambda node: np.array(self._fewest[node]))
        begin = self._state([(grammar, 0, 0, None)])
        if begin is None:
            raise UserError(
                "no text satisfies this schema: a required part contains itself without end, "
                "allows no value, or has letters for which the model has no tokens"
            )
        self.begin = begin

    def after(self, state: State, id: int) -> State:
        """The state after one more token, which must be allowed."""
        for byte in self._vocabulary.spelled[id]:
            following = self.step(state, byte)
            assert following is not None, "this token was not drawn under this constraint"
            state = following
        return state

    def allowed(self, state: State, left: int) -> Bool[Tensor, " vocab"]:
        """The tokens that may come next if at most `left` more tokens fit.

        These are the tokens after which the text can end in time, or if there are none, those that
        end it soonest.
        """
        behind, least = self._vocabulary.behind(self, state)
        return behind <= min(max(left - 1, least), _VERY_MANY)

    def step(self, state: State, byte: int) -> State | None:
        """The state after one more byte; None if no text continues with it."""
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
            if isinstance(node, Automaton):
                for table, then in node.following(place):
                    after = node, then, depth, rest
                    if (row := table.rows[0].get(byte)) is not None:
                        found.append(after if row == DONE else (table, row, depth, after))
                continue
            assert isinstance(node, Table)
            row = node.rows[place].get(byte)
            if row is not None:
                found.append(rest if row == DONE else (node, row, depth, rest))
        state.then[byte] = following = self._state(found)
        return following

    def _state(self, stacks: Iterable[Stack]) -> State | None:
        """The state of these stacks, expanded until each begins with a byte."""
        todo, seen, found = list(stacks), set[Stack](), dict[Stack, float]()
        while todo:
            stack = todo.pop()
            if stack in seen:
                continue
            seen.add(stack)
            self._opened += 1
            if len(seen) > _MAX_OPEN:
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
                        # Without a maximum, counts above the minimum are equivalent.
                        count = place + 1 if node.most is not None else min(place + 1, node.least)
                        todo.append((node.item, 0, depth, (node, count, depth, rest)))
                case Automaton():
                    found[stack] = self._fewest_of(stack)
                    todo += [rest] if node.may_end(place) else []
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
        """The fewest tokens that complete a stack."""
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
        """The number of tokens, including the model's end, that must follow each token; _NEVER for
        tokens that are not allowed."""
        vocabulary = self._vocabulary
        behind = np.full(vocabulary.size, _NEVER, dtype=np.int16)
        if None in state.stacks:
            behind[vocabulary.ends] = 0
        string = _string_at(state)
        for ids, after in self._walk(vocabulary.tree if string is None else vocabulary.rest, state):
            behind[ids] = min(after.fewest + 1, _VERY_MANY)
        if string is not None and isinstance(string[0], Automaton):
            behind[vocabulary.texts] = self._behind_texts(string[0], string[1], string[3])
        elif string is not None:
            # After a token of n plain characters the string continues, n characters longer.
            node, place, _, rest = string
            counts = np.arange(vocabulary.longest_text + 1) + place - 1
            more = np.maximum(node.least - counts, 0)
            fewest = self._fewest_of(rest) + more * self._fewest[CHARACTER][0] + 1
            fewest = np.minimum(fewest, _VERY_MANY).astype(np.int16)
            if node.most is not None:
                fewest[counts > node.most] = _NEVER
            behind[vocabulary.texts] = fewest[vocabulary.lengths]
        return torch.from_numpy(behind)

    def _behind_texts(
        self, automaton: Automaton, position: int, rest: Stack
    ) -> Int16[np.ndarray, " texts"]:
        """`find_behind` of the tokens of plain characters, within a string of an automaton."""
        size, lengths = len(automaton.states), self._vocabulary.lengths
        count, state = divmod(position, size)
        then = self._vocabulary.run(automaton, state)
        most = automaton.least if automaton.most is None else automaton.most
        counts = np.minimum(count + lengths, most)
        fewest = self._fewest_array(automaton)[counts * size + np.maximum(then, 0)]
        is_never = (then < 0) | (fewest == inf)
        fewest = np.minimum(fewest + self._fewest_of(rest) + 1, _VERY_MANY)
        fewest[is_never] = _NEVER
        if automaton.most is not None:
            fewest[count + lengths > most] = _NEVER
        found: Int16[np.ndarray, " texts"] = fewest.astype(np.int16)
        return found

    def _walk(self, tree: _Tree, state: State) -> Iterator[tuple[list[int], State]]:
        """The tokens of a tree that are allowed, and the state after each."""
        at: list[State] = [state] * (tree.height + 1)
        values, depths, sizes, ids = tree.values, tree.depths, tree.sizes, tree.ids
        place, size, most = 0, len(values), self._opened + _MAX_OPENED
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


def _string_at(state: State) -> tuple[Repeat | Automaton, int, int, Stack] | None:
    """The characters of a string, if every next character belongs to this one string.

    The position of a `Repeat` counts the next character, that of an `Automaton` does not.
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
        elif isinstance(node, Automaton):
            if found is not None or not _is_quoted(rest):
                return None
            found = node, place, 0, rest
        elif not (isinstance(node, Literal) and node.text[place] in b'"\\'):
            return None
    return found


def _is_quoted(rest: Stack) -> bool:
    """Whether a quotation mark must come next."""
    node, place = (None, 0) if rest is None else rest[:2]
    node = node.parts[place] if isinstance(node, Concatenation) else node
    return isinstance(node, Literal) and node.text.startswith(b'"')


# The tokens of a model.


class _Tree(NamedTuple):
    """The bytes of all tokens as a tree in depth-first order.

    For each node: the byte's value, its depth, the size of its subtree, and the ids of the tokens
    that end there.
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
    """Set the subtree sizes of the open nodes below a depth."""
    while len(path) > depth:
        place = path.pop()
        tree.sizes[place] = len(tree.values) - place


class Vocabulary:
    """The tokens that a model may generate, by their bytes, and its end tokens.

    Raises `UserError` for a model without an end token.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        self.size = config.vocab_size
        ends = {*config.eos_token_ids, *tokenizer.stop_ids}
        self.ends = [end for end in ends if end < self.size]
        if not self.ends:
            raise UserError(
                "the model has no end token, so its answers would not end after the JSON; ask for "
                "JSON in the prompt, with max_new_tokens"
            )
        silent = ends | tokenizer.hidden_ids
        self.spelled = {
            id: spelled
            for id in range(self.size)
            if id not in silent and (spelled := tokenizer.token_bytes(id))
        }
        tokens, rest = dict[bytes, list[int]](), dict[bytes, list[int]]()
        # Most tokens are plain characters, after which any string just continues.
        texts = dict[int, int]()
        for id, spelling in self.spelled.items():
            tokens.setdefault(spelling, []).append(id)
            if length := _characters(spelling):
                texts[id] = length
            else:
                rest[spelling] = tokens[spelling]
        self.tree, self.rest = _tree(tokens), _tree(rest)
        # From the longest to the shortest, so that those with an n-th character come first.
        self.texts = np.array(sorted(texts, key=lambda id: -texts[id]), dtype=np.int64)
        self.lengths = np.array([texts[id] for id in self.texts], dtype=np.int64)
        self.longest_text = max(texts.values(), default=0)
        spellings = [self.spelled[id].decode() for id in self.texts]
        self._codes = [
            np.array([ord(text[n]) for text in spellings if n < len(text)])
            for n in range(self.longest_text)
        ]
        self._tokens, self._longest = tokens, self.tree.height
        self.constraint = lru_cache(_GRAMMARS)(lambda grammar: Constraint(grammar, self))
        self.behind = lru_cache(_CACHED_STATES)(_behind)
        self._edges = lru_cache(_GRAMMARS)(_edges)

    @classmethod
    def of(cls, config: ModelConfig, tokenizer: Tokenizer) -> Vocabulary:
        """The vocabulary of a model, cached for as long as its tokenizer exists."""
        known = _VOCABULARIES.setdefault(tokenizer, {})
        key = config.vocab_size, tuple(config.eos_token_ids)
        if key not in known:
            known[key] = cls(config, tokenizer)
        return known[key]

    def run(self, automaton: Automaton, state: int) -> Int64[np.ndarray, " texts"]:
        """The state of an automaton after each token of `texts`; -1 if it does not accept it."""
        edges, targets = self._edges(automaton)
        found = np.full(len(self.texts), state)
        alive = np.arange(len(self.texts))
        for codes in self._codes:
            alive = alive[: np.searchsorted(alive, len(codes))]
            keys = found[alive] * _CODES + codes[alive]
            found[alive] = then = targets[np.searchsorted(edges, keys, side="right") - 1]
            alive = alive[then >= 0]
        return found

    def fewest(self, node: Node, known: Known) -> list[float]:
        """The fewest tokens that complete a node from each of its positions."""
        match node:
            case Literal(text):
                # No token spells more bytes than the longest one.
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
            case Automaton():
                return _fewest_of_characters(node, known)


def _fewest_of_characters(automaton: Automaton, known: Known) -> list[float]:
    """The fewest tokens from each position of an automaton to one of its ends.

    Source: Dijkstra 1959.
    """
    size = len(automaton.states)
    last = automaton.positions // size - 1
    ends = np.full(size, inf)
    ends[[*automaton.ends]] = 0
    moves = [
        (known[table][0], state, then)
        for state, one in enumerate(automaton.tables)
        for table, then in one
    ]
    # Positions at the last count lead to each other or nowhere; all others lead to the next count.
    found = ends
    if automaton.most is None:
        before = [list[tuple[float, int]]() for _ in range(size)]
        for tokens, state, then in moves:
            before[then].append((tokens, state))
        shortest, todo = [inf] * size, [(0.0, state) for state in sorted(automaton.ends)]
        while todo:
            tokens, state = heappop(todo)
            if tokens < shortest[state]:
                shortest[state] = tokens
                for more, earlier in before[state]:
                    if tokens + more < shortest[earlier]:
                        heappush(todo, (tokens + more, earlier))
        found = np.array(shortest)
    layers = [found]
    if last:
        # A move to nowhere for each state, so that none has no moves.
        moves = sorted(
            [*moves, *((inf, state, 0) for state in range(size))], key=lambda one: one[1]
        )
        costs, states, leads = (np.array(column) for column in zip(*moves, strict=True))
        starts = np.searchsorted(states, np.arange(size))
        for count in reversed(range(last)):
            found = np.minimum.reduceat(costs + found[leads], starts)
            if count >= automaton.least:
                found = np.minimum(found, ends)
            layers.append(found)
    return [*map(float, np.concatenate(layers[::-1]))]


_VOCABULARIES: WeakKeyDictionary[Tokenizer, dict[Any, Vocabulary]] = WeakKeyDictionary()


def _behind(constraint: Constraint, state: State) -> tuple[Int16[Tensor, " vocab"], int]:
    """`find_behind` of a state, and its minimum."""
    behind = constraint.find_behind(state)
    return behind, int(behind.min())


def _edges(automaton: Automaton) -> tuple[Int64[np.ndarray, " edges"], Int64[np.ndarray, " edges"]]:
    """The moves of an automaton, sorted by state * _CODES + code point: where a move, or a gap
    between moves, begins, and the state it leads to (-1: none)."""
    edges, targets = [0], [-1]
    for state, moves in enumerate(automaton.states):
        for (first, last), then in sorted((pair, then) for those, then in moves for pair in those):
            edges += [state * _CODES + first, state * _CODES + last + 1]
            targets += [then, -1]
    return np.array(edges), np.array(targets)


def _characters(token: bytes) -> int:
    """The number of characters of a token if all stand for themselves in a JSON string; else 0."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return 0
    plain = all(byte >= 0x20 for byte in token) and not {*token} & {*b'"\\'}
    return len(text) if plain else 0
