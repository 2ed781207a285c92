"""Which tokens of a chat are trained."""


def assistant_mask(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    """True at the assistant's words and at the token that ends its turn."""
    mask: list[bool] = []
    speaking = False
    while len(mask) < len(ids):
        place = len(mask)
        if ids[place] == start:
            speaking = ids[place + 1 : place + 1 + len(header)] == header
            # The header is part of the prompt, so it is not learned.
            mask += [False] * (1 + len(header) if speaking else 1)
            continue
        mask.append(speaking)
        if ids[place] == end:  # learned too: a model must learn to stop
            speaking = False
    return mask


def shifted(ids: list[int], mask: list[bool]) -> tuple[list[int], list[int], list[float]]:
    """Inputs, targets and weights, each shorter than the ids by one."""
    # Each position predicts the next token, so the next token's mask counts.
    return ids[:-1], ids[1:], [1.0 if learned else 0.0 for learned in mask[1:]]
