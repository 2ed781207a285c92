"""Packed rows against each sequence alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import CallsOf
from torch import Tensor
from torch.testing import assert_close

from groundup.data.packs.manifest import source_group
from groundup.errors import UserError
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.batches import ConversationStream, Packing, pack, packed_batch
from groundup.text.document_stream import DocumentStream
from groundup.text.example import Example, cut_to
from groundup.text.mixing import Mixture, balanced, weighted
from groundup.text.shards import Shard
from groundup.train.batch import Batch
from groundup.train.loss import next_token_loss

CONTEXT = 32
LAYOUTS: tuple[Packing, ...] = get_args(Packing)


def random_model() -> CausalLM:
    """Every weight random: new output projections would hide packing errors."""
    model = CausalLM(ModelConfig.of(width=64, depth=2, vocab_size=320, context=CONTEXT))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.2, generator=generator)
    return model


def shard_of(lengths: Sequence[int], seed: int = 0) -> Shard:
    """Documents of random tokens, all different except the 0 that begins each."""
    random = np.random.default_rng(seed)
    fresh = iter(random.permutation(np.arange(1, sum(lengths) + 1)).tolist())
    documents = [[0, *(next(fresh) for _ in range(n))] for n in lengths]
    tokens = np.array([token for document in documents for token in document], np.uint16)
    offsets = np.cumsum([0, *(len(document) for document in documents)])
    return Shard(tokens, offsets, ["x"] * len(lengths), np.array(lengths), "none", "train")


def conversations(count: int, seed: int = 0) -> list[Example]:
    """Random tokens; the assistant's come in one or two runs."""
    random = np.random.default_rng(seed)
    found = []
    for n in random.integers(3, CONTEXT + 1, count).tolist():
        spoken = random.random(n) < 0.5
        spoken[-1] = True
        found.append(Example(random.integers(3, 320, n).tolist(), spoken.tolist()))
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


def test_packed_conversations_train_like_padded_single_ones() -> None:
    model, items = random_model(), conversations(17)
    rows = pack([item.inputs for item in items], CONTEXT)
    assert len(rows) < len(items)
    packed = packed_batch([[items[i] for i in row] for row in rows], CONTEXT)
    singles = [packed_batch([[item]], CONTEXT) for item in items]
    total, weight, gradients = summed(model, [packed])
    expected_total, expected_weight, expected = summed(model, singles)
    assert weight == expected_weight == sum(sum(item.loss_mask[1:]) for item in items)
    assert total == pytest.approx(expected_total, rel=1e-5)
    for one, other in zip(gradients, expected, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_packed_documents_are_read_as_if_alone() -> None:
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
    """Inputs and targets of an epoch's rows; the stream returns one row per step."""
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
    # The rest is less than a row.
    assert len(shard.tokens) - len(rows) * CONTEXT <= CONTEXT


def test_targets_are_the_next_tokens_within_documents() -> None:
    shard = shard_of([40, 7, 1, 90, 33, 12])
    following = dict(zip(shard.tokens.tolist(), shard.tokens.tolist()[1:], strict=False))
    for inputs, targets in document_rows(one_row_stream(shard), 0):
        assert inputs[1:] == targets[:-1]
        for token, target in zip(inputs, targets, strict=True):
            # The last document of the shard may be followed by any other document's 0.
            assert token == 0 or target == following.get(token, 0)


def test_no_segment_has_two_documents_and_positions_restart() -> None:
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


def test_too_little_text_is_rejected() -> None:
    with pytest.raises(UserError, match=f"fewer than one row of context={CONTEXT}"):
        one_row_stream(shard_of([5, 6]))


# Conversations.


# The sources of the small world and of the newcomers to it.
WORLD = source_group("world")


def of(items: Sequence[Example], sources: Sequence[str]) -> list[Example]:
    """The items as those of the sources."""
    return [replace(item, source=source) for item, source in zip(items, sources, strict=True)]


def conversation_stream(
    items: Sequence[Example], rows: int = 3, micro_rows: int = 2, seed: int = 0
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


def test_an_epoch_has_every_conversation_once_and_trains_only_the_assistant() -> None:
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
        (list(item.ids[:-1]), list(item.ids[1:]), [float(t) for t in item.loss_mask[1:]])
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


def test_long_conversations_are_cut_and_useless_data_is_rejected() -> None:
    long = Example(list(range(3, 103)), [True] * 100)
    assert cut_to(long, 10).inputs == 10
    [batch] = conversation_stream([long], rows=1).at(0, torch.nn.Identity())
    assert batch.input_ids.tolist() == [list(range(3, 3 + CONTEXT))]
    with pytest.raises(UserError, match=f"context={CONTEXT}"):
        conversation_stream([Example(list(range(100)), [False] * 60 + [True] * 40)])


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
def test_packing_wastes_less_than_half_of_two_rows(lengths: list[int]) -> None:
    # Of two rows that were open together, at least one is more than half full.
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
def test_balance_only_changes_shares(sources: list[str], balance: float, seed: int) -> None:
    order = balanced(sources, balance, np.random.default_rng(seed)).tolist()
    assert len(order) == len(sources)
    times = Counter(order)
    for name in set(sources):
        members = [i for i, source in enumerate(sources) if source == name]
        counts = [times[i] for i in members]
        assert max(counts) - min(counts) <= 1, "repeated whole before any comes once more"
    if balance == 0:
        assert sorted(order) == list(range(len(sources)))


def test_full_balance_gives_every_source_the_same_share() -> None:
    sources = ["large"] * 90 + ["small"] * 10
    order = balanced(sources, 1.0, np.random.default_rng(0))
    assert Counter(sources[i] for i in order) == {"large": 50, "small": 50}


# The share of the small world.


def mixed_shard(seed: int = 0) -> Shard:
    """Sixty documents by people and two hundred of the world."""
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
    """The world's share of the tokens of some steps."""
    batches = [batch for step in steps for batch in stream.at(step, random_model())]
    tokens = [t for b in batches for t in b.input_ids.flatten().tolist() if t]
    return 1 - sum(token in WRITTEN for token in tokens) / len(tokens)


def test_the_worlds_share_changes_evenly_from_the_first_step_to_the_last() -> None:
    stream = DocumentStream(
        mixed_shard(), context=CONTEXT, rows=10, micro_rows=5, seed=0,
        mixture={WORLD: (0.9, 0.1)}, steps=200,
    )  # fmt: skip
    for begin, wanted in ((0, 0.88), (95, 0.5), (190, 0.12), (300, 0.1)):
        assert abs(share_of_world(stream, range(begin, begin + 10)) - wanted) < 0.02


def test_without_a_number_of_steps_the_share_is_always_the_mean() -> None:
    stream = DocumentStream(
        mixed_shard(), context=CONTEXT, rows=10, micro_rows=5, seed=0, mixture={WORLD: (0.9, 0.1)}
    )
    assert abs(share_of_world(stream, range(4)) - 0.5) < 0.02
    # An epoch is every other document once.
    others = (20 + 1) * 60 // CONTEXT
    assert abs(stream.rows_per_epoch - others / 0.5) <= 2


def test_human_text_is_read_once_before_any_is_repeated() -> None:
    stream = DocumentStream(
        mixed_shard(), context=CONTEXT, rows=4, micro_rows=4, seed=0, mixture={WORLD: (0.5, 0.5)}
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


def test_passes_are_those_of_each_group() -> None:
    stream = DocumentStream(
        mixed_shard(), context=CONTEXT, rows=10, micro_rows=5, seed=0,
        mixture={WORLD: (0.9, 0.1)}, steps=40,
    )  # fmt: skip
    read = Counter(
        token in WRITTEN
        for step in range(40)
        for batch in stream.at(step, random_model())
        for token in batch.input_ids.flatten().tolist()
    )
    there = Counter(token in WRITTEN for token in mixed_shard().tokens.tolist())
    times = stream.passes(40)
    assert times[WORLD] == pytest.approx(read[False] / there[False], rel=0.1)
    assert times[()] == pytest.approx(read[True] / there[True], rel=0.1)


def test_mixed_steps_are_a_pure_function_of_seed_and_step() -> None:
    def made(seed: int) -> DocumentStream:
        return DocumentStream(
            mixed_shard(),
            context=CONTEXT,
            rows=6,
            micro_rows=3,
            seed=seed,
            mixture={WORLD: (0.8, 0.2)},
            steps=50,
        )

    one, other, third = made(1), made(1), made(2)
    for _ in one.at(3, random_model()):  # what came before makes no difference
        pass
    ids = [[b.input_ids for b in s.at(17, random_model())] for s in (one, other, third)]
    assert all(torch.equal(a, b) for a, b in zip(ids[0], ids[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(ids[0], ids[2], strict=True))


def test_a_share_of_the_world_is_ignored_with_only_one_kind_of_text() -> None:
    for sources in (["wiki"] * 260, ["world-stories"] * 260):
        shard = Shard(*(getattr(mixed_shard(), name) for name in ("tokens", "offsets")), sources,
                      mixed_shard().document_bytes, "none", "train")  # fmt: skip
        shared, plain = (
            DocumentStream(shard, context=CONTEXT, rows=2, micro_rows=2, seed=3, mixture=mixture)
            for mixture in ({WORLD: (0.8, 0.2)}, {})
        )
        for one, other in zip(
            shared.at(5, random_model()), plain.at(5, random_model()), strict=True
        ):
            assert_close(one.input_ids, other.input_ids)


def test_several_groups_have_their_shares_and_the_others_the_rest() -> None:
    shard = shard_of([20] * 400)
    sources = ["a"] * 150 + ["b"] * 150 + ["c"] * 100
    shard = replace(shard, sources=sources)
    of_token = {
        token: name
        for place, name in enumerate(sources)
        for token in shard.tokens[shard.offsets[place] : shard.offsets[place + 1]].tolist()
    }

    def shares(mixture: dict[tuple[str, ...], tuple[float, float]], step: int) -> dict[str, float]:
        stream = DocumentStream(
            shard, context=CONTEXT, rows=8, micro_rows=4, seed=0, mixture=mixture, steps=40
        )
        found: Counter[str] = Counter()
        for one in range(step, step + 8):
            batches = stream.at(one, random_model())
            assert sum(len(batch.input_ids) for batch in batches) == 8
            found.update(of_token[t] for b in batches for t in b.input_ids.flatten().tolist() if t)
        return {name: count / found.total() for name, count in found.items()}

    mixture = {("a",): (0.6, 0.1), ("b",): (0.1, 0.5)}
    assert shares(mixture, 0) == pytest.approx({"a": 0.55, "b": 0.14, "c": 0.31}, abs=0.04)
    assert shares(mixture, 100) == pytest.approx({"a": 0.1, "b": 0.5, "c": 0.4}, abs=0.03)
    # Where all sources have shares, the last takes the rest.
    everything = {("a",): (0.5, 0.5), ("b",): (0.25, 0.25), ("c",): (0.0, 0.0)}
    assert shares(everything, 0) == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25}, abs=0.03)


def test_rejects_shares_of_missing_sources_and_shares_of_everything() -> None:
    shard = replace(shard_of([20] * 40), sources=["a"] * 20 + ["b"] * 20)

    def made(mixture: dict[tuple[str, ...], tuple[float, float]]) -> None:
        DocumentStream(shard, context=CONTEXT, rows=2, micro_rows=2, seed=0, mixture=mixture)

    with pytest.raises(
        UserError, match=r"a share for 'z', but no training row .* the sources are a, b"
    ):
        made({("z",): (0.5, 0.5)})
    with pytest.raises(UserError, match="leave no rows"):
        made({("a",): (1.0, 1.0)})


def test_shares_of_several_groups_of_conversations() -> None:
    sources = ["a"] * 100 + ["b"] * 300 + ["c"] * 600
    order = balanced(sources, 0.0, np.random.default_rng(0), {("a",): 0.5, ("b",): 0.2})
    assert Counter(sources[i] for i in order) == {"a": 500, "b": 200, "c": 300}


def test_conversations_have_the_worlds_share() -> None:
    sources = ["wiki"] * 500 + ["own"] * 20 + ["world-facts"] * 900 + ["world-talk"] * 80
    order = balanced(sources, 0.5, np.random.default_rng(0), {WORLD: 0.6})
    drawn = Counter(sources[i] for i in order)
    of_world = drawn["world-facts"] + drawn["world-talk"]
    assert len(order) == len(sources) and abs(of_world / len(order) - 0.6) < 0.001
    assert abs(drawn["world-facts"] / drawn["world-talk"] - 900 / 80) < 0.1
    assert abs(drawn["wiki"] / drawn["own"] - (500 / 20) ** 0.5) < 0.1


def test_newcomers_count_as_the_world() -> None:
    sources = ["boolq"] * 500 + ["newcomer-talk"] * 300 + ["world-facts"] * 600
    drawn = Counter(
        sources[i] for i in balanced(sources, 0.5, np.random.default_rng(0), {WORLD: 0.9})
    )
    assert drawn["boolq"] == 140 and drawn["world-facts"] == 2 * drawn["newcomer-talk"] == 840


def test_a_prompt_weight_applies_to_prompts_but_not_to_padding() -> None:
    said = Example([5, 6, 7, 8, 9], [False, False, True, True, False])
    stream = ConversationStream([said], prompt_weight=0.25, context=8, rows=1, micro_rows=1, seed=0)
    [batch] = stream.at(0, random_model())
    assert batch.weights.tolist() == [[0.25, 1.0, 1.0, 0.25, 0, 0, 0, 0]]
    assert batch.targets.tolist()[0][:4] == [6, 7, 8, 9]


def test_concatenated_conversations_are_one_segment_and_none_is_lost() -> None:
    said = conversations(60, seed=5)
    alone, concatenated = (
        ConversationStream(said, multi_turn=share, context=CONTEXT, rows=4, micro_rows=4, seed=1)
        for share in (0.0, 1.0)
    )

    def seen(stream: ConversationStream) -> tuple[Counter[int], int]:
        """Trained targets, and the number of segments that contain them, in an epoch."""
        targets: Counter[int] = Counter()
        segments = 0
        for step in range(-(-stream.rows_per_epoch // 4)):
            for batch in stream.at(step, random_model()):
                rows = min(4, stream.rows_per_epoch - 4 * step)
                trained = batch.weights[:rows] > 0
                targets.update(batch.targets[:rows][trained].tolist())
                segments += len(set(batch.segment_ids[:rows].flatten().tolist()) - {-1})
        return targets, segments

    (one, apart), (other, together) = seen(alone), seen(concatenated)
    assert together < 0.7 * apart
    # The first token of a conversation is a target only where it continues another one.
    assert one <= other


# Two layouts, one loss.


def epoch_of(stream: ConversationStream) -> list[Batch]:
    """Every row of the first epoch once; the stream returns one row per step."""
    steps = range(stream.rows_per_epoch)
    return [batch for step in steps for batch in stream.at(step, torch.nn.Identity())]


def distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The relative distance of two gradients."""
    apart = sum(float((a - b).square().sum()) for a, b in zip(one, other, strict=True))
    return float((apart / sum(float(b.square().sum()) for b in other)) ** 0.5)


def test_padded_and_packed_give_the_same_loss_and_gradients() -> None:
    model, items = random_model(), conversations(24)
    packed, padded = (
        ConversationStream(items, layout=layout, context=CONTEXT, rows=1, micro_rows=1, seed=0)
        for layout in LAYOUTS
    )
    assert packed.rows_per_epoch < padded.rows_per_epoch == len(items)
    total, weight, gradients = summed(model, epoch_of(packed))
    expected, expected_weight, wanted = summed(model, epoch_of(padded))
    assert weight == expected_weight == sum(sum(item.loss_mask[1:]) for item in items)
    assert total == pytest.approx(expected, rel=1e-6)
    assert distance(gradients, wanted) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_micro_batches_add_up_to_the_whole_step(layout: Packing) -> None:
    model, items = random_model(), conversations(40)
    whole, *parts = (
        ConversationStream(
            items, layout=layout, context=CONTEXT, rows=4, micro_rows=micro, seed=0
        ).at(2, model)
        for micro in (4, 2, 1)
    )
    assert [len(whole), *map(len, parts)] == [1, 2, 4]
    total, weight, gradients = summed(model, whole)
    for batches in parts:
        other_total, other_weight, other = summed(model, batches)
        assert other_weight == weight
        assert other_total == pytest.approx(total, rel=1e-6)
        assert distance(other, gradients) < 1e-5


def items_of(lengths: Sequence[int]) -> list[Example]:
    """Fully trained items in which all tokens differ."""
    ends = np.cumsum(lengths).tolist()
    return [
        Example(list(range(end - n, end)), [True] * n) for n, end in zip(lengths, ends, strict=True)
    ]


def random_lengths(count: int, longest: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(2, longest, count).tolist()


@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=40),
    layout=st.sampled_from(LAYOUTS),
    rows=st.integers(1, 5),
    micro=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_no_token_is_lost_or_doubled_and_no_segment_crosses_rows(
    lengths: list[int], layout: Packing, rows: int, micro: int, seed: int
) -> None:
    items = items_of(lengths)
    # Packed epochs are not equally long, padded ones are: as many as a step has rows end with one.
    rows = 1 if layout == "packed" else rows
    stream = ConversationStream(
        items, layout=layout, context=CONTEXT, rows=rows, micro_rows=micro, seed=seed
    )
    inputs: Counter[int] = Counter()
    for batch in epoch_of(stream):
        assert len(batch.input_ids) <= micro
        for tokens, targets, weights in sequences(batch):
            # Consecutive numbers belong to one item, because only whole items precede.
            assert targets == [token + 1 for token in tokens] and weights == [1.0] * len(tokens)
            assert any(token == item.ids[0] for token in tokens for item in items)
            inputs.update(tokens)
    assert inputs == {token: rows for item in items for token in cut_to(item, CONTEXT).ids[:-1]}


def test_padded_rows_have_few_widths_and_similar_lengths() -> None:
    items = items_of(random_lengths(1000, 500))
    stream = ConversationStream(items, layout="padded", context=450, rows=16, micro_rows=8, seed=0)
    widths = set()
    used = read = 0
    for step in range(stream.rows_per_epoch // 16):
        for batch in stream.at(step, torch.nn.Identity()):
            longest, width = int((batch.segment_ids >= 0).sum(1).max()), batch.input_ids.shape[1]
            assert longest <= width < longest + 64
            widths.add(width)
            used, read = used + batch.tokens, read + batch.input_ids.numel()
    assert widths <= {64, 128, 192, 256, 320, 384, 448, 450}
    assert stream.counts.padding == pytest.approx(1 - used / read, abs=0.01)
    assert stream.counts.padding < 0.15 < 1 - stream.counts.tokens / (450 * len(items))


def test_padded_steps_have_any_order_and_similar_lengths_in_later_epochs() -> None:
    items = items_of(random_lengths(1000, 500))
    stream = ConversationStream(items, layout="padded", context=512, rows=16, micro_rows=4, seed=0)
    # 1000 rows are no whole number of steps: the second epoch begins within one.
    lengths = []
    for step in range(3 * stream.rows_per_epoch // 16):
        batches = stream.at(step, torch.nn.Identity())
        lengths.append(np.concatenate([(b.segment_ids >= 0).sum(1).numpy() for b in batches]))
        assert (np.diff(lengths[-1]) >= 0).all(), "alike in a micro-batch, too"
    longest, spans = (
        np.array([one.max() for one in lengths]),
        np.array([np.ptp(one) for one in lengths]),
    )
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.25
    # All but the steps that two epochs share.
    assert np.sort(spans)[:-8].max() < 60 < np.median(np.abs(np.diff(longest)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps_of_every_kind_are_a_pure_function_of_seed_and_step(layout: Packing) -> None:
    items, model = conversations(60), torch.nn.Identity()
    sources = ["a"] * 40 + ["b"] * 20

    def stream(seed: int) -> ConversationStream:
        return ConversationStream(
            of(items, sources), mixture=Mixture(weights={"a": 1, "b": 3}), layout=layout,
            multi_turn=0.3, context=CONTEXT, rows=5, micro_rows=2, seed=seed,
        )  # fmt: skip

    forwards = {step: stream(3).at(step, model) for step in range(25)}
    backwards = stream(3)
    for step in reversed(range(25)):
        again = backwards.at(step, model)
        assert all(same(one, other) for one, other in zip(again, forwards[step], strict=True))
    assert not same(stream(4).at(0, model)[0], forwards[0][0])


def test_steps_equal_those_of_earlier_versions() -> None:
    """A run that began with an earlier version continues with the same bits."""
    sources = ["wiki"] * 120 + ["own"] * 10 + ["world-facts"] * 70
    stream = ConversationStream(
        of(conversations(200, seed=1), sources), mixture=Mixture(0.7, {WORLD: 0.75}),
        prompt_weight=0.3, multi_turn=0.5, context=CONTEXT, rows=7, micro_rows=3, seed=5,
    )  # fmt: skip
    found = hashlib.sha256()
    for step in range(0, 80, 3):
        for batch in stream.at(step, torch.nn.Identity()):
            for tensor in (batch.input_ids, batch.targets, batch.weights, batch.segment_ids):
                found.update(tensor.numpy().tobytes())
    assert found.hexdigest() == "7f7f668fd057ec128df655683fe16191b0470bb026b7a3ffea867a74a2e56e06"


# Sources by their share of the tokens.


def tokens_by_source(stream: ConversationStream, sources: Sequence[str]) -> Counter[str]:
    """Inputs of each source in the first epoch; tokens are numbered through the items."""
    ends = np.cumsum([len(item.ids) for item in stream.conversations])
    found: Counter[str] = Counter()
    for batch in epoch_of(stream):
        for token in batch.input_ids[batch.segment_ids >= 0].tolist():
            found[sources[int(np.searchsorted(ends, token, "right"))]] += 1
    return found


def test_weights_are_shares_of_tokens_not_of_items() -> None:
    # A hundred long items and a thousand short ones.
    items = items_of([400] * 100 + [11] * 1000)
    sources = ["books"] * 100 + ["chats"] * 1000
    stream = ConversationStream(
        of(items, sources), mixture=Mixture(weights={"books": 1, "chats": 3}), context=512, rows=1,
        micro_rows=1, seed=0,
    )  # fmt: skip
    everything = 399 * 100 + 10 * 1000
    found = tokens_by_source(stream, sources)
    assert found.total() == stream.counts.tokens
    assert abs(found.total() - everything) < 400
    assert abs(found["chats"] / found.total() - 0.75) < 0.01
    assert stream.counts.padding < 0.15


def test_passes_are_those_of_each_source() -> None:
    items, sources = items_of([20] * 110), ["few"] * 10 + ["many"] * 100
    stream = ConversationStream(
        of(items, sources), mixture=Mixture(weights={"few": 1, "many": 1}), context=64, rows=1,
        micro_rows=1, seed=0,
    )  # fmt: skip
    read = tokens_by_source(stream, sources)
    times = stream.passes(3 * stream.rows_per_epoch)
    assert times["few"] == pytest.approx(3 * read["few"] / (10 * 19))
    assert times["many"] == pytest.approx(3 * read["many"] / (100 * 19))
    assert times["few"] > 10 * times["many"] - 1
    unmixed = ConversationStream(of(items, sources), context=64, rows=1, micro_rows=1, seed=0)
    assert len(set(unmixed.passes(7).values())) == 1


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=50),
    share=st.floats(0.05, 0.95),
    times=st.floats(0.3, 4),
    seed=st.integers(0, 99),
)
def test_a_source_is_used_completely_before_any_item_repeats(
    lengths: list[int], share: float, times: float, seed: int
) -> None:
    names = ["a" if i % 3 else "b" for i in range(len(lengths))]
    sizes, tokens = np.array(lengths), int(sum(lengths) * times) + 1
    weights = {"a": share, "b": 1 - share} if "a" in names else {"b": 1.0}
    order = weighted(names, sizes, weights, tokens, np.random.default_rng(seed)).tolist()
    for name, weight in weights.items():
        members = [i for i, source in enumerate(names) if source == name]
        counts = [order.count(i) for i in members]
        assert max(counts) - min(counts) <= 1
        drawn = sum(lengths[i] * count for i, count in zip(members, counts, strict=True))
        assert abs(drawn - weight * tokens) <= max(lengths)


def test_a_share_smaller_than_an_item_is_correct_on_average() -> None:
    names, sizes = ["long"] * 3 + ["short"] * 50, np.array([100] * 3 + [10] * 50)
    drawn = [
        weighted(names, sizes, {"long": 0.05, "short": 0.95}, 500, np.random.default_rng(seed))
        for seed in range(400)
    ]
    assert sum(int((one < 3).sum()) for one in drawn) / 400 == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(
    ("mixture", "own"),
    [
        (Mixture(), {"a": 1600, "b": 400}),
        (Mixture(1.0), {"a": 1000, "b": 1000}),
        (Mixture(shares={("b",): 0.75}), {"a": 500, "b": 1500}),
        (Mixture(weights={"a": 3, "b": 1}), {"a": 1500, "b": 500}),
    ],
)
def test_general_text_is_added_on_top_of_the_sources(mixture: Mixture, own: dict[str, int]) -> None:
    """As with much general text of which little is mixed in."""
    items = items_of([21] * 1000)
    sources = ["a"] * 80 + ["b"] * 20 + ["general"] * 900
    stream = ConversationStream(
        of(items, sources),
        mixture=replace(mixture, beside={"general": 0.2}),
        context=64, rows=1, micro_rows=1, seed=0,
    )  # fmt: skip
    found = tokens_by_source(stream, sources)
    assert abs(found.pop("general") - 500) <= 20
    for name, tokens in own.items():
        assert abs(found[name] - tokens) <= 20, found


def test_general_text_alone_is_rejected() -> None:
    with pytest.raises(UserError, match="nothing to train on apart from general text"):
        ConversationStream(
            of(items_of([5, 5]), ["general", "general"]), mixture=Mixture(beside={"general": 0.2}),
            context=8, rows=1, micro_rows=1, seed=0,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": 1.0}, "no weight for b; give every source a weight"),
        (
            {"a": 1.0, "b": 1.0, "c": 1.0},
            "weight for 'c', but no training row .* the sources are a, b",
        ),
        ({"a": -1.0, "b": 1.0}, "weight -1 of 'a' must be"),
        ({"a": float("nan"), "b": 1.0}, "weight nan of 'a' must be"),
        ({"a": 0.0, "b": 0.0}, "every source has the weight 0"),
    ],
)
def test_weights_that_do_not_fit_are_rejected(weights: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ConversationStream(
            of(items_of([5, 5]), ["a", "b"]), mixture=Mixture(weights=weights), context=8, rows=1,
            micro_rows=1, seed=0,
        )  # fmt: skip


def test_a_source_of_weight_0_is_left_out() -> None:
    stream = ConversationStream(
        of(items_of([5, 5, 5]), ["a", "b", "a"]), mixture=Mixture(weights={"a": 1, "b": 0}),
        context=8, rows=1, micro_rows=1, seed=0,
    )  # fmt: skip
    assert not set(range(5, 10)) & {t for b in epoch_of(stream) for t in b.input_ids[0].tolist()}


# Cut and rejected items.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_items_without_trained_tokens_are_set_aside_and_counted(layout: Packing) -> None:
    answered = Example([5, 6, 7, 8], [False, False, True, True])
    silent = Example([5, 6, 7, 8], [True, False, False, False])  # the first is no target
    late = Example(list(range(3, 103)), [False] * 60 + [True] * 40)
    long = Example(list(range(3, 103)), [False] * 20 + [True] * 80)
    stream = ConversationStream(
        of([silent, answered, late, long, silent], "abcde"), layout=layout,
        context=CONTEXT, rows=1, micro_rows=1, seed=0,
    )  # fmt: skip
    assert stream.sources == ["b", "d"]
    counts = stream.counts
    assert (counts.rows, counts.truncated, counts.without_answer) == (5, 2, 3)
    assert (counts.tokens, counts.trained) == (3 + CONTEXT, 2 + CONTEXT - 19)
    model = random_model()
    for step in range(4):
        [batch] = stream.at(step, model)
        loss = next_token_loss(model, batch)
        assert loss.weight > 0 and bool(loss.total.isfinite())


def test_a_prompt_weight_keeps_items_without_an_answer() -> None:
    silent, answered = Example([5, 6, 7], [False] * 3), Example([5, 6, 7], [False, True, True])
    stream = ConversationStream(
        [silent, answered], prompt_weight=0.5, context=8, rows=1, micro_rows=1, seed=0
    )
    [batch] = stream.at(0, random_model())
    assert sorted(batch.weights[0].tolist()) == [0, 0, 0, 0, 0.5, 0.5, 1, 1]
    assert stream.counts.without_answer == 1


def test_data_longer_than_the_context_is_cut_or_rejected() -> None:
    long = [Example(list(range(100)), [i > begin for i in range(100)]) for begin in (10, 90)]
    cut = conversation_stream([long[0]] * 3, rows=1)
    assert cut.counts.truncated == 3 and cut.counts.padding == 0
    said = f"none of the 2 rows .*context={CONTEXT} tokens, and 2 of them are longer than that"
    with pytest.raises(UserError, match=said):
        conversation_stream([long[1]] * 2)
    with pytest.raises(UserError, match="none is longer than that; give rows that the assistant"):
        conversation_stream([Example([5, 6], [False] * 2)])
    with pytest.raises(UserError, match="no conversation to train on"):
        conversation_stream([])


@pytest.mark.parametrize("ids", [[], [7]])
def test_an_item_without_targets_is_rejected(ids: list[int]) -> None:
    """It would take no place in a row, and the numbers of later items would shift."""
    rows = [[Example([1, 2, 3], [False, True, True]), Example(ids, [True] * len(ids))]]
    with pytest.raises(ValueError, match=f"an item of {len(ids)} tokens"):
        packed_batch(rows, 6)


def test_items_that_fit_are_packed_and_counted_without_copies(calls_of: CallsOf) -> None:
    """With copies, a user's file would take twice its memory."""
    items = [replace(item, loss_mask=[True, *item.loss_mask[1:]]) for item in conversations(40)]
    items.append(items_of([CONTEXT + 3])[0])
    joined = calls_of(ConversationStream, "_concatenated")
    stream = ConversationStream(
        items, multi_turn=0.5, context=CONTEXT, rows=1, micro_rows=1, seed=0
    )
    assert joined == []
    assert [one.ids is item.ids for one, item in zip(stream.conversations, items, strict=True)] == [
        *[True] * 40,
        False,
    ]
    trained = sum(
        int(batch.weights.sum())
        for step in range(stream.rows_per_epoch)
        for batch in stream.at(step, torch.nn.Identity())
    )
    assert stream.counts.trained == trained
