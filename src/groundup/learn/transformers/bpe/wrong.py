"""What goes wrong in byte-pair encoding."""

import unicodedata
from itertools import pairwise

REPLACES = {
    "code_points": "byte_ids",
    "bytes_themselves": "byte_ids",
    "edges_cut_off": "byte_ids",
    "small_letters": "byte_ids",
    "composed": "byte_ids",
    "weights_forgotten": "count_pairs",
    "once_a_word": "count_pairs",
    "order_forgotten": "count_pairs",
    "equal_words_overwritten": "count_pairs",
    "overlapping": "merge",
    "right_half_kept": "merge",
    "first_place_only": "merge",
    "ids_as_text": "merge",
    "list_against_tuple": "merge",
    "across_words": "count_pairs",
    "last_pair_forgotten": "count_pairs",
    "every_other_pair": "count_pairs",
    "last_id_lost": "merge",
    "from_the_right": "merge",
}


def code_points(text: str) -> list[int]:
    """`ord` gives a character's number in Unicode, which can be far above 255. Bytes are what
    `text.encode("utf-8")` holds: "é" is two of them."""
    return [ord(character) for character in text]


def bytes_themselves(text: str) -> bytes:
    """The bytes are right, and a list of their numbers is asked for: put list( ) around them."""
    return text.encode("utf-8")


def edges_cut_off(text: str) -> list[int]:
    """The spaces and line ends at the edges are lost. They are text as well: what a tokenizer
    decodes must be what was encoded, so do not strip."""
    return list(text.strip().encode("utf-8"))


def small_letters(text: str) -> list[int]:
    """The capital letters became small ones. What a tokenizer decodes must be what was encoded:
    take the text as it is."""
    return list(text.lower().encode("utf-8"))


def composed(text: str) -> list[int]:
    """An "e" and the accent after it became one character, "é". They look alike and are different
    bytes: take the text as it is, without normalizing it."""
    return list(unicodedata.normalize("NFC", text).encode("utf-8"))


def weights_forgotten(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """Each different word is counted once, however often it occurs. Add the word's weight for
    every pair in it, and not 1."""
    counts: dict[tuple[int, int], int] = {}
    for word in words:
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 0) + 1
    return counts


def once_a_word(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """A pair that stands twice in a word counts twice: [1, 2, 1, 2] holds (1, 2) two times."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for pair in set(pairwise(word)):
            counts[pair] = counts.get(pair, 0) + weight
    return counts


def order_forgotten(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """(1, 2) and (2, 1) are counted as one pair, but "th" is not "ht": do not sort the two."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for a, b in pairwise(word):
            pair = (min(a, b), max(a, b))
            counts[pair] = counts.get(pair, 0) + weight
    return counts


def equal_words_overwritten(
    words: list[list[int]], weights: list[int]
) -> dict[tuple[int, int], int]:
    """The same word stands there twice, and only the last of its weights counts: a dictionary from
    word to weight keeps one of them. Go through words and weights side by side."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in {tuple(w): n for w, n in zip(words, weights, strict=True)}.items():
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 0) + weight
    return counts


def overlapping(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """An id is used for two pairs at once: after a pair go on two places further, so that [1, 1,
    1] with (1, 1) becomes [new, 1]."""
    merged = []
    used = False
    for place in range(len(word)):
        if tuple(word[place : place + 2]) == pair:
            merged.append(new)
            used = True
        elif used:
            used = False
        else:
            merged.append(word[place])
    return merged


def right_half_kept(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The right id of the pair is still there after the new one: a pair takes two places, so go
    on two places further."""
    merged = []
    for place in range(len(word)):
        merged.append(new if tuple(word[place : place + 2]) == pair else word[place])
    return merged


def first_place_only(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Only the first place of the pair is merged. Go on to the end of the word: the pair may
    stand there again."""
    for place in range(len(word)):
        if tuple(word[place : place + 2]) == pair:
            return [*word[:place], new, *word[place + 2 :]]
    return list(word)


def ids_as_text(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The ids were joined to a text, in which "1 2" also stands within "11 2" and "1 23". Compare
    the numbers themselves, not their digits."""
    text = " ".join(map(str, word)).replace("{} {}".format(*pair), str(new))
    return [int(one) for one in text.split()]


def list_against_tuple(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Nothing is ever merged. `word[i : i + 2] == pair` compares a list with a tuple, and these
    are never equal: make a tuple of the two ids first."""
    return list(word)


def across_words(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """The last id of a word and the first of the next one were counted as a pair. Words stand
    apart: look for pairs within each."""
    counts: dict[tuple[int, int], int] = {}
    ids = [(one, weight) for word, weight in zip(words, weights, strict=True) for one in word]
    for (a, weight), (b, _) in pairwise(ids):
        counts[a, b] = counts.get((a, b), 0) + weight
    return counts


def last_pair_forgotten(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """The last pair of each word was not counted: n ids have n - 1 pairs, range(len(word) - 1)."""
    return _count_in([word[:-1] for word in words], weights)


def every_other_pair(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """Pairs were counted two places apart. They overlap: [1, 2, 3] holds (1, 2) and (2, 3)."""
    apart = [word[i : i + 2] for word in words for i in range(0, len(word), 2)]
    often = [n for word, n in zip(words, weights, strict=True) for _ in range(0, len(word), 2)]
    return _count_in(apart, often)


def _count_in(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 0) + weight
    return counts


def last_id_lost(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The last id is lost where no pair takes it: the loop ends before it. Go on to the end of the
    word."""
    merged, place = [], 0
    while place < len(word) - 1:
        found = (word[place], word[place + 1]) == pair
        merged.append(new if found else word[place])
        place += 2 if found else 1
    return merged


def from_the_right(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The pairs were taken from right to left: of [1, 1, 1] and (1, 1) the first two are merged,
    and it becomes [new, 1]."""
    merged, place = [], len(word) - 1
    while place >= 0:
        found = place > 0 and (word[place - 1], word[place]) == pair
        merged.append(new if found else word[place])
        place -= 2 if found else 1
    return merged[::-1]
