"""The commonest mistakes in byte-pair encoding."""

import unicodedata
from collections.abc import Callable
from itertools import combinations, pairwise

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
    "used_up": "count_pairs",
    "neighbor_beyond_the_end": "count_pairs",
    "not_there_yet": "count_pairs",
    "written_over": "count_pairs",
    "begun_with_one": "count_pairs",
    "begun_with_zero": "count_pairs",
    "begun_with_one_too_many": "count_pairs",
    "first_word_alone": "count_pairs",
    "last_word_alone": "count_pairs",
    "words_repeated": "count_pairs",
    "every_two_ids": "count_pairs",
    "turned_around": "count_pairs",
    "beyond_the_end": "merge",
    "beyond_an_end_that_looks_right": "merge",
    "shrinks_underway": "merge",
    "left_half_kept": "merge",
    "pair_kept": "merge",
    "next_one_unseen": "merge",
    "next_one_beyond": "merge",
    "either_order": "merge",
    "first_id_decides": "merge",
    "two_at_a_time": "merge",
    "last_id_twice": "merge",
    "last_pair_unseen": "merge",
    "pair_lost": "merge",
}


def code_points(text: str) -> list[int]:
    """`ord` gives a character's number in Unicode, which can be far above 255.
    `text.encode("utf-8")` gives the bytes: "é" is two of them."""
    return [ord(character) for character in text]


def bytes_themselves(text: str) -> bytes:
    """The bytes are right, but return a list of their numbers: put list( ) around them."""
    return text.encode("utf-8")


def edges_cut_off(text: str) -> list[int]:
    """The spaces and line ends at the edges are lost. Decoding must give back the encoded text, so
    do not strip."""
    return list(text.strip().encode("utf-8"))


def small_letters(text: str) -> list[int]:
    """The capital letters became small ones. Decoding must give back the encoded text: do not
    change it."""
    return list(text.lower().encode("utf-8"))


def composed(text: str) -> list[int]:
    """An "e" and the accent after it became one character, "é". They look alike but are different
    bytes: do not normalize the text."""
    return list(unicodedata.normalize("NFC", text).encode("utf-8"))


def weights_forgotten(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """Each different word is counted once, however often it occurs. Add the word's weight for every
    pair in it, not 1."""
    counts: dict[tuple[int, int], int] = {}
    for word in words:
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 0) + 1
    return counts


def once_a_word(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """A pair that occurs twice in a word counts twice: [1, 2, 1, 2] contains (1, 2) two times."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for pair in set(pairwise(word)):
            counts[pair] = counts.get(pair, 0) + weight
    return counts


def order_forgotten(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """(1, 2) and (2, 1) are counted as one pair, but "th" is not "ht": do not sort the pair."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for a, b in pairwise(word):
            pair = (min(a, b), max(a, b))
            counts[pair] = counts.get(pair, 0) + weight
    return counts


def equal_words_overwritten(
    words: list[list[int]], weights: list[int]
) -> dict[tuple[int, int], int]:
    """The same word occurs twice, and only the last of its weights counts: a dictionary from word
    to weight keeps one of them. Go through words and weights side by side."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in {tuple(w): n for w, n in zip(words, weights, strict=True)}.items():
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 0) + weight
    return counts


def overlapping(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """An id is used for two pairs at once: after a pair, advance by two, so that [1, 1, 1] with (1,
    1) becomes [new, 1]."""
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
    """The right id of the pair is still there after the new one: a pair covers two ids, so advance
    by two."""
    merged = []
    for place in range(len(word)):
        merged.append(new if tuple(word[place : place + 2]) == pair else word[place])
    return merged


def first_place_only(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Only the first occurrence of the pair is merged. Continue to the end of the word: the pair
    may occur again."""
    for place in range(len(word)):
        if tuple(word[place : place + 2]) == pair:
            return [*word[:place], new, *word[place + 2 :]]
    return list(word)


def ids_as_text(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The ids were joined into a string, in which "1 2" also occurs within "11 2" and "1 23".
    Compare the numbers themselves, not their digits."""
    text = " ".join(map(str, word)).replace("{} {}".format(*pair), str(new))
    return [int(one) for one in text.split()]


def list_against_tuple(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Nothing is ever merged. `word[i : i + 2] == pair` compares a list with a tuple, and these
    are never equal: make a tuple of the two ids first."""
    return list(word)


def across_words(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """The last id of a word and the first of the next one were counted as a pair. Look for pairs
    only within each word."""
    counts: dict[tuple[int, int], int] = {}
    ids = [(one, weight) for word, weight in zip(words, weights, strict=True) for one in word]
    for (a, weight), (b, _) in pairwise(ids):
        counts[a, b] = counts.get((a, b), 0) + weight
    return counts


def last_pair_forgotten(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """The last pair of each word was not counted: n ids have n - 1 pairs, range(len(word) - 1)."""
    return _count_in([word[:-1] for word in words], weights)


def every_other_pair(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """Only every other pair was counted. Pairs overlap: [1, 2, 3] contains (1, 2) and (2, 3)."""
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
    """The last id is lost if it is not in a pair, since the loop ends before it. Continue to the
    end of the word."""
    merged, place = [], 0
    while place < len(word) - 1:
        found = (word[place], word[place + 1]) == pair
        merged.append(new if found else word[place])
        place += 2 if found else 1
    return merged


def from_the_right(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The pairs were merged from right to left. In [1, 1, 1], merging (1, 1) takes the first two:
    [new, 1]."""
    merged, place = [], len(word) - 1
    while place >= 0:
        found = place > 0 and (word[place - 1], word[place]) == pair
        merged.append(new if found else word[place])
        place -= 2 if found else 1
    return merged[::-1]


def used_up(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """An id that was counted in one pair was not used again. merge works that way, but here pairs
    overlap: [1, 1, 1] contains (1, 1) twice."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        ends: dict[tuple[int, int], int] = {}
        for place, pair in enumerate(pairwise(word)):
            if place > ends.get(pair, -1):
                counts[pair] = counts.get(pair, 0) + weight
                ends[pair] = place + 1
    return counts


def neighbor_beyond_the_end(
    words: list[list[int]], weights: list[int]
) -> dict[tuple[int, int], int]:
    """The last id of a word has no right neighbor: end one position earlier, range(len(word) - 1),
    or look at zip(word, word[1:])."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for place in range(len(word)):
            pair = (word[place], word[place + 1])
            counts[pair] = counts.get(pair, 0) + weight
    return counts


def not_there_yet(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """`counts[pair] += weight` looks up a pair that is not in the dictionary yet. Use 0 for it:
    counts[pair] = counts.get(pair, 0) + weight, or a collections.Counter."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for pair in pairwise(word):
            counts[pair] += weight
    return counts


def written_over(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """The count of a repeated pair is overwritten by the last weight. Add to the count:
    counts[pair] = counts.get(pair, 0) + weight."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for pair in pairwise(word):
            counts[pair] = weight
    return counts


def begun_with_one(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """The first occurrence of a pair counts 1, whatever its word's weight is. Count the weight then
    as well."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for pair in pairwise(word):
            counts[pair] = counts[pair] + weight if pair in counts else 1
    return counts


def begun_with_zero(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """The first occurrence of a pair does not count: the pair is put into the dictionary with 0,
    and its weight is not added."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for pair in pairwise(word):
            counts[pair] = counts[pair] + weight if pair in counts else 0
    return counts


def begun_with_one_too_many(
    words: list[list[int]], weights: list[int]
) -> dict[tuple[int, int], int]:
    """Every count is one too large: the count of a new pair starts at 0, counts.get(pair, 0), not
    at 1."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 1) + weight
    return counts


def first_word_alone(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """Only the first word is counted: is the `return` inside the loop? It belongs after the loop,
    indented like the `for`."""
    return _count_in(words[:1], weights[:1])


def last_word_alone(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """Only the last word is counted: each word starts a new dictionary. Create it once, before the
    loop."""
    return _count_in(words[-1:], weights[-1:])


def words_repeated(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """Each word was repeated as often as it occurs, which creates pairs of its last id and its
    first. Add the weight for each of its pairs instead."""
    repeated = [word * weight for word, weight in zip(words, weights, strict=True)]
    return _count_in(repeated, [1] * len(repeated))


def every_two_ids(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """Any two ids of a word were counted. Only neighbors form a pair: zip(word, word[1:])."""
    counts: dict[tuple[int, int], int] = {}
    for word, weight in zip(words, weights, strict=True):
        for pair in combinations(word, 2):
            counts[pair] = counts.get(pair, 0) + weight
    return counts


def turned_around(words: list[list[int]], weights: list[int]) -> dict[tuple[int, int], int]:
    """The pairs are reversed: the left neighbor comes first, (word[i], word[i + 1])."""
    return {(b, a): count for (a, b), count in _count_in(words, weights).items()}


def beyond_the_end(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The last id has no right neighbor, but word[i + 1] reads one. Check first that it exists: i +
    1 < len(word)."""
    merged, place = [], 0
    while place < len(word):
        found = (word[place], word[place + 1]) == pair
        merged.append(new if found else word[place])
        place += 2 if found else 1
    return merged


def beyond_an_end_that_looks_right(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """If the word ends with the first id of the pair, word[i + 1] reads a neighbor that does not
    exist. Check first that it exists: i + 1 < len(word)."""
    merged, place = [], 0
    while place < len(word):
        found = word[place] == pair[0] and word[place + 1] == pair[1]
        merged.append(new if found else word[place])
        place += 2 if found else 1
    return merged


def shrinks_underway(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The list gets shorter while the loop runs to its original length. Append to a new list, with
    a `while` loop over the old one."""
    merged = list(word)
    for place in range(len(merged) - 1):
        if (merged[place], merged[place + 1]) == pair:
            merged[place : place + 2] = [new]
    return merged


def left_half_kept(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The left id of the pair is still there before the new one, which replaces both."""
    merged, place = [], 0
    while place < len(word):
        found = tuple(word[place : place + 2]) == pair
        merged += [word[place], new] if found else [word[place]]
        place += 2 if found else 1
    return merged


def pair_kept(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The pair is still there next to the new id, which replaces it: append one or the other."""
    merged, place = [], 0
    while place < len(word):
        found = tuple(word[place : place + 2]) == pair
        merged += [new, *pair] if found else [word[place]]
        place += 2 if found else 1
    return merged


def next_one_unseen(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """After a pair, the next id was copied, though another pair may start there. Append word[i]
    only if no pair was found (`else`)."""
    merged, place = [], 0
    while place < len(word):
        if tuple(word[place : place + 2]) == pair:
            merged.append(new)
            place += 2
        merged += word[place : place + 1]
        place += 1
    return merged


def next_one_beyond(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """After a pair, the next id was copied, but at the end of the word there is none. Append
    word[i] only if no pair was found (`else`)."""
    merged, place = [], 0
    while place < len(word):
        if tuple(word[place : place + 2]) == pair:
            merged.append(new)
            place += 2
        merged.append(word[place])
        place += 1
    return merged


def either_order(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The reversed pair was merged as well, (2, 1) for (1, 2). The order matters: "th" is not
    "ht"."""
    return _merged_where(word, lambda a, b: (a, b) == pair or (b, a) == pair, new)


def first_id_decides(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Only the first id was compared. Compare both ids with those of the pair."""
    return _merged_where(word, lambda a, b: a == pair[0], new)


def two_at_a_time(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The word was cut into pieces of two, but a pair may start at any position. Advance by two
    after a pair, and by one otherwise."""
    merged: list[int] = []
    for place in range(0, len(word), 2):
        two = word[place : place + 2]
        merged += [new] if tuple(two) == pair else two
    return merged


def last_id_twice(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The last id is always appended at the end, even if a pair already used it. Append it only if
    it is left over."""
    return last_id_lost(word, pair, new) + word[-1:]


def last_pair_unseen(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """A pair at the very end was not found: the loop ends too early. The last pair starts at index
    len(word) - 2."""
    merged, place = [], 0
    while place < len(word):
        found = place < len(word) - 2 and (word[place], word[place + 1]) == pair
        merged.append(new if found else word[place])
        place += 2 if found else 1
    return merged


def pair_lost(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The pair was removed without a replacement: append the new id there."""
    merged, place = [], 0
    while place < len(word):
        found = tuple(word[place : place + 2]) == pair
        merged += [] if found else [word[place]]
        place += 2 if found else 1
    return merged


def _merged_where(word: list[int], is_pair: Callable[[int, int], bool], new: int) -> list[int]:
    merged, place = [], 0
    while place < len(word):
        found = place + 1 < len(word) and is_pair(word[place], word[place + 1])
        merged.append(new if found else word[place])
        place += 2 if found else 1
    return merged
