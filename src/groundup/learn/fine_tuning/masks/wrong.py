"""The commonest mistakes with masks."""

REPLACES = {
    "never_stops": "assistant_mask",
    "header_trained": "assistant_mask",
    "line_break_trained": "assistant_mask",
    "everybody_speaks": "assistant_mask",
    "last_turn_only": "assistant_mask",
    "header_anywhere": "assistant_mask",
    "not_shifted": "shifted",
    "weights_of_inputs": "shifted",
    "backwards": "shifted",
    "first_turn_only": "assistant_mask",
    "turned_around": "assistant_mask",
    "all_of_it": "assistant_mask",
    "minus_100": "shifted",
    "inputs_hidden": "shifted",
}


def _marked(
    ids: list[int],
    start: int,
    end: int,
    header: list[int],
    *,
    ends: bool = True,
    header_too: bool = False,
    after_end: int = 0,
    anybody: bool = False,
) -> list[bool]:
    mask: list[bool] = []
    speaking, left = False, 0
    while len(mask) < len(ids):
        place = len(mask)
        if ids[place] == start:
            ours = ids[place + 1 : place + 1 + len(header)] == header
            speaking = ours or anybody
            mask += [header_too and ours] + [header_too] * len(header) * ours
            left = 0
            continue
        if ids[place] == end:
            mask.append(speaking and ends)
            left, speaking = after_end * speaking, False
            continue
        mask.append(speaking or left > 0)
        left -= 1
    return mask


def never_stops(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """The token that ends the assistant's turn is not learned, so the model would never stop. Mark
    it too."""
    return _marked(ids, start, end, header, ends=False)


def header_trained(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """The header is marked too. It is part of the prompt at generation time; the first learned
    token is the one after it."""
    return _marked(ids, start, end, header, header_too=True)


def line_break_trained(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """The line break after the turn's end is marked. Nothing after the end is learned."""
    return _marked(ids, start, end, header, after_end=1)


def everybody_speaks(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """The user's words are marked as well. Only turns that begin with the assistant's header
    count."""
    return _marked(ids, start, end, header, anybody=True)


def last_turn_only(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """Only the last turn of the assistant is marked. All of its turns are learned."""
    mask = _marked(ids, start, end, header)
    begins = [i for i in range(1, len(mask)) if mask[i] and not mask[i - 1]]
    last = begins[-1] if begins else 0
    return [learned and i >= last for i, learned in enumerate(mask)]


def header_anywhere(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """The header is matched anywhere, but a user may write the same words. It counts only right
    after a start."""
    mask: list[bool] = []
    speaking = False
    while len(mask) < len(ids):
        place = len(mask)
        if ids[place : place + len(header)] == header:
            mask += [False] * len(header)
            speaking = True
            continue
        mask.append(speaking)
        speaking = speaking and ids[place] not in (start, end)
    return mask


def not_shifted(ids: list[int], mask: list[bool]) -> tuple[list[int], list[int], list[float]]:
    """Inputs and targets are the same tokens: the model would learn to repeat what it reads.
    Targets are the ids from the second on."""
    return ids[:-1], ids[:-1], [1.0 if learned else 0.0 for learned in mask[:-1]]


def weights_of_inputs(ids: list[int], mask: list[bool]) -> tuple[list[int], list[int], list[float]]:
    """The weights are those of the inputs. The target is learned, so use mask[1:]."""
    return ids[:-1], ids[1:], [1.0 if learned else 0.0 for learned in mask[:-1]]


def backwards(ids: list[int], mask: list[bool]) -> tuple[list[int], list[int], list[float]]:
    """Inputs and targets are exchanged: the model would learn to guess what came *before*."""
    return ids[1:], ids[:-1], [1.0 if learned else 0.0 for learned in mask[:-1]]


def first_turn_only(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """Only the assistant's first turn is marked. There may be several: continue to the end."""
    mask, over = _marked(ids, start, end, header), False
    for place, learned in enumerate(mask):
        over = over or (place > 0 and mask[place - 1] and not learned)
        if over:
            return mask[:place] + [False] * (len(mask) - place)
    return mask


def turned_around(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """True and false are exchanged: true marks the learned tokens, the assistant's words."""
    return [not learned for learned in _marked(ids, start, end, header)]


def all_of_it(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """Every token is marked, the user's as well. The model would learn to write the user's
    questions."""
    return [True] * len(ids)


def minus_100(ids: list[int], mask: list[bool]) -> tuple[list[int], list[int], list[float]]:
    """Targets that are not learned became -100, the convention of other libraries. Here a target
    keeps its value, and its weight is 0."""
    targets = [one if learned else -100 for one, learned in zip(ids[1:], mask[1:], strict=True)]
    return ids[:-1], targets, [1.0 if learned else 0.0 for learned in mask[1:]]


def inputs_hidden(ids: list[int], mask: list[bool]) -> tuple[list[int], list[int], list[float]]:
    """Inputs that are not learned were removed. The model must read them; only their weight as
    targets is 0."""
    inputs = [one if learned else 0 for one, learned in zip(ids, mask, strict=True)]
    return inputs[:-1], ids[1:], [1.0 if learned else 0.0 for learned in mask[1:]]
