"""Packed rows against each sequence by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from groundup.errors import UserError
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.corpus import Shard
from groundup.text.packing import (
    ConversationStream,
    DocumentStream,
    Marked,
    balanced,
    cut_to,
    pack,
    packed_batch,
)
from groundup.train.batch import Batch
from groundup.train.loss import next_token_loss

CONTEXT = 32


def random_model() -> CausalLM:
    """Every weight random: fresh output projections would hide what packing gets wrong."""
    model = CausalLM(ModelConfig.of(width=64, depth=2, vocab_size=320, context=CONTEXT))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.2, generator=generator)
    return model


def shard_of(lengths: Sequence[int], seed: int = 0) -> Shard:
    """Documents of random tokens, no two tokens alike but the 0 that begins each."""
    random = np.random.default_rng(seed)
    fresh = iter(random.permutation(np.arange(1, sum(lengths) + 1)).tolist())
    documents = [[0, *(next(fresh) for _ in range(n))] for n in lengths]
    tokens = np.array([token for document in documents for token in document], np.uint16)
    offsets = np.cumsum([0, *(len(document) for document in documents)])
    return Shard(tokens, offsets, ["x"] * len(lengths), np.array(lengths), "none", "train")


def conversations(count: int, seed: int = 0) -> list[Marked]:
    """Random tokens; those the assistant speaks come in one or two stretches."""
    random = np.random.default_rng(seed)
    found = []
    for n in random.integers(3, CONTEXT + 1, count).tolist():
        spoken = random.random(n) < 0.5
        spoken[-1] = True
        found.append(Marked(random.integers(3, 320, n).tolist(), spoken.tolist()))
    return found


def same(one: Batch, other: Batch) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("input_ids", "targets", "weights", "position_ids", "segment_ids")
    )


# Packed = unpacked.


def summed(model: CausalLM, batches: Sequence[Batch]) -> tuple[float, float, list[Tensor]]:
    """Total loss, total weight and its gradients."""
    losses = [next_token_loss(model, batch) for batch in batches]
    total = torch.stack([loss.total for loss in losses]).sum()
    gradients = torch.autograd.grad(total, list(model.parameters()))
    return total.item(), sum(loss.weight for loss in losses), list(gradients)


def test_packed_conversations_train_as_padded_single_ones_do() -> None:
    model, items = random_model(), conversations(17)
    rows = pack([item.inputs for item in items], CONTEXT)
    assert len(rows) < len(items)
    packed = packed_batch([[items[i] for i in row] for row in rows], CONTEXT)
    singles = [packed_batch([[item]], CONTEXT) for item in items]
    total, weight, gradients = summed(model, [packed])
    expected_total, expected_weight, expected = summed(model, singles)
    assert weight == expected_weight == sum(sum(item.trained[1:]) for item in items)
    assert total == pytest.approx(expected_total, rel=1e-5)
    for one, other in zip(gradients, expected, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_documents_in_a_row_are_read_as_if_alone() -> None:
    model = random_model()
    stream = DocumentStream(
        shard_of([9, 3, 14, 30, 5, 21, 2, 8]), context=CONTEXT, rows=2, micro_rows=2, seed=1
    )
    [batch] = stream.at(0, model)
    with torch.no_grad():
        hidden = model(batch)
        for row, segments in enumerate(batch.segment_ids):
            assert len(segments.unique()) > 1
            for segment in segments.unique():
                place = segments == segment
                ids = batch.input_ids[row, place]
                alone = model(Batch.of(ids[None]))[0]
                assert_close(hidden[row, place], alone, rtol=1e-4, atol=1e-4)


# Documents.


def document_rows(stream: DocumentStream, epoch: int) -> list[tuple[list[int], list[int]]]:
    """Inputs and targets of an epoch's rows; the stream takes one row a step."""
    steps = range(epoch * stream.rows_per_epoch, (epoch + 1) * stream.rows_per_epoch)
    model = torch.nn.Identity()
    batches = [batch for step in steps for batch in stream.at(step, model)]
    return [(b.input_ids[0].tolist(), b.targets[0].tolist()) for b in batches]


def one_row_stream(shard: Shard, seed: int = 0) -> DocumentStream:
    return DocumentStream(shard, context=CONTEXT, rows=1, micro_rows=1, seed=seed)


@pytest.mark.parametrize("epoch", [0, 3])
def test_every_token_of_an_epoch_is_seen_once(epoch: int) -> None:
    shard = shard_of([40, 7, 1, 90, 33, 12, 64, 5, 71] * 3)
    stream = one_row_stream(shard)
    rows = document_rows(stream, epoch)
    seen = Counter(token for _, targets in rows for token in targets if token != 0)
    assert set(seen.values()) == {1}
    read = Counter(token for inputs, _ in rows for token in inputs if token != 0)
    assert set(read.values()) == {1}
    # What is left over is less than a row.
    assert len(shard.tokens) - len(rows) * CONTEXT <= CONTEXT


def test_targets_are_the_next_tokens_and_end_with_the_documents() -> None:
    shard = shard_of([40, 7, 1, 90, 33, 12])
    following = dict(zip(shard.tokens.tolist(), shard.tokens.tolist()[1:], strict=False))
    for inputs, targets in document_rows(one_row_stream(shard), 0):
        assert inputs[1:] == targets[:-1]
        for token, target in zip(inputs, targets, strict=True):
            # The last document of the shard may be followed by any other's 0.
            assert token == 0 or target == following.get(token, 0)


def test_no_segment_holds_two_documents_and_positions_begin_anew() -> None:
    shard = shard_of([40, 7, 1, 90, 33, 12])
    edges = shard.offsets[1:-1]
    stream = DocumentStream(shard, context=CONTEXT, rows=4, micro_rows=2, seed=0)
    where = {int(t): int(np.searchsorted(edges, i, "right")) for i, t in enumerate(shard.tokens)}
    numbers: list[int] = []
    for batch in stream.at(0, torch.nn.Identity()):
        for segment in batch.segment_ids.unique().tolist():
            place = batch.segment_ids == segment
            assert len(place.any(1).nonzero()) == 1, "a segment lies in one row"
            tokens = batch.input_ids[place].tolist()
            assert len({where[token] for token in tokens if token != 0}) <= 1
            assert 0 not in tokens[1:]
            assert batch.position_ids[place].tolist() == list(range(len(tokens)))
            numbers.append(segment)
        assert batch.weights.eq(1).all() and batch.tokens == batch.input_ids.numel()


def test_document_steps_are_a_pure_function_of_seed_and_step() -> None:
    shard, model = shard_of([40, 7, 1, 90, 33, 12] * 4), torch.nn.Identity()

    def stream(seed: int) -> DocumentStream:
        return DocumentStream(shard, context=CONTEXT, rows=5, micro_rows=2, seed=seed)

    forwards = {step: stream(7).at(step, model) for step in range(12)}
    backwards = stream(7)
    for step in reversed(range(12)):
        again = backwards.at(step, model)
        assert [len(batch.input_ids) for batch in again] == [2, 2, 1]
        assert all(same(one, other) for one, other in zip(again, forwards[step], strict=True))
    assert not same(stream(8).at(0, model)[0], forwards[0][0])
    epochs = [document_rows(one_row_stream(shard), epoch) for epoch in (0, 1)]
    assert epochs[0] != epochs[1], "each epoch has an order of its own"


def test_too_little_text_is_refused() -> None:
    with pytest.raises(UserError, match=f"fewer than one row of context={CONTEXT}"):
        one_row_stream(shard_of([5, 6]))


# Conversations.


def conversation_stream(
    items: Sequence[Marked], rows: int = 3, micro_rows: int = 2, seed: int = 0
) -> ConversationStream:
    return ConversationStream(items, context=CONTEXT, rows=rows, micro_rows=micro_rows, seed=seed)


def sequences(batch: Batch) -> list[tuple[list[int], list[int], list[float]]]:
    """Inputs, targets and weights of each sequence in a batch."""
    found = []
    for segment in range(int(batch.segment_ids.max()) + 1):
        place = batch.segment_ids == segment
        found.append(
            (
                batch.input_ids[place].tolist(),
                batch.targets[place].tolist(),
                batch.weights[place].tolist(),
            )
        )
    return found


def test_an_epoch_holds_every_conversation_once_and_only_the_assistant_is_trained() -> None:
    items = conversations(50)
    stream = conversation_stream(items, rows=1)
    seen = []
    for step in range(stream.rows_per_epoch):
        [batch] = stream.at(step, torch.nn.Identity())
        seen += sequences(batch)
        padding = batch.segment_ids < 0
        assert not batch.weights[padding].any()
        assert batch.tokens == int((~padding).sum())
    expected = [
        (list(item.ids[:-1]), list(item.ids[1:]), [float(t) for t in item.trained[1:]])
        for item in items
    ]
    assert sorted(seen) == sorted(expected)


def test_conversation_steps_are_a_pure_function_of_seed_and_step() -> None:
    items, model = conversations(50), torch.nn.Identity()
    forwards = {step: conversation_stream(items).at(step, model) for step in range(20)}
    backwards = conversation_stream(items)
    for step in reversed(range(20)):
        again = backwards.at(step, model)
        assert all(same(one, other) for one, other in zip(again, forwards[step], strict=True))
    assert not same(conversation_stream(items, seed=1).at(0, model)[0], forwards[0][0])


def test_long_conversations_are_cut_and_useless_data_is_refused() -> None:
    long = Marked(list(range(3, 103)), [True] * 100)
    assert cut_to(long, 10).inputs == 10
    [batch] = conversation_stream([long], rows=1).at(0, torch.nn.Identity())
    assert batch.input_ids.tolist() == [list(range(3, 3 + CONTEXT))]
    with pytest.raises(UserError, match=f"context={CONTEXT}"):
        conversation_stream([Marked(list(range(100)), [False] * 60 + [True] * 40)])


# Packing.


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=80), st.integers(40, 100))
def test_packing_loses_nothing_and_overfills_nothing(lengths: list[int], capacity: int) -> None:
    rows = pack(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(row and sum(lengths[i] for i in row) <= capacity for row in rows)
    assert all(row == sorted(row) for row in rows), "in the order given"


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=80))
def test_packing_wastes_less_than_one_row_of_two(lengths: list[int]) -> None:
    # Of two rows that were open together, one at least is more than half full.
    rows = pack(lengths, 30)
    half_empty = [row for row in rows if sum(lengths[i] for i in row) <= 15]
    assert len(half_empty) <= 1


def test_packing_fills_rows_well() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, 2000).tolist()
    rows = pack(lengths, 256)
    assert sum(lengths) / (256 * len(rows)) > 0.93


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=60),
    st.floats(0, 1),
    st.integers(0, 9),
)
def test_balance_only_shifts_shares(sources: list[str], balance: float, seed: int) -> None:
    order = balanced(sources, balance, np.random.default_rng(seed)).tolist()
    assert len(order) == len(sources)
    times = Counter(order)
    for name in set(sources):
        members = [i for i, source in enumerate(sources) if source == name]
        counts = [times[i] for i in members]
        assert max(counts) - min(counts) <= 1, "repeated whole before any comes once more"
    if balance == 0:
        assert sorted(order) == list(range(len(sources)))


def test_full_balance_gives_every_source_the_same_say() -> None:
    sources = ["large"] * 90 + ["small"] * 10
    order = balanced(sources, 1.0, np.random.default_rng(0))
    assert Counter(sources[i] for i in order) == {"large": 50, "small": 50}


# The share of the small world.


def mixed_shard(seed: int = 0) -> Shard:
    """Sixty documents that people wrote and two hundred of the world."""
    shard = shard_of([20] * 260, seed)
    return Shard(
        shard.tokens,
        shard.offsets,
        ["wiki"] * 60 + ["world-stories"] * 200,
        shard.document_bytes,
        "none",
        "train",
    )


FIRST_OF_WORLD = int(mixed_shard().offsets[60])
WRITTEN = frozenset(mixed_shard().tokens[:FIRST_OF_WORLD].tolist()) - {0}


def share_of_world(stream: DocumentStream, steps: range) -> float:
    """Which share of the tokens of some steps is the world's."""
    batches = [batch for step in steps for batch in stream.at(step, random_model())]
    tokens = [t for b in batches for t in b.input_ids.flatten().tolist() if t]
    return 1 - sum(token in WRITTEN for token in tokens) / len(tokens)


def test_the_worlds_share_moves_evenly_from_the_first_step_to_the_last() -> None:
    stream = DocumentStream(
        mixed_shard(), context=CONTEXT, rows=10, micro_rows=5, seed=0, world=(0.9, 0.1), steps=200
    )
    for begin, wanted in ((0, 0.88), (95, 0.5), (190, 0.12), (300, 0.1)):
        assert abs(share_of_world(stream, range(begin, begin + 10)) - wanted) < 0.02


def test_without_a_number_of_steps_the_share_is_the_mean_all_along() -> None:
    stream = DocumentStream(
        mixed_shard(), context=CONTEXT, rows=10, micro_rows=5, seed=0, world=(0.9, 0.1)
    )
    assert abs(share_of_world(stream, range(4)) - 0.5) < 0.02
    # An epoch is every other document once.
    others = (20 + 1) * 60 // CONTEXT
    assert abs(stream.rows_per_epoch - others / 0.5) <= 2


def test_what_people_wrote_is_read_once_before_any_of_it_is_read_again() -> None:
    stream = DocumentStream(
        mixed_shard(), context=CONTEXT, rows=4, micro_rows=4, seed=0, world=(0.5, 0.5)
    )
    steps = range(stream.rows_per_epoch // 4)
    seen = Counter(
        token
        for step in steps
        for batch in stream.at(step, random_model())
        for token in batch.input_ids.flatten().tolist()
        if token in WRITTEN
    )
    assert max(seen.values()) == 1 and len(seen) > len(WRITTEN) - 4 * CONTEXT


def test_mixed_steps_are_a_pure_function_of_seed_and_step() -> None:
    def made(seed: int) -> DocumentStream:
        return DocumentStream(
            mixed_shard(),
            context=CONTEXT,
            rows=6,
            micro_rows=3,
            seed=seed,
            world=(0.8, 0.2),
            steps=50,
        )

    one, other, third = made(1), made(1), made(2)
    for _ in one.at(3, random_model()):  # what came before makes no difference
        pass
    ids = [[b.input_ids for b in s.at(17, random_model())] for s in (one, other, third)]
    assert all(torch.equal(a, b) for a, b in zip(ids[0], ids[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(ids[0], ids[2], strict=True))


def test_a_share_of_the_world_means_nothing_where_there_is_only_one_of_both() -> None:
    for sources in (["wiki"] * 260, ["world-stories"] * 260):
        shard = Shard(*(getattr(mixed_shard(), name) for name in ("tokens", "offsets")), sources,
                      mixed_shard().document_bytes, "none", "train")  # fmt: skip
        shared, plain = (
            DocumentStream(shard, context=CONTEXT, rows=2, micro_rows=2, seed=3, world=world)
            for world in ((0.8, 0.2), (0.0, 0.0))
        )
        for one, other in zip(
            shared.at(5, random_model()), plain.at(5, random_model()), strict=True
        ):
            assert_close(one.input_ids, other.input_ids)


def test_conversations_have_the_worlds_share() -> None:
    sources = ["wiki"] * 500 + ["own"] * 20 + ["world-facts"] * 900 + ["world-talk"] * 80
    order = balanced(sources, 0.5, np.random.default_rng(0), 0.6)
    drawn = Counter(sources[i] for i in order)
    of_world = drawn["world-facts"] + drawn["world-talk"]
    assert len(order) == len(sources) and abs(of_world / len(order) - 0.6) < 0.001
    assert abs(drawn["world-facts"] / drawn["world-talk"] - 900 / 80) < 0.1
    assert abs(drawn["wiki"] / drawn["own"] - (500 / 20) ** 0.5) < 0.1


def test_a_prompt_weight_is_for_what_the_assistant_did_not_say_and_padding_has_none() -> None:
    said = Marked([5, 6, 7, 8, 9], [False, False, True, True, False])
    stream = ConversationStream([said], prompt_weight=0.25, context=8, rows=1, micro_rows=1, seed=0)
    [batch] = stream.at(0, random_model())
    assert batch.weights.tolist() == [[0.25, 1.0, 1.0, 0.25, 0, 0, 0, 0]]
    assert batch.targets.tolist()[0][:4] == [6, 7, 8, 9]


def test_chained_conversations_are_one_segment_and_none_is_lost() -> None:
    said = conversations(60, seed=5)
    alone, chained = (
        ConversationStream(said, chained=share, context=CONTEXT, rows=4, micro_rows=4, seed=1)
        for share in (0.0, 1.0)
    )

    def seen(stream: ConversationStream) -> tuple[Counter[int], int]:
        """Targets that are trained, and how many segments hold them, in an epoch."""
        targets: Counter[int] = Counter()
        segments = 0
        for step in range(-(-stream.rows_per_epoch // 4)):
            for batch in stream.at(step, random_model()):
                rows = min(4, stream.rows_per_epoch - 4 * step)
                trained = batch.weights[:rows] > 0
                targets.update(batch.targets[:rows][trained].tolist())
                segments += len(set(batch.segment_ids[:rows].flatten().tolist()) - {-1})
        return targets, segments

    (one, apart), (other, together) = seen(alone), seen(chained)
    assert together < 0.7 * apart
    # The first token of a conversation is a target only where it goes on from another.
    assert one <= other
