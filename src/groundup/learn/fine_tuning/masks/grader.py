"""Grades masks by the product's chat template and batches."""

import random
from collections.abc import Iterator
from functools import cache

from groundup.learn.exercise import Trial, calls
from groundup.text.batches import joined
from groundup.text.bpe import train_bpe
from groundup.text.chat import encode_chat
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer

_TALKS = (
    (("user", "hi"), ("assistant", "ho")),
    (("user", "sea"),),
    (("system", "be kind"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d e")),
    (("assistant", "first"), ("user", "assistant")),
    (("user", "say assistant\nho"), ("assistant", "ho")),
)


@cache
def _tokenizer() -> Tokenizer:
    """Only bytes: the mask does not depend on the vocabulary."""
    return Tokenizer.from_bpe(train_bpe(["assistant\nuser\nsystem\n"] * 3, 280))


def trials(seed: int) -> Iterator[Trial]:
    tokenizer, dice = _tokenizer(), random.Random(seed)
    start, end = tokenizer.im_start, tokenizer.im_end
    header = tokenizer.encode("assistant\n")
    for talk in _TALKS:
        chat = encode_chat(tokenizer, [{"role": role, "content": said} for role, said in talk])
        yield _masked(
            f"a chat of {' and '.join(role for role, _ in talk)}", chat.ids, chat.assistant
        )
    chat = encode_chat(tokenizer, [{"role": "assistant", "content": "to be"}])
    # Without the end token and the line break.
    yield _masked("a turn that is not closed", chat.ids[:-2], chat.assistant[:-2])
    assert chat.ids[: 1 + len(header)] == [start, *header] and end in chat.ids
    for length in (2, 5, 9):
        ids = [dice.randrange(9) for _ in range(length)]
        mask = [dice.random() < 0.5 for _ in ids[1:]] + [True]
        row = joined([Example(ids, mask)], length - 1)
        for at, name in enumerate(("inputs", "targets", "weights")):
            expected = (row.input_ids, row.targets, row.weights)[at].tolist()
            yield Trial(
                f"{name} of {length} shifted tokens",
                calls("shifted", ids, mask, at=at),
                expected,
                {"ids": ids, "mask": mask},
            )


def _masked(about: str, ids: list[int], expected: list[bool]) -> Trial:
    tokenizer = _tokenizer()
    header = tokenizer.encode("assistant\n")
    start, end = tokenizer.im_start, tokenizer.im_end
    return Trial(
        f"assistant_mask of {about}",
        calls("assistant_mask", ids, start, end, header),
        expected,
        {"ids": ids, "start": start, "end": end, "header": header},
    )
